"""The engine's tiles for few filters or channels, on odd shapes: beside float64, and to the bit beside a larger tile.

Whole sums and sums that are cut. Two shapes are quick; the others are in make slow.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from cuts import thirds
from kernel_harness import Output, double
from tensor_cases import SHAPES, case

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.conv import tiled
from gpucnn_kernels.engine.tiles import NARROW, SHORT, TILES, Tile
from tolerances import check

pytestmark = pytest.mark.gpu

MORE = {  # images, channels, size, filters, kernel, stride, padding, dilation, groups
    "one": (1, 1, (1, 1), 1, (1, 1), 1, 0, 1, 1),
    "primes": (3, 31, (7, 13), 29, (3, 2), 1, ((1, 0), (0, 1)), 1, 1),
    "three-tiles": (2, 65, (9, 12), 97, (1, 3), 1, (0, 1), 1, 1),
}
ALL = {**SHAPES, **MORE}
QUICK = ("primes", "stride")  # read one by one, and by fours
QUICK_BOTH = (("primes", "whole"), ("stride", "cut"))
ENGINES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL]
IN_THIRDS = functools.partial(tiled.gather, cut_of=thirds)


def both_ways(
    gpu: Device, tile: Tile, arrays: tuple[Any, ...], window: Any, groups: int, make: Any = tiled.gather
) -> tuple[Output, Output]:
    """y with bias and ReLU, and dx where x was positive."""
    x, weight, bias, dy = arrays
    y, dx = Output(gpu, dy.shape), Output(gpu, x.shape)
    variants = tiled.gathering("tile128x32", tile, 1.0, make)  # a name that there is
    sizes = len(x), x.shape[1], len(weight), window, groups
    with select.override({name: select.choice(variants[name], getattr(problems, name)(*sizes)) for name in variants}):
        gpu.ops.conv2d(*map(gpu.array, (x, weight, bias)), window, groups, relu=True, out=y.array)
        gpu.ops.conv2d_input_grad(*map(gpu.array, (dy, weight)), window, groups, relu=gpu.array(x), out=dx.array)
    return y, dx


@pytest.mark.parametrize(
    ("name", "make"),
    [
        pytest.param(name, make, marks=() if (name, how) in QUICK_BOTH else pytest.mark.slow, id=f"{how}-{name}")
        for how, make in (("whole", tiled.gather), ("cut", IN_THIRDS))
        for name in ALL
    ],
)
@pytest.mark.parametrize("tile", NARROW.values(), ids=NARROW)
def test_both_ways(gpu: Device, tile: Tile, make: Any, name: str) -> None:
    window, groups, *arrays = case(name, ALL)
    x, weight, bias, dy = arrays

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return cpu.conv2d(x, weight, bias, window, groups, relu=True)

    def backward(dy: Any, weight: Any) -> Any:
        return cpu.conv2d_input_grad(dy, weight, window, groups, relu=double(x))

    for got, operation, factors, terms, direction in zip(
        both_ways(gpu, tile, tuple(arrays), window, groups, make),
        (forward, backward),
        ((x, weight, bias), (dy, weight)),
        (weight[0].size, weight.size // x.shape[1]),
        ("forward", "input_grad"),
        strict=True,
    ):
        wider = tuple(map(double, factors))
        check(got.result(), operation(*wider), magnitude=operation(*map(np.abs, wider)), terms=terms, direction=direction)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "primes" else pytest.mark.slow) for name in ("primes", "groups")])
def test_the_same_bits_as_a_larger_tile(gpu: Device, name: str) -> None:
    """With numbers among the factors that are not finite, too."""
    window, groups, *arrays = case(name, ALL)
    x, weight, _, dy = arrays
    x[0, 1, 2, 3], x[-1, 0, 1, 1], dy[0, 1, 1, 1], weight[1, 0, 0, 0] = np.inf, np.nan, -np.inf, np.inf
    wide, narrow = (both_ways(gpu, tile, tuple(arrays), window, groups) for tile in (TILES["tile64x64"], *NARROW.values()))
    for expected, got in zip(wide, narrow, strict=True):
        np.testing.assert_array_equal(got.result(nan=True), expected.result(nan=True))
        assert np.isnan(expected.result(nan=True)).any()


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("tile", SHORT.values(), ids=SHORT)
def test_gradient_of_the_weight(gpu: Device, tile: Tile, name: str) -> None:
    """With the gradient of the bias, whole and in slices; each with the bits of a larger tile."""
    window, groups, x, weight, _, dy = case(name, ALL)
    problem = problems.conv2d_weight_grad(len(x), x.shape[1], len(weight), window, groups)
    wider, terms = (double(dy), double(x)), dy.size // len(weight)

    def gradient(dy: Any, x: Any) -> Any:
        return cpu.conv2d_weight_grad(dy, x, window, groups)

    for slices in (1, 3):
        results = []
        for each in (TILES["tile64x64"], tile):
            dweight, dbias = Output(gpu, weight.shape), Output(gpu, (len(weight),))
            variant = tiled.summing("tile32x64", each, 1.0)["conv2d_weight_grad"]  # a name that there is
            with select.override(conv2d_weight_grad=select.choice(variant, problem, slices)):
                gpu.ops.conv2d_weight_grad(gpu.array(dy), gpu.array(x), window, groups, out=dweight.array, dbias=dbias.array)
            results.append((dweight.result(), dbias.result()))
        (larger, _), (got, sums) = results
        np.testing.assert_array_equal(got, larger)
        check(got, gradient(*wider), magnitude=gradient(*map(np.abs, wider)), terms=terms, direction="weight_grad")
        check(sums, cpu.bias_grad(wider[0]), magnitude=cpu.bias_grad(np.abs(wider[0])), terms=terms, direction="weight_grad")

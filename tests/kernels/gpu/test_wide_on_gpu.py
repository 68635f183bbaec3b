"""Convolution with 16 × 8 results per thread and asynchronous copies, on odd shapes: beside float64, and to the bit beside the engine.

One shape for each tile is quick; the others are in make slow. On a GPU before Ampere they skip; the virtual GPU has the instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, double
from tensor_cases import SHAPES, case

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn_kernels.choose import select
from gpucnn_kernels.conv import wide
from gpucnn_kernels.tensor.chips import asynchronous_copies_there
from tolerances import check

pytestmark = pytest.mark.gpu

MORE = {  # images, channels, size, filters, kernel, stride, padding, dilation, groups
    "fours": (3, 8, (6, 10), 12, (3, 3), 1, 1, 1, 1),  # positions by fours, one turn for each tap
    "one-turn": (2, 7, (5, 3), 5, (1, 1), 1, 0, 1, 1),  # fewer than there are stages
    "two-tiles": (2, 17, (12, 13), 131, (1, 3), 1, (0, 1), 1, 1),
}
QUICK = (("stride", "wide128x128"), ("few-channels", "wide256x64"))
ALL = {**SHAPES, **MORE}


@pytest.fixture
def copying(gpu: Device) -> Device:
    if not asynchronous_copies_there(select.current_chip()):
        pytest.skip("these kernels are for compute capability 8.0 and newer")
    return gpu


def cases() -> list[Any]:
    """(shape, variant)."""
    every = [(name, variant) for name in ALL for variant in wide.TILES]
    return [pytest.param(*each, marks=() if each in QUICK else pytest.mark.slow) for each in every]


def both_ways(gpu: Device, variant: str, arrays: tuple[Any, ...], window: Any, groups: int) -> tuple[Output, Output]:
    """y with bias and ReLU, and dx where x was positive."""
    x, weight, bias, dy = arrays
    y, dx = Output(gpu, dy.shape), Output(gpu, x.shape)
    with select.override(conv2d=variant, conv2d_input_grad=variant):
        gpu.ops.conv2d(*map(gpu.array, (x, weight, bias)), window, groups, relu=True, out=y.array)
        gpu.ops.conv2d_input_grad(*map(gpu.array, (dy, weight)), window, groups, relu=gpu.array(x), out=dx.array)
    return y, dx


@pytest.mark.parametrize(("name", "variant"), cases())
def test_both_ways(copying: Device, name: str, variant: str) -> None:
    window, groups, *arrays = case(name, ALL)
    x, weight, bias, dy = arrays
    y, dx = both_ways(copying, variant, tuple(arrays), window, groups)

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return cpu.conv2d(x, weight, bias, window, groups, relu=True)

    def backward(dy: Any, weight: Any) -> Any:
        return cpu.conv2d_input_grad(dy, weight, window, groups, relu=double(x))

    for got, operation, factors, terms, direction in (
        (y, forward, (x, weight, bias), weight[0].size, "forward"),
        (dx, backward, (dy, weight), weight.size // x.shape[1], "input_grad"),
    ):
        wider = tuple(map(double, factors))
        check(got.result(), operation(*wider), magnitude=operation(*map(np.abs, wider)), terms=terms, direction=direction)


@pytest.mark.slow
@pytest.mark.parametrize("variant", wide.TILES)
@pytest.mark.parametrize("name", ["stride", "groups", "fours"])
def test_the_same_bits_as_the_engine(copying: Device, name: str, variant: str) -> None:
    """With numbers among the factors that are not finite, too."""
    window, groups, *arrays = case(name, ALL)
    x, weight, _, dy = arrays
    x[0, 1, 2, 3], x[-1, 0, 1, 1], dy[0, 1, 1, 1], weight[1, 0, 0, 0] = np.inf, np.nan, -np.inf, np.inf
    engine, here = (both_ways(copying, each, tuple(arrays), window, groups) for each in ("tile128x128", variant))
    for expected, got in zip(engine, here, strict=True):
        np.testing.assert_array_equal(got.result(nan=True), expected.result(nan=True))
        assert np.isnan(expected.result(nan=True)).any()

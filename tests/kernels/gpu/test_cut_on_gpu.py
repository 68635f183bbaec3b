"""Sums that are cut, on a GPU: the block that comes last adds up, whichever that is, and the bits are those of every other order."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuts import thirds
from kernel_harness import Output, double
from tensor_cases import case

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.conv import tensor, tiled
from gpucnn_kernels.core.launch import recording
from gpucnn_kernels.engine.cut import cut_in
from gpucnn_kernels.engine.tiles import Tile
from gpucnn_kernels.tensor.product import TensorTile
from tolerances import check

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("short_sums")]

KINDS = {
    "small": (Tile(8, 8, 8, 4, 4), functools.partial(tiled.gather, cut_of=thirds)),
    "tensor128x32": (TensorTile(32), functools.partial(tensor.gather, cut_of=thirds)),
}
SHAPE = {"wide": (2, 40, (8, 9), 37, (3, 2), 1, ((1, 0), (0, 1)), 1, 1)}  # two tiles on tensor cores, in both directions


def in_thirds(kind: str, n: int, c: int, k: int, window: Any) -> dict[str, select.Choice]:
    """The choices of a forward pass and of the gradient of its input."""
    tile, make = KINDS[kind]
    if kind.startswith("tensor") and not tensor.there(select.current_chip()):
        pytest.skip("these kernels are for compute capability 9.0")
    variants = tiled.gathering("tile64x64", tile, 1.0, make)  # a name that there is
    return {name: select.choice(variants[name], getattr(problems, name)(n, c, k, window)) for name in variants}


def orders(run: Callable[[], Any]) -> list[Any]:
    """What it gives with blocks in different orders: on a GPU in those that come about."""
    if "vgpu" not in sys.modules:
        return [run() for _ in range(10)]
    found = []
    for order in (0, 1, 7):
        sys.modules["vgpu"].set("ORDER", order)
        try:
            found.append(run())
        finally:
            sys.modules["vgpu"].set("ORDER", 0)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_blocks_changes_no_bit(gpu: Device, kind: str) -> None:
    window, _, x, weight, bias, dy = case("wide", SHAPE)
    arrays = x, weight, bias, dy
    given, chosen = [gpu.array(array) for array in arrays], in_thirds(kind, len(x), x.shape[1], len(weight), window)

    def run() -> tuple[Any, Any]:
        y, dx = Output(gpu, dy.shape), Output(gpu, x.shape)
        with select.override(chosen), recording() as launches:
            gpu.ops.conv2d(*given[:3], window, relu=True, out=y.array)
            gpu.ops.conv2d_input_grad(given[3], given[1], window, relu=given[0], out=dx.array)
        cuts = [cut_in(launch.arguments, launch.blocks) for launch in launches]
        assert [cut.slices for cut in cuts if cut] == [3, 3] and all(cut.whole and cut.rest for cut in cuts if cut)
        return y.result(), dx.result()

    first, *others = orders(run)
    for other in others:
        for one, again in zip(first, other, strict=True):
            np.testing.assert_array_equal(one.view(np.uint32), again.view(np.uint32))
    wide = [double(array) for array in arrays]
    expected, magnitude = (cpu.conv2d(*map(f, wide[:3]), window, relu=True) for f in (np.asarray, np.abs))
    check(first[0], expected, magnitude=magnitude, terms=weight[0].size, direction="forward")
    expected, magnitude = (cpu.conv2d_input_grad(f(wide[3]), f(wide[1]), window, relu=wide[0]) for f in (np.asarray, np.abs))
    check(first[1], expected, magnitude=magnitude, terms=weight.size // x.shape[1], direction="input_grad")


def test_a_recorded_sum_can_be_repeated(gpu: Device) -> None:
    """Every replay of a graph counts from zero."""
    xp = gpu.xp
    window, _, x, weight, bias, _ = case("wide", SHAPE)
    given, chosen = [gpu.array(array) for array in (x, weight, bias)], in_thirds("small", len(x), x.shape[1], len(weight), window)
    with select.override(chosen):
        y = gpu.ops.conv2d(*given, window)
        expected = [y.get(), gpu.ops.conv2d(given[0] * 2, *given[1:], window).get()]
        stream = xp.cuda.Stream(non_blocking=True)
        xp.cuda.Device().synchronize()
        with stream:
            gpu.ops.conv2d(*given, window, out=y)
            stream.synchronize()
            stream.begin_capture()
            gpu.ops.conv2d(*given, window, out=y)
            graph = stream.end_capture()
            for factor, one in zip((1, 2, 1), (*expected, expected[0]), strict=True):
                given[0][...] = gpu.array(x) * factor
                y[...] = np.nan
                graph.launch(stream)
                stream.synchronize()
                np.testing.assert_array_equal(y.get(), one)


@pytest.mark.slow
def test_the_rules_cut(gpu: Device) -> None:
    """A shape whose tiles fill a part of this GPU, with the variants and the workspaces of the rules: the bits of the same choice again."""
    window, _, x, weight, bias, _ = case("wide", {"wide": (3, 64, (8, 8), 33, (3, 3), 1, 1, 1, 1)})
    problem = problems.conv2d(len(x), x.shape[1], len(weight), window)
    for variant in VARIANTS["conv2d"]:
        if not variant.slices or not variant.fits(problem, select.current_chip()) or variant.name not in ("tile64x64", "tensor128x32"):
            continue
        choice = select.choose(problem, variant.name)
        assert choice.slices == select.current_chip().multiprocessors > 1, variant.name
        whole = select.choice(variant, problem, 1)
        results = []
        for each in (choice, choice, whole):
            with select.override(conv2d=each):
                results.append(gpu.ops.conv2d(*map(gpu.array, (x, weight, bias)), window).get())
        np.testing.assert_array_equal(results[0], results[1])
        wide = [double(array) for array in (x, weight, bias)]
        expected, magnitude = (cpu.conv2d(*map(f, wide), window) for f in (np.asarray, np.abs))
        for result in results:
            check(result, expected, magnitude=magnitude, terms=weight[0].size, direction="forward")

"""Convolution without sharing, and biases added alone, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, double, normal

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn.ops.shapes import Window, conv_window
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.engine.tiles import Tile
from gpucnn_kernels.local import tiled
from tolerances import check

CASES: dict[str, Any] = {  # N, C, K, and the window
    "one of all": (1, 1, 1, conv_window((1, 1), 1)),
    "five images": (5, 2, 3, conv_window((4, 5), (3, 2), 1, ((1, 0), (0, 1)))),
    "strided and dilated": (3, 2, 2, conv_window((6, 7), (2, 3), (2, 1), 1, (2, 1))),
    "same": (4, 1, 2, conv_window((5, 4), 3, 2, "same")),
    "several tiles": (9, 2, 9, conv_window((3, 4), 2, 1, 1)),
    "pixels that no tap meets": (2, 3, 2, conv_window((7, 6), (2, 1), 3)),
}


SMALL = tiled.variants("tile64x64", Tile(8, 8, 8, 4, 4), 1.0)
"""The smallest tile there is, in the place of another, so that small arrays are ragged over several."""
WAYS: dict[str, dict[str, Any]] = {
    "plain": dict.fromkeys(SMALL, "plain"),
    "engine": {name: select.Choice(way) for name, way in SMALL.items()},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_locally_connected(device: Device, name: str, relu: bool, way: str) -> None:
    with select.override(WAYS[way]):
        locally_connected(device, *CASES[name], relu)


def test_without_a_bias(device: Device) -> None:
    n, c, k, window = CASES["strided and dilated"]
    x, weight = normal(1, n, c, *window.input), normal(2, k, c, *window.kernel, *window.output)
    for way in WAYS.values():
        out = Output(device, (n, k, *window.output))
        with select.override(way):
            device.ops.locally_connected2d(device.array(x), device.array(weight), None, window, out=out.array)
        ref = cpu.locally_connected2d(double(x), double(weight), None, window)
        magnitude = cpu.locally_connected2d(abs(double(x)), abs(double(weight)), None, window)
        check(out.result(), ref, magnitude=magnitude, terms=weight[0, ..., 0, 0].size, direction="forward")


def test_the_engine_does_what_is_no_trifle() -> None:
    """Of the layer of the texts, 20 filters 8 × 8 × 3 on 32 × 32: the tile that its few filters fill best."""
    window = conv_window((32, 32), 8, 2, 1)
    with select.for_chip(132, capability=(9, 0)):
        for operation in SMALL:
            names = [select.choose(getattr(problems, operation)(*sizes, window)).name for sizes in ((128, 3, 20), (128, 64, 64), (1, 1, 1))]
            assert names == ["plain" if "input" in operation else "tile64x32", "tile64x64", "plain"]


def locally_connected(device: Device, n: int, c: int, k: int, window: Window, relu: bool) -> None:
    x, weight = normal(1, n, c, *window.input), normal(2, k, c, *window.kernel, *window.output)
    bias, dy = normal(3, k, *window.output), normal(4, n, k, *window.output)
    out = Output(device, dy.shape)
    device.ops.locally_connected2d(device.array(x), device.array(weight), device.array(bias), window, relu=relu, out=out.array)
    ref = cpu.locally_connected2d(double(x), double(weight), double(bias), window, relu=relu)
    magnitude = cpu.locally_connected2d(abs(double(x)), abs(double(weight)), abs(double(bias)), window)
    taps = window.kernel[0] * window.kernel[1]
    check(out.result(), ref, magnitude=magnitude, terms=c * taps, direction="forward")

    out = Output(device, x.shape)
    mask = x if relu else None
    device.ops.locally_connected2d_input_grad(
        device.array(dy), device.array(weight), window, relu=None if mask is None else device.array(mask), out=out.array
    )
    ref = cpu.locally_connected2d_input_grad(double(dy), double(weight), window, relu=mask)
    magnitude = cpu.locally_connected2d_input_grad(abs(double(dy)), abs(double(weight)), window)
    check(out.result(), ref, magnitude=magnitude, terms=k * taps, direction="input_grad")

    out, sums = Output(device, weight.shape), Output(device, bias.shape)
    given = sums.array if relu else None
    device.ops.locally_connected2d_weight_grad(device.array(dy), device.array(x), window, out=out.array, dbias=given)
    ref = cpu.locally_connected2d_weight_grad(double(dy), double(x), window)
    magnitude = cpu.locally_connected2d_weight_grad(abs(double(dy)), abs(double(x)), window)
    check(out.result(), ref, magnitude=magnitude, terms=n, direction="weight_grad")
    if relu:
        check(sums.result(), double(dy).sum(axis=0), magnitude=abs(double(dy)).sum(axis=0), terms=n, direction="weight_grad")


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("relu", [False, True])
def test_add_bias_is_exact(device: Device, shape: tuple[int, ...], relu: bool) -> None:
    x, bias = normal(1, *shape), normal(2, shape[1])
    out = Output(device, shape)
    device.ops.add_bias(device.array(x), device.array(bias), relu=relu, out=out.array)
    np.testing.assert_array_equal(out.result(), cpu.add_bias(x, bias, relu=relu))

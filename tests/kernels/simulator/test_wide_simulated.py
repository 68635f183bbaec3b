"""Convolution with many results per thread and asynchronous copies in Numba's simulator, by the smallest block that there is, of 8 threads
with two pixels each. What is being copied is NaN there until it has been waited for (tensor/simulated.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, double
from tensor_cases import case

from gpucnn.device import Device, simulated
from gpucnn.ops import cpu
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.conv import wide
from gpucnn_kernels.conv.tiled import gathering
from gpucnn_kernels.conv.wide_ends import WideTile
from tolerances import check

pytestmark = pytest.mark.skipif(not simulated(), reason="the same kernels on a GPU: tests/kernels/gpu/test_wide_on_gpu.py")

TILE = WideTile(16, 8, TM=4, TN=4, copies=3)
SHAPES = {  # images, channels, size, filters, kernel, stride, padding, dilation, groups
    "stride": (1, 3, (5, 4), 5, (3, 2), (2, 1), 1, 1, 1),
    "groups": (2, 4, (5, 5), 6, (2, 2), 1, ((0, 1), (2, 0)), 2, 2),
    "fours": (2, 8, (4, 6), 9, (1, 3), 1, (0, 1), 1, 1),  # positions by fours, and whole turns
    "one-turn": (1, 2, (3, 3), 2, (1, 1), 1, 0, 1, 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_both_ways(device: Device, name: str) -> None:
    """With bias, ReLU and its mask."""
    window, groups, x, weight, bias, dy = case(name, SHAPES)
    y, dx = Output(device, dy.shape), Output(device, x.shape)
    variants, sizes = gathering("wide128x128", TILE, 1.0, wide.gather), (x.shape[0], x.shape[1], len(weight), window, groups)
    chosen = {each: select.choice(variants[each], getattr(problems, each)(*sizes)) for each in ("conv2d", "conv2d_input_grad")}
    with select.override(chosen):
        device.ops.conv2d(*map(device.array, (x, weight, bias)), window, groups, relu=True, out=y.array)
        device.ops.conv2d_input_grad(*map(device.array, (dy, weight)), window, groups, relu=device.array(x), out=dx.array)

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return cpu.conv2d(x, weight, bias, window, groups, relu=True)

    def backward(dy: Any, weight: Any) -> Any:
        return cpu.conv2d_input_grad(dy, weight, window, groups, relu=double(x))

    for got, operation, arrays, terms, direction in (
        (y, forward, (x, weight, bias), weight[0].size, "forward"),
        (dx, backward, (dy, weight), weight.size // x.shape[1], "input_grad"),
    ):
        wider = tuple(map(double, arrays))
        check(got.result(), operation(*wider), magnitude=operation(*map(np.abs, wider)), terms=terms, direction=direction)

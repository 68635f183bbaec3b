"""Convolutions on which Winograd's kernel is tried, and how far its results may be from the reference (tolerances.winograd)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from kernel_harness import Output, double, normal

from gpucnn.device import Device, simulated
from gpucnn.ops import cpu
from gpucnn.ops.shapes import Window, conv_window
from gpucnn_kernels.conv import winograd
from gpucnn_kernels.conv.winograd_ends import WinogradTile
from tolerances import check
from tolerances import winograd as tile_bound

TILE = WinogradTile(4, 4, 1, 4, 4) if simulated() else winograd.TILE
"""In the simulator the smallest block that there is, of eight threads; elsewhere the one that is launched."""
MATRICES = (
    np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]),
    np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    np.array([[1, 1, 1, 0], [0, 1, -1, 1]]),
)


class Case:
    """n images of c channels, k filters of 3 × 3."""

    def __init__(self, n: int, c: int, hw: tuple[int, int], k: int, padding: Any = 1, tile: WinogradTile = TILE) -> None:
        self.window: Window = conv_window(hw, 3, 1, padding)
        self.tile, self.sizes = tile, (n, c, k)
        self.x, self.weight, self.bias = normal(0, n, c, *hw), normal(1, k, c, 3, 3), normal(2, k)
        self.dy = normal(3, n, k, *self.window.output)

    def forward(self, device: Device, with_bias: bool = True, relu: bool = True, nan: bool = False) -> Any:
        """The result, compared with the reference."""
        out, (_, c, k) = Output(device, self.dy.shape), self.sizes
        bias = device.array(self.bias) if with_bias else None
        room = device.xp.full(self.tile.packed(c, k), np.nan, "float32")
        arrays = device.array(self.x), device.array(self.weight), bias, out.array
        winograd.conv2d(*arrays, self.window, relu=relu, workspace=room, tile=self.tile)
        got, wide = out.result(nan), double(self.bias) if with_bias else None
        with np.errstate(invalid="ignore", over="ignore"):
            ref = cpu.conv2d(double(self.x), double(self.weight), wide, self.window, relu=relu)
        magnitude, terms = self.bound()
        check(got, ref, magnitude=magnitude + (np.abs(self.bias)[:, None, None] if with_bias else 0), terms=terms, direction="forward")
        return got

    def input_grad(self, device: Device, relu: Any = None, nan: bool = False) -> Any:
        out, (_, c, k) = Output(device, self.x.shape), self.sizes
        room = device.xp.full(self.tile.packed(k, c), np.nan, "float32")
        given = None if relu is None else device.array(relu)
        winograd.conv2d_input_grad(
            device.array(self.dy), device.array(self.weight), out.array, self.window, relu=given, workspace=room, tile=self.tile
        )
        with np.errstate(invalid="ignore", over="ignore"):
            ref = cpu.conv2d_input_grad(double(self.dy), double(self.weight), self.window)
        if relu is not None:
            ref = cpu.relu_grad(ref, relu)
        magnitude, terms = self.bound(backward=True)
        check(out.result(nan), ref, magnitude=magnitude, terms=terms, direction="input_grad")
        return out.result(nan)

    def bound(self, backward: bool = False) -> tuple[Any, int]:
        """(magnitude, terms), with numbers that are not finite as zeros: results that they reach are not compared by size."""
        return bound(self.dy if backward else self.x, self.weight, self.window, backward)


def bound(source: Any, weight: Any, window: Window, backward: bool) -> tuple[Any, int]:
    """(magnitude, terms) of a convolution of x, or of dy."""
    finite = [np.where(np.isfinite(array), array, 0).astype(np.float64) for array in (source, weight)]
    if not backward:
        return tile_bound(*finite, window.padding, MATRICES)
    padding = tuple(tuple(2 - side for side in sides) for sides in window.padding)
    least = min(0, *(side for sides in padding for side in sides))  # padding beyond what a kernel covers: pixels of nothing but zeros
    wider = tuple(tuple(side - least for side in sides) for sides in padding)
    magnitude, terms = tile_bound(finite[0], finite[1][:, :, ::-1, ::-1].swapaxes(0, 1), wider, MATRICES)
    rows, columns = ((0, 0), (0, 0)) if not least else ((-least, -least),) * 2
    return magnitude[:, :, rows[0] : magnitude.shape[2] - rows[1], columns[0] : magnitude.shape[3] - columns[1]], terms


CASES: dict[str, Callable[[], Case]] = {
    "one-pixel": lambda: Case(1, 1, (1, 1), 1),
    "even": lambda: Case(2, 2, (4, 4), 4),
    "odd": lambda: Case(1, 3, (5, 3), 5, ((0, 1), (2, 0))),
    "ragged": lambda: Case(3, 2, (3, 5), 3, 0),
    "no-overlap": lambda: Case(1, 2, (2, 6), 1, (2, 0)),
    "more-padding": lambda: Case(1, 1, (3, 2), 2, (3, 4)),
}

"""Pooling. x, dx (N, C, H, W); y, dy and indices (N, C, P, Q)."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn.ops.shapes import Window
from gpucnn_kernels import average
from gpucnn_kernels import pool as kernels

__all__ = ["avg_pool2d", "avg_pool2d_grad", "max_pool2d", "max_pool2d_grad"]


def max_pool2d(
    x: Array, window: Window, *, out: Array | None = None, indices: Array | None = None, places: bool = True
) -> tuple[Array, Array | None]:
    """(y, indices): the largest pixel of each window and its int32 index in the H·W plane.

    The first of equals wins; NaN wins over numbers, and the first NaN over later ones. Padding never wins. places: whether the indices are
    wanted, as they are where a gradient will be; otherwise None may be in their place.
    """
    shape = (*x.shape[:2], *window.output)
    y = empty(x, shape) if out is None else out
    found = empty(x, shape, "int32") if indices is None else indices
    kernels.max_pool2d(x, y, found, window, stream(x))
    return y, found


def max_pool2d_grad(dy: Array, indices: Array, window: Window, *, relu: Array | None = None, out: Array | None = None) -> Array:
    """dx: each window's gradient, at the pixel that won it; a pixel that won several windows gets their sum.

    relu: y, if a ReLU produced x; then a window whose maximum is not positive passes no gradient on.
    """
    dx = empty(dy, (*dy.shape[:2], *window.input)) if out is None else out
    kernels.max_pool2d_grad(dy, indices, dx, window, stream(dy), relu=relu)
    return dx


def avg_pool2d(x: Array, window: Window, count_include_pad: bool = True, *, out: Array | None = None) -> Array:
    """y: the mean of each window, over its pixels and, with `count_include_pad`, declared padding; never over padding from "same"."""
    y = empty(x, (*x.shape[:2], *window.output)) if out is None else out
    average.avg_pool2d(x, y, window, count_include_pad, stream(x))
    return y


def avg_pool2d_grad(dy: Array, window: Window, count_include_pad: bool = True, *, out: Array | None = None) -> Array:
    """dx: each window's gradient, divided evenly among the pixels of its mean."""
    dx = empty(dy, (*dy.shape[:2], *window.input)) if out is None else out
    average.avg_pool2d_grad(dy, dx, window, count_include_pad, stream(dy))
    return dx

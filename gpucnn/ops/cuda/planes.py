"""Whole planes of images: their mean, their largest pixel, and zeros around them. x (N, C, H, W)."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn.ops.shapes import Sides
from gpucnn_kernels import planes as kernels

__all__ = ["global_avg_pool2d", "global_avg_pool2d_grad", "global_max_pool2d", "global_max_pool2d_grad", "zero_pad2d", "zero_pad2d_grad"]


def global_avg_pool2d(x: Array, *, out: Array | None = None) -> Array:
    """y (N, C): the mean of each plane."""
    y = empty(x, x.shape[:2]) if out is None else out
    kernels.global_avg_pool2d(x, y, stream(x))
    return y


def global_avg_pool2d_grad(dy: Array, size: tuple[int, ...], *, out: Array | None = None) -> Array:
    """dx (N, C, H, W): each plane's gradient, divided evenly among its pixels; `size` is (H, W)."""
    dx = empty(dy, (*dy.shape, *size)) if out is None else out
    kernels.global_avg_pool2d_grad(dy, dx, stream(dy))
    return dx


def global_max_pool2d(x: Array, *, out: Array | None = None, indices: Array | None = None) -> tuple[Array, Array]:
    """(y, indices), both (N, C): the largest pixel of each plane and its int32 index there. The first of equals wins, NaN over numbers."""
    y = empty(x, x.shape[:2]) if out is None else out
    places = empty(x, x.shape[:2], "int32") if indices is None else indices
    kernels.global_max_pool2d(x, y, places, stream(x))
    return y, places


def global_max_pool2d_grad(dy: Array, indices: Array, size: tuple[int, ...], *, out: Array | None = None) -> Array:
    """dx (N, C, H, W): each plane's gradient at the pixel that won it; `size` is (H, W)."""
    dx = empty(dy, (*dy.shape, *size)) if out is None else out
    kernels.global_max_pool2d_grad(dy, indices, dx, stream(dy))
    return dx


def zero_pad2d(x: Array, padding: Sides, *, out: Array | None = None) -> Array:
    """y: zeros around each plane, padding ((top, bottom), (left, right))."""
    (top, bottom), (left, right) = padding
    y = empty(x, (*x.shape[:2], top + x.shape[2] + bottom, left + x.shape[3] + right)) if out is None else out
    kernels.shifted_planes(x, y, top, left, stream(x))
    return y


def zero_pad2d_grad(dy: Array, padding: Sides, *, out: Array | None = None) -> Array:
    """dx: dy without its padding."""
    (top, bottom), (left, right) = padding
    dx = empty(dy, (*dy.shape[:2], dy.shape[2] - top - bottom, dy.shape[3] - left - right)) if out is None else out
    kernels.shifted_planes(dy, dx, -top, -left, stream(dy))
    return dx

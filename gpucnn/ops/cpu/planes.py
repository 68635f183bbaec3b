"""Whole planes of images: their mean, their largest pixel, and zeros around them. x (N, C, H, W)."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array
from gpucnn.ops.shapes import Sides

__all__ = ["global_avg_pool2d", "global_avg_pool2d_grad", "global_max_pool2d", "global_max_pool2d_grad", "zero_pad2d", "zero_pad2d_grad"]


def global_avg_pool2d(x: Array, *, out: Array | None = None) -> Array:
    """y (N, C): the mean of each plane."""
    flat = x.reshape(*x.shape[:2], -1)
    y: Array = np.divide(flat.sum(axis=2), x.dtype.type(flat.shape[2]), out=out)
    return y


def global_avg_pool2d_grad(dy: Array, size: tuple[int, ...], *, out: Array | None = None) -> Array:
    """dx (N, C, H, W): each plane's gradient, divided evenly among its pixels; `size` is (H, W)."""
    dx = np.empty((*dy.shape, *size), dy.dtype) if out is None else out
    count = size[0] * size[1]
    np.divide(
        dy[:, :, None], np.full(count, count, dy.dtype), out=dx.reshape(*dy.shape, -1)
    )  # a division for each pixel, but whole vectors
    return dx


def global_max_pool2d(x: Array, *, out: Array | None = None, indices: Array | None = None) -> tuple[Array, Array]:
    """(y, indices), both (N, C): the largest pixel of each plane and its int32 index there. The first of equals wins, NaN over numbers."""
    flat = x.reshape(*x.shape[:2], -1)
    places = np.empty(x.shape[:2], np.int32) if indices is None else indices
    places[...] = flat.argmax(axis=2)
    y = np.empty(x.shape[:2], x.dtype) if out is None else out
    y[...] = np.take_along_axis(flat, places[:, :, None], axis=2)[:, :, 0]
    return y, places


def global_max_pool2d_grad(dy: Array, indices: Array, size: tuple[int, ...], *, out: Array | None = None) -> Array:
    """dx (N, C, H, W): each plane's gradient at the pixel that won it; `size` is (H, W)."""
    dx = np.empty((*dy.shape, *size), dy.dtype) if out is None else out
    dx[...] = 0
    np.put_along_axis(dx.reshape(*dy.shape, -1), indices[:, :, None].astype(np.int64), dy[:, :, None], axis=2)
    return dx


def zero_pad2d(x: Array, padding: Sides, *, out: Array | None = None) -> Array:
    """y: zeros around each plane, padding ((top, bottom), (left, right))."""
    (top, bottom), (left, right) = padding
    y = np.empty((*x.shape[:2], top + x.shape[2] + bottom, left + x.shape[3] + right), x.dtype) if out is None else out
    y[...] = 0
    y[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return y


def zero_pad2d_grad(dy: Array, padding: Sides, *, out: Array | None = None) -> Array:
    """dx: dy without its padding."""
    (top, bottom), (left, right) = padding
    inner = dy[:, :, top : dy.shape[2] - bottom, left : dy.shape[3] - right]
    if out is None:
        return np.ascontiguousarray(inner)
    out[...] = inner
    return out

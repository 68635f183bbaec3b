"""Whole planes of images: their mean, their largest pixel, and zeros around them. x (N, C, H, W).

A warp shares a plane: each lane takes every 32nd pixel, so that neighbours are read together, then their results are combined in a
tree (reduce.py). Gradients and padding: one thread per pixel.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.integers import divide, magic
from gpucnn_kernels.core.launch import Array, Stream, floats, ints, run, run_each
from gpucnn_kernels.core.reduce import LANES, beats, tree_argmax, tree_sum


@kernel
def plane_mean_kernel(x, y, plane):
    sums = cuda.shared.array(LANES, float32)
    block = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    first = uint32(block * plane)
    total = float32(0)
    for i in range(uint32(lane), plane, uint32(LANES)):
        total += x[uint32(first + uint32(i))]
    sums[lane] = total
    tree_sum(sums, lane, LANES)
    if lane == 0:
        y[block] = sums[0] / float32(plane)


@kernel
def plane_mean_grad_kernel(dy, dx, plane, plane_by, plane_shift):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        dx[i] = dy[divide(i, plane_by, plane_shift)] / float32(plane)


@kernel
def plane_max_kernel(x, y, indices, plane):
    values = cuda.shared.array(LANES, float32)
    places = cuda.shared.array(LANES, int32)
    block = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    first = uint32(block * plane)
    best = float32(-math.inf)
    place = int32(0x7FFFFFFF)  # behind every pixel: one of −inf still comes before
    for i in range(uint32(lane), plane, uint32(LANES)):
        value = x[uint32(first + uint32(i))]
        if beats(value, int32(i), best, place):
            best = value
            place = int32(i)
    values[lane] = best
    places[lane] = place
    tree_argmax(values, places, lane, LANES)
    if lane == 0:
        y[block] = values[0]
        indices[block] = places[0]


@kernel
def plane_max_grad_kernel(dy, indices, dx, plane, plane_by, plane_shift):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        n = divide(i, plane_by, plane_shift)
        dx[i] = dy[n] if uint32(indices[n]) == uint32(i - n * plane) else float32(0)


@kernel
def shifted_planes_kernel(x, y, sizes, top, left):
    """Pixel (p, q) of y is pixel (p − top, q − left) of x, or 0 where that is outside."""
    H, W, P, Q, q_by, q_shift, p_by, p_shift = sizes
    i = uint32(cuda.grid(1))
    if i >= y.size:
        return
    rest = divide(i, q_by, q_shift)
    plane = divide(rest, p_by, p_shift)
    h = int32(int32(rest - plane * uint32(P)) - top)
    w = int32(int32(i - rest * uint32(Q)) - left)
    value = float32(0)
    if h >= 0 and h < H and w >= 0 and w < W:
        value = x[uint32(uint32(plane * uint32(H) + uint32(h)) * uint32(W) + uint32(w))]
    y[i] = value


def global_avg_pool2d(x: Array, y: Array, stream: Stream = 0) -> None:
    """Writes the mean of each plane to y (N, C)."""
    n, c, h, w = x.shape
    run(plane_mean_kernel, n * c, LANES, stream, floats(x, "x"), floats(y, "y", (n, c)), np.uint32(h * w))


def global_avg_pool2d_grad(dy: Array, dx: Array, stream: Stream = 0) -> None:
    """Writes each plane's gradient to dx (N, C, H, W), divided evenly among its pixels."""
    n, c, h, w = dx.shape
    plane = h * w
    run_each(plane_mean_grad_kernel, n * c * plane, stream, floats(dy, "dy", (n, c)), floats(dx, "dx"), np.uint32(plane), *magic(plane))


def global_max_pool2d(x: Array, y: Array, indices: Array, stream: Stream = 0) -> None:
    """Writes the largest pixel of each plane to y (N, C) and its index in the plane to indices: the first of equals, NaN over numbers."""
    n, c, h, w = x.shape
    run(plane_max_kernel, n * c, LANES, stream, floats(x, "x"), floats(y, "y", (n, c)), ints(indices, "indices", (n, c)), np.uint32(h * w))


def global_max_pool2d_grad(dy: Array, indices: Array, dx: Array, stream: Stream = 0) -> None:
    """Writes each plane's gradient to the pixel of dx that won it, and 0 elsewhere."""
    n, c, h, w = dx.shape
    plane, given = h * w, (floats(dy, "dy", (n, c)), ints(indices, "indices", (n, c)))
    run_each(plane_max_grad_kernel, n * c * plane, stream, *given, floats(dx, "dx"), np.uint32(plane), *magic(plane))


def shifted_planes(x: Array, y: Array, top: int, left: int, stream: Stream = 0) -> None:
    """Writes x to y, both (N, C, rows, columns), moved down by `top` and right by `left`, either of which may be negative; 0 elsewhere."""
    n, c, p, q = y.shape
    run_each(
        shifted_planes_kernel,
        n * c * p * q,
        stream,
        floats(x, "x"),
        floats(y, "y", (n, c, p, q)),
        _sizes(*x.shape[2:], p, q),
        np.int32(top),
        np.int32(left),
    )


@functools.lru_cache(maxsize=256)
def _sizes(h: int, w: int, p: int, q: int) -> tuple[Any, ...]:
    """The rows and columns of x and of y, and the magic of those of y, columns first."""
    return *map(np.int32, (h, w, p, q)), *magic(q), *magic(p)

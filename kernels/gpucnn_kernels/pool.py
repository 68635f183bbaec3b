"""Pooling the plain way: one thread for each number of the result.

x, dx (N, C, H, W); y, dy and indices (N, C, P, Q), indices int32, flat in the H·W plane of the input.

Forward, a thread looks at the R × S pixels of its window in row-major order. Backward, a thread belongs to a pixel and asks every window
that may have read it: a pixel h is read by tap r of window p where p·stride − top + r·dilation = h. Windows overlap where the stride is
less than the kernel, so several windows may add to a pixel, always in the order of the taps: no atomics, the same bits every time.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from gpucnn_kernels._numba import cuda, device, float32, int32, kernel, uint32
from gpucnn_kernels.conv import split
from gpucnn_kernels.launch import Array, Stream, Window, floats, geometry, ints, run_each


@device
def counted(first, taps, dilation, low, high):
    """How many of the pixels first, first + dilation, … (`taps` of them) are in [low, high). At least one of them is."""
    begin = int32(0)
    if first < low:
        begin = int32((low - first + dilation - 1) // dilation)
    end = int32((high - first + dilation - 1) // dilation)
    if end > taps:
        end = taps
    return int32(end - begin)


@device
def window_count(p, q, H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, bottom, right, padded):
    """What the sum of window (p, q) is divided by: its pixels, with declared padding where `padded`, overhang never."""
    first_h = int32(p * stride_h - top)
    first_w = int32(q * stride_w - left)
    if padded:
        rows = counted(first_h, R, dilation_h, int32(-top), int32(H + bottom))
        columns = counted(first_w, S, dilation_w, int32(-left), int32(W + right))
    else:
        rows = counted(first_h, R, dilation_h, int32(0), H)
        columns = counted(first_w, S, dilation_w, int32(0), W)
    return float32(int32(rows * columns))


@kernel
def max_pool2d_kernel(x, y, indices, H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q):
    i = uint32(cuda.grid(1))
    if i >= y.size:
        return
    rest, q = split(i, Q)
    plane, p = split(rest, P)
    first_h = int32(p * stride_h - top)
    first_w = int32(q * stride_w - left)
    best = float32(-math.inf)
    place = int32(-1)
    for r in range(R):
        h = int32(first_h + r * dilation_h)
        if h >= 0 and h < H:
            for s in range(S):
                w = int32(first_w + s * dilation_w)
                if w >= 0 and w < W:
                    value = x[uint32((plane * H + h) * W + w)]
                    # The first pixel always; then a larger one or, over anything but NaN, NaN: `not <=` is true of both.
                    if place < 0 or (not (value <= best) and best == best):
                        best = value
                        place = int32(h * W + w)
    y[i] = best
    indices[i] = place


@kernel
def max_pool2d_grad_kernel(dy, indices, dx, H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q):
    i = uint32(cuda.grid(1))
    if i >= dx.size:
        return
    rest, w = split(i, W)
    plane, h = split(rest, H)
    place = int32(h * W + w)
    total = float32(0)
    for r in range(R):
        row = int32(h + top - r * dilation_h)
        p = int32(row // stride_h)
        if row >= 0 and p * stride_h == row and p < P:
            for s in range(S):
                column = int32(w + left - s * dilation_w)
                q = int32(column // stride_w)
                if column >= 0 and q * stride_w == column and q < Q:
                    window = uint32((plane * P + p) * Q + q)
                    if indices[window] == place:
                        total += dy[window]
    dx[i] = total


@kernel
def avg_pool2d_kernel(
    x, y, H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q, bottom, right, padded
):
    i = uint32(cuda.grid(1))
    if i >= y.size:
        return
    rest, q = split(i, Q)
    plane, p = split(rest, P)
    first_h = int32(p * stride_h - top)
    first_w = int32(q * stride_w - left)
    total = float32(0)
    for r in range(R):
        h = int32(first_h + r * dilation_h)
        if h >= 0 and h < H:
            for s in range(S):
                w = int32(first_w + s * dilation_w)
                if w >= 0 and w < W:
                    total += x[uint32((plane * H + h) * W + w)]
    y[i] = total / window_count(p, q, H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, bottom, right, padded)


@kernel
def avg_pool2d_grad_kernel(
    dy, dx, H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q, bottom, right, padded
):
    i = uint32(cuda.grid(1))
    if i >= dx.size:
        return
    rest, w = split(i, W)
    plane, h = split(rest, H)
    total = float32(0)
    for r in range(R):
        row = int32(h + top - r * dilation_h)
        p = int32(row // stride_h)
        if row >= 0 and p * stride_h == row and p < P:
            for s in range(S):
                column = int32(w + left - s * dilation_w)
                q = int32(column // stride_w)
                if column >= 0 and q * stride_w == column and q < Q:
                    count = window_count(
                        p, q, H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, bottom, right, padded
                    )
                    total += dy[uint32((plane * P + p) * Q + q)] / count
    dx[i] = total


def max_pool2d(x: Array, y: Array, indices: Array, window: Window, stream: Stream = 0) -> None:
    """Writes the largest pixel of each window to y and its place in the H·W plane to indices.

    The first of equals wins; NaN wins over numbers, and the first NaN over later ones. Padding never wins.
    """
    n, c = x.shape[:2]
    run_each(
        max_pool2d_kernel,
        n * c * window.output[0] * window.output[1],
        stream,
        floats(x, "x", (n, c, *window.input)),
        floats(y, "y", (n, c, *window.output)),
        ints(indices, "indices", (n, c, *window.output)),
        *geometry(window),
    )


def max_pool2d_grad(dy: Array, indices: Array, dx: Array, window: Window, stream: Stream = 0) -> None:
    """Writes each window's gradient to the pixel of dx that won it, summed where a pixel won several windows."""
    n, c = dy.shape[:2]
    run_each(
        max_pool2d_grad_kernel,
        n * c * window.input[0] * window.input[1],
        stream,
        floats(dy, "dy", (n, c, *window.output)),
        ints(indices, "indices", (n, c, *window.output)),
        floats(dx, "dx", (n, c, *window.input)),
        *geometry(window),
    )


def avg_pool2d(x: Array, y: Array, window: Window, count_include_pad: bool = True, stream: Stream = 0) -> None:
    """Writes the mean of each window to y: over its pixels and, with `count_include_pad`, the zeros of declared padding."""
    n, c = x.shape[:2]
    run_each(
        avg_pool2d_kernel,
        n * c * window.output[0] * window.output[1],
        stream,
        floats(x, "x", (n, c, *window.input)),
        floats(y, "y", (n, c, *window.output)),
        *geometry(window),
        *_counting(window, count_include_pad),
    )


def avg_pool2d_grad(dy: Array, dx: Array, window: Window, count_include_pad: bool = True, stream: Stream = 0) -> None:
    """Writes to dx each window's gradient, shared out evenly among the pixels that its mean was taken over."""
    n, c = dy.shape[:2]
    run_each(
        avg_pool2d_grad_kernel,
        n * c * window.input[0] * window.input[1],
        stream,
        floats(dy, "dy", (n, c, *window.output)),
        floats(dx, "dx", (n, c, *window.input)),
        *geometry(window),
        *_counting(window, count_include_pad),
    )


def _counting(window: Window, count_include_pad: bool) -> tuple[np.int32, np.int32, np.int32]:
    """Bottom and right padding, and whether declared padding counts."""
    (_, bottom), (_, right) = window.padding
    return np.int32(bottom), np.int32(right), np.int32(count_include_pad and not window.same)

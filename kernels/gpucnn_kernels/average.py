"""Average pooling the plain way: one thread for each number of the result.

x, dx (N, C, H, W); y and dy (N, C, P, Q). Backward, a thread belongs to a pixel and adds up its share of every window that has read it, in
the order of the taps. As in pool.py the kernels have twins for images of y and dy that lie apart, and large images are done in strips
(average_strips.py).
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools

import numpy as np

from gpucnn_kernels import average_strips, pool_strips
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import divide, magic, split
from gpucnn_kernels.core.launch import Array, Stream, Window, floats, geometry, images, run_each


@device
def counted(first, taps, dilation, low, high):
    """The number of pixels among first, first + dilation, … (`taps` of them) that are in [low, high). At least one is."""
    begin = int32(0)
    if first < low:
        begin = int32((low - first + dilation - 1) // dilation)
    end = int32((high - first + dilation - 1) // dilation)
    if end > taps:
        end = taps
    return int32(end - begin)


@device
def window_count(p, q, window, counting):
    """The number that the sum of window (p, q) is divided by: its pixels, with declared padding where `padded`, overhang never."""
    H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, _, _ = window
    bottom, right, padded = counting
    first_h = int32(p * stride_h - top)
    first_w = int32(q * stride_w - left)
    if padded:
        rows = counted(first_h, R, dilation_h, int32(-top), int32(H + bottom))
        columns = counted(first_w, S, dilation_w, int32(-left), int32(W + right))
    else:
        rows = counted(first_h, R, dilation_h, int32(0), H)
        columns = counted(first_w, S, dilation_w, int32(0), W)
    return float32(int32(rows * columns))


@device(forceinline=True)
def mean_of(x, plane, p, q, window, counting):
    """The mean of window (p, q)."""
    H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, _, _ = window
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
    return total / window_count(p, q, window, counting)


@kernel
def avg_pool2d_kernel(x, y, window, counting):
    i = uint32(cuda.grid(1))
    if i >= y.size:
        return
    rest, q = split(i, window[11])
    plane, p = split(rest, window[10])
    y[i] = mean_of(x, plane, p, q, window, counting)


@kernel
def avg_pool2d_part_kernel(x, y, window, counting, count, image_by, image_shift, skipped):
    """`count` windows; y's images lie `skipped` elements apart."""
    i = uint32(cuda.grid(1))
    if i >= count:
        return
    rest, q = split(i, window[11])
    plane, p = split(rest, window[10])
    mean = mean_of(x, plane, p, q, window, counting)
    y[uint32(i + divide(i, image_by, image_shift) * skipped)] = mean


@device(forceinline=True)
def shares_of(dy, apart, plane, h, w, window, counting):
    """The sum of what pixel (h, w) gets from each window over it. The plane's gradients lie `apart` elements behind their windows."""
    _, _, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q = window
    total = float32(0)
    for r in range(R):
        row = int32(h + top - r * dilation_h)
        p = int32(row // stride_h)
        if row >= 0 and p * stride_h == row and p < P:
            for s in range(S):
                column = int32(w + left - s * dilation_w)
                q = int32(column // stride_w)
                if column >= 0 and q * stride_w == column and q < Q:
                    count = window_count(p, q, window, counting)
                    total += dy[uint32(uint32((plane * P + p) * Q + q) + apart)] / count
    return total


@kernel
def avg_pool2d_grad_kernel(dy, dx, window, counting):
    i = uint32(cuda.grid(1))
    if i >= dx.size:
        return
    rest, w = split(i, window[1])
    plane, h = split(rest, window[0])
    dx[i] = shares_of(dy, uint32(0), plane, h, w, window, counting)


@kernel
def avg_pool2d_part_grad_kernel(dy, dx, window, counting, c_by, c_shift, skipped):
    """dy's images lie `skipped` elements apart."""
    i = uint32(cuda.grid(1))
    if i >= dx.size:
        return
    rest, w = split(i, window[1])
    plane, h = split(rest, window[0])
    apart = uint32(divide(plane, c_by, c_shift) * skipped)
    dx[i] = shares_of(dy, apart, plane, h, w, window, counting)


def avg_pool2d(x: Array, y: Array, window: Window, count_include_pad: bool = True, stream: Stream = 0) -> None:
    """Writes the mean of each window to y: over its pixels and, with `count_include_pad`, the zeros of declared padding."""
    n, c = x.shape[:2]
    image = c * window.output[0] * window.output[1]
    count, (target, step) = n * image, images(y, "y", (n, c, *window.output))
    arrays = floats(x, "x", (n, c, *window.input)), target
    arguments = *arrays, geometry(window), _counting(window, count_include_pad)
    if not step and pool_strips.suits(window, n * c):
        average_strips.forward(*arrays, window, _padded(window, count_include_pad), n * c, stream)
    elif step:
        more = np.uint32(count), *magic(image), np.uint32(step - image)
        run_each(avg_pool2d_part_kernel, count, stream, *arguments, *more)
    else:
        run_each(avg_pool2d_kernel, count, stream, *arguments)


def avg_pool2d_grad(dy: Array, dx: Array, window: Window, count_include_pad: bool = True, stream: Stream = 0) -> None:
    """Writes to dx each window's gradient, divided evenly among the pixels of its mean."""
    n, c = dy.shape[:2]
    count, (given, step) = n * c * window.input[0] * window.input[1], images(dy, "dy", (n, c, *window.output))
    arrays = given, floats(dx, "dx", (n, c, *window.input))
    arguments = *arrays, geometry(window), _counting(window, count_include_pad)
    if not step and pool_strips.suits(window, n * c):
        average_strips.gradient(*arrays, window, _padded(window, count_include_pad), n * c, stream)
    elif step:
        skipped = np.uint32(step - c * window.output[0] * window.output[1])
        run_each(avg_pool2d_part_grad_kernel, count, stream, *arguments, *magic(c), skipped)
    else:
        run_each(avg_pool2d_grad_kernel, count, stream, *arguments)


@functools.lru_cache(maxsize=256)
def _counting(window: Window, count_include_pad: bool) -> tuple[np.int32, np.int32, np.int32]:
    """Bottom and right padding, and whether declared padding counts."""
    (_, bottom), (_, right) = window.padding
    return np.int32(bottom), np.int32(right), np.int32(_padded(window, count_include_pad))


def _padded(window: Window, count_include_pad: bool) -> bool:
    """Whether declared padding counts."""
    return bool(count_include_pad and not window.same)

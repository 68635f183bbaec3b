"""Average pooling of large images by windows of up to 5 × 5 that touch or overlap: a thread does a strip of a column, as in pool_strips.py.

x, dx (N, C, H, W); y and dy (N, C, P, Q) as in average.py, and the results are those of its kernels to the bit: a window's pixels, and a
pixel's shares, are added in the same order, and what is not there is added as zero.

As for maxima, all that a strip reads is known when the kernel is compiled, nothing that is read waits for a question about an edge, and a
pixel is read once for all windows of the strip. Backward, a window's gradient is divided once and not once for each of its pixels.

A strip's rows overlap the next one's, so that strips are longer where windows overlap more. If a cache has half of what is read twice,
the rest is 13 % of the bytes that must be moved, at most.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.launch import Array, Pair, Stream, Window, aligned, run_each
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import store_2
from gpucnn_kernels.strip_grid import grid_of, place, reach, sides, with_padding

_SHORT, _LONG = 4, 8  # rows of windows of a strip
_PIXELS = 16  # of a strip, backward, where it has more than one of them


@functools.cache
def forward_kernel(taps: Pair, stride: Pair, length: int) -> Any:
    """The kernel of pooling: (x, y, grid, sizes, bounds), as strip_grid.py has the grid and, `with_padding`, the sizes. bounds: the first
    and the end of the rows, then of the columns, that are counted in a mean."""
    (R, S), (stride_h, stride_w), T = taps, stride, length

    @device(forceinline=True)
    def column(s, first, W, columns):
        columns[s] = min(max(int32(first + s), int32(0)), int32(W - 1))

    @device(forceinline=True)
    def take(t, i, values, totals):
        """Row i is row i − t·stride of window t."""
        if 0 <= i - t * stride_h < R:
            for s in range(S):
                totals[t] += values[s]

    @device(forceinline=True)
    def read(s, x, begin, inside, left, W, columns, values):
        value = x[uint32(begin + uint32(columns[s]))]
        values[s] = value if inside and uint32(left + s) < uint32(W) else float32(0)

    columns_of, take_all, read_all = unrolled(column, S), unrolled(take, T), unrolled(read, S)

    @device(forceinline=True)
    def row(i, x, plane, first, left, H, W, columns, values, totals):
        number = int32(first + i)
        begin = uint32(plane + uint32(min(max(number, int32(0)), int32(H - 1)) * W))
        read_all(0, x, begin, uint32(number) < uint32(H), left, W, columns, values)
        take_all(0, i, values, totals)

    @device(forceinline=True)
    def clear(t, totals):
        totals[t] = float32(0)

    @device(forceinline=True)
    def write(t, y, at, p, P, Q, first, low, high, across, totals):
        if int32(p + t) < P:
            begin = int32(first + t * stride_h)
            down = int32(min(int32(begin + R), high) - max(begin, low))
            y[uint32(at + uint32(t * Q))] = totals[t] / float32(int32(down * across))

    rows, clear_all, write_all = unrolled(row, (T - 1) * stride_h + R), unrolled(clear, T), unrolled(write, T)

    @kernel
    def avg_pool2d_strips(x, y, grid, sizes, bounds):
        H, W, top, left, P, Q = sizes
        low_h, high_h, low_w, high_w = bounds
        i = uint32(cuda.grid(1))
        if i >= grid[0]:
            return
        columns, values, totals = cuda.local.array(S, int32), cuda.local.array(S, float32), cuda.local.array(T, float32)
        plane, p, q = place(i, grid, T)
        first_h, first_w = int32(p * stride_h - top), int32(q * stride_w - left)
        across = int32(min(int32(first_w + S), high_w) - max(first_w, low_w))
        clear_all(0, totals)
        columns_of(0, first_w, W, columns)
        rows(0, x, uint32(plane * uint32(H * W)), first_h, first_w, H, W, columns, values, totals)
        at = uint32(uint32(plane * uint32(P) + uint32(p)) * uint32(Q) + uint32(q))
        write_all(0, y, at, p, P, Q, first_h, low_h, high_h, across, totals)

    return avg_pool2d_strips


@functools.cache
def gradient_kernel(taps: Pair, stride: Pair, before: Pair, length: int, pairs: bool) -> Any:
    """The kernel of its gradient: (dy, dx, grid, sizes, bounds), with `sides` as sizes, and the bounds as above. A strip is of `length`
    times stride_h rows and of stride_w columns. `pairs`: all rows of dx begin at 8 bytes and are of even length, and stride_w is 2."""
    (R, S), (stride_h, stride_w), (top, left), T = taps, stride, before, length
    (first_p, rows_over), (first_q, columns_over) = (reach(*each) for each in zip(taps, stride, before, strict=True))
    window_rows, pixels = T + rows_over - 1, T * stride_h * stride_w

    @device(forceinline=True)
    def width(j, q, low, high, widths):
        """The number of columns that count in window q + j; for a window that does not exist, any number but 0."""
        begin = int32(int32(q + j) * stride_w - left)
        widths[j] = max(int32(min(int32(begin + S), high) - max(begin, low)), int32(1))

    @device(forceinline=True)
    def read(j, q, Q, row, inside, down, dy, widths, shares):
        """The share of each pixel of window q + j of a row, if there is one."""
        column = int32(q + j)
        share = dy[uint32(row + uint32(min(max(column, int32(0)), int32(Q - 1))))] / float32(int32(down * widths[j]))
        shares[j] = share if inside and uint32(column) < uint32(Q) else float32(0)

    @device(forceinline=True)
    def add(number, i, shares, sums):
        """Adds the gradients of row i of the windows to pixel `number` of the strip, last window first: its first tap is on the pixel."""
        a, b = number // stride_w, number % stride_w
        if 0 <= a + top - (first_p + i) * stride_h < R:
            for k in range(columns_over):
                j = columns_over - 1 - k
                if 0 <= b + left - (first_q + j) * stride_w < S:
                    sums[number] += shares[j]

    widths_of, read_all, add_all = unrolled(width, columns_over), unrolled(read, columns_over), unrolled(add, pixels)

    @device(forceinline=True)
    def window_row(k, dy, plane, p, q, P, Q, low, high, widths, shares, sums):
        i = window_rows - 1 - k
        number = int32(p + i)
        row = uint32(uint32(plane * uint32(P) + uint32(min(max(number, int32(0)), int32(P - 1)))) * uint32(Q))
        begin = int32(number * stride_h - top)
        down = max(int32(min(int32(begin + R), high) - max(begin, low)), int32(1))
        read_all(0, q, Q, row, uint32(number) < uint32(P), down, dy, widths, shares)
        add_all(0, i, shares, sums)

    @device(forceinline=True)
    def clear(number, sums):
        sums[number] = float32(0)

    @device(forceinline=True)
    def write(a, dx, at, h, w, H, W, sums):
        if int32(h + a) < H:
            begin = uint32(at + uint32(a * W))
            if pairs:
                store_2(dx, begin, sums[a * stride_w], sums[a * stride_w + stride_w - 1])
            else:
                for b in range(stride_w):
                    if int32(w + b) < W:
                        dx[uint32(begin + uint32(b))] = sums[a * stride_w + b]

    every_row, clear_all, write_all = unrolled(window_row, window_rows), unrolled(clear, pixels), unrolled(write, T * stride_h)

    @kernel
    def avg_pool2d_strips_grad(dy, dx, grid, sizes, bounds):
        H, W, P, Q = sizes
        low_h, high_h, low_w, high_w = bounds
        i = uint32(cuda.grid(1))
        if i >= grid[0]:
            return
        sums, shares = cuda.local.array(pixels, float32), cuda.local.array(columns_over, float32)
        widths = cuda.local.array(columns_over, int32)
        plane, p, q = place(i, grid, T)
        h, w = int32(p * stride_h), int32(q * stride_w)
        clear_all(0, sums)
        widths_of(0, int32(q + first_q), low_w, high_w, widths)
        every_row(0, dy, plane, int32(p + first_p), int32(q + first_q), P, Q, low_h, high_h, widths, shares, sums)
        write_all(0, dx, uint32(plane * uint32(H * W) + uint32(h * W + w)), h, w, H, W, sums)

    return avg_pool2d_strips_grad


def _longest(window: Window) -> int:
    """How many rows of windows a strip may have."""
    return _LONG if window.kernel[0] > 2 * window.stride[0] else _SHORT


@functools.lru_cache(maxsize=256)
def _bounds(window: Window, padded: bool) -> tuple[np.int32, ...]:
    """The first and the end of the rows and of the columns that are counted in a mean, with declared padding where `padded`."""
    return tuple(
        np.int32(number)
        for size, (before, behind) in zip(window.input, window.padding, strict=True)
        for number in ((-before, size + behind) if padded else (0, size))
    )


def forward(x: Array, y: Array, window: Window, padded: bool, planes: int, stream: Stream) -> None:
    """`average.avg_pool2d` on flat arrays of so many planes; the window must fit."""
    length, count, grid = grid_of(*window.output, planes, _longest(window))
    kernel = forward_kernel(window.kernel, window.stride, length)
    run_each(kernel, count, stream, x, y, grid, with_padding(window), _bounds(window, padded))


def gradient(dy: Array, dx: Array, window: Window, padded: bool, planes: int, stream: Stream) -> None:
    """`average.avg_pool2d_grad` on flat arrays of so many planes; the window must fit."""
    (H, W), (stride_h, stride_w) = window.input, window.stride
    most = max(1, min(_longest(window), _PIXELS // (stride_h * stride_w)))
    length, count, grid = grid_of(-(-H // stride_h), -(-W // stride_w), planes, most)
    before = window.padding[0][0], window.padding[1][0]
    pairs = stride_w == 2 and W % 2 == 0 and aligned(dx)
    kernel = gradient_kernel(window.kernel, window.stride, before, length, pairs)
    run_each(kernel, count, stream, dy, dx, grid, sides(window), _bounds(window, padded))

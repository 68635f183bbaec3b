"""Max pooling of large images by windows of up to 5 × 5 that touch or overlap: a thread does a strip, some four results of a column.

x, dx (N, C, H, W); y, dy and indices (N, C, P, Q) as in pool.py, and the results are those of its general kernels to the bit.

Pooling does next to no arithmetic, so the bytes that must be moved are all that should count: for 3 × 3 windows at a stride of 2 those of
the 2 × 2 ones, 24 for each window. The general kernels look at a tap at a time, ask whether it lies in the image and go back for the next,
and backward a pixel asks one window after another. Here everything that a strip reads is known when the kernel is compiled, so that all of
its reads are on their way at once:

- **No tap is asked whether it is inside.** A row or column outside of the image is read as the nearest inside, which is one of the window's
  own where there is no dilation. A pixel that is seen twice changes neither the maximum nor which is the first of equals.
- **Forward**, the best of a row's S pixels is found once for all windows of the strip that the row is in: 9 rows of 3 pixels for four
  windows, where one by one they are 12.
- **Backward**, a thread owns `stride` × `stride` pixels below one another, four times: which windows reach which of them, by which tap, is
  the same for every thread. It reads these windows' gradients and winners, and adds in the order of the taps.

A strip's rows overlap the next one's: of four windows of 3 × 3 that is a ninth of what is read forward, and of its four rows of windows
a fourth backward, 8 % of all bytes each, if no cache had them.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.launch import Array, Pair, Stream, Window, aligned, run_each
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import store_2
from gpucnn_kernels.strip_grid import grid_of, place, reach, sides, with_padding

LEAST_PIXELS = 1 << 16
"""Of all images together: fewer take the general kernels about as long as a launch, and no kernel of their own is compiled for them."""
_MOST_TAPS = 5  # on each side
_LENGTH = 4  # results of a strip
_PIXELS = 16  # of a strip, backward, where it has more than one row of windows


def suits(window: Window, planes: int) -> bool:
    """Whether pooling so many images of one channel is done here, in both directions."""
    return planes * window.input[0] * window.input[1] >= LEAST_PIXELS and fits(window)


def fits(window: Window) -> bool:
    """Whether it can be done here: windows that leave no pixel out, without dilation, each of which has a pixel in the image."""
    axes = zip(window.input, window.kernel, window.stride, window.padding, window.output, strict=True)
    return window.dilation == (1, 1) and all(
        stride <= taps <= _MOST_TAPS and before < taps and (positions - 1) * stride - before < size
        for size, taps, stride, (before, _), positions in axes
    )


@functools.cache
def forward_kernel(taps: Pair, stride: Pair, length: int) -> Any:
    """The kernel of pooling: (x, y, indices, grid, sizes), as strip_grid.py has the grid and, `with_padding`, the sizes."""
    (R, S), (stride_h, stride_w), T = taps, stride, length

    @device(forceinline=True)
    def wins(value, best):
        """Whether it is larger, or NaN over anything but NaN."""
        return not (value <= best) and best == best

    @device(forceinline=True)
    def nearest(s, first, W, columns):
        columns[s] = min(max(int32(first + s), int32(0)), int32(W - 1))

    @device(forceinline=True)
    def take(t, i, best, at, bests, places):
        """Row i is row i − t·stride of window t."""
        r = i - t * stride_h
        if r == 0 or (0 < r < R and wins(best, bests[t])):
            bests[t] = best
            places[t] = at

    places_of, take_all = unrolled(nearest, S), unrolled(take, T)

    @device(forceinline=True)
    def row(i, x, plane, first, H, W, columns, bests, places):
        h = min(max(int32(first + i), int32(0)), int32(H - 1))
        start = int32(h * W)
        begin = uint32(plane + uint32(start))
        best, column = x[uint32(begin + uint32(columns[0]))], columns[0]
        for s in range(1, S):
            value = x[uint32(begin + uint32(columns[s]))]
            if wins(value, best):
                best, column = value, columns[s]
        take_all(0, i, best, int32(start + column), bests, places)

    @device(forceinline=True)
    def write(t, y, indices, at, p, P, Q, bests, places):
        if int32(p + t) < P:
            here = uint32(at + uint32(t * Q))
            y[here] = bests[t]
            indices[here] = places[t]

    rows, write_all = unrolled(row, (T - 1) * stride_h + R), unrolled(write, T)

    @kernel
    def max_pool2d_strips(x, y, indices, grid, sizes):
        H, W, top, left, P, Q = sizes
        i = uint32(cuda.grid(1))
        if i >= grid[0]:
            return
        columns, bests, places = cuda.local.array(S, int32), cuda.local.array(T, float32), cuda.local.array(T, int32)
        plane, p, q = place(i, grid, T)
        places_of(0, int32(q * stride_w - left), W, columns)
        rows(0, x, uint32(plane * uint32(H * W)), int32(p * stride_h - top), H, W, columns, bests, places)
        write_all(0, y, indices, uint32(uint32(plane * uint32(P) + uint32(p)) * uint32(Q) + uint32(q)), p, P, Q, bests, places)

    return max_pool2d_strips


@functools.cache
def gradient_kernel(taps: Pair, stride: Pair, before: Pair, length: int, masked: bool, pairs: bool) -> Any:
    """The kernel of its gradient: (dy, indices, dx, grid, sizes), with y after indices where it is `masked`, and `sides` as sizes. A
    strip is of `length` times stride_h rows and of stride_w columns. `pairs`: all rows of dx begin at 8 bytes and are of even length, and
    stride_w is 2."""
    (R, S), (stride_h, stride_w), (top, left), T = taps, stride, before, length
    (first_p, rows_over), (first_q, columns_over) = (reach(*each) for each in zip(taps, stride, before, strict=True))
    window_rows, pixels = T + rows_over - 1, T * stride_h * stride_w

    @device(forceinline=True)
    def read(j, q, Q, row, inside, dy, indices, y, gradients, winners):
        """Window q + j of a row, if there is one: else a winner that is not a pixel. Nothing that is read waits for another."""
        column = int32(q + j)
        at = uint32(row + uint32(min(max(column, int32(0)), int32(Q - 1))))
        gradient, winner = dy[at], indices[at]
        if masked and not (y[at] > float32(0)):
            winner = int32(-1)
        gradients[j] = gradient
        winners[j] = winner if inside and uint32(column) < uint32(Q) else int32(-1)

    @device(forceinline=True)
    def add(number, i, first, W, gradients, winners, sums):
        """Adds the gradients of row i of the windows to pixel `number` of the strip, last window first: its first tap is on the pixel."""
        a, b = number // stride_w, number % stride_w
        r = a + top - (first_p + i) * stride_h
        if 0 <= r < R:
            own = int32(first + a * W + b)
            for k in range(columns_over):
                j = columns_over - 1 - k
                s = b + left - (first_q + j) * stride_w
                if 0 <= s < S and winners[j] == own:
                    sums[number] += gradients[j]

    read_all, add_all = unrolled(read, columns_over), unrolled(add, pixels)

    @device(forceinline=True)
    def window_row(k, dy, indices, y, plane, p, q, P, Q, first, W, gradients, winners, sums):
        i = window_rows - 1 - k
        number = int32(p + i)
        row = uint32(uint32(plane * uint32(P) + uint32(min(max(number, int32(0)), int32(P - 1)))) * uint32(Q))
        read_all(0, q, Q, row, uint32(number) < uint32(P), dy, indices, y, gradients, winners)
        add_all(0, i, first, W, gradients, winners, sums)

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

    @device(forceinline=True)
    def strip(dy, indices, y, dx, grid, sizes):
        H, W, P, Q = sizes
        i = uint32(cuda.grid(1))
        if i >= grid[0]:
            return
        sums, gradients = cuda.local.array(pixels, float32), cuda.local.array(columns_over, float32)
        winners = cuda.local.array(columns_over, int32)
        plane, p, q = place(i, grid, T)
        h, w = int32(p * stride_h), int32(q * stride_w)
        first = int32(h * W + w)
        clear_all(0, sums)
        every_row(0, dy, indices, y, plane, int32(p + first_p), int32(q + first_q), P, Q, first, W, gradients, winners, sums)
        write_all(0, dx, uint32(plane * uint32(H * W) + uint32(first)), h, w, H, W, sums)

    @kernel
    def max_pool2d_strips_grad(dy, indices, dx, grid, sizes):
        strip(dy, indices, dy, dx, grid, sizes)

    @kernel
    def max_pool2d_strips_relu_grad(dy, indices, y, dx, grid, sizes):
        strip(dy, indices, y, dx, grid, sizes)

    return max_pool2d_strips_relu_grad if masked else max_pool2d_strips_grad


def forward(x: Array, y: Array, indices: Array, window: Window, planes: int, stream: Stream) -> None:
    """`pool.max_pool2d` on flat arrays of so many planes; the window must fit."""
    length, count, grid = grid_of(*window.output, planes, _LENGTH)
    run_each(forward_kernel(window.kernel, window.stride, length), count, stream, x, y, indices, grid, with_padding(window))


def gradient(dy: Array, indices: Array, y: Array | None, dx: Array, window: Window, planes: int, stream: Stream) -> None:
    """`pool.max_pool2d_grad` on flat arrays of so many planes; y has the pooled values if ReLU's gradient is included. The window must
    fit."""
    (H, W), (stride_h, stride_w) = window.input, window.stride
    most = max(1, min(_LENGTH, _PIXELS // (stride_h * stride_w)))
    length, count, grid = grid_of(-(-H // stride_h), -(-W // stride_w), planes, most)
    before = window.padding[0][0], window.padding[1][0]
    pairs = stride_w == 2 and W % 2 == 0 and aligned(dx)
    kernel = gradient_kernel(window.kernel, window.stride, before, length, y is not None, pairs)
    arrays = (dy, indices) if y is None else (dy, indices, y)
    run_each(kernel, count, stream, *arrays, dx, grid, sides(window))

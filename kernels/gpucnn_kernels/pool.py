"""Max pooling the plain way: one thread for each number of the result.

x, dx (N, C, H, W); y, dy and indices (N, C, P, Q), indices int32, flat in the H·W plane of the input.

Forward, a thread looks at the R × S pixels of its window in row-major order. Backward, a thread belongs to a pixel and asks every window
that may have read it, whether it is the winner: a pixel h is read by tap r of window p where p·stride − top + r·dilation = h. Windows
overlap where the stride is less than the kernel, so several windows may add to a pixel, always in the order of the taps: without atomics,
and bit-identical every time.

Nearly every network pools 2 × 2 without overlap or padding, and pool_2x2.py does that. For large images and windows of up to 5 × 5,
pool_strips.py has threads that do several windows each. Both give the same results, bit by bit.

A branch of a network may write to its part of all branches' channels, and read its part of their gradient: images that lie apart. The
general kernels have a twin for that, which adds the gap between images to an address.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import functools
import math

import numpy as np

from gpucnn_kernels import pool_2x2, pool_strips
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import divide, magic, split
from gpucnn_kernels.core.launch import Array, Stream, Window, floats, geometry, images, ints, run_each


@device(forceinline=True)
def largest(x, plane, p, q, window):
    """The largest pixel of window (p, q), and its index in the plane. `window`: its `geometry`."""
    H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, _, _ = window
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
                    # The first pixel always wins. Later a larger one does, or NaN over a number: `not <=` is true for both.
                    if place < 0 or (not (value <= best) and best == best):
                        best = value
                        place = int32(h * W + w)
    return best, place


@kernel
def max_pool2d_kernel(x, y, indices, window):
    i = uint32(cuda.grid(1))
    if i >= y.size:
        return
    rest, q = split(i, window[11])
    plane, p = split(rest, window[10])
    y[i], indices[i] = largest(x, plane, p, q, window)


@kernel
def max_pool2d_part_kernel(x, y, indices, window, image_by, image_shift, skipped):
    """y's images lie `skipped` elements apart."""
    i = uint32(cuda.grid(1))
    if i >= indices.size:
        return
    rest, q = split(i, window[11])
    plane, p = split(rest, window[10])
    best, place = largest(x, plane, p, q, window)
    y[uint32(i + divide(i, image_by, image_shift) * skipped)] = best
    indices[i] = place


@device(forceinline=True)
def windows_over(place, taps, stride, stride_by, stride_shift, dilation, count):
    """The first and the last window along an axis that may reach the pixel at `place`, counted from the beginning of the padding. With a
    dilation, some of the windows between them do not."""
    last = int32(min(int32(divide(uint32(place), stride_by, stride_shift)), int32(count - int32(1))))
    before = int32(place - int32(taps - int32(1)) * dilation)  # where the first of these windows begins, or later
    first = int32(divide(uint32(before + stride - int32(1)), stride_by, stride_shift)) if before > int32(0) else int32(0)
    return first, last


@device(forceinline=True)
def place_of(i, window, by):
    """(plane, row, column) of pixel i. `by`: the `divisors` of the window."""
    rest = divide(i, by[2], by[3])
    w = int32(i - rest * uint32(window[1]))
    plane = divide(rest, by[0], by[1])
    return plane, int32(rest - plane * uint32(window[0])), w


@device(forceinline=True)
def handed_down(dy, apart, indices, y, pixel, window, masked, by):
    """The sum of the gradients of the windows that a pixel, (plane, row, column), has won. The plane's gradients lie `apart` elements
    behind their windows."""
    plane, h, w = pixel
    _, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q = window
    place = int32(h * W + w)
    first_p, last_p = windows_over(int32(h + top), R, stride_h, by[4], by[5], dilation_h, P)
    first_q, last_q = windows_over(int32(w + left), S, stride_w, by[6], by[7], dilation_w, Q)
    total = float32(0)
    # A window further on reads the pixel by an earlier tap: so the sum is in the order of the taps.
    for p in range(last_p, int32(first_p - 1), int32(-1)):
        if dilation_h > 1 and int32(h + top - p * stride_h) % dilation_h != 0:
            continue  # it passes over the pixel
        row = uint32(uint32(plane * uint32(P) + uint32(p)) * uint32(Q))
        for q in range(last_q, int32(first_q - 1), int32(-1)):
            if dilation_w > 1 and int32(w + left - q * stride_w) % dilation_w != 0:
                continue
            at = uint32(row + uint32(q))
            if indices[at] == place and (not masked or y[at] > float32(0)):
                total += dy[uint32(at + apart)]
    return total


@kernel
def max_pool2d_grad_kernel(dy, indices, y, dx, window, masked, by):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        dx[i] = handed_down(dy, uint32(0), indices, y, place_of(i, window, by), window, masked, by)


@kernel
def max_pool2d_part_grad_kernel(dy, indices, y, dx, window, masked, by, c_by, c_shift, skipped):
    """dy's images lie `skipped` elements apart."""
    i = uint32(cuda.grid(1))
    if i < dx.size:
        pixel = place_of(i, window, by)
        apart = uint32(divide(pixel[0], c_by, c_shift) * skipped)
        dx[i] = handed_down(dy, apart, indices, y, pixel, window, masked, by)


def max_pool2d(x: Array, y: Array, indices: Array, window: Window, stream: Stream = 0) -> None:
    """Writes the largest pixel of each window to y and its index in the H·W plane to indices. Images of y may lie apart, and those of dy
    below.

    The first of equals wins; NaN wins over numbers, and the first NaN over later ones. Padding never wins.
    """
    n, c = x.shape[:2]
    image = c * window.output[0] * window.output[1]
    count, (target, step) = n * image, images(y, "y", (n, c, *window.output))
    arrays = floats(x, "x", (n, c, *window.input)), target, ints(indices, "indices", (n, c, *window.output))
    if step:
        run_each(max_pool2d_part_kernel, count, stream, *arrays, geometry(window), *magic(image), np.uint32(step - image))
    elif pool_2x2.fits(window):
        run_each(pool_2x2.forward(pool_2x2.pairs_of(x, window)), count, stream, *arrays, pool_2x2.sizes(window))
    elif pool_strips.suits(window, n * c):
        pool_strips.forward(*arrays, window, n * c, stream)
    else:
        run_each(max_pool2d_kernel, count, stream, *arrays, geometry(window))


def max_pool2d_grad(dy: Array, indices: Array, dx: Array, window: Window, stream: Stream = 0, *, relu: Array | None = None) -> None:
    """Writes each window's gradient to the pixel of dx that won it, summed where a pixel won several windows.

    relu: y, if x is ReLU's output; then dx is the gradient of ReLU's input. A window whose maximum is not positive passes no gradient on:
    the maximum is the pixel itself, so y determines ReLU's gradient, with a quarter as many numbers as x for windows of 2 × 2.
    """
    n, c = dy.shape[:2]
    gradients, step = images(dy, "dy", (n, c, *window.output))
    given = gradients, ints(indices, "indices", (n, c, *window.output))
    target, mask = floats(dx, "dx", (n, c, *window.input)), None if relu is None else floats(relu, "relu", (n, c, *window.output))
    if pool_2x2.fits(window) and not step:
        arrays = (*given, target) if mask is None else (*given, mask, target)
        count = n * c * window.output[0] * window.output[1]
        run_each(pool_2x2.gradient(pool_2x2.pairs_of(dx, window), mask is not None), count, stream, *arrays, pool_2x2.sizes(window))
    elif not step and pool_strips.suits(window, n * c):
        pool_strips.gradient(*given, mask, target, window, n * c, stream)
    else:
        arrays = *given, given[0] if mask is None else mask, target  # never read without a mask: keeps one signature
        count = n * c * window.input[0] * window.input[1]
        sizes = geometry(window), np.int32(mask is not None), divisors(window)
        if step:
            skipped = np.uint32(step - c * window.output[0] * window.output[1])
            run_each(max_pool2d_part_grad_kernel, count, stream, *arrays, *sizes, *magic(c), skipped)
        else:
            run_each(max_pool2d_grad_kernel, count, stream, *arrays, *sizes)


@functools.lru_cache(maxsize=256)
def divisors(window: Window) -> tuple[np.uint32, ...]:
    """The divisors in `max_pool2d_grad_kernel`: the magic of H, W and the strides."""
    return tuple(number for size in (*window.input, *window.stride) for number in magic(size))

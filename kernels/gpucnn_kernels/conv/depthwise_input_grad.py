"""The gradient of a depthwise convolution with respect to its input: depthwise.py says how its kernels work.

A thread owns strips of pixels and goes down the rows of dy that have read them. With stride 2, every second row has been read by other taps
than the one before. So a thread's first pixel is always one that tap 0 can fall on, a thread owns as many columns as the stride, and the
pairs of taps and pixels are known when the kernel is compiled. In a group of several channels it owns the same pixels of up to four.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn_kernels.conv.depthwise import fits_group, fits_problem, group_of
from gpucnn_kernels.conv.strips import Strip, bounds, groups_along, input_strip_of, row_reader, skipped
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond, divide, magic
from gpucnn_kernels.core.launch import Array, Stream, Window, floats, geometry, images, run_each
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.variant import Variant, made_for_it


@functools.cache
def input_grad_kernel(strip: Strip, masked: bool) -> Any:
    """The kernel of `conv2d_input_grad`: (dy, weight, relu, dx, sizes, skipped, m), with `sizes` from `_sizes` and `skipped` elements
    between the images of dy. `masked`: dx is 0 where relu is not positive."""
    (R, S), (stride_h, stride_w), (dilation_h, dilation_w), T = strip.kernel, strip.stride, strip.dilation, strip.length
    F, summed, taps = strip.filters, strip.summed, R * S
    own_taps, own = F * taps, F * T * stride_h * stride_w
    # Pixel row t of a strip is read by tap r of row (t − r·dilation) / stride of dy, counted from the one whose tap 0 it starts at.
    above, beyond_left = (R - 1) * dilation_h // stride_h, (S - 1) * dilation_w // stride_w
    rows, columns = above + T, beyond_left + 1
    read = row_reader(columns, 1)

    @device(forceinline=True)
    def pixel(t, i, gradients, weights, sums):
        """Adds the products of row i of dy to row t of the strip."""
        tap = t - (i - above) * stride_h
        if tap >= 0 and tap % dilation_h == 0 and tap // dilation_h < R:
            for column in range(stride_w):
                for s in range(S):
                    offset = column - s * dilation_w
                    if offset % stride_w == 0:
                        gradient = gradients[offset // stride_w + beyond_left]
                        for f in range(F):
                            sums[(t * stride_w + column) * F + f] += weights[f * taps + tap // dilation_h * S + s] * gradient

    pixels = unrolled(pixel, T * stride_h)

    @device(forceinline=True)
    def row(i, dy, base, first_p, first_q, P, Q, gradients, weights, sums):
        read(dy, base, int32(first_p + i), first_q, P, Q, gradients)
        pixels(0, i, gradients, weights, sums)

    @device(forceinline=True)
    def clear(i, sums):
        sums[i] = float32(0)

    @device(forceinline=True)
    def load(i, weight, first, weights):
        weights[i] = weight[beyond(first, i)]

    @device(forceinline=True)
    def write(i, dx, relu, at, place, sizes, sums):
        f, t, column = i // (T * stride_h * stride_w), i // stride_w % (T * stride_h), i % stride_w
        H, W = sizes
        h = int32(place[0] + t)
        w = int32(place[1] + column)
        if uint32(h) < uint32(H) and uint32(w) < uint32(W):
            pixel_at = uint32(at + (f * H + t) * W + column)
            value = sums[(t * stride_w + column) * F + f]
            if masked and not relu[pixel_at] > float32(0):
                value = float32(0)
            dx[pixel_at] = value

    all_rows, clear_all, load_all, write_all = unrolled(row, rows), unrolled(clear, own), unrolled(load, own_taps), unrolled(write, own)

    @kernel(role="product", **bounds(strip))
    def conv2d_depthwise_input_gradient(dy, weight, relu, dx, sizes, skipped, m):
        count, C, H, W, top, left, P, Q, c_magic, c_shift, g_magic, g_shift, s_magic, s_shift, groups, strips, of_group = sizes
        i = uint32(cuda.grid(1))
        if i >= count:
            return
        weights = cuda.local.array(own_taps, float32)
        gradients = cuda.local.array(columns, float32)
        sums = cuda.local.array(own, float32)
        rest = divide(i, g_magic, g_shift)
        group = int32(i - rest * groups)
        plane = divide(rest, s_magic, s_shift)  # n·C + c; with several channels of a thread, its F-th part
        strip_number = int32(rest - plane * strips)
        n = divide(plane, c_magic, c_shift)
        c = uint32(plane - n * C)
        clear_all(0, sums)
        # Row p0 of dy is the first whose tap 0 falls on the strip; the padding before the image may hold some.
        first_p = int32(strip_number * int32(T) + top // int32(stride_h))
        first_q = int32(group + left // int32(stride_w))
        part = uint32(0)  # of the group's channels
        if summed:
            group_plane = uint32(plane // of_group)
            part = uint32(plane - group_plane * of_group)
            c = uint32(c // of_group)
            plane_of_dy = group_plane
        else:
            plane_of_dy = plane
        j = uint32(0)
        while True:
            k = uint32(c * m + j)
            first = uint32(uint32(uint32(k * of_group) + part) * uint32(own_taps)) if summed else uint32(k * uint32(taps))
            load_all(0, weight, first, weights)
            base = int32(uint32(plane_of_dy * m + j) * uint32(P * Q) + n * skipped)
            all_rows(0, dy, base, int32(first_p - above), int32(first_q - beyond_left), P, Q, gradients, weights, sums)
            j = uint32(j + uint32(1))
            if j >= m:
                break
        first_h = int32(first_p * int32(stride_h) - top)
        first_w = int32(first_q * int32(stride_w) - left)
        at = int32(int32(plane * uint32(F) * uint32(H * W)) + first_h * W + first_w)
        write_all(0, dx, relu, at, (first_h, first_w), (H, W), sums)

    return conv2d_depthwise_input_gradient


def conv2d_input_grad(
    dy: Array,
    weight: Array,
    dx: Array,
    window: Window,
    groups: int | None = None,
    stream: Stream = 0,
    *,
    relu: Array | None = None,
    workspace: Array | None = None,
) -> None:
    """Writes the gradient of `conv2d` with respect to x to dx (N, C, H, W).

    relu: x, if a ReLU produced it. Then dx includes ReLU's gradient: it is 0 where x is not positive.
    """
    (n, k), c = dy.shape[:2], dx.shape[1]
    group = group_of(c, k, window, groups)
    strip = input_strip_of(window, group)
    assert strip is not None  # it fits
    sizes = _sizes(n, c, group[0], window, strip)
    flat_dy, step = images(dy, "dy", (n, k, *window.output))
    run_each(
        input_grad_kernel(strip, relu is not None),
        int(sizes[0]),
        stream,
        flat_dy,
        floats(weight, "weight", (k, group[0], *window.kernel)),
        flat_dy if relu is None else floats(relu, "relu", (n, c, *window.input)),  # never read without it
        floats(dx, "dx", (n, c, *window.input)),
        sizes,
        skipped(step, k, window),
        np.uint32(group[1]),
    )


@functools.lru_cache(maxsize=256)
def _sizes(n: int, c: int, group: int, window: Window, strip: Strip) -> tuple[Any, ...]:
    """The sizes of a launch over n images of c channels, `group` of them in each group."""
    height, width, *_, top, left, _, _, P, Q = geometry(window)
    strips, groups, threads = -(-groups_along(window, 0) // strip.length), groups_along(window, 1), c // strip.filters
    sizes = np.uint32(n * threads * strips * groups), np.uint32(threads), height, width, top, left, P, Q
    own = np.uint32(groups), np.uint32(strips), np.uint32(group // strip.filters)
    return *sizes, *magic(threads), *magic(groups), *magic(strips), *own


INPUT_GRAD = Variant("depthwise", conv2d_input_grad, fits_problem, weigh=made_for_it, parts=True)
GROUPED = Variant("grouped", conv2d_input_grad, fits_group, weigh=made_for_it, parts=True)

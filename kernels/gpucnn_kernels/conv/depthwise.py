"""Depthwise convolution: each channel is convolved separately, with m filters of its own (nearly always m = 1).

x (N, C, H, W), weight (K = m·C, 1, R, S), bias (K), y and dy (N, K, P, Q); filter k reads channel k // m.

There is no sum over channels, so 9 multiplications a pixel for 3 × 3 taps, and it is memory-bound: 64 images of 32 × 112 ×
112 are 103 MB read and 103 MB written, 62 µs on an H100, and 232 million FMAs, 7 µs. So each pixel must come from memory only once, and
there must be few instructions. A thread computes a strip, some 8 results of a column, one below the other. It walks down the rows of
pixels that the strip reads; as soon as a row's S pixels have arrived, they are used for every result that needs them and can then be
dropped. For 3 × 3 taps that is 30 pixels read for 8 results instead of 72. Neighbouring threads have neighbouring columns, so that what
they both read is in the multiprocessor's cache; from memory come the rows of the strip and the two below it, which the next strip wants as
well: 10 rows for 8, of which the second-level cache has most. With m filters to a channel, the image is read m times, from that cache.

All three operations work this way. For the gradient of the input a thread owns strips of pixels and goes down the rows of dy that have read
them. With stride 2 every second row has been read by other taps than the one before; so a thread's first pixel is always one that tap 0 can
fall on, a thread owns as many columns as the stride, and the pairs of taps and pixels are known when the kernel is compiled. The gradient
of the weight is in depthwise_grad.py.

A kernel is compiled for its taps, stride, dilation and length of strips; the sizes of the images are arguments. Padding is multiplied like
any zero, so that a weight that is infinite or NaN makes NaN of it.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn_kernels.conv.strips import MOST_TAPS, Strip, groups_along, input_strip_of, row_reader, skipped, strip_of
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond, divide, magic
from gpucnn_kernels.core.launch import Array, Stream, Window, floats, geometry, images, run_each
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.variant import Variant, made_for_it


@functools.cache
def forward_kernel(strip: Strip, apart: bool = False) -> Any:
    """The kernel of `conv2d`: (x, weight, bias, y, count, K, H, W, top, left, P, Q, *magic(K), *magic(Q), *magic(strips),
    *magic(m), strips, skipped, has_bias, relu), `count` strips in all; `skipped` elements between the images of y where
    they lie `apart`, which takes registers."""
    (R, S), (stride_h, stride_w), (dilation_h, dilation_w), T = strip.kernel, strip.stride, strip.dilation, strip.length
    read = row_reader(S, dilation_w)
    taps, rows = R * S, (T - 1) * stride_h + (R - 1) * dilation_h + 1

    @device(forceinline=True)
    def result(t, i, pixels, weights, sums):
        """What row i adds to result t."""
        tap = i - t * stride_h
        if tap >= 0 and tap % dilation_h == 0 and tap // dilation_h < R:
            for s in range(S):
                sums[t] += weights[tap // dilation_h * S + s] * pixels[s]

    results = unrolled(result, T)

    @device(forceinline=True)
    def row(i, x, base, first_h, first_w, H, W, pixels, weights, sums):
        read(x, base, int32(first_h + i), first_w, H, W, pixels)
        results(0, i, pixels, weights, sums)

    all_rows = unrolled(row, rows)

    @kernel
    def conv2d_depthwise_forward(
        x,
        weight,
        bias,
        y,
        count,
        K,
        H,
        W,
        top,
        left,
        P,
        Q,
        k_magic,
        k_shift,
        q_magic,
        q_shift,
        s_magic,
        s_shift,
        m_magic,
        m_shift,
        strips,
        skipped,
        has_bias,
        relu,
    ):
        i = uint32(cuda.grid(1))
        if i >= count:
            return
        weights = cuda.local.array(taps, float32)
        pixels = cuda.local.array(S, float32)
        sums = cuda.local.array(T, float32)
        rest = divide(i, q_magic, q_shift)
        q = uint32(i - rest * Q)
        plane = divide(rest, s_magic, s_shift)  # n·K + k, and n·C + k // m is its m-th part
        p = uint32(uint32(rest - plane * strips) * uint32(T))
        n = divide(plane, k_magic, k_shift)
        k = uint32(plane - n * K)
        for tap in range(taps):
            weights[tap] = weight[beyond(uint32(k * uint32(taps)), tap)]
        first = bias[k] if has_bias else float32(0)
        for t in range(T):
            sums[t] = first
        base = int32(divide(plane, m_magic, m_shift) * uint32(H * W))
        first_h = int32(int32(p) * int32(stride_h) - top)
        first_w = int32(int32(q) * int32(stride_w) - left)
        all_rows(0, x, base, first_h, first_w, H, W, pixels, weights, sums)
        at = uint32((plane * P + p) * Q + q)
        if apart:
            at = uint32(at + n * skipped)
        for t in range(T):
            if uint32(p + uint32(t)) < P:
                value = sums[t]
                if relu and value <= float32(0):  # NaN stays NaN
                    value = float32(0)
                y[uint32(at + uint32(t) * Q)] = value

    return conv2d_depthwise_forward


@functools.cache
def input_grad_kernel(strip: Strip, masked: bool) -> Any:
    """The kernel of `conv2d_depthwise_input_grad`: (dy, weight, relu, dx, count, C, H, W, top, left, P, Q, *magic(C), *magic(groups),
    *magic(strips), groups, strips, skipped, m). `masked`: dx is 0 where relu is not positive. `groups` of columns; `count` strips in all;
    `skipped` elements between the images of dy."""
    (R, S), (stride_h, stride_w), (dilation_h, dilation_w), T = strip.kernel, strip.stride, strip.dilation, strip.length
    taps, own = R * S, T * stride_h * stride_w
    # Pixel row t of a strip is read by tap r of row (t − r·dilation) / stride of dy, counted from the one whose tap 0 it starts at.
    above, beyond_left = (R - 1) * dilation_h // stride_h, (S - 1) * dilation_w // stride_w
    rows, columns = above + T, beyond_left + 1
    read = row_reader(columns, 1)

    @device(forceinline=True)
    def pixel(t, i, gradients, weights, sums):
        """What row i of dy adds to row t of the strip."""
        tap = t - (i - above) * stride_h
        if tap >= 0 and tap % dilation_h == 0 and tap // dilation_h < R:
            for column in range(stride_w):
                for s in range(S):
                    offset = column - s * dilation_w
                    if offset % stride_w == 0:
                        gradient = gradients[offset // stride_w + beyond_left]
                        sums[t * stride_w + column] += weights[tap // dilation_h * S + s] * gradient

    pixels = unrolled(pixel, T * stride_h)

    @device(forceinline=True)
    def row(i, dy, base, first_p, first_q, P, Q, gradients, weights, sums):
        read(dy, base, int32(first_p + i), first_q, P, Q, gradients)
        pixels(0, i, gradients, weights, sums)

    all_rows = unrolled(row, rows)

    @kernel
    def conv2d_depthwise_input_gradient(
        dy,
        weight,
        relu,
        dx,
        count,
        C,
        H,
        W,
        top,
        left,
        P,
        Q,
        c_magic,
        c_shift,
        g_magic,
        g_shift,
        s_magic,
        s_shift,
        groups,
        strips,
        skipped,
        m,
    ):
        i = uint32(cuda.grid(1))
        if i >= count:
            return
        weights = cuda.local.array(taps, float32)
        gradients = cuda.local.array(columns, float32)
        sums = cuda.local.array(own, float32)
        rest = divide(i, g_magic, g_shift)
        group = int32(i - rest * groups)
        plane = divide(rest, s_magic, s_shift)  # n·C + c
        strip_number = int32(rest - plane * strips)
        n = divide(plane, c_magic, c_shift)
        c = uint32(plane - n * C)
        for j in range(own):
            sums[j] = float32(0)
        # Row p0 of dy is the first whose tap 0 falls on the strip; the padding before the image may hold some.
        first_p = int32(strip_number * int32(T) + top // int32(stride_h))
        first_q = int32(group + left // int32(stride_w))
        j = uint32(0)
        while True:
            k = uint32(c * m + j)
            for tap in range(taps):
                weights[tap] = weight[beyond(uint32(k * uint32(taps)), tap)]
            base = int32(uint32(plane * m + j) * uint32(P * Q) + n * skipped)
            all_rows(0, dy, base, int32(first_p - above), int32(first_q - beyond_left), P, Q, gradients, weights, sums)
            j = uint32(j + uint32(1))
            if j >= m:
                break
        first_h = int32(first_p * int32(stride_h) - top)
        first_w = int32(first_q * int32(stride_w) - left)
        at = int32(int32(plane * uint32(H * W)) + first_h * W + first_w)
        for t in range(T * stride_h):
            for column in range(stride_w):
                h = int32(first_h + t)
                w = int32(first_w + column)
                if uint32(h) < uint32(H) and uint32(w) < uint32(W):
                    pixel_at = uint32(at + t * W + column)
                    value = sums[t * stride_w + column]
                    if masked and not relu[pixel_at] > float32(0):
                        value = float32(0)
                    dx[pixel_at] = value

    return conv2d_depthwise_input_gradient


def fits(channels: int, filters: int, window: Window) -> bool:
    """Whether there are strips for a convolution of as many groups as channels, for all three operations."""
    return filters % channels == 0 and strip_of(window) is not None and input_strip_of(window) is not None


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    window: Window,
    groups: int | None = None,
    relu: bool = False,
    stream: Stream = 0,
    *,
    workspace: Array | None = None,
) -> None:
    """Writes the convolution of x (N, C, H, W) with weight (K = m·C, 1, R, S), in C groups, to y (N, K, P, Q), plus bias (K) unless it is
    None, then ReLU where `relu`. ValueError for what does not fit (see `fits`)."""
    (n, c), k = x.shape[:2], weight.shape[0]
    m, strip = multiplier(c, k, window, groups), strip_of(window)
    assert strip is not None  # it fits
    height, width, *_, top, left, _, _, _, _ = geometry(window)
    strips = -(-window.output[0] // strip.length)
    count = n * k * strips * window.output[1]
    target, step = images(y, "y", (n, k, *window.output))
    run_each(
        forward_kernel(strip, step > 0),
        count,
        stream,
        floats(x, "x", (n, c, *window.input)),
        floats(weight, "weight", (k, 1, *window.kernel)),
        floats(weight, "weight") if bias is None else floats(bias, "bias", (k,)),  # never read without a bias
        target,
        np.uint32(count),
        np.uint32(k),
        height,
        width,
        top,
        left,
        *(np.uint32(size) for size in window.output),
        *magic(k),
        *magic(window.output[1]),
        *magic(strips),
        *magic(m),
        np.uint32(strips),
        skipped(step, k, window),
        np.int32(bias is not None),
        np.int32(relu),
    )


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
    m, strip = multiplier(c, k, window, groups), input_strip_of(window)
    assert strip is not None  # it fits
    height, width, *_, top, left, _, _, p, q = geometry(window)
    strips, groups = -(-groups_along(window, 0) // strip.length), groups_along(window, 1)
    count = n * c * strips * groups
    flat_dy, step = images(dy, "dy", (n, k, *window.output))
    run_each(
        input_grad_kernel(strip, relu is not None),
        count,
        stream,
        flat_dy,
        floats(weight, "weight", (k, 1, *window.kernel)),
        flat_dy if relu is None else floats(relu, "relu", (n, c, *window.input)),  # never read without it
        floats(dx, "dx", (n, c, *window.input)),
        np.uint32(count),
        np.uint32(c),
        height,
        width,
        top,
        left,
        p,
        q,
        *magic(c),
        *magic(groups),
        *magic(strips),
        np.uint32(groups),
        np.uint32(strips),
        skipped(step, k, window),
        np.uint32(m),
    )


def multiplier(channels: int, filters: int, window: Window, groups: int | None = None) -> int:
    """Filters of a channel. ValueError for what does not fit, and for other groups than channels, where any are given."""
    if groups not in (None, channels):
        raise ValueError(f"the depthwise convolution has as many groups as channels, given {groups} groups and {channels} channels")
    if not fits(channels, filters, window):
        raise ValueError(
            f"the depthwise convolution needs equally many filters for each channel, and at most {MOST_TAPS} taps; given {channels} "
            f"channels, {filters} filters, a kernel of {window.kernel}, stride {window.stride} and dilation {window.dilation}"
        )
    return filters // channels


def fits_problem(problem: Problem, chip: Chip) -> bool:
    return problem.groups == problem.c > 1 and fits(problem.c, problem.k, problem.windowed)


FORWARD = Variant("depthwise", conv2d, fits_problem, weigh=made_for_it, parts=True)
INPUT_GRAD = Variant("depthwise", conv2d_input_grad, fits_problem, weigh=made_for_it, parts=True)

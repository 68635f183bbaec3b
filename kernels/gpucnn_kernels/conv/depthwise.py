"""Depthwise convolution: each channel is convolved separately, with m filters of its own (nearly always m = 1). And convolution in groups
of few channels, which are too small for a matrix product.

x (N, C, H, W), weight (K = m·C, 1, R, S), bias (K), y and dy (N, K, P, Q); filter k reads channel k // m.

There is no sum over channels, so 9 multiplications a pixel for 3 × 3 taps, and it is memory-bound: 64 images of 32 × 112 ×
112 are 103 MB read and 103 MB written, 62 µs on an H100, and 232 million FMAs, 7 µs. So each pixel must come from memory only once, and
there must be few instructions. A thread computes a strip, some 8 results of a column, one below the other. It walks down the rows of
pixels that the strip reads; as soon as a row's S pixels have arrived, they are used for every result that needs them and can then be
dropped. For 3 × 3 taps that is 30 pixels read for 8 results instead of 72. Neighbouring threads have neighbouring columns, so that what
they both read is in the multiprocessor's cache; from memory come the rows of the strip and the two below it, which the next strip wants as
well: 10 rows for 8, of which the second-level cache has most. With m filters to a channel, the image is read m times, from that cache.

In a group of few channels, such as ResNeXt's of 4, a thread computes the strips of up to four filters of the group, and walks down one
channel after the other. A pixel is then read once for up to four filters, and there are 36 FMAs for 3 pixels and 3 × 3 taps.

All three operations work this way: the gradients are in depthwise_input_grad.py and depthwise_grad.py.

A kernel is compiled for its taps, stride, dilation and length of strips; the sizes of the images are arguments. Padding is multiplied like
any zero, so that a weight that is infinite or NaN makes NaN of it.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn_kernels.conv.strips import MOST_TAPS, Strip, bounds, input_strip_of, row_reader, skipped, strip_of
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond, divide, magic
from gpucnn_kernels.core.launch import Array, Pair, Stream, Window, floats, geometry, images, run_each
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.variant import Variant, made_for_it

MOST_CHANNELS = 16  # of a group, and filters: with more, products of matrices are faster


@functools.cache
def forward_kernel(strip: Strip, apart: bool = False) -> Any:
    """The kernel of `conv2d`: (x, weight, bias, y, sizes, skipped, has_bias, relu), with `sizes` from `_sizes`. There are `skipped`
    elements between the images of y if they lie `apart`, which takes registers."""
    (R, S), (stride_h, stride_w), (dilation_h, dilation_w), T = strip.kernel, strip.stride, strip.dilation, strip.length
    read, F, summed = row_reader(S, dilation_w), strip.filters, strip.summed
    taps, rows, own_taps, own = R * S, (T - 1) * stride_h + (R - 1) * dilation_h + 1, F * R * S, F * T

    @device(forceinline=True)
    def result(t, i, pixels, weights, sums):
        """Adds the products of row i to result t."""
        tap = i - t * stride_h
        if tap >= 0 and tap % dilation_h == 0 and tap // dilation_h < R:
            for s in range(S):
                for f in range(F):
                    sums[t * F + f] += weights[f * taps + tap // dilation_h * S + s] * pixels[s]

    results = unrolled(result, T)

    @device(forceinline=True)
    def row(i, x, base, first_h, first_w, H, W, pixels, weights, sums):
        read(x, base, int32(first_h + i), first_w, H, W, pixels)
        results(0, i, pixels, weights, sums)

    @device(forceinline=True)
    def begin(i, bias, k, has_bias, sums):
        sums[i] = bias[uint32(k + uint32(i % F))] if has_bias else float32(0)

    @device(forceinline=True)
    def load(i, weight, first, step, weights):
        """Weight i of a channel; from a filter to the next it is `step` elements."""
        weights[i] = weight[beyond(uint32(first + uint32(i // taps) * step), i % taps)]

    @device(forceinline=True)
    def write(i, y, at, p, P, Q, relu, sums):
        f, t = i // T, i % T
        if uint32(p + uint32(t)) < P:
            value = sums[t * F + f]
            if relu and value <= float32(0):  # NaN stays NaN
                value = float32(0)
            y[uint32(at + uint32(uint32(f) * P + uint32(t)) * Q)] = value

    all_rows, begin_all, load_all, write_all = unrolled(row, rows), unrolled(begin, own), unrolled(load, own_taps), unrolled(write, own)

    @kernel(role="product", **bounds(strip))
    def conv2d_depthwise_forward(x, weight, bias, y, sizes, skipped, has_bias, relu):
        count, K, H, W, top, left, P, Q, k_magic, k_shift, q_magic, q_shift, s_magic, s_shift, m_magic, m_shift, strips, channels = sizes
        i = uint32(cuda.grid(1))
        if i >= count:
            return
        weights = cuda.local.array(own_taps, float32)
        pixels = cuda.local.array(S, float32)
        sums = cuda.local.array(own, float32)
        rest = divide(i, q_magic, q_shift)
        q = uint32(i - rest * Q)
        plane = divide(rest, s_magic, s_shift)  # n·K + k, and n·C + k // m is its m-th part; K and m in threads' filters
        p = uint32(uint32(rest - plane * strips) * uint32(T))
        n = divide(plane, k_magic, k_shift)
        k = uint32(uint32(plane - n * K) * uint32(F))
        begin_all(0, bias, k, has_bias, sums)
        first_h = int32(int32(p) * int32(stride_h) - top)
        first_w = int32(int32(q) * int32(stride_w) - left)
        if summed:
            base = int32(divide(plane, m_magic, m_shift) * channels * uint32(H * W))
            c = uint32(0)
            while c < channels:
                load_all(0, weight, uint32(uint32(k * channels + c) * uint32(taps)), uint32(channels * uint32(taps)), weights)
                all_rows(0, x, base, first_h, first_w, H, W, pixels, weights, sums)
                base = int32(base + int32(H * W))
                c = uint32(c + uint32(1))
        else:
            load_all(0, weight, uint32(k * uint32(taps)), uint32(0), weights)
            base = int32(divide(plane, m_magic, m_shift) * uint32(H * W))
            all_rows(0, x, base, first_h, first_w, H, W, pixels, weights, sums)
        at = uint32((plane * uint32(F) * P + p) * Q + q)
        if apart:
            at = uint32(at + n * skipped)
        write_all(0, y, at, p, P, Q, relu, sums)

    return conv2d_depthwise_forward


def fits(channels: int, filters: int, window: Window, groups: int | None = None) -> bool:
    """Whether there are strips for a convolution in as many groups as channels, or in `groups` of few channels and filters each, for all
    three operations."""
    groups = groups or channels
    if channels % groups or filters % groups:
        return False
    group = channels // groups, filters // groups
    small = group[0] == 1 or (groups > 1 and max(group) <= MOST_CHANNELS)
    return small and strip_of(window, group) is not None and input_strip_of(window, group) is not None


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
    """Writes the convolution of x (N, C, H, W) with weight (K, C/groups, R, S), in C groups or so many, to y (N, K, P, Q), plus bias (K)
    unless it is None, then ReLU where `relu`. ValueError for what does not fit (see `fits`)."""
    (n, c), k = x.shape[:2], weight.shape[0]
    group = group_of(c, k, window, groups)
    strip = strip_of(window, group)
    assert strip is not None  # it fits
    sizes = _sizes(n, k, group, window, strip)
    target, step = images(y, "y", (n, k, *window.output))
    run_each(
        forward_kernel(strip, step > 0),
        int(sizes[0]),
        stream,
        floats(x, "x", (n, c, *window.input)),
        floats(weight, "weight", (k, group[0], *window.kernel)),
        floats(weight, "weight") if bias is None else floats(bias, "bias", (k,)),  # never read without a bias
        target,
        sizes,
        skipped(step, k, window),
        np.int32(bias is not None),
        np.int32(relu),
    )


@functools.lru_cache(maxsize=256)
def _sizes(n: int, k: int, group: Pair, window: Window, strip: Strip) -> tuple[Any, ...]:
    """The sizes of a launch over n images and k filters, in groups of so many channels and filters."""
    height, width, *_, top, left, _, _, _, _ = geometry(window)
    strips, (P, Q), (channels, filters), threads = -(-window.output[0] // strip.length), window.output, group, k // strip.filters
    sizes = np.uint32(n * threads * strips * Q), np.uint32(threads), height, width, top, left, np.uint32(P), np.uint32(Q)
    own = *magic(filters // strip.filters), np.uint32(strips), np.uint32(channels)
    return *sizes, *magic(threads), *magic(Q), *magic(strips), *own


def group_of(channels: int, filters: int, window: Window, groups: int | None = None) -> Pair:
    """Channels and filters of a group. ValueError for what does not fit."""
    groups = groups or channels
    if groups != channels and (groups == 1 or channels > groups * MOST_CHANNELS):
        raise ValueError(
            f"the depthwise convolution has groups of up to {MOST_CHANNELS} channels, or as many groups as channels, given {groups} groups "
            f"and {channels} channels"
        )
    if not fits(channels, filters, window, groups):
        raise ValueError(
            f"the depthwise convolution needs equally many filters for each group, up to {MOST_CHANNELS} where it has several channels, "
            f"and at most {MOST_TAPS} taps; given {channels} channels, {filters} filters, {groups} groups, a kernel of {window.kernel}, "
            f"stride {window.stride} and dilation {window.dilation}"
        )
    return channels // groups, filters // groups


def fits_problem(problem: Problem, chip: Chip) -> bool:
    return problem.groups == problem.c > 1 and fits(problem.c, problem.k, problem.windowed)


def fits_group(problem: Problem, chip: Chip) -> bool:
    return 1 < problem.groups < problem.c and fits(problem.c, problem.k, problem.windowed, problem.groups)


FORWARD = Variant("depthwise", conv2d, fits_problem, weigh=made_for_it, parts=True)
GROUPED = Variant("grouped", conv2d, fits_group, weigh=made_for_it, parts=True)

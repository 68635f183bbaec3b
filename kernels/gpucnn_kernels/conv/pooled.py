"""The first block of most networks in one kernel: convolution of few channels, bias, ReLU and 2 × 2 max pooling.

As two kernels, the convolution writes its result, N·K·P·Q numbers, and the pooling reads it: for 128 images of 28 × 28 and 32 filters
12.8 MB each way, of which a quarter is kept, and as many indices. This kernel writes only what is kept, and moves 6.4 MB instead of
32 MB.

The convolution is that of direct.py. A thread's position is a pooling window: it computes the 2 × 2 outputs of the convolution for F = 8
filters, 32 sums in registers, takes the largest of each four and writes it with its index in the convolution's P × Q plane.
Per tap it reads F weights, four at a time, and 4 pixels, for 32 FMAs. The taps of the four outputs overlap: 5 × 5 taps read 36 different
pixels 100 times, and since all taps are unrolled the compiler may keep a pixel in its register until its last use.

The last row or column of an odd plane belongs to no window, and is not computed.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gpucnn_kernels.conv import direct
from gpucnn_kernels.conv.direct_plan import MOST_CHANNELS, MOST_TAPS, Plan, plan_of
from gpucnn_kernels.conv.patch import bounds_of
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.launch import Array, Stream, Window, floats, images, ints, run
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.variant import Variant, made_for_it


@functools.cache
def fused_kernel(plan: Plan, apart: bool = False) -> Any:
    """The kernel: (x, weight, bias, y, indices, sizes, has_bias), with `sizes` from `sizes_of`. The images of y may lie `apart`."""
    fill, accumulate = direct.fill_and_accumulate(plan)
    F, threads, stretch = plan.filters, plan.threads, plan.stretch
    across, pitch, room, results, bands = plan.patch.across, plan.patch.pitch, plan.shared, plan.filters * 4, plan.bands

    @device(forceinline=True)
    def write(f, y, indices, sums, place, limits, Q):
        at, before, corner = place
        first_filter, K, outputs = limits
        best = sums[f]
        if best <= float32(0):  # ReLU; NaN stays NaN
            best = float32(0)
        winner = corner
        for o in range(1, 4):
            value = sums[o * F + f]
            if value <= float32(0):
                value = float32(0)
            # The rule of max_pool2d: the first of equals, NaN over numbers and the first NaN over later ones.
            if not (value <= best) and best == best:
                best = value
                winner = uint32(corner + uint32(o // 2) * Q + uint32(o % 2))
        if uint32(first_filter + uint32(f)) < K:
            own = uint32(at + uint32(f) * outputs)
            if apart:
                y[uint32(own + before)] = best
            else:
                y[own] = best
            indices[own] = int32(winner)

    write_all = unrolled(write, F)

    # The address of y where images lie apart would cost a kernel of many taps one of its blocks: 64 registers are enough for it too.
    many = plan.patch.channels * math.prod(plan.patch.kernel) > 16

    @kernel(role="product", launch_bounds=(threads, min(8, 1024 // threads)) if apart and many else threads)
    def conv2d_relu_max_pool(x, weight, bias, y, indices, sizes, has_bias):
        K, bounds, Q, outputs, stretches, skipped, width, places = sizes
        tile = cuda.shared.array(room, float32, alignment=16)  # load_4 reads the weights there
        sums = cuda.local.array(results, float32)
        part = cuda.local.array(F, float32)
        bases = cuda.local.array(1, uint32)
        number = uint32(cuda.blockIdx.x)
        first = uint32(uint32(number % stretches) * uint32(stretch))
        number = uint32(number // stretches)
        first_column = uint32(uint32(number % uint32(bands)) * uint32(across))
        number = uint32(number // uint32(bands))
        filter_blocks = uint32((K + uint32(F - 1)) // uint32(F))
        first_filter = uint32(uint32(number % filter_blocks) * uint32(F))
        n = uint32(number // filter_blocks)
        first_row = uint32(first // uint32(across))
        thread = uint32(cuda.threadIdx.x)
        fill(tile, x, weight, bias, (n, first_filter, (first_row, first_column)), uint32(0), K, bounds, has_bias, thread)
        cuda.syncthreads()

        position = uint32(first + thread)
        if position >= places:
            return
        row = uint32(position // uint32(across))
        column = uint32(position - row * uint32(across))
        bases[0] = uint32(uint32(row - first_row) * uint32(pitch) + column)
        if bands > 1:
            column = uint32(column + first_column)
            if column >= width:
                return
            position = uint32(row * width + column)
        accumulate(tile, bases, part, uint32(0), sums)
        corner = uint32(uint32(row * uint32(2)) * Q + column * uint32(2))  # in the convolution's plane
        at = uint32((n * K + first_filter) * outputs + position)
        write_all(0, y, indices, sums, (at, uint32(n * skipped), corner), (first_filter, K, outputs), Q)

    return conv2d_relu_max_pool


@functools.cache
def fits(channels: int, window: Window, pool_window: Window, groups: int = 1) -> bool:
    """Whether `conv2d_relu_max_pool2d` can do a convolution over images of so many channels and the pooling after it."""
    taps = window.kernel[0] * window.kernel[1]
    return (
        groups == 1
        and 1 <= channels <= MOST_CHANNELS
        and taps <= MOST_TAPS
        and pool_window.input == window.output
        and pool_window.kernel == pool_window.stride == (2, 2)
        and pool_window.dilation == (1, 1)
        and pool_window.padding == ((0, 0), (0, 0))
        and pool_window.output == (window.output[0] // 2, window.output[1] // 2)  # more with ceil_mode
        and all(plan_of(channels, filters, window, side=2) is not None for filters in (1, 8))
    )


def conv2d_relu_max_pool2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    indices: Array,
    window: Window,
    pool_window: Window,
    groups: int = 1,
    stream: Stream = 0,
    *,
    plan: Plan | None = None,
) -> None:
    """Writes the 2 × 2 maxima of relu(convolution of x (N, C ≤ 4, H, W) with weight (K, C, R, S), plus bias (K) unless it is None) to y
    (N, K, P // 2, Q // 2), and their indices in the convolution's P·Q plane to indices (int32).

    Both are those of `direct.conv2d` with relu and then `max_pool2d`. ValueError for what does not fit (see `fits`). `plan` is for tests.
    """
    (n, c), k = x.shape[:2], weight.shape[0]
    if not fits(c, window, pool_window, groups):
        raise ValueError(
            f"the fused kernel is for one group of up to {MOST_CHANNELS} channels, and 2 × 2 pooling without padding; given "
            f"{c} channels, groups {groups}, a kernel of {window.kernel}, images of {window.input}, and pooling {pool_window.kernel} with "
            f"stride {pool_window.stride}, padding {pool_window.padding} of {pool_window.input}"
        )
    if plan is None:
        plan = plan_of(c, k, window, side=2)
        assert plan is not None  # it fits
    target, step = images(y, "y", (n, k, *pool_window.output))
    run(
        fused_kernel(plan, step > 0),
        n * plan.blocks(k, pool_window.output[0]),
        plan.threads,
        stream,
        floats(x, "x", (n, c, *window.input)),
        floats(weight, "weight", (k, c, *window.kernel)),
        floats(weight, "weight") if bias is None else floats(bias, "bias", (k,)),  # never read without a bias
        target,
        ints(indices, "indices", (n, k, *pool_window.output)),
        _sizes(k, window, pool_window, plan, step),
        np.int32(bias is not None),
    )


@functools.lru_cache(maxsize=256)
def sizes_of(k: int, window: Window, pool_window: Window, stretch: int, step: int) -> tuple[Any, ...]:
    """The filters, the bounds of an image, the width of the convolution's plane, the positions of the pooling, its stretches, and the
    elements that are skipped between two images of the result where they begin `step` apart, 0 where that is 0."""
    outputs = pool_window.output[0] * pool_window.output[1]
    of_plane = np.uint32(window.output[1]), np.uint32(outputs), np.uint32(-(-outputs // stretch))
    return np.uint32(k), bounds_of(window), *of_plane, np.uint32(step - k * outputs if step else 0)


@functools.lru_cache(maxsize=256)
def _sizes(k: int, window: Window, pool_window: Window, plan: Plan, step: int) -> tuple[Any, ...]:
    """`sizes_of`, with the stretches of a band; the width of the pooled plane, and the positions of a band."""
    places = plan.places(pool_window.output[0])
    filters, bounds, Q, outputs, _, skipped = sizes_of(k, window, pool_window, plan.stretch, step)
    return filters, bounds, Q, outputs, np.uint32(-(-places // plan.stretch)), skipped, np.uint32(pool_window.output[1]), np.uint32(places)


def _fits(problem: Problem, chip: Chip) -> bool:
    return fits(problem.c, problem.windowed, problem.pooled, problem.groups)


APART = Variant("plain", None)
"""A convolution, and then a pooling."""
FORWARD = Variant("direct", conv2d_relu_max_pool2d, _fits, weigh=made_for_it, parts=True)

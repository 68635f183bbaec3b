"""Convolution of images of few channels, the first layer of every network: C ≤ 4, one group.

A matrix product is efficient for long sums; here a sum has C·R·S terms, 25 for a grey image and 5 × 5 filters, and unfolding the image
would write 25 numbers for each one read. So the sum is computed directly, and the goal is to read each number as seldom as possible.

A block of threads takes a stretch of neighbouring positions of one image, or of a band of its columns, and F filters. It copies the
pixels that the stretch reads (the patch, zeros where there is padding) and the filters to shared memory, memory beside the arithmetic
units that all its threads can read. Then each thread computes F filters × G positions in registers: per tap it reads F weights, four at
a time, and G pixels, and does F·G FMAs with them (an FMA is a multiplication and an addition). For 16 × 2 or 8 × 4 those are 32 FMAs for
6 reads; a multiprocessor does 4 FMAs in the time of a read, so the reads are not the bottleneck. For 128 images of 28 × 28 and 32 filters
of 5 × 5 that is 80 million FMAs, and 12.8 MB of results to write: on an H100 2.4 µs of arithmetic and 4 µs of memory. Neighbouring
threads write neighbouring numbers, across the ends of rows as well.

patch.py describes the layout of the pixels in shared memory, direct_plan.py how the work is divided; the gradient of the weight is in
direct_grad.py.

Except for image height and batch size, everything that index arithmetic needs is a constant of the compiled kernel, so that the offset of
each tap is part of the load instruction. Each shape is compiled once, at its first launch.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn_kernels.conv.direct_plan import MOST_CHANNELS, MOST_TAPS, Plan, plan_of
from gpucnn_kernels.conv.patch import BANKS, bounds_of, patch_loader
from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.launch import Array, Stream, Window, floats, images, run
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.variant import Variant, made_for_it
from gpucnn_kernels.core.vector import load_4


@functools.cache
def fill_and_accumulate(plan: Plan) -> tuple[Any, Any]:
    """Two device functions: `fill` copies patch, weights and biases to shared memory, and needs a barrier behind it; `accumulate` works
    out a thread's sums, in the first turn from the biases.

    sums[((g·side + a)·side + b)·F + f] is filter f at output (a, b) of the thread's position g, bias included.
    """
    patch, threads, F, G = plan.patch, plan.threads, plan.filters, plan.positions
    (R, S), (stride_h, stride_w), (dilation_h, dilation_w) = patch.kernel, patch.stride, patch.dilation
    (step_h, step_w), side, channels = patch.step, patch.side, patch.channels
    pitch, plane, channel = patch.pitch, patch.plane, patch.channel
    taps, weight_pitch, start, per_channel = plan.taps, plan.weight_pitch, plan.start, R * S
    load, turns = patch_loader(patch, threads, start), plan.turns

    @device(lines=False, forceinline=True)
    def fill(tile, x, weight, bias, place, turn, K, bounds, has_bias, thread):
        """place: the image, the block's first filter, the row and the column of positions that its patch begins at."""
        n, first_filter, first_position = place
        e = thread
        while e < uint32(F * taps):  # neighbouring threads read neighbouring weights
            tap = uint32(e % uint32(taps))
            f = uint32(e // uint32(taps))
            value = float32(0)
            if uint32(first_filter + f) < K:
                value = weight[uint32((first_filter + f) * uint32(taps * turns) + turn * uint32(taps) + tap)]
            tile[uint32(tap * uint32(weight_pitch) + f)] = value
            e = uint32(e + uint32(threads))
        e = thread
        while e < uint32(F):
            value = float32(0)
            if has_bias and uint32(first_filter + e) < K:
                value = bias[uint32(first_filter + e)]
            tile[uint32(uint32(taps * weight_pitch) + e)] = value
            e = uint32(e + uint32(threads))
        load(tile, x, uint32(n * uint32(turns) + turn), first_position, bounds, thread)

    @device(forceinline=True)
    def output(o, i, tile, bases, pixels_at, part, sums):
        """Adds tap i to output o of the thread: one read, F FMAs."""
        row = o // side % side * stride_h + i // S * dilation_h
        column = o % side * stride_w + i % S * dilation_w
        phase = row % step_h * step_w + column % step_w
        at = uint32(bases[o // (side * side)] + pixels_at)
        pixel = tile[beyond(at, phase * plane + row // step_h * pitch + column // step_w)]
        for f in range(F):
            sums[o * F + f] += part[f] * pixel

    all_outputs = unrolled(output, G * side * side)

    @device(forceinline=True)
    def tap(i, tile, bases, weights_at, pixels_at, part, sums):
        """Tap i of a channel: F/4 + G·side² reads, F·G·side² FMAs."""
        for f in range(0, F, 4):
            part[f], part[f + 1], part[f + 2], part[f + 3] = load_4(tile, beyond(weights_at, i * weight_pitch + f))
        all_outputs(0, i, tile, bases, pixels_at, part, sums)

    all_taps = unrolled(tap, per_channel)

    @device(forceinline=True)
    def begin(o, tile, sums):
        for f in range(F):
            sums[o * F + f] = tile[taps * weight_pitch + f]

    begin_all = unrolled(begin, G * side * side)

    @device(forceinline=True)
    def accumulate(tile, bases, part, turn, sums):
        if turn == uint32(0):
            begin_all(0, tile, sums)
        for c in range(channels):
            all_taps(0, tile, bases, uint32(c * (per_channel * weight_pitch)), uint32(start + c * channel), part, sums)

    return fill, accumulate


@functools.cache
def forward_kernel(plan: Plan) -> Any:
    """The kernel of `conv2d`: (x, weight, bias, y, sizes, has_bias, relu), with `sizes` from `sizes_of`."""
    fill, accumulate = fill_and_accumulate(plan)
    F, G, threads, stretch = plan.filters, plan.positions, plan.threads, plan.stretch
    across, pitch, room, results = plan.patch.across, plan.patch.pitch, plan.shared, plan.filters * plan.positions
    lanes, bands, turns = min(BANKS, threads), plan.bands, plan.turns

    @device(forceinline=True)
    def write(f, y, at, own_positions, sums, limits, relu):
        first_filter, K, outputs = limits
        if uint32(first_filter + uint32(f)) < K:
            for g in range(G):
                if own_positions[g] < outputs:
                    value = sums[g * F + f]
                    if relu and value <= float32(0):  # NaN stays NaN
                        value = float32(0)
                    y[uint32(at + uint32(f) * outputs + own_positions[g])] = value

    write_all = unrolled(write, F)

    @kernel(role="product", launch_bounds=threads)
    def conv2d_direct_forward(x, weight, bias, y, sizes, has_bias, relu):
        K, bounds, outputs, stretches, image, Q, places = sizes
        tile = cuda.shared.array(room, float32, alignment=16)  # load_4 reads the weights there
        sums = cuda.local.array(results, float32)
        part = cuda.local.array(F, float32)
        bases = cuda.local.array(G, uint32)
        own_positions = cuda.local.array(G, uint32)
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
        place = n, first_filter, (first_row, first_column)
        if turns == 1:
            fill(tile, x, weight, bias, place, uint32(0), K, bounds, has_bias, thread)
            cuda.syncthreads()

        # A warp's positions are neighbours, so that a warp that has none can leave, if no barrier is to come.
        own = uint32(first + uint32(thread // uint32(lanes)) * uint32(lanes * G) + uint32(thread % uint32(lanes)))
        if turns == 1 and own >= places:
            return
        for g in range(G):
            own_positions[g] = uint32(own + uint32(g * lanes))
            position = uint32(min(own_positions[g], uint32(places - uint32(1))))  # computed on an existing pixel, and not written
            row = uint32(position // uint32(across))
            column = uint32(position - row * uint32(across))
            bases[g] = uint32(uint32(row - first_row) * uint32(pitch) + column)
            if bands > 1:
                column = uint32(column + first_column)
                own_positions[g] = uint32(row * Q + column) if own_positions[g] == position and column < Q else outputs
        if turns == 1:
            accumulate(tile, bases, part, uint32(0), sums)
        else:
            for turn in range(turns):
                fill(tile, x, weight, bias, place, uint32(turn), K, bounds, has_bias, thread)
                cuda.syncthreads()
                accumulate(tile, bases, part, uint32(turn), sums)
                cuda.syncthreads()  # before the next patch is written
        write_all(0, y, uint32(n * image + first_filter * outputs), own_positions, sums, (first_filter, K, outputs), relu)

    return conv2d_direct_forward


@functools.cache
def fits(channels: int, window: Window, groups: int = 1) -> bool:
    """Whether there are plans for images of so many channels."""
    return (
        groups == 1
        and 1 <= channels <= MOST_CHANNELS
        and window.kernel[0] * window.kernel[1] <= MOST_TAPS
        and all(plan_of(channels, filters, window) is not None for filters in (1, 8))  # few filters and many: different plans
    )


@functools.lru_cache(maxsize=256)
def _sizes(k: int, window: Window, plan: Plan, step: int) -> tuple[Any, ...]:
    """`sizes_of`, the width of the plane, and the positions of a band."""
    places = plan.places(window.output[0])
    return *sizes_of(k, window, places, plan.stretch, step), np.uint32(window.output[1]), np.uint32(places)


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    window: Window,
    groups: int = 1,
    relu: bool = False,
    stream: Stream = 0,
    *,
    workspace: Array | None = None,
    plan: Plan | None = None,
) -> None:
    """Writes the convolution of x (N, C ≤ 4, H, W) with weight (K, C, R, S) to y (N, K, P, Q), plus bias (K) unless it is None, then
    ReLU where `relu`.

    ValueError for what does not fit (see `fits`). `plan` is for tests: that of `plan_of` is right.
    """
    (n, c), k = x.shape[:2], weight.shape[0]
    if plan is None:
        plan = checked(plan_of(c, k, window), c, window, groups)
    target, step = images(y, "y", (n, k, *window.output))
    run(
        forward_kernel(plan),
        n * plan.blocks(k, window.output[0]),
        plan.threads,
        stream,
        floats(x, "x", (n, c, *window.input)),
        floats(weight, "weight", (k, c, *window.kernel)),
        floats(weight, "weight") if bias is None else floats(bias, "bias", (k,)),  # never read without a bias
        target,
        _sizes(k, window, plan, step),
        np.int32(bias is not None),
        np.int32(relu),
    )


@functools.lru_cache(maxsize=256)
def sizes_of(k: int, window: Window, places: int, stretch: int, step: int) -> tuple[Any, ...]:
    """The filters, the bounds of an image, the positions of a plane, the stretches of a band of `places` positions, and the elements from
    an image of y to the next, `step` unless that is 0."""
    outputs = window.output[0] * window.output[1]
    return np.uint32(k), bounds_of(window), np.uint32(outputs), np.uint32(-(-places // stretch)), np.uint32(step or k * outputs)


def checked(plan: Any, channels: int, window: Window, groups: int = 1) -> Any:
    if groups != 1:
        raise ValueError(f"the direct convolution is for one group, given {groups}")
    if plan is None or channels > MOST_CHANNELS or window.kernel[0] * window.kernel[1] > MOST_TAPS:
        raise ValueError(
            f"the direct convolution is for up to {MOST_CHANNELS} channels and {MOST_TAPS} taps, and patches of 48 KB; given {channels} "
            f"channels, a kernel of {window.kernel} and images of {window.input}"
        )
    return plan


def fits_problem(problem: Problem, chip: Chip) -> bool:
    return fits(problem.c, problem.windowed, problem.groups)


FORWARD = Variant("direct", conv2d, fits_problem, weigh=made_for_it, parts=True)

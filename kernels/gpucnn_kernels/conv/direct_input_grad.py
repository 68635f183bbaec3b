"""The gradient of direct.py's convolution, of images of few channels, with respect to its input.

As a matrix product it has one to four columns, as many as there are channels, and tiles would be mostly padding. So the sum is computed
directly. There are few pixels and many filters, so many threads share a pixel.

A block takes a band of an image. It copies the numbers of dy that have read the band, of some filters at a time, to shared memory, with
zeros where there are none. A thread has a tile of pixels and a share of the filters. It keeps the tile's sums and a filter's weights in
registers, and reads each number of dy once for all the taps that used it: for 5 × 5 taps and 7 × 2 pixels 66 reads for 350 FMAs. At the
end, the sums of all shares are added up, in the order of the shares, so two runs are bit-identical.

Tap r of row p of dy has read row h = p·stride − top + r·dilation. A tile begins at a multiple of the stride, counted with the padding,
h + top. So row d of its numbers and row i of its pixels have a tap in common where d·stride = i − r·dilation. That is the same for all
tiles, and known when the kernel is compiled.

Neighbouring threads have neighbouring tiles, `step` columns of dy apart. In shared memory, which has 32 banks (patch.py), columns are
sorted by phase, so that those are neighbouring words. The next filter begins where a row of tiles ends, modulo 32. So no bank is accessed
twice at a time, even where the threads of a warp have different tiles and different shares.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn_kernels.conv.direct_input_plan import BATCH, Plan, plan_of
from gpucnn_kernels.conv.direct_plan import MOST_CHANNELS, MOST_TAPS
from gpucnn_kernels.conv.plain import weight_shape
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.launch import Array, Stream, Window, floats, images, run
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.variant import Variant, made_for_it


@functools.cache
def _kernel(plan: Plan) -> Any:
    """The kernel of `conv2d_input_grad`: (dy, weight, mask, dx, K, image, masked), `image` the elements from an image of dy to the next."""
    window, channels, own_channels, shares, staged = plan.window, plan.channels, plan.own, plan.shares, plan.filters
    (H, W), (R, S), (P, Q) = window.input, window.kernel, window.output
    (stride_h, stride_w), (dilation_h, dilation_w) = window.stride, window.dilation
    top, left = window.padding[0][0], window.padding[1][0]
    (rows, columns), (step_h, step_w) = plan.tile, plan.step
    (first_h, first_w), (seen_h, seen_w) = plan.first, plan.seen
    across, width, pitch, plane, threads = plan.across, plan.columns, plan.pitch, plan.plane, plan.threads
    sums_of_thread, sum_pitch, room, per_share, working = plan.sums, plan.sum_pitch, plan.shared, plan.threads_per_share, plan.working
    blocks_h, blocks_w = plan.blocks
    turns, own_taps, pixels = staged // shares, own_channels * R * S, P * Q
    places, span = seen_h * width, across * columns
    batch = max(count for count in range(1, BATCH + 1) if staged % count == 0)
    before_h, before_w = top % stride_h, left % stride_w  # of a tile's first row and column, outside the image

    @device(forceinline=True)
    def read(i, dy, at, first, K, values):
        if uint32(first + uint32(i)) < K:
            values[i] = dy[beyond(at, i * pixels)]

    @device(forceinline=True)
    def read_unchecked(i, dy, at, values):
        values[i] = dy[beyond(at, i * pixels)]

    @device(forceinline=True)
    def put(i, tile, word, values):
        tile[beyond(word, i * plane)] = values[i]

    @device(forceinline=True)
    def clear(i, values):
        values[i] = float32(0)

    read_all, read_all_unchecked, put_all, clear_all = (unrolled(each, batch) for each in (read, read_unchecked, put, clear))

    @device(forceinline=True)
    def load(first_place, tile, dy, base, first_p, first_q, first, K, thread):
        """Numbers of `staged` filters at one place."""
        values = cuda.local.array(batch, float32)
        place = uint32(thread + uint32(first_place * threads))
        row = uint32(place // uint32(width))
        column = uint32(place - row * uint32(width))
        p = int32(first_p + int32(row))
        q = int32(first_q + int32(column))
        inside = uint32(p) < uint32(P) and uint32(q) < uint32(Q)
        if place < uint32(places):
            at = uint32(base + uint32(p * int32(Q) + q))
            word = uint32((row * uint32(step_w) + column % uint32(step_w)) * uint32(pitch) + column // uint32(step_w))
            for f in range(0, staged, batch):
                clear_all(0, values)
                if inside:
                    if uint32(first + uint32(f + batch)) <= K:
                        read_all_unchecked(0, dy, at, values)
                    else:
                        read_all(0, dy, at, uint32(first + uint32(f)), K, values)
                put_all(0, tile, word, values)
                at = uint32(at + uint32(batch * pixels))
                word = uint32(word + uint32(batch * plane))

    load_all = unrolled(load, -(-places // threads))

    @device(forceinline=True)
    def number(o, tile, at, weights, sums):
        """Number o of dy that a thread's tile needs: one read, and an FMA for each tap that has read one of its pixels."""
        d, e = o // seen_w, o % seen_w
        gradient = tile[beyond(at, (d * step_w + e % step_w) * pitch + e // step_w)]
        for r in range(R):
            i = (d + first_h) * stride_h + r * dilation_h
            if i >= 0 and i < rows:
                for s in range(S):
                    j = (e + first_w) * stride_w + s * dilation_w
                    if j >= 0 and j < columns:
                        for c in range(own_channels):
                            sums[(c * rows + i) * columns + j] += weights[(c * R + r) * S + s] * gradient

    all_numbers = unrolled(number, seen_h * seen_w)

    @kernel(role="product", launch_bounds=threads)
    def conv2d_direct_input_grad(dy, weight, mask, dx, K, image, masked):
        tile = cuda.shared.array(room, float32)
        sums = cuda.local.array(sums_of_thread, float32)
        weights = cuda.local.array(own_taps, float32)
        thread = uint32(cuda.threadIdx.x)
        block = uint32(cuda.blockIdx.x)
        rest = uint32(block // uint32(blocks_w))
        piece = uint32(block - rest * uint32(blocks_w))
        n = uint32(rest // uint32(blocks_h))
        band = uint32(rest - n * uint32(blocks_h))
        first_p = int32(int32(band * uint32(step_h)) + int32(top // stride_h + first_h))
        first_q = int32(int32(piece * uint32(across * step_w)) + int32(left // stride_w + first_w))

        share = uint32(thread // uint32(per_share))
        rest = uint32(thread - share * uint32(per_share))
        group = uint32(rest // uint32(across))
        own = uint32(rest - group * uint32(across))
        for v in range(sums_of_thread):
            sums[v] = float32(0)
        first = uint32(0)
        while True:
            load_all(0, tile, dy, uint32(n * image + first * uint32(pixels)), first_p, first_q, first, K, thread)
            cuda.syncthreads()
            if thread < uint32(working):
                for turn in range(turns):
                    f = uint32(uint32(turn * shares) + share)
                    k = uint32(first + f)
                    if k < K:
                        weights_at = uint32((k * uint32(channels) + group * uint32(own_channels)) * uint32(R * S))
                        for tap in range(own_taps):
                            weights[tap] = weight[beyond(weights_at, tap)]
                        all_numbers(0, tile, uint32(f * uint32(plane) + own), weights, sums)
            cuda.syncthreads()
            first = uint32(first + uint32(staged))
            if first >= K:
                break

        if thread < uint32(working):
            for v in range(sums_of_thread):
                tile[beyond(thread, v * sum_pitch)] = sums[v]
        cuda.syncthreads()
        e = thread
        while e < uint32(channels * rows * span):
            rest = uint32(e // uint32(span))
            x = uint32(e - rest * uint32(span))
            c = uint32(rest // uint32(rows))
            i = uint32(rest - c * uint32(rows))
            h = int32(int32(band * uint32(rows) + i) - int32(before_h))
            w = int32(int32(piece * uint32(span) + x) - int32(before_w))
            if uint32(h) < uint32(H) and uint32(w) < uint32(W):
                group = uint32(c // uint32(own_channels))
                own = uint32(x // uint32(columns))
                v = uint32(((c - group * uint32(own_channels)) * uint32(rows) + i) * uint32(columns) + (x - own * uint32(columns)))
                at = uint32(v * uint32(sum_pitch) + group * uint32(across) + own)
                total = float32(0)
                for share in range(shares):
                    total += tile[beyond(at, share * per_share)]
                pixel = uint32(((n * uint32(channels) + c) * uint32(H) + uint32(h)) * uint32(W) + uint32(w))
                if masked and not mask[pixel] > float32(0):
                    total = float32(0)
                dx[pixel] = total
            e = uint32(e + uint32(threads))

    return conv2d_direct_input_grad


def conv2d_input_grad(
    dy: Array,
    weight: Array,
    dx: Array,
    window: Window,
    groups: int = 1,
    stream: Stream = 0,
    *,
    relu: Array | None = None,
    workspace: Array | None = None,
    plan: Plan | None = None,
) -> None:
    """Writes the gradient of `direct.conv2d` with respect to x to dx (N, C ≤ 4, H, W). `relu`: x, where it is ReLU's output; then dx is the
    gradient of ReLU's input, 0 where x is not positive.

    ValueError for what does not fit (see `fits`). `plan` is for tests: that of `plan_of` is right.
    """
    (n, k), c = dy.shape[:2], weight.shape[1] * groups
    if plan is None:
        plan = _checked(plan_of(c, k, window), c, window, groups)
    gradients, step = images(dy, "dy", (n, k, *window.output))
    down, across = plan.blocks
    run(
        _kernel(plan),
        n * down * across,
        plan.threads,
        stream,
        gradients,
        floats(weight, "weight", weight_shape(k, c, window, groups)),
        gradients if relu is None else floats(relu, "relu", (n, c, *window.input)),  # never read without: keeps one signature
        floats(dx, "dx", (n, c, *window.input)),
        np.uint32(k),
        np.uint32(step or k * window.output[0] * window.output[1]),
        np.int32(relu is not None),
    )


def _checked(plan: Plan | None, channels: int, window: Window, groups: int) -> Plan:
    if groups != 1:
        raise ValueError(f"the direct gradient of the input is for one group, given {groups}")
    if plan is None:
        raise ValueError(
            f"the direct gradient of the input is for up to {MOST_CHANNELS} channels and {MOST_TAPS} taps, which reach over no more than a "
            f"block's shared memory; given {channels} channels, a kernel of {window.kernel} with stride {window.stride} and dilation "
            f"{window.dilation}"
        )
    return plan


def _fits(problem: Problem, chip: Chip) -> bool:
    return problem.groups == 1 and plan_of(problem.c, problem.k, problem.windowed) is not None


INPUT_GRAD = Variant("direct", conv2d_input_grad, _fits, weigh=made_for_it, parts=True)

"""The gradient of pooled.py's block, convolution of few channels, bias, ReLU and 2 × 2 max pooling, with respect to weight and bias.

The first layer passes no gradient on, so these are all that is needed; and of every four outputs of the convolution only the winner has
one. As two kernels, the pooling's gradient writes N·K·P·Q numbers, three quarters of them zeros, and the convolution's gradient reads
them. Here no array of that size exists: each pooled position n, p, q and filter k adds

    dweight[k, c, r, s] += dy[n, k, p, q] · x[n, c, h + r·dilation_h, w + s·dilation_w],    h, w: the first pixel that the winner has read

which is a quarter of the terms. For 128 images of 28 × 28 and 32 filters that saves writing and reading 12.8 MB, and a launch.

The work is divided as in direct_grad.py: a thread goes over pooled positions and keeps the sums of F = 4 filters and up to 28 taps in
registers; blocks' sums go to a workspace and are added in an order that depends on the shape alone. The difference is that each filter has
a winner of its own, one of four corners, so that a pixel is read for one FMA and not for four. A multiprocessor does 4 FMAs in the time of
a read, so that reads are the bottleneck, and they must not collide in the banks of shared memory, whichever corner won.

So there are four copies of the pixels, one for each corner: corners.py says how they lie.

The winner's index in the convolution's plane, which the forward kernel stores, tells which corner it was.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from gpucnn_kernels.conv import pooled
from gpucnn_kernels.conv.corners import Corners, corners_loader, corners_of
from gpucnn_kernels.conv.direct_plan import MOST_CHANNELS
from gpucnn_kernels.conv.parts import ADDERS, SHARES, GradPlan, block_sums, gradients, own_share, share_out, sum_parts
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.launch import Array, Pair, Stream, Window, floats, images, ints, run
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.variant import Variant, made_for_it


@functools.cache
def _grad_kernel(key: GradPlan, masked: bool, apart: bool) -> Any:
    """The kernel of the blocks' sums: (dy, indices, relu, x, workspace, sizes, units, slice_units), with `sizes` from `pooled.sizes_of`.

    `key` is a plan without what depends on the number of images; `masked`: dy counts where relu is positive. The images of dy may lie
    `apart`.
    """
    corners: Any = key.patch
    threads, F = key.threads, key.filters
    (R, S), (dilation_h, dilation_w), (step_h, step_w) = corners.kernel, corners.dilation, corners.step
    pitch, copy, words, across = corners.pitch, corners.copy, corners.row, corners.across
    group_rows, tap_groups, tap_rows, room, results = key.group_rows, key.tap_groups, key.tap_rows, key.shared, key.sums
    all_taps, group_taps = tap_rows * S, group_rows * S
    load = corners_loader(corners, threads)
    add_all_up = block_sums(threads, F, group_taps, all_taps)

    @device(forceinline=True)
    def tap_row(i, tile, bases, row_at, now, sums):
        for f in range(F):
            at = bases[f]
            down = 0
            if tap_groups == 1:  # the row is known, and all of the address but the base is a constant
                row = i % R * dilation_h
                down = row // step_h * pitch + (i // R * step_h + row % step_h) * step_w * words
            else:
                at = uint32(at + row_at[i])
            for s in range(S):
                column = s * dilation_w
                sums[(i * S + s) * F + f] += now[f] * tile[beyond(at, down + column % step_w * words + column // step_w)]

    tap_rows_of_group = unrolled(tap_row, group_rows)

    @device(forceinline=True)
    def row_words(c, row):
        phase = uint32(c * uint32(step_h) + row % uint32(step_h))
        return uint32((row // uint32(step_h)) * uint32(pitch) + phase * uint32(step_w * words))

    begin, begin_unit = own_share(key, row_words)

    @kernel(role="product", launch_bounds=threads)
    def conv2d_relu_max_pool_weight_grad_slices(dy, indices, relu, x, workspace, sizes, units, slice_units):
        K, bounds, Q, outputs, stretches, skipped = sizes
        tile = cuda.shared.array(room, float32)
        sums = cuda.local.array(results, float32)
        now = cuda.local.array(F, float32)
        bases = cuda.local.array(F, uint32)
        after = cuda.local.array(F, float32)
        positive = cuda.local.array(F, float32)
        winners = cuda.local.array(F, int32)
        row_at = cuda.local.array(group_rows, uint32)
        filter_at = cuda.local.array(F, uint32)
        thread = uint32(cuda.threadIdx.x)
        group, first_filter, own_slice = begin(K, sums, row_at)
        unit = uint32(own_slice * slice_units)
        last_unit = uint32(min(uint32(unit + slice_units), units))
        while unit < last_unit:
            n, _, first, end = begin_unit(unit, stretches, outputs, skipped, first_filter, K, filter_at)
            before = uint32(n * skipped)
            first_row = uint32(first // uint32(across))
            position = uint32(first + thread)
            safe = uint32(min(position, uint32(end - uint32(1))))
            for f in range(F):
                if apart:
                    after[f] = dy[uint32(filter_at[f] + safe + before)]
                else:
                    after[f] = dy[uint32(filter_at[f] + safe)]
                winners[f] = indices[uint32(filter_at[f] + safe)]
                if masked:
                    positive[f] = relu[uint32(filter_at[f] + safe)]
            load(tile, x, n, first_row, bounds, thread)
            cuda.syncthreads()
            while position < end:
                row = uint32(position // uint32(across))
                column = uint32(position - row * uint32(across))
                base = uint32(uint32(row - first_row) * uint32(pitch) + column)
                corner = uint32(uint32(row * uint32(2)) * Q + column * uint32(2))  # in the convolution's plane
                for f in range(F):
                    now[f] = after[f]
                    if masked and not positive[f] > float32(0):
                        now[f] = float32(0)
                    winner = uint32(uint32(winners[f]) - corner)  # 0, 1, Q or Q + 1
                    if winner >= Q:
                        winner = uint32(winner - uint32(Q - uint32(2)))  # 2 or 3
                    bases[f] = uint32(base + winner * uint32(copy))
                # The next position's numbers are loaded while this one is processed.
                position = uint32(position + uint32(threads))
                safe = uint32(min(position, uint32(end - uint32(1))))
                for f in range(F):
                    if apart:
                        after[f] = dy[uint32(filter_at[f] + safe + before)]
                    else:
                        after[f] = dy[uint32(filter_at[f] + safe)]
                    winners[f] = indices[uint32(filter_at[f] + safe)]
                    if masked:
                        positive[f] = relu[uint32(filter_at[f] + safe)]
                tap_rows_of_group(0, tile, bases, row_at, now, sums)
                for f in range(F):
                    sums[group_taps * F + f] += now[f]
            cuda.syncthreads()  # before the next patch is written
            unit = uint32(unit + uint32(1))
        first_part, first_tap = uint32(own_slice * uint32(SHARES)), uint32(group * uint32(group_taps))
        add_all_up(0, tile, thread, sums, workspace, (first_part, K, first_filter, first_tap))

    return conv2d_relu_max_pool_weight_grad_slices


def grad_plan_of(
    images: int, channels: int, filters: int, window: Window, pool_window: Window, threads: int | None = None, blocks: int = 512
) -> GradPlan | None:
    """The plan for a gradient; None where its pixels do not fit in shared memory. As `direct_plan.grad_plan_of`, with pooled positions."""

    def pixels(stretch: int, room: int) -> Corners | None:
        return corners_of(channels, window, stretch, room)

    outputs = pool_window.output[0] * pool_window.output[1]
    for count in (128, 64, 32) if threads is None else (threads,):
        plan = share_out(images, channels, filters, window.kernel, outputs, pixels, threads=count, own_filters=4, blocks=blocks)
        if plan is not None:
            return plan
    return None


@functools.cache
def fits(channels: int, window: Window, pool_window: Window, groups: int = 1) -> bool:
    """Whether `conv2d_relu_max_pool2d_weight_grad` can do the gradient of a convolution over images of so many channels and the pooling
    after it: what `pooled.fits`, and four copies of the pixels in shared memory."""
    return pooled.fits(channels, window, pool_window, groups) and grad_plan_of(1, channels, 1, window, pool_window) is not None


def workspace_size(images: int, channels: int, filters: int, window: Window, pool_window: Window) -> int:
    """The float32 elements that `conv2d_relu_max_pool2d_weight_grad` needs for its sums."""
    plan = _checked(grad_plan_of(images, channels, filters, window, pool_window), channels, window, pool_window)
    return plan.parts * filters * (plan.tap_rows * window.kernel[1] + 1)


def conv2d_relu_max_pool2d_weight_grad(
    dy: Array,
    indices: Array,
    x: Array,
    dweight: Array,
    window: Window,
    pool_window: Window,
    groups: int = 1,
    stream: Stream = 0,
    *,
    relu: Array | None = None,
    dbias: Array | None = None,
    workspace: Array | None = None,
    plan: GradPlan | None = None,
    adders: Pair = ADDERS["many parts"],
) -> None:
    """Writes the gradient of `pooled.conv2d_relu_max_pool2d` with respect to weight to dweight (K, C, R, S) and, unless None, to bias to
    dbias (K), from that of its result, dy (N, K, P // 2, Q // 2), and the indices (int32) that it gave.

    `relu` is the result itself: dy counts as 0 where it is not positive. None if dy already includes ReLU's gradient.
    `workspace` holds `workspace_size` float32 or more, and is written over. ValueError for what does not fit (see `fits`). `plan` and
    `adders`, as `direct_grad.conv2d_weight_grad` has them, are for tests.
    """
    (n, k), c = dy.shape[:2], x.shape[1]
    if plan is None:
        plan = grad_plan_of(n, c, k, window, pool_window)
    plan = _checked(plan, c, window, pool_window, groups)
    flat = gradients(dweight, dbias, workspace, (k, c, *window.kernel), plan.parts)
    results = (n, k, *pool_window.output)
    flat_dy, step = images(dy, "dy", results)
    run(
        weight_grad_kernel(plan, relu is not None, step > 0),
        plan.slices * -(-k // plan.filters) * plan.tap_groups,
        plan.threads,
        stream,
        flat_dy,
        ints(indices, "indices", results),
        flat_dy if relu is None else floats(relu, "relu", results),  # never read without it
        floats(x, "x", (n, c, *window.input)),
        flat[2],  # the workspace
        pooled.sizes_of(k, window, pool_window, plan.stretch, step),
        np.uint32(plan.units),
        np.uint32(plan.slice_units),
    )
    sum_parts(flat, k, dbias is not None, plan.parts, adders, stream)


def weight_grad_kernel(plan: GradPlan, masked: bool, apart: bool = False) -> Any:
    """The kernel of `plan`, with ReLU's gradient if `masked`: one for every number of images."""
    return _grad_kernel(dataclasses.replace(plan, units=1, slice_units=1), masked, apart)


def _checked(plan: GradPlan | None, channels: int, window: Window, pool_window: Window, groups: int = 1) -> GradPlan:
    if plan is None or not pooled.fits(channels, window, pool_window, groups):
        raise ValueError(
            f"the fused gradient is for one group of up to {MOST_CHANNELS} channels and 2 × 2 pooling without padding, and four "
            f"patches of 48 KB together; given {channels} channels, groups {groups}, a kernel of {window.kernel}, images of "
            f"{window.input}, and pooling {pool_window.kernel} with stride {pool_window.stride}, padding {pool_window.padding} of "
            f"{pool_window.input}"
        )
    return plan


def _fits(problem: Problem, chip: Chip) -> bool:
    return fits(problem.c, problem.windowed, problem.pooled, problem.groups)


def _workspace(problem: Problem, slices: int) -> int:
    return workspace_size(problem.n, problem.c, problem.k, problem.windowed, problem.pooled)


APART = Variant("plain", None)
"""The gradient of a pooling, and then that of a convolution."""
WEIGHT_GRAD = Variant("direct", conv2d_relu_max_pool2d_weight_grad, _fits, _workspace, made_for_it, parts=True)

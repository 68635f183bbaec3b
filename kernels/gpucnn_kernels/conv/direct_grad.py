"""The gradient of direct.py's convolution, of images of few channels, with respect to weight and bias.

dweight consists of few numbers, which are long sums: 800 of 100352 terms each for 128 images of 28 × 28 and 32 filters of 5 × 5. A block
takes some of the images, F = 4 filters and up to 28 taps. A thread goes over positions, holds all F × taps sums in registers, and per
position reads F numbers of dy, straight from global memory because no other thread of the block wants them, and a pixel per tap: 4 FMAs a
read. dbias is the sum of the same dy: F more additions. At the end the block adds up its threads' sums through shared memory and writes
them to a workspace; a second kernel adds up the blocks' sums. Both use an order that depends on the shape alone, so the results are
bit-identical every time.

patch.py describes the layout of the pixels in shared memory, parts.py how the sums are added up.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from gpucnn_kernels.conv import direct
from gpucnn_kernels.conv.direct import checked, sizes_of
from gpucnn_kernels.conv.direct_plan import grad_cost, grad_plan_of
from gpucnn_kernels.conv.parts import ADDERS, SHARES, GradPlan, block_sums, gradients, own_share, sum_parts
from gpucnn_kernels.conv.patch import patch_loader
from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.launch import Array, Pair, Stream, Window, floats, images, run
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.variant import Variant

_REACHED = 0.64
"""The share of an H100's FMAs that the engine's largest tile reaches, whose merit is 1."""
_MARGIN = 1.25  # it gives way to kernels that are estimated to be faster by more than this


@functools.cache
def fits(channels: int, window: Window, groups: int = 1) -> bool:
    """Whether there is a plan for images of so many channels."""
    return direct.fits(channels, window, groups) and grad_plan_of(1, channels, 1, window) is not None


@functools.cache
def _grad_kernel(key: GradPlan, apart: bool) -> Any:
    """The kernel of the blocks' sums: (dy, x, workspace, sizes, units, slice_units), with `sizes` from `direct.sizes_of`. The
    images of dy may lie `apart`: that takes registers.

    `key` is a plan without what depends on the number of images.
    """
    patch: Any = key.patch
    threads, F, S, dilation_w = key.threads, key.filters, patch.kernel[1], patch.dilation[1]
    (step_h, step_w), pitch, plane, channel, across = patch.step, patch.pitch, patch.plane, patch.channel, patch.across
    group_rows, tap_rows, room, results = key.group_rows, key.tap_rows, key.shared, key.sums
    all_taps, group_taps = tap_rows * S, group_rows * S
    bands, lanes, sharing, load = key.bands, key.lanes, key.sharing, patch_loader(patch, threads, 0)
    add_all_up = block_sums(lanes, F, group_taps, all_taps, sharing)

    @device(forceinline=True)
    def tap_row(i, tile, base, row_at, now, sums):
        at = uint32(base + row_at[i])
        for s in range(S):
            column = s * dilation_w
            pixel = tile[beyond(at, column % step_w * plane + column // step_w)]
            for f in range(F):
                sums[(i * S + s) * F + f] += now[f] * pixel

    tap_rows_of_group = unrolled(tap_row, group_rows)

    @device(forceinline=True)
    def row_words(c, row):
        phase = uint32(uint32(row % uint32(step_h)) * uint32(step_w))
        return uint32(c * uint32(channel) + phase * uint32(plane) + (row // uint32(step_h)) * uint32(pitch))

    @device(forceinline=True)
    def place(position, end, first_column):
        """The index in a plane of a position of a band; of the last one for those behind it."""
        at = uint32(min(position, uint32(end - uint32(1))))
        if bands > 1:
            at = uint32(uint32(at // uint32(across)) * uint32(across * (bands - 1)) + at + first_column)
        return at

    begin, begin_unit = own_share(key, row_words, apart)

    @kernel(role="product", launch_bounds=threads)
    def conv2d_direct_weight_grad_slices(dy, x, workspace, sizes, units, slice_units):
        K, bounds, outputs, stretches, image = sizes
        tile = cuda.shared.array(room, float32)
        sums = cuda.local.array(results, float32)
        now = cuda.local.array(F, float32)
        after = cuda.local.array(F, float32)
        row_at = cuda.local.array(group_rows, uint32)
        filter_at = cuda.local.array(F, uint32)
        thread = uint32(cuda.threadIdx.x)
        group, first_filter, own_slice = begin(K, sums, row_at)
        unit = uint32(own_slice * slice_units)
        last_unit = uint32(min(uint32(unit + slice_units), units))
        while unit < last_unit:
            n, band, first, end = begin_unit(unit, stretches, outputs, image, first_filter, K, filter_at)
            first_row, first_column = uint32(first // uint32(across)), uint32(band * uint32(across))
            position = uint32(first + (uint32(thread % uint32(lanes)) if sharing > 1 else thread))
            at = place(position, end, first_column)
            for f in range(F):
                after[f] = dy[uint32(filter_at[f] + at)]
            load(tile, x, n, (first_row, first_column), bounds, thread)
            cuda.syncthreads()
            while position < end:
                # dy of the next position is loaded while this one is processed.
                following = uint32(position + uint32(lanes))
                at = place(following, end, first_column)
                for f in range(F):
                    now[f] = after[f]
                    after[f] = dy[uint32(filter_at[f] + at)]
                row = uint32(position // uint32(across))
                base = uint32(uint32(row - first_row) * uint32(pitch) + uint32(position - row * uint32(across)))
                tap_rows_of_group(0, tile, base, row_at, now, sums)
                for f in range(F):
                    sums[group_taps * F + f] += now[f]
                position = following
            cuda.syncthreads()  # before the next patch is written
            unit = uint32(unit + uint32(1))
        first_part, first_tap = uint32(own_slice * uint32(SHARES)), uint32(group * uint32(group_taps))
        add_all_up(0, tile, thread, sums, workspace, (first_part, K, first_filter, first_tap))

    return conv2d_direct_weight_grad_slices


def workspace_size(images: int, channels: int, filters: int, window: Window) -> int:
    """The float32 elements that `conv2d_weight_grad` needs for its sums."""
    plan: GradPlan = checked(grad_plan_of(images, channels, filters, window), channels, window)
    return plan.parts * filters * (plan.tap_rows * window.kernel[1] + 1)


def conv2d_weight_grad(
    dy: Array,
    x: Array,
    dweight: Array,
    window: Window,
    groups: int = 1,
    stream: Stream = 0,
    *,
    dbias: Array | None = None,
    workspace: Array | None = None,
    slices: int = 1,
    plan: GradPlan | None = None,
    adders: Pair = ADDERS["many parts"],
) -> None:
    """Writes the gradient of `direct.conv2d` with respect to weight to dweight (K, C, R, S) and, unless None, to bias to dbias (K).

    `workspace` holds `workspace_size` float32 or more, and is written over; how the sums are cut into slices depends on the shape alone.
    ValueError for what does not fit (see `fits`). `plan` and `adders`, numbers per block of the second launch and threads per
    number, are for tests.
    """
    (n, k), c = dy.shape[:2], x.shape[1]
    if plan is None:
        plan = checked(grad_plan_of(n, c, k, window), c, window, groups)
    flat = gradients(dweight, dbias, workspace, (k, c, *window.kernel), plan.parts)
    given, step = images(dy, "dy", (n, k, *window.output))
    run(
        weight_grad_kernel(plan, step > 0),
        plan.slices * -(-k // plan.own_filters) * plan.tap_groups,
        plan.threads,
        stream,
        given,
        floats(x, "x", (n, c, *window.input)),
        flat[2],  # the workspace
        sizes_of(k, window, window.output[0] * window.output[1] // plan.bands, plan.stretch, step),
        np.uint32(plan.units),
        np.uint32(plan.slice_units),
    )
    sum_parts(flat, k, dbias is not None, plan.parts, adders, stream)


def weight_grad_kernel(plan: GradPlan, apart: bool = False) -> Any:
    """The kernel of `plan`: one for every number of images, which may lie `apart`."""
    return _grad_kernel(dataclasses.replace(plan, units=1, slice_units=1), apart)


def _workspace(problem: Problem, slices: int) -> int:
    return workspace_size(problem.n, problem.c, problem.k, problem.windowed)


def _fits(problem: Problem, chip: Chip) -> bool:
    return fits(problem.c, problem.windowed, problem.groups)


def _weigh(problem: Problem, chip: Chip) -> tuple[float, int]:
    """The merit beside that of the engine's tiles (engine/merit.py): roughly the share of FMAs for results among the instructions issued.

    Each block copies the pixels of its positions for 4 or 16 filters and up to 28 taps. For wide windows at a stride that is more work
    than the sums themselves, and there the engine is faster.
    """
    plan, outputs = grad_plan_of(problem.n, problem.c, problem.k, problem.windowed), problem.depth // problem.n
    assert plan is not None  # it fits
    fmas = outputs / plan.lanes * plan.filters * problem.N / plan.tap_groups
    use = problem.k / (-(-problem.k // plan.own_filters) * plan.own_filters)
    return use * fmas / grad_cost(plan, outputs) / _REACHED * _MARGIN, 1


WEIGHT_GRAD = Variant("direct", conv2d_weight_grad, _fits, _workspace, _weigh, parts=True)

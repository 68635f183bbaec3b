"""The gradient of the depthwise convolution with respect to weight and bias.

Threads walk down strips as in depthwise.py. A thread keeps all R·S sums, and goes over the strips of a slice of the batch; a block's sums
go to a workspace, and are added as in direct_grad.py, in an order that depends on the shape alone, so that the bits are reproducible.

In groups of several channels, a block takes up to four filters of a group, and the taps of one of its channels.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn_kernels.conv.depthwise import fits_group, fits_problem, group_of
from gpucnn_kernels.conv.parts import ADDERS, SHARES, block_sums, gradients, sum_parts
from gpucnn_kernels.conv.strips import Strip, row_reader, skipped, strip_of
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import divide, magic
from gpucnn_kernels.core.launch import THREADS, Array, Pair, Stream, Window, floats, geometry, images, run
from gpucnn_kernels.core.problem import Problem
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.variant import Variant, made_for_it


@dataclass(frozen=True, slots=True)
class GradPlan:
    """The division of work for the gradient of weight: a block takes `strip.filters` filters, a channel and `slice_units` of the filters'
    `units`, strips of all images."""

    strip: Strip
    threads: int
    strips: int  # of a column
    units: int
    slice_units: int

    @property
    def slices(self) -> int:
        return -(-self.units // self.slice_units)

    @property
    def parts(self) -> int:
        """The number of partial sums that the second kernel adds up for each result."""
        return self.slices * SHARES


def grad_plan_of(
    images: int, filters: int, window: Window, threads: int = THREADS, blocks: int = 1024, group: Pair = (1, 1)
) -> GradPlan | None:
    """The plan for a gradient of weight: about `blocks` blocks, if there is work for all their threads; None where nothing fits. group: its
    channels and filters."""
    strip = strip_of(window, group)
    if strip is None:
        return None
    strips = -(-window.output[0] // strip.length)
    units = images * strips * window.output[1]
    slices = max(1, min(blocks // (filters // strip.filters * group[0]), units // threads))
    return GradPlan(strip, threads, strips, units, max(1, -(-units // slices)))


@functools.cache
def weight_grad_kernel(strip: Strip, threads: int, channels: int = 1) -> Any:
    """The kernel of the blocks' sums: (dy, x, workspace, sizes, skipped, units, slice_units), with `sizes` from `_sizes` and `skipped`
    elements between the images of dy. channels: of a group."""
    (R, S), (stride_h, stride_w), (dilation_h, dilation_w), T = strip.kernel, strip.stride, strip.dilation, strip.length
    read, F, summed = row_reader(S, dilation_w), strip.filters, strip.summed
    taps, rows, own = R * S, (T - 1) * stride_h + (R - 1) * dilation_h + 1, F * T
    sums_of_thread, room = F * (taps + 1), threads // SHARES * (threads + SHARES)
    add_all_up = block_sums(threads, F, taps, taps * channels)

    @device(forceinline=True)
    def result(t, i, pixels, gradients, sums):
        """Adds the products of row i and result t's gradient to the sums of the taps."""
        tap = i - t * stride_h
        if tap >= 0 and tap % dilation_h == 0 and tap // dilation_h < R:
            for s in range(S):
                for f in range(F):
                    sums[(tap // dilation_h * S + s) * F + f] += gradients[t * F + f] * pixels[s]

    results = unrolled(result, T)

    @device(forceinline=True)
    def row(i, x, base, first_h, first_w, H, W, pixels, gradients, sums):
        read(x, base, int32(first_h + i), first_w, H, W, pixels)
        results(0, i, pixels, gradients, sums)

    @device(forceinline=True)
    def load(i, dy, at, p, P, Q, gradients, sums):
        f, t = i // T, i % T
        gradients[t * F + f] = float32(0)
        if uint32(p + uint32(t)) < P:
            gradients[t * F + f] = dy[uint32(at + uint32(uint32(f) * P + uint32(t)) * Q)]
        sums[taps * F + f] += gradients[t * F + f]

    all_rows, load_all = unrolled(row, rows), unrolled(load, own)

    # With four blocks of 128 threads on a multiprocessor, a thread has 128 registers. With a stride, code for Turing takes one more unless
    # launch bounds forbid it; 7 × 7 taps fit without them, and with them spill on Hopper.
    @kernel(role="product", launch_bounds=(threads, 4) if summed or stride_h * stride_w > 1 else threads)
    def conv2d_depthwise_weight_grad_slices(dy, x, workspace, sizes, skipped, units, slice_units):
        K, H, W, top, left, P, Q, q_magic, q_shift, s_magic, s_shift, m_magic, m_shift, strips = sizes
        tile = cuda.shared.array(room, float32)
        sums = cuda.local.array(sums_of_thread, float32)
        pixels = cuda.local.array(S, float32)
        gradients = cuda.local.array(own, float32)
        block = uint32(cuda.blockIdx.x)
        c = uint32(0)
        if summed:
            rest = uint32(block // uint32(channels))
            c = uint32(block - rest * uint32(channels))
            block = rest
        own_slice = uint32(block // K)
        k = uint32(block - own_slice * K)
        thread = uint32(cuda.threadIdx.x)
        for tap in range(sums_of_thread):
            sums[tap] = float32(0)
        first = uint32(own_slice * slice_units)
        last = uint32(min(uint32(first + slice_units), units))
        unit = uint32(first + thread)
        while unit < last:
            rest = divide(unit, q_magic, q_shift)
            q = uint32(unit - rest * Q)
            n = divide(rest, s_magic, s_shift)
            p = uint32(uint32(rest - n * strips) * uint32(T))
            plane = uint32(n * K + k)
            at = uint32((plane * uint32(F) * P + p) * Q + q + n * skipped)
            load_all(0, dy, at, p, P, Q, gradients, sums)
            base = int32(uint32(divide(plane, m_magic, m_shift) * uint32(channels) + c) * uint32(H * W))
            first_h = int32(int32(p) * int32(stride_h) - top)
            first_w = int32(int32(q) * int32(stride_w) - left)
            all_rows(0, x, base, first_h, first_w, H, W, pixels, gradients, sums)
            unit = uint32(unit + uint32(threads))
        place = uint32(own_slice * uint32(SHARES)), uint32(K * uint32(F)), uint32(k * uint32(F)), uint32(c * uint32(taps))
        add_all_up(0, tile, thread, sums, workspace, place)

    return conv2d_depthwise_weight_grad_slices


def workspace_size(images: int, channels: int, filters: int, window: Window, groups: int | None = None) -> int:
    """The float32 elements that `conv2d_weight_grad` needs for its sums."""
    group = group_of(channels, filters, window, groups)
    plan = grad_plan_of(images, filters, window, group=group)
    assert plan is not None  # it fits
    return plan.parts * filters * (group[0] * window.kernel[0] * window.kernel[1] + 1)


def conv2d_weight_grad(
    dy: Array,
    x: Array,
    dweight: Array,
    window: Window,
    groups: int | None = None,
    stream: Stream = 0,
    *,
    dbias: Array | None = None,
    workspace: Array | None = None,
    slices: int = 1,
    plan: GradPlan | None = None,
    adders: Pair = ADDERS["few"],
) -> None:
    """Writes the gradient of `depthwise.conv2d` with respect to weight to dweight (K, C/groups, R, S) and, unless None, to bias to dbias
    (K).

    `workspace` holds `workspace_size` float32 or more, and is written over. `plan` and `adders`, numbers per block of the second launch
    and threads per number, are for tests.
    """
    (n, k), c = dy.shape[:2], x.shape[1]
    group = group_of(c, k, window, groups)
    plan = plan or grad_plan_of(n, k, window, group=group)
    assert plan is not None  # it fits
    flat = gradients(dweight, dbias, workspace, (k, group[0], *window.kernel), plan.parts)
    flat_dy, step = images(dy, "dy", (n, k, *window.output))
    run(
        weight_grad_kernel(plan.strip, plan.threads, group[0]),
        plan.slices * (k // plan.strip.filters) * group[0],
        plan.threads,
        stream,
        flat_dy,
        floats(x, "x", (n, c, *window.input)),
        flat[2],  # the workspace
        _sizes(k // plan.strip.filters, group[1] // plan.strip.filters, window, plan.strips),
        skipped(step, k, window),
        np.uint32(plan.units),
        np.uint32(plan.slice_units),
    )
    sum_parts(flat, k, dbias is not None, plan.parts, adders, stream)


@functools.lru_cache(maxsize=256)
def _sizes(k: int, m: int, window: Window, strips: int) -> tuple[Any, ...]:
    """The sizes of a launch over k filters, or as many times those of a thread, m for each group, with `strips` in a column."""
    height, width, *_, top, left, _, _, _, _ = geometry(window)
    P, Q = window.output
    sizes = np.uint32(k), height, width, top, left, np.uint32(P), np.uint32(Q)
    return *sizes, *magic(Q), *magic(strips), *magic(m), np.uint32(strips)


def _workspace(problem: Problem, slices: int) -> int:
    return workspace_size(problem.n, problem.c, problem.k, problem.windowed, problem.groups)


WEIGHT_GRAD = Variant("depthwise", conv2d_weight_grad, fits_problem, _workspace, made_for_it, parts=True)
GROUPED = Variant("grouped", conv2d_weight_grad, fits_group, _workspace, made_for_it, parts=True)

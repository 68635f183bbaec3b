"""Convolution of images of few channels, the first layer of every network: C ≤ 4, one group.

A product of matrices wants a long sum; here it has C·R·S terms, 25 for a grey image and 5 × 5 filters, and unfolding the image would write
25 numbers for each one read. So the sum is taken as it stands, and everything turns on reading each number seldom:

forward     A block of threads takes a stretch of neighbouring positions of one image and F filters. It copies the pixels that the stretch
            reads (the patch, zeros where there is padding) and the filters to shared memory, memory beside the arithmetic units that
            all its threads can read. Then each thread works out F filters × G positions in registers: per tap it reads F weights,
            four at a time, and G pixels, and does F·G FMAs with them (an FMA is a multiplication and an addition). For 16 × 2 or 8 × 4
            those are 32 FMAs for 6 reads; a multiprocessor does 4 FMAs in the time of a read, so the reads are not what it waits for.
            For 128 images of 28 × 28 and 32 filters of 5 × 5 that is 80 million FMAs, and 12.8 MB of results to write: on an H100 2.4 µs
            of arithmetic and 4 µs of memory. Neighbouring threads write neighbouring numbers, across the ends of rows as well.

dweight     is few numbers that are long sums: 800 of 100352 terms each. A block takes some of the images, F = 4 filters and up to 28 taps.
            A thread goes over positions, holds all F × taps sums in registers, and per position reads F numbers of dy, straight from
            global memory because no other thread of the block wants them, and a pixel per tap: 4 FMAs a read. dbias is the sum of the
            same dy: F additions more. At the end the block adds its threads' sums up through shared memory and writes them to a
            workspace; a second kernel adds up the blocks' sums. Both in an order that depends on the shape alone: the same bits always.

The patch is laid out so that neighbouring positions lie in neighbouring words, whatever the stride. Shared memory has 32 banks, word i is
in bank i mod 32, and a warp (32 threads) that wants two words of one bank waits twice. With stride 2 neighbours would be two words apart;
so pixels are sorted by phase, even columns in one plane and odd ones in another, and rows likewise. A stretch goes on in the next row,
which begins a pitch further: a pitch of Q mod 32 makes that the next bank.

Everything that index arithmetic needs but the height of the image and the batch is a constant of the compiled kernel, so that the
addresses of all taps are constants added by the reading instruction itself. A shape costs one compilation, at its first launch.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.launch import Array, Pair, Stream, Window, floats, geometry, run
from gpucnn_kernels.core.vector import load_4

MOST_CHANNELS = 4
_SHARED = 12288  # floats: the 48 KB that every chip gives a block
MOST_TAPS = 128  # R·S: they are all written out
_GROUP_TAPS = 28  # of which the gradient of weight keeps F sums each in registers
_BANKS = 32
SHARES = 4  # threads that add up one sum of a block, each a quarter of it
_BATCH = 4  # pixels a thread asks for before it waits for the first


@dataclass(frozen=True, slots=True)
class Patch:
    """The pixels that a stretch of neighbouring positions reads, and where they lie in shared memory.

    A position is `side` × `side` outputs of the convolution: 1, or 2 where they are pooled. `across` positions are a row of the plane.
    """

    channels: int
    kernel: Pair
    stride: Pair
    dilation: Pair
    side: int
    across: int
    rows: int  # of the image
    columns: int
    pitch: int  # words from one row of a phase to the next

    @property
    def step(self) -> Pair:
        """Pixels from one position to the next, down and across; as many phases."""
        return self.side * self.stride[0], self.side * self.stride[1]

    @property
    def plane(self) -> int:
        """Words of a phase."""
        return -(-self.rows // self.step[0]) * self.pitch

    @property
    def channel(self) -> int:
        """Words of a channel."""
        return self.step[0] * self.step[1] * self.plane

    @property
    def size(self) -> int:
        return self.channels * self.channel


def patch_of(channels: int, window: Window, stretch: int, side: int = 1, room: int = _SHARED) -> Patch | None:
    """The patch of `stretch` positions, or None where it takes more than `room` words."""
    positions = (window.output[0] // side, window.output[1] // side)
    rows = min((stretch + positions[1] - 2) // positions[1] + 1, positions[0])  # that a stretch can lie in
    sizes = [
        (count - 1) * side * stride + (side - 1) * stride + (taps - 1) * dilation + 1
        for count, stride, taps, dilation in zip((rows, positions[1]), window.stride, window.kernel, window.dilation, strict=True)
    ]
    least = -(-sizes[1] // (side * window.stride[1]))
    for pitch in (least + (positions[1] - least) % _BANKS, least):  # without bank conflicts, if there is room
        patch = Patch(channels, window.kernel, window.stride, window.dilation, side, positions[1], sizes[0], sizes[1], pitch)
        if patch.size <= room:
            return patch
    return None


@functools.cache
def unrolled(body: Any, count: int) -> Any:
    """A device function (i, …) that calls body(i, …), body(i + 1, …), … `count` times, written out.

    The compiler unrolls short loops by itself; what the counter of a loop that it leaves indexes would have to lie in memory.
    """
    if count == 1:
        return body
    half = count // 2
    first, second = unrolled(body, half), unrolled(body, count - half)

    @device(forceinline=True)
    def both(i, *args):
        first(i, *args)
        second(i + half, *args)

    return both


@functools.cache
def patch_loader(patch: Patch, threads: int, start: int) -> Any:
    """The device function with which a block's threads copy a patch to shared memory, from word `start`."""
    rows, columns, pitch, plane = patch.rows, patch.columns, patch.pitch, patch.plane
    step_h, step_w = patch.step
    total = patch.channels * rows * columns
    channels = patch.channels

    @device(forceinline=True)
    def load(tile, x, n, first_row, H, W, top, left, thread):
        """Image n, from the row that position row `first_row` begins at."""
        values = cuda.local.array(_BATCH, float32)
        first_h = int32(first_row * uint32(step_h)) - top
        first = thread
        while first < uint32(total):
            for i in range(_BATCH):
                e = uint32(first + uint32(i * threads))
                rest = uint32(e // uint32(columns))
                w = int32(int32(e % uint32(columns)) - left)
                h = int32(int32(rest % uint32(rows)) + first_h)
                c = uint32(rest // uint32(rows))
                values[i] = float32(0)
                if e < uint32(total) and h >= 0 and h < H and w >= 0 and w < W:
                    values[i] = x[uint32(((n * uint32(channels) + c) * uint32(H) + uint32(h)) * uint32(W) + uint32(w))]
            for i in range(_BATCH):
                e = uint32(first + uint32(i * threads))
                if e < uint32(total):
                    rest = uint32(e // uint32(columns))
                    column = uint32(e % uint32(columns))
                    row = uint32(rest % uint32(rows))
                    c = uint32(rest // uint32(rows))
                    phase = uint32((c * uint32(step_h) + row % uint32(step_h)) * uint32(step_w) + column % uint32(step_w))
                    place = uint32((row // uint32(step_h)) * uint32(pitch) + column // uint32(step_w))
                    tile[uint32(uint32(start) + phase * uint32(plane) + place)] = values[i]
            first = uint32(first + uint32(_BATCH * threads))

    return load


@dataclass(frozen=True, slots=True)
class Plan:
    """How the forward kernel shares the work: each thread of a block F = `filters` filters (in fours) and `positions` positions."""

    patch: Patch
    threads: int
    filters: int
    positions: int

    @property
    def stretch(self) -> int:
        return self.threads * self.positions

    @property
    def taps(self) -> int:
        return self.patch.channels * self.patch.kernel[0] * self.patch.kernel[1]

    @property
    def weight_pitch(self) -> int:
        """Words from one tap's weights to the next's: with four more than F they are written without many bank conflicts."""
        return self.filters + 4

    @property
    def start(self) -> int:
        """Where the patch begins: behind the weights of every tap, and the biases."""
        return (self.taps + 1) * self.weight_pitch

    @property
    def shared(self) -> int:
        return self.start + self.patch.size


def plan_of(channels: int, filters: int, window: Window, side: int = 1, threads: int | None = None) -> Plan | None:
    """The plan for a convolution, pooled `side` × `side`; None where one does not fit in shared memory. `threads` is for tests."""
    plane = (window.output[0] // side) * (window.output[1] // side)
    # 32 sums per thread either way; a filter or a position that does not exist costs as much as one that does.
    shapes = [(8, 1)] if side == 2 else [(8, 4), (16, 2)]
    shapes.sort(key=lambda shape: -(-filters // shape[0]) * shape[0] * -(-plane // (_BANKS * shape[1])) * shape[1])
    if filters <= 4:
        shapes = [(4, 1 if side == 2 else 4)]
    for count in (128, 64, 32) if threads is None else (threads,):
        for own_filters, positions in shapes:
            patch = patch_of(channels, window, count * positions, side)
            if patch is not None:
                plan = Plan(patch, count, own_filters, positions)
                if plan.shared <= _SHARED:
                    return plan
    return None


@functools.cache
def stages(plan: Plan) -> tuple[Any, Any]:
    """Two device functions: `fill` copies patch, weights and biases to shared memory; `accumulate` works out a thread's sums.

    sums[((g·side + a)·side + b)·F + f] is filter f at output (a, b) of the thread's position g, bias included.
    """
    patch, threads, F, G = plan.patch, plan.threads, plan.filters, plan.positions
    (R, S), (stride_h, stride_w), (dilation_h, dilation_w) = patch.kernel, patch.stride, patch.dilation
    (step_h, step_w), side, channels = patch.step, patch.side, patch.channels
    pitch, plane, channel = patch.pitch, patch.plane, patch.channel
    taps, weight_pitch, start, per_channel = plan.taps, plan.weight_pitch, plan.start, R * S
    load = patch_loader(patch, threads, start)

    @device(forceinline=True)
    def fill(tile, x, weight, bias, n, first_filter, first_row, K, H, W, top, left, has_bias, thread):
        e = thread
        while e < uint32(F * taps):  # neighbouring threads read neighbouring weights
            tap = uint32(e % uint32(taps))
            f = uint32(e // uint32(taps))
            value = float32(0)
            if uint32(first_filter + f) < K:
                value = weight[uint32((first_filter + f) * uint32(taps) + tap)]
            tile[uint32(tap * uint32(weight_pitch) + f)] = value
            e = uint32(e + uint32(threads))
        e = thread
        while e < uint32(F):
            value = float32(0)
            if has_bias and uint32(first_filter + e) < K:
                value = bias[uint32(first_filter + e)]
            tile[uint32(uint32(taps * weight_pitch) + e)] = value
            e = uint32(e + uint32(threads))
        load(tile, x, n, first_row, H, W, top, left, thread)
        cuda.syncthreads()

    @device(forceinline=True)
    def output(o, i, tile, bases, pixels_at, part, sums):
        """What tap i adds to output o of the thread: a read, F FMAs."""
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
    def accumulate(tile, bases, part, sums):
        begin_all(0, tile, sums)
        for c in range(channels):
            all_taps(0, tile, bases, uint32(c * (per_channel * weight_pitch)), uint32(start + c * channel), part, sums)

    return fill, accumulate


@functools.cache
def forward_kernel(plan: Plan) -> Any:
    """The kernel of `conv2d_direct`: (x, weight, bias, y, K, H, W, top, left, outputs, stretches, has_bias, relu)."""
    fill, accumulate = stages(plan)
    F, G, threads, stretch = plan.filters, plan.positions, plan.threads, plan.stretch
    across, pitch, room, results = plan.patch.across, plan.patch.pitch, plan.shared, plan.filters * plan.positions
    lanes = min(_BANKS, threads)

    @device(forceinline=True)
    def write(f, y, at, outputs, places, sums, first_filter, K, relu):
        if uint32(first_filter + uint32(f)) < K:
            for g in range(G):
                if places[g] < outputs:
                    value = sums[g * F + f]
                    if relu and value <= float32(0):  # NaN stays NaN
                        value = float32(0)
                    y[uint32(at + uint32(f) * outputs + places[g])] = value

    write_all = unrolled(write, F)

    @kernel(launch_bounds=threads)
    def conv2d_direct_forward(x, weight, bias, y, K, H, W, top, left, outputs, stretches, has_bias, relu):
        tile = cuda.shared.array(room, float32, alignment=16)  # load_4 reads the weights there
        sums = cuda.local.array(results, float32)
        part = cuda.local.array(F, float32)
        bases = cuda.local.array(G, uint32)
        places = cuda.local.array(G, uint32)
        number = uint32(cuda.blockIdx.x)
        first = uint32(uint32(number % stretches) * uint32(stretch))
        number = uint32(number // stretches)
        filter_blocks = uint32((K + uint32(F - 1)) // uint32(F))
        first_filter = uint32(uint32(number % filter_blocks) * uint32(F))
        n = uint32(number // filter_blocks)
        first_row = uint32(first // uint32(across))
        thread = uint32(cuda.threadIdx.x)
        fill(tile, x, weight, bias, n, first_filter, first_row, K, H, W, top, left, has_bias, thread)

        # A warp's positions are neighbours, so that a warp that has none can leave.
        own = uint32(first + uint32(thread // uint32(lanes)) * uint32(lanes * G) + uint32(thread % uint32(lanes)))
        if own >= outputs:
            return
        for g in range(G):
            places[g] = uint32(own + uint32(g * lanes))
            place = uint32(min(places[g], uint32(outputs - uint32(1))))  # works on a pixel that there is, and is not written
            row = uint32(place // uint32(across))
            bases[g] = uint32(uint32(row - first_row) * uint32(pitch) + uint32(place - row * uint32(across)))
        accumulate(tile, bases, part, sums)
        write_all(0, y, uint32((n * K + first_filter) * outputs), outputs, places, sums, first_filter, K, relu)

    return conv2d_direct_forward


class Pixels(Protocol):
    """What a stretch of positions reads, in shared memory: a Patch, or another way to lay it out."""

    @property
    def channels(self) -> int: ...
    @property
    def kernel(self) -> Pair: ...
    @property
    def size(self) -> int: ...  # words


@dataclass(frozen=True, slots=True)
class GradPlan:
    """How the gradient of weight shares the work. A unit is a stretch of positions of an image; a slice, some units; a block, a slice for
    `filters` filters and a group of `group_rows` rows of taps."""

    patch: Pixels
    threads: int
    filters: int
    stretch: int
    group_rows: int
    units: int
    slice_units: int

    @property
    def tap_rows(self) -> int:
        return self.patch.channels * self.patch.kernel[0]

    @property
    def tap_groups(self) -> int:
        return -(-self.tap_rows // self.group_rows)

    @property
    def slices(self) -> int:
        return -(-self.units // self.slice_units)

    @property
    def parts(self) -> int:
        """Sums that the second kernel has to add up for each number."""
        return self.slices * SHARES

    @property
    def sums(self) -> int:
        """Of a thread: one per filter and tap, and one per filter for the bias."""
        return self.filters * (self.group_rows * self.patch.kernel[1] + 1)

    @property
    def shared(self) -> int:
        """The patch, or the threads' sums when they are added up."""
        return max(self.patch.size, self.threads // SHARES * (self.threads + SHARES))


def grad_plan_of(
    images: int, channels: int, filters: int, window: Window, threads: int = 128, own_filters: int = 4, blocks: int = 512
) -> GradPlan | None:
    """The plan for a gradient of weight; None where its patch does not fit in shared memory.

    About `blocks` blocks: four for each multiprocessor of a large chip, all at work at once, so that the sums, which each block has to
    add up, are few. It is not asked what chip there is: the order of the sums, and so their last bits, would depend on it.
    """

    def pixels(stretch: int, room: int) -> Pixels | None:
        return patch_of(channels, window, stretch, room=room)

    return share_out(images, channels, filters, window.kernel, window.output[0] * window.output[1], pixels, threads, own_filters, blocks)


def share_out(
    images: int, channels: int, filters: int, kernel: Pair, outputs: int, pixels: Callable[[int, int], Pixels | None],
    threads: int, own_filters: int, blocks: int,
) -> GradPlan | None:  # fmt: skip
    """`grad_plan_of` for `outputs` positions in an image: `pixels(stretch, room)` is what a stretch reads, None over `room` words."""
    rows, s = channels * kernel[0], kernel[1]
    if s > _GROUP_TAPS:
        return None
    groups = -(-rows // (_GROUP_TAPS // s))
    group_rows = -(-rows // groups)
    stretch = max(1, -(-outputs // threads)) * threads
    while True:
        patch = pixels(stretch, _SHARED // 2 if stretch > threads else _SHARED)
        if patch is not None or stretch == threads:
            break
        stretch = -(-stretch // (2 * threads)) * threads
    if patch is None:
        return None
    units = images * -(-outputs // stretch)
    per_slice = -(-filters // own_filters) * -(-rows // group_rows)
    slices = max(1, min(units, blocks // per_slice))
    return GradPlan(patch, threads, own_filters, stretch, group_rows, units, -(-units // slices))


@functools.cache
def block_sums(threads: int, F: int, group_taps: int, all_taps: int) -> Any:
    """The device function with which a block adds up its threads' sums, F for each tap of its group and F more for the bias, and writes
    them to the workspace."""
    results = F * (group_taps + 1)
    at_once = threads // SHARES  # sums that are added up at a time
    sum_pitch = threads + SHARES  # keeps the four threads of a sum, and neighbouring sums, in different banks

    @device(forceinline=True)
    def put(i, tile, first, thread, sums):
        if first + i < results:
            tile[beyond(thread, i * sum_pitch)] = sums[first + i]

    put_all = unrolled(put, at_once)

    @device(forceinline=True)
    def add_up(i, tile, thread, sums, workspace, part, K, first_filter, first_tap):
        """Sums i·at_once and following: every thread leaves its own, then four threads add up each."""
        cuda.syncthreads()
        put_all(0, tile, i * at_once, thread, sums)
        cuda.syncthreads()
        own = uint32(thread // uint32(SHARES))
        share = uint32(thread % uint32(SHARES))
        number = uint32(uint32(i * at_once) + own)
        if number < uint32(results):
            total = float32(0)
            for j in range(at_once):
                total += tile[uint32(own * uint32(sum_pitch) + uint32(j * SHARES) + share)]
            k = uint32(first_filter + number % uint32(F))
            tap = uint32(number // uint32(F))
            at = uint32(uint32(part + share) * uint32(K * uint32(all_taps + 1)))
            if k < K:
                if tap == uint32(group_taps):
                    if first_tap == uint32(0):
                        workspace[uint32(at + K * uint32(all_taps) + k)] = total
                elif uint32(first_tap + tap) < uint32(all_taps):
                    workspace[uint32(at + k * uint32(all_taps) + first_tap + tap)] = total

    return unrolled(add_up, -(-results // at_once))


@functools.cache
def _grad_kernel(key: GradPlan) -> Any:
    """The kernel of the blocks' sums: (dy, x, workspace, K, H, W, top, left, outputs, stretches, units, slice_units).

    `key` is a plan without what depends on the number of images.
    """
    patch: Any = key.patch
    threads, F, stretch = key.threads, key.filters, key.stretch
    (R, S), (dilation_h, dilation_w), (step_h, step_w) = patch.kernel, patch.dilation, patch.step
    pitch, plane, channel, across = patch.pitch, patch.plane, patch.channel, patch.across
    group_rows, tap_groups, tap_rows, room, results = key.group_rows, key.tap_groups, key.tap_rows, key.shared, key.sums
    all_taps, group_taps = tap_rows * S, group_rows * S
    load = patch_loader(patch, threads, 0)
    add_all_up = block_sums(threads, F, group_taps, all_taps)

    @device(forceinline=True)
    def tap_row(i, tile, base, row_at, now, sums):
        at = uint32(base + row_at[i])
        for s in range(S):
            column = s * dilation_w
            pixel = tile[beyond(at, column % step_w * plane + column // step_w)]
            for f in range(F):
                sums[(i * S + s) * F + f] += now[f] * pixel

    tap_rows_of_group = unrolled(tap_row, group_rows)

    @kernel(launch_bounds=threads)
    def conv2d_direct_weight_grad_slices(dy, x, workspace, K, H, W, top, left, outputs, stretches, units, slice_units):
        tile = cuda.shared.array(room, float32)
        sums = cuda.local.array(results, float32)
        now = cuda.local.array(F, float32)
        after = cuda.local.array(F, float32)
        row_at = cuda.local.array(group_rows, uint32)
        filter_at = cuda.local.array(F, uint32)
        number = uint32(cuda.blockIdx.x)
        group = uint32(number % uint32(tap_groups))
        number = uint32(number // uint32(tap_groups))
        filter_blocks = uint32((K + uint32(F - 1)) // uint32(F))
        first_filter = uint32(uint32(number % filter_blocks) * uint32(F))
        own_slice = uint32(number // filter_blocks)
        thread = uint32(cuda.threadIdx.x)
        for i in range(results):
            sums[i] = float32(0)
        for i in range(group_rows):  # rows past the last work on the last, and are not written
            tap_row_number = uint32(min(uint32(group * uint32(group_rows) + uint32(i)), uint32(tap_rows - 1)))
            row = uint32(uint32(tap_row_number % uint32(R)) * uint32(dilation_h))
            phase = uint32(uint32(row % uint32(step_h)) * uint32(step_w))
            row_at[i] = uint32(
                uint32(tap_row_number // uint32(R)) * uint32(channel) + phase * uint32(plane) + (row // uint32(step_h)) * uint32(pitch)
            )

        unit = uint32(own_slice * slice_units)
        last_unit = uint32(min(uint32(unit + slice_units), units))
        while unit < last_unit:
            n = uint32(unit // stretches)
            first = uint32(uint32(unit - n * stretches) * uint32(stretch))
            end = uint32(min(uint32(first + uint32(stretch)), outputs))
            first_row = uint32(first // uint32(across))
            for f in range(F):
                k = uint32(min(uint32(first_filter + uint32(f)), uint32(K - uint32(1))))
                filter_at[f] = uint32((n * K + k) * outputs)
            place = uint32(first + thread)
            safe = uint32(min(place, uint32(end - uint32(1))))
            for f in range(F):
                after[f] = dy[uint32(filter_at[f] + safe)]
            load(tile, x, n, first_row, H, W, top, left, thread)
            cuda.syncthreads()
            while place < end:
                # dy of the next position is on its way while this one is worked on.
                following = uint32(place + uint32(threads))
                safe = uint32(min(following, uint32(end - uint32(1))))
                for f in range(F):
                    now[f] = after[f]
                    after[f] = dy[uint32(filter_at[f] + safe)]
                row = uint32(place // uint32(across))
                base = uint32(uint32(row - first_row) * uint32(pitch) + uint32(place - row * uint32(across)))
                tap_rows_of_group(0, tile, base, row_at, now, sums)
                for f in range(F):
                    sums[group_taps * F + f] += now[f]
                place = following
            cuda.syncthreads()  # before the next patch is written
            unit = uint32(unit + uint32(1))
        add_all_up(
            0, tile, thread, sums, workspace, uint32(own_slice * uint32(SHARES)), K, first_filter, uint32(group * uint32(group_taps))
        )

    return conv2d_direct_weight_grad_slices


@functools.cache
def add_parts_kernel(columns: int, lanes: int) -> Any:
    """The kernel that adds up `parts` rows of the workspace: (workspace, dweight, dbias, weights, row, count, parts).

    A block takes `columns` numbers, neighbours in memory, and `lanes` threads share each: thread l adds rows l, l + lanes, …, then half of
    them add the other half's sums to theirs, and so on.
    """
    threads = columns * lanes

    @kernel(launch_bounds=threads)
    def add_parts(workspace, dweight, dbias, weights, row, count, parts):
        sums = cuda.shared.array(threads, float32)
        thread = uint32(cuda.threadIdx.x)
        i = uint32(uint32(cuda.blockIdx.x) * uint32(columns) + uint32(thread % uint32(columns)))
        total = float32(0)
        if i < count:
            part = uint32(thread // uint32(columns))
            while part < parts:
                total += workspace[uint32(part * row + i)]
                part = uint32(part + uint32(lanes))
        sums[thread] = total
        # The lanes of a number are `columns` apart, so a tree over all threads down to `columns` of them adds lanes only.
        cuda.syncthreads()
        step = threads >> 1
        while step >= columns:
            if thread < uint32(step):
                sums[thread] += sums[uint32(thread + uint32(step))]
            cuda.syncthreads()
            step >>= 1
        if thread < uint32(columns) and i < count:
            if i < weights:
                dweight[i] = sums[thread]
            else:
                dbias[uint32(i - weights)] = sums[thread]

    return add_parts


def fits(channels: int, window: Window, groups: int = 1) -> bool:
    """Whether the kernels of this file can do a convolution over images of so many channels, forward and gradient of weight."""
    return (
        groups == 1
        and 1 <= channels <= MOST_CHANNELS
        and window.kernel[0] * window.kernel[1] <= MOST_TAPS
        and all(plan_of(channels, filters, window) is not None for filters in (1, 8))  # few filters and many: different plans
        and grad_plan_of(1, channels, 1, window) is not None
    )


def workspace_size(images: int, channels: int, filters: int, window: Window) -> int:
    """How many float32 `conv2d_direct_weight_grad` wants to write sums to."""
    plan: GradPlan = _checked(grad_plan_of(images, channels, filters, window), channels, window)
    return plan.parts * filters * (plan.tap_rows * window.kernel[1] + 1)


def conv2d_direct(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    window: Window,
    relu: bool = False,
    stream: Stream = 0,
    *,
    plan: Plan | None = None,
) -> None:
    """Writes the convolution of x (N, C ≤ 4, H, W) with weight (K, C, R, S) to y (N, K, P, Q), plus bias (K) unless it is None, then
    ReLU where `relu`.

    ValueError for what does not fit (see `fits`). `plan` is for tests: that of `plan_of` is right.
    """
    (n, c), k = x.shape[:2], weight.shape[0]
    if plan is None:
        plan = _checked(plan_of(c, k, window), c, window)
    height, width, *_, top, left, _, _, _, _ = geometry(window)
    outputs = window.output[0] * window.output[1]
    stretches = -(-outputs // plan.stretch)
    run(
        forward_kernel(plan),
        n * -(-k // plan.filters) * stretches,
        plan.threads,
        stream,
        floats(x, "x", (n, c, *window.input)),
        floats(weight, "weight", (k, c, *window.kernel)),
        floats(weight, "weight") if bias is None else floats(bias, "bias", (k,)),  # never read without a bias
        floats(y, "y", (n, k, *window.output)),
        np.uint32(k),
        height,
        width,
        top,
        left,
        np.uint32(outputs),
        np.uint32(stretches),
        np.int32(bias is not None),
        np.int32(relu),
    )


def conv2d_direct_weight_grad(
    dy: Array,
    x: Array,
    dweight: Array,
    dbias: Array | None,
    workspace: Array,
    window: Window,
    stream: Stream = 0,
    *,
    plan: GradPlan | None = None,
    adders: Pair = (32, 8),
) -> None:
    """Writes the gradient of `conv2d_direct` with respect to weight to dweight (K, C, R, S) and, unless None, to bias to dbias (K).

    `workspace` holds `workspace_size` float32 or more, and is written over. ValueError for what does not fit (see `fits`). `plan` and
    `adders`, numbers per block of the second launch and threads per number, are for tests.
    """
    (n, k), c = dy.shape[:2], x.shape[1]
    if plan is None:
        plan = _checked(grad_plan_of(n, c, k, window), c, window)
    flat_dweight, flat_dbias, room = gradients(dweight, dbias, workspace, (k, c, *window.kernel), plan.parts)
    height, width, *_, top, left, _, _, _, _ = geometry(window)
    outputs = window.output[0] * window.output[1]
    run(
        weight_grad_kernel(plan),
        plan.slices * -(-k // plan.filters) * plan.tap_groups,
        plan.threads,
        stream,
        floats(dy, "dy", (n, k, *window.output)),
        floats(x, "x", (n, c, *window.input)),
        room,
        np.uint32(k),
        height,
        width,
        top,
        left,
        np.uint32(outputs),
        np.uint32(-(-outputs // plan.stretch)),
        np.uint32(plan.units),
        np.uint32(plan.slice_units),
    )
    sum_parts(flat_dweight, flat_dbias, room, k, dbias is not None, plan.parts, adders, stream)


def gradients(dweight: Array, dbias: Array | None, workspace: Array, shape: tuple[int, ...], parts: int) -> tuple[Array, Array, Array]:
    """dweight of `shape`, dbias (K) and the workspace, checked and flat; for no dbias the workspace, and it is never written as one."""
    flat_dweight = floats(dweight, "dweight", shape)
    room = floats(workspace, "workspace")
    needed = parts * (flat_dweight.shape[0] + shape[0])
    if room.shape[0] < needed:
        raise ValueError(f"workspace holds {room.shape[0]} numbers, and {needed} are needed: see workspace_size")
    return flat_dweight, room if dbias is None else floats(dbias, "dbias", shape[:1]), room


def sum_parts(dweight: Array, dbias: Array, room: Array, filters: int, with_bias: bool, parts: int, adders: Pair, stream: Stream) -> None:
    """Writes the sums of the blocks' sums, `parts` rows of the workspace, to dweight and, `with_bias`, to dbias: all of them flat."""
    weights = dweight.shape[0]
    row = weights + filters
    count = row if with_bias else weights
    columns, lanes = adders
    run(
        add_parts_kernel(columns, lanes),
        -(-count // columns),
        columns * lanes,
        stream,
        room,
        dweight,
        dbias,
        np.uint32(weights),
        np.uint32(row),
        np.uint32(count),
        np.uint32(parts),
    )


def weight_grad_kernel(plan: GradPlan) -> Any:
    """The kernel of `plan`: one for every number of images."""
    return _grad_kernel(dataclasses.replace(plan, units=1, slice_units=1))


def _checked(plan: Any, channels: int, window: Window) -> Any:
    if plan is None or channels > MOST_CHANNELS or window.kernel[0] * window.kernel[1] > MOST_TAPS:
        raise ValueError(
            f"the direct convolution is for up to {MOST_CHANNELS} channels and {MOST_TAPS} taps, and patches of 48 KB; given {channels} "
            f"channels, a kernel of {window.kernel} and images of {window.input}"
        )
    return plan

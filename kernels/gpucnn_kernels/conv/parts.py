"""Gradients of small weights, few numbers that are long sums: how the sums are divided among blocks, and added up.

A block takes some of the images, some filters and some taps, and its threads keep their sums in registers. At the end the block adds
these up through shared memory and writes them to a workspace, as a part of every sum; a second kernel adds up the parts. Both use an
order that depends on the shape alone, so that the bits are reproducible.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpucnn_kernels.conv.patch import ROOM
from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.launch import Array, Pair, Stream, floats, run
from gpucnn_kernels.core.unroll import unrolled

_GROUP_TAPS = 28  # taps of which a thread keeps F sums each in registers
SHARES = 4  # threads per sum of a block, each adds up a quarter of it


ADDERS = {"many parts": (16, 32), "few": (32, 8)}
"""Of the second kernel: the numbers of a block, neighbours in memory, and the threads that share each. With many parts, few threads would
wait for memory again and again: the 256 of m1 and k1 are predicted to take 2.1 µs on an H100 with 32, and 3.7 with 8. Few parts are read
by whole warps. The number of images decides nothing here: a last batch needs no kernel of its own."""


class Pixels(Protocol):
    """The pixels that a stretch of positions reads, in shared memory: a Patch, or another layout."""

    @property
    def channels(self) -> int: ...
    @property
    def kernel(self) -> Pair: ...
    @property
    def dilation(self) -> Pair: ...
    @property
    def size(self) -> int: ...  # words


@dataclass(frozen=True, slots=True)
class GradPlan:
    """The division of work for the gradient of weight. A unit is a stretch of positions of an image, or of one of its `bands` of columns, a
    slice is some units; a block takes a slice and a group of `group_rows` rows of taps. `sharing` equal parts of its threads share the
    pixels, and each has `filters` filters of its own."""

    patch: Pixels
    threads: int
    filters: int
    stretch: int
    group_rows: int
    units: int
    slice_units: int
    bands: int = 1
    sharing: int = 1

    @property
    def lanes(self) -> int:
        """The threads that share filters."""
        return self.threads // self.sharing

    @property
    def own_filters(self) -> int:
        """Of a block."""
        return self.filters * self.sharing

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
        """The number of partial sums that the second kernel adds up for each result."""
        return self.slices * SHARES

    @property
    def sums(self) -> int:
        """The sums of a thread: one per filter and tap, and one per filter for the bias."""
        return self.filters * (self.group_rows * self.patch.kernel[1] + 1)

    @property
    def shared(self) -> int:
        """Words of shared memory: for the patch, later for the threads' sums."""
        return max(self.patch.size, self.sharing * (self.lanes // SHARES) * (self.lanes + SHARES))


def share_out(
    images: int,
    channels: int,
    filters: int,
    kernel: Pair,
    outputs: int,
    pixels: Callable[[int, int], Pixels | None],
    *,
    threads: int,
    own_filters: int,
    blocks: int,
    bands: int = 1,
    sharing: int = 1,
) -> GradPlan | None:
    """The plan of a gradient for `outputs` positions in an image, in equal bands. `pixels(stretch, room)` is what a stretch reads, or
    None."""
    rows, s = channels * kernel[0], kernel[1]
    if s > _GROUP_TAPS:
        return None
    groups = -(-rows // (_GROUP_TAPS // s))
    group_rows = -(-rows // groups)
    places, lanes = outputs // bands, threads // sharing
    stretch = max(1, -(-places // lanes)) * lanes
    while True:
        patch = pixels(stretch, ROOM // 2 if stretch > lanes else ROOM)
        if patch is not None or stretch == lanes:
            break
        stretch = -(-stretch // (2 * lanes)) * lanes
    if patch is None:
        return None
    units = images * bands * -(-places // stretch)
    per_slice = -(-filters // (own_filters * sharing)) * -(-rows // group_rows)
    slices = max(1, min(units, blocks // per_slice))
    return GradPlan(patch, threads, own_filters, stretch, group_rows, units, -(-units // slices), bands, sharing)


def own_share(plan: GradPlan, row_words: Any, apart: bool = False) -> tuple[Any, Any]:
    """Two device functions. `begin` computes a block's share, (group of taps, first filter, slice), sets its threads' sums to zero and
    fills `row_at`, the words to each row of its taps: `row_words(channel, row)`, a device function. `begin_unit` says what a unit is,
    (image, band, its first position in the band, the position after the last), and fills `filter_at`, the words to each filter's plane of
    dy, whose images begin `image` words apart where they lie `apart`.

    Rows and filters past the last are computed like the last, and not written.
    """
    F, stretch, results = plan.filters, plan.stretch, plan.sums
    group_rows, tap_groups, tap_rows = plan.group_rows, plan.tap_groups, plan.tap_rows
    R, dilation_h, bands, lanes, own_filters = plan.patch.kernel[0], plan.patch.dilation[0], plan.bands, plan.lanes, plan.own_filters
    sharing = plan.sharing

    @device(forceinline=True)
    def begin(K, sums, row_at):
        number = uint32(cuda.blockIdx.x)
        group = uint32(number % uint32(tap_groups))
        number = uint32(number // uint32(tap_groups))
        filter_blocks = uint32((K + uint32(own_filters - 1)) // uint32(own_filters))
        first_filter = uint32(uint32(number % filter_blocks) * uint32(own_filters))
        if sharing > 1:
            first_filter = uint32(first_filter + uint32(uint32(cuda.threadIdx.x) // uint32(lanes)) * uint32(F))
        for i in range(results):
            sums[i] = float32(0)
        for i in range(group_rows):
            number_of_row = uint32(min(uint32(group * uint32(group_rows) + uint32(i)), uint32(tap_rows - 1)))
            row = uint32(uint32(number_of_row % uint32(R)) * uint32(dilation_h))
            row_at[i] = row_words(uint32(number_of_row // uint32(R)), row)
        return group, first_filter, uint32(number // filter_blocks)

    @device(forceinline=True)
    def begin_unit(unit, stretches, outputs, image, first_filter, K, filter_at):
        band_of_image = uint32(unit // stretches)
        first = uint32(uint32(unit - band_of_image * stretches) * uint32(stretch))
        n = uint32(band_of_image // uint32(bands))
        band = uint32(band_of_image - n * uint32(bands))
        for f in range(F):
            k = uint32(min(uint32(first_filter + uint32(f)), uint32(K - uint32(1))))
            if apart:
                filter_at[f] = uint32(n * image + k * outputs)
            else:
                filter_at[f] = uint32((n * K + k) * outputs)
        return n, band, first, uint32(min(uint32(first + uint32(stretch)), uint32(outputs // uint32(bands))))

    return begin, begin_unit


@functools.cache
def block_sums(threads: int, F: int, group_taps: int, all_taps: int, sharing: int = 1) -> Any:
    """The device function with which a block adds up its threads' sums, F for each tap of its group and F more for the bias, and writes
    them to the workspace. `sharing` parts of `threads` each have filters of their own."""
    results = F * (group_taps + 1)
    at_once = threads // SHARES  # sums that are added up at a time
    sum_pitch = threads + SHARES  # keeps the four threads of a sum, and neighbouring sums, in different banks

    @device(forceinline=True)
    def put(i, tile, first, thread, sums):
        if first + i < results:
            tile[beyond(thread, i * sum_pitch)] = sums[first + i]

    put_all = unrolled(put, at_once)

    @device(forceinline=True)
    def add_up(i, tile, thread, sums, workspace, place):
        """Sums i·at_once and following: every thread leaves its own, then four threads add up each. place: the block's first part of
        every sum, the number of filters, the block's first filter and its first tap."""
        part, K, first_filter, first_tap = place
        start = uint32(0)
        if sharing > 1:
            start = uint32(uint32(thread // uint32(threads)) * uint32(at_once * sum_pitch))
            thread = uint32(thread % uint32(threads))
        cuda.syncthreads()
        put_all(0, tile, i * at_once, uint32(start + thread), sums)
        cuda.syncthreads()
        own = uint32(thread // uint32(SHARES))
        share = uint32(thread % uint32(SHARES))
        number = uint32(uint32(i * at_once) + own)
        if number < uint32(results):
            total = float32(0)
            for j in range(at_once):
                total += tile[uint32(start + own * uint32(sum_pitch) + uint32(j * SHARES) + share)]
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
def add_parts_kernel(columns: int, lanes: int) -> Any:
    """The kernel that adds up `parts` rows of the workspace: (workspace, dweight, dbias, weights, row, count, parts).

    A block takes `columns` numbers, neighbours in memory, and `lanes` threads share each: thread l adds rows l, l + lanes, …, then half of
    them add the other half's sums to theirs, and so on.
    """
    threads = columns * lanes

    @kernel(role="adder", launch_bounds=threads)
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


def gradients(
    dweight: Array, dbias: Array | None, workspace: Array | None, shape: tuple[int, ...], parts: int
) -> tuple[Array, Array, Array]:
    """dweight of `shape`, dbias (K) and the workspace, checked and flat; for no dbias the workspace, and it is never written as one."""
    flat_dweight = floats(dweight, "dweight", shape)
    needed = parts * (flat_dweight.shape[0] + shape[0])
    if workspace is None:
        raise ValueError(f"there is no workspace, and one of {needed} numbers is needed: see workspace_size")
    room = floats(workspace, "workspace")
    if room.shape[0] < needed:
        raise ValueError(f"workspace holds {room.shape[0]} numbers, and {needed} are needed: see workspace_size")
    return flat_dweight, room if dbias is None else floats(dbias, "dbias", shape[:1]), room


def sum_parts(arrays: tuple[Array, Array, Array], filters: int, with_bias: bool, parts: int, adders: Pair, stream: Stream) -> None:
    """Writes the sums of the blocks' sums, `parts` rows of the workspace, to dweight and, `with_bias`, to dbias. arrays: of `gradients`.
    adders: the numbers of a block, and the threads that share each."""
    dweight, dbias, room = arrays
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

"""How the kernel of direct_input_grad.py divides its work, for each window and number of filters.

Plans are compared by an estimate of the instructions that they issue, which was compared with `gpucnn profile --arch` for a dozen plans of
four shapes. No GPU has run them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gpucnn_kernels.conv.direct_plan import MOST_CHANNELS, MOST_TAPS
from gpucnn_kernels.conv.patch import BANKS, ROOM
from gpucnn_kernels.core.launch import Pair, Window

BATCH = 8  # loads that a thread issues before it waits for the first
_TOGETHER = 40  # weights of all channels that a thread keeps in registers: where there are more, it has one channel
_SUMS = 32  # of a thread
_FMAS = 1600  # of a thread for a filter, all unrolled
_NUMBERS = 400  # of dy that a thread needs for a filter
_LONGEST = 8  # rows and columns of a tile
_ACROSS = 64  # tiles of a block
_THREADS = 256
_ROOM = 8192  # floats of dy in shared memory, so that several blocks are on a multiprocessor at once; more where a share needs it


@dataclass(frozen=True, slots=True)
class Plan:
    """The division of work: a thread has `own` channels of a tile of pixels; a block `across` tiles, side by side, for each of which
    `shares` threads take the filters in turn, `filters` of which are in shared memory at a time."""

    window: Window
    channels: int
    own: int
    tile: Pair
    across: int
    shares: int
    filters: int

    @property
    def step(self) -> Pair:
        """Rows and columns of dy from one tile to the next."""
        return self.tile[0] // self.window.stride[0], self.tile[1] // self.window.stride[1]

    @property
    def first(self) -> Pair:
        """The first row and column of dy that have read a tile, counted from the ones whose tap 0 falls on its first pixel."""
        return self._reach(0)[0], self._reach(1)[0]

    @property
    def seen(self) -> Pair:
        """The rows and columns of dy that have read a tile."""
        return self._reach(0)[1], self._reach(1)[1]

    def _reach(self, axis: int) -> Pair:
        taps, stride, dilation = self.window.kernel[axis], self.window.stride[axis], self.window.dilation[axis]
        places = [pixel - tap * dilation for pixel in range(self.tile[axis]) for tap in range(taps)]
        places = [place // stride for place in places if place % stride == 0]
        return min(places), max(places) - min(places) + 1

    @property
    def columns(self) -> int:
        """The columns of dy that have read a block's tiles."""
        return (self.across - 1) * self.step[1] + self.seen[1]

    @property
    def pitch(self) -> int:
        """Words of a phase of a row."""
        return self.across + (self.seen[1] - 1) // self.step[1]

    @property
    def plane(self) -> int:
        """Words from one filter to the next."""
        least = self.seen[0] * self.step[1] * self.pitch
        return least + (self.across - least) % BANKS

    @property
    def groups(self) -> int:
        """Of channels."""
        return self.channels // self.own

    @property
    def threads_per_share(self) -> int:
        return self.groups * self.across

    @property
    def working(self) -> int:
        """The threads of a block that have a tile."""
        return self.shares * self.threads_per_share

    @property
    def threads(self) -> int:
        return -(-self.working // 32) * 32

    @property
    def sums(self) -> int:
        """Of a thread."""
        return self.own * self.tile[0] * self.tile[1]

    @property
    def sum_pitch(self) -> int:
        """Words from a sum of each thread to the next sum: neighbouring pixels of neighbouring tiles lie in different banks."""
        return self.working + (min(self.across, max(1, BANKS // self.tile[1])) - self.working) % BANKS

    @property
    def numbers(self) -> int:
        """Words of shared memory for numbers of dy; later they hold sums."""
        return self.filters * self.plane

    @property
    def shared(self) -> int:
        return max(self.numbers, self.sums * self.sum_pitch)

    @property
    def tiles(self) -> Pair:
        """Tiles down and across an image, from the last multiple of the stride before its padding ends."""
        down, across = (
            -(-(size + before % stride) // length)
            for size, (before, _), stride, length in zip(self.window.input, self.window.padding, self.window.stride, self.tile, strict=True)
        )
        return down, across

    @property
    def blocks(self) -> Pair:
        """Blocks down and across an image."""
        return self.tiles[0], -(-self.tiles[1] // self.across)

    def cost(self, filters: int) -> float:
        """Roughly the instructions that its warps issue for an image, more where few warps are on a multiprocessor at a time."""
        taps, (seen_h, seen_w) = self.own * self.window.kernel[0] * self.window.kernel[1], self.seen
        fmas = taps * self.tile[0] * self.tile[1] / (self.window.stride[0] * self.window.stride[1])
        of_a_thread = -(-filters // self.shares) * (fmas + seen_h * seen_w + taps + 16) + self.sums + 80
        of_a_thread += -(-filters // self.filters) * 200  # waits for memory and at barriers
        copies = -(-seen_h * self.columns // 32) * filters * 2.75
        results = self.channels * self.tile[0] * self.across * self.tile[1] / 32 * (2 * self.shares + 40)
        registers = self.sums + taps + seen_w + 24
        at_once = self.threads * max(1, min(65536 // (registers * self.threads), 24576 // self.shared))  # on most chips
        blocks = self.blocks[0] * self.blocks[1]
        return blocks * (self.threads / 32 * of_a_thread + copies + results) * (1 + 384 / at_once)


@functools.cache
def plan_of(channels: int, filters: int, window: Window) -> Plan | None:
    """The plan for images of so many channels; None where nothing fits. It is the same for every number of images."""
    taps = window.kernel[0] * window.kernel[1]
    if not 1 <= channels <= MOST_CHANNELS or taps > MOST_TAPS:
        return None
    least = window.stride[0] * window.stride[1]  # pixels of a tile
    own = channels if channels * taps <= _TOGETHER and channels * least <= _SUMS else 1
    tiles = [
        (rows, columns)
        for rows in range(window.stride[0], _LONGEST + 1, window.stride[0])
        for columns in range(window.stride[1], _LONGEST + 1, window.stride[1])
        if own * rows * columns <= _SUMS and own * taps * rows * columns <= _FMAS * least
    ]
    plans = [plan for tile in tiles for plan in _plans(Plan(window, channels, own, tile, 1, 1, 1), filters)]
    return min(plans, key=lambda plan: plan.cost(filters), default=None)


def _plans(one: Plan, filters: int) -> Iterator[Plan]:
    """The plans with the tile of a plan, where a block's numbers of dy fit into shared memory."""
    if one.seen[0] * one.seen[1] > _NUMBERS:
        return
    least = -(-one.tiles[1] // (_ACROSS if one.groups == 1 else BANKS))  # a warp with two channels' threads: never a bank twice
    for pieces in range(least, least + 3):
        wide = replace(one, across=-(-one.tiles[1] // pieces))
        for threads in (_THREADS - 64, _THREADS - 32, _THREADS):
            shares = min(threads // wide.threads_per_share, filters)
            if shares == 0:
                continue
            shares -= shares % 4 if shares > BATCH else 0  # a number of filters that divides into batches
            plan = replace(wide, shares=shares, filters=shares)
            turns = range(1, min(_ROOM // plan.numbers, -(-filters // shares)) + 1)
            staged = [shares * count for count in turns if shares * count <= BATCH or shares * count % BATCH == 0]
            plan = replace(plan, filters=max(staged, default=shares))
            if plan.shared <= ROOM:
                yield plan

"""Tiles whose sums are cut into slices, so that the last blocks of a grid fill the chip.

A chip works on as many blocks at a time as it has room for, a wave. The last wave is seldom full: 169 tiles on 132 multiprocessors take as
long as 264. So the tiles of that wave are cut: several blocks share one, and each sums up a slice of its terms.

    tiles      0 … 131           one block each, the whole sum
    tiles    132 … 168           three blocks each, a third of the sum

A block of a tile that is cut leaves its sums in the workspace and counts itself in. The one that finds all others there, whichever that is,
adds up all slices, always in the same order, so that the bits do not depend on who came last. Then it goes on as a block of a whole tile
does: bias, ReLU or mask, and to the result. Nobody waits, so nothing is assumed about when blocks run.

Each thread counts for itself, because what it adds up are the sums of the threads of its own number in the other blocks. That takes an
atomic addition to neighbouring words for each warp, and no barrier. A thread writes its sums, then a fence, then counts: who sees the count
sees the sums (CUDA C++ Programming Guide, "Memory Fence Functions"). The counters are 0 before the launch: the launch that packs the
weights has written them.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32, uint64
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4, store_4

_MOST_SLICES = 16
_MOST_SUMS = 5 << 20  # elements of all slices: 20 MiB, which the second-level caches of large chips hold
_LEAST_GAIN = 0.1
# What it costs in terms of a sum, for blocks that have a multiprocessor to themselves and for those that share one: to begin and to end a
# block; and for the last one of a tile, to add a slice.
_ENDS = {True: 96, False: 32}
_ADDING = {True: 13, False: 5}
_FASTER = 1.5  # a multiprocessor with two warps for each of its schedulers, or more, than one with one


@dataclass(frozen=True, slots=True)
class Cut:
    """The first `whole` tiles have a block each; `rest` tiles have `slices` blocks each, which do `turns` turns of the loop, the last maybe
    fewer."""

    whole: int
    rest: int
    slices: int
    turns: int

    @property
    def tiles(self) -> int:
        """All of them."""
        return self.whole + self.rest

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        return self.whole + self.rest * self.slices

    def zeroed(self, tile: Any, unit: int) -> int:
        """Elements of the workspace for the counters, which are zeroed `unit` by `unit`."""
        return -(-self.rest * int(tile.threads) // unit) * unit

    def sums(self, tile: Any) -> int:
        """Elements for the sums of all slices."""
        return self.rest * self.slices * int(tile.BM) * int(tile.BN)


@functools.lru_cache(maxsize=1024)
def best_cut(tile: Any, sizes: tuple[int, int, int], groups: int, multiprocessors: int) -> tuple[float, Cut]:
    """(time, cut) of a product of M, N and depth in each group, on a chip with so many multiprocessors: the time as a fraction of that
    without slices. Where they would gain less than a tenth, that is 1, and the cut has none.

    Cut are tiles of the last wave, or of the last two, a wave being a tile for each multiprocessor.
    """
    M, N, depth = sizes
    tiles, turns = -(-M // tile.BM) * -(-N // tile.BN) * groups, max(1, -(-depth // tile.BK))
    waves = tiles // multiprocessors
    uncut = _time(Cut(waves * multiprocessors, tiles - waves * multiprocessors, 1, turns), tile, turns, multiprocessors)
    found = [(uncut * (1 - _LEAST_GAIN), Cut(tiles, 0, 1, turns))]
    for whole in {max(0, waves - back) * multiprocessors for back in (0, 1)}:
        for asked in range(2, min(_MOST_SLICES, turns) + 1):
            each = -(-turns // asked)
            cut = Cut(whole, tiles - whole, -(-turns // each), each)
            if cut.rest and cut.slices == asked and cut.sums(tile) <= _MOST_SUMS:
                found.append((_time(cut, tile, turns, multiprocessors), cut))
    best = min(found, key=lambda each: each[0])
    return (best[0] / uncut, best[1]) if best[1].rest else (1.0, best[1])


def _time(cut: Cut, tile: Any, turns: int, multiprocessors: int) -> float:
    """The time of the busiest multiprocessor, in those of a tile's sum on one that has a warp for each of its schedulers."""
    held, warps, depth = int(tile.blocks_per_sm), -(-int(tile.threads) // 32), turns * int(tile.BK)
    alone = held == 1
    tiles, slices = cut.whole // multiprocessors, -(-cut.rest * cut.slices // multiprocessors)
    whole = 1 + _ENDS[alone] / depth
    part = cut.turns / turns + (_ENDS[alone] + (cut.slices * _ADDING[alone] if cut.slices > 1 else 0)) / depth
    if alone:
        return tiles * whole + slices * part

    def speed(blocks: int) -> float:
        return min(_FASTER, blocks * warps / 4)

    together = min(held, tiles + slices)
    if tiles != 1 or not slices:
        return (tiles * whole + slices * part) / speed(together)
    # The tile goes on by itself when the slices beside it are done, which share the places that it leaves.
    done = min(whole, part * max(1.0, slices / (held - 1)))
    return (done + slices * part) / speed(together) + (whole - done) / speed(1)


def cut_in(arguments: tuple[Any, ...], blocks: int) -> Cut | None:
    """The cut of a launch of so many blocks with these arguments; None where there is none."""
    found = arguments[4] if len(arguments) > 4 else None
    if not isinstance(found, tuple) or [type(each) for each in found] != [tuple, tuple]:
        return None
    whole, slices, turns, _, _ = map(int, found[1])
    return Cut(whole, (blocks - whole) // slices, slices, turns)


Cutter: TypeAlias = Callable[[Any, tuple[int, int, int], int, int], Cut | None]


def cut_of(tile: Any, sizes: tuple[int, int, int], groups: int, fill: int) -> Cut | None:
    """The cut for a chip with `fill` multiprocessors, with slices or none; None for one of 1, whose kernels know nothing of slices."""
    return best_cut(tile, sizes, groups, fill)[1] if fill > 1 else None


@dataclass(frozen=True)
class Way:
    """What a kernel calls where tiles may have several blocks, and where they have not: functions that find the sizes among what it is
    given, (tile, slice, first turn, turns) of a block, and whether a thread goes on to write the result."""

    sizes: Any
    place: Any
    joiner: Callable[[int, int], Any]


@device(forceinline=True)
def _all_sizes(sizes):
    return sizes


@device(forceinline=True)
def _all_turns(sizes, number, turns):
    return number, uint32(0), uint32(0), turns


@device(forceinline=True)
def _alone(scratch, sizes, tile, part, thread, sums):
    return True


def _joins_nothing(count: int, threads: int) -> Any:
    return _alone


@device(forceinline=True)
def _sizes_beside(sizes):
    numbers, _ = sizes
    return numbers


@device(forceinline=True)
def _slice(sizes, number, turns):
    """A whole tile's slice has all turns, and the number 0."""
    _, (whole, slices, each, _, _) = sizes
    beyond = uint32(number - whole) if number >= whole else uint32(0)
    rest = uint32(beyond // slices)
    part = uint32(beyond - rest * slices)
    first = uint32(part * each)
    if number < whole:
        return number, part, first, turns
    return uint32(whole + rest), part, first, uint32(min(each, uint32(turns - first)))


@functools.cache
def _joiner(count: int, threads: int) -> Any:
    """A function (scratch, sizes, tile, slice, thread, sums) for each of `threads` threads with `count` sums. Where all slices of its tile
    are there it makes the sums those of the tile, and is true. Sums lie four by four, so that neighbouring threads write side by side."""
    fours, step, block = count // 4, 4 * threads, count * threads

    @device(forceinline=True)
    def put(i, scratch, at, sums):
        store_4(scratch, uint64(at + uint32(i * step)), sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3])

    @device(forceinline=True)
    def add(i, scratch, at, sums):
        v0, v1, v2, v3 = load_4(scratch, uint64(at + uint32(i * step)))
        sums[4 * i] += v0
        sums[4 * i + 1] += v1
        sums[4 * i + 2] += v2
        sums[4 * i + 3] += v3

    put_all, add_all = unrolled(put, fours), unrolled(add, fours)

    @device(forceinline=True)
    def join(scratch, sizes, tile, part, thread, sums):
        _, (whole, slices, _, counters, partial) = sizes
        if tile < whole:
            return True
        rest = uint32(tile - whole)
        first = uint32(uint32(partial + uint32(rest * slices) * uint32(block)) + thread * uint32(4))
        put_all(0, scratch, uint32(first + part * uint32(block)), sums)
        cuda.threadfence()
        before = cuda.atomic.add(scratch, uint32(uint32(counters + rest * uint32(threads)) + thread), float32(1))
        if uint32(before) < uint32(slices - uint32(1)):
            return False
        cuda.threadfence()
        for i in range(count):
            sums[i] = float32(0)
        for _ in range(int32(slices)):
            add_all(0, scratch, first, sums)
            first = uint32(first + uint32(block))
        return True

    return join


WHOLE, IN_SLICES = Way(_all_sizes, _all_turns, _joins_nothing), Way(_sizes_beside, _slice, _joiner)


def given(cut: Cut | None, numbers: tuple[Any, ...], tiles: int, scratch: tuple[int, int]) -> tuple[Any, int, Way]:
    """What a kernel of `tiles` tiles takes in place of its sizes, its blocks, and the way that it goes. `scratch`: where counters and sums
    begin."""
    if cut is None:
        return numbers, tiles, WHOLE
    return (numbers, tuple(map(np.uint32, (cut.whole, cut.slices, cut.turns, *scratch)))), cut.blocks, IN_SLICES

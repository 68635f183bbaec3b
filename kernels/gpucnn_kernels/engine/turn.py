"""A turn of the engine's loop: a tile of each factor is multiplied, while the next one is on its way to the other half of shared memory.

There are two ways. Through registers: numbers are read at the beginning of the turn, and written to shared memory at its end. Past them, on
chips that have asynchronous copies (core/asynchronous.py) and in products that want them: the copies are begun in the first steps of k and
waited for at the end of the turn. A burst of all of them would keep reads of shared memory waiting.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpucnn_kernels.core._numba import MLIR, uint32
from gpucnn_kernels.core.asynchronous import asynchronous, copies_commit, copies_wait
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4
from gpucnn_kernels.engine.copies import Copy
from gpucnn_kernels.engine.tiles import Tile

_STEPS = 2
"""The first steps of k, in which copies are begun: half of them in each."""


@dataclass(frozen=True)
class Turn:
    """The functions of a loop.

    prepare(args, group, firsts, thread, states)    writes the states of a thread's rows, from the first rows of a and of b on
    places(tiles, thread)                           where its numbers begin in the tiles
    fill(args, arrays, states, first, thread, places, nexts, tiles)     the first tiles, from depth `first` on
    turn(args, arrays, states, first, thread, places, nexts, tiles, half, at, parts, sums, row_sums)
        multiplies the tiles in `half`, and brings those from depth `first` on to the other half
    """

    prepare: Callable[..., Any]
    places: Callable[..., Any]
    fill: Callable[..., Any]
    turn: Callable[..., Any]


def turn_of(tile: Tile, a_copy: Copy, b_copy: Copy, patches: tuple[int, int], sums_rows: bool, past_registers: bool) -> Turn:
    """The loop's functions for these copies. `patches`: from a thread's four rows, or columns, to its next four. `sums_rows`: whether there
    may be sums of the rows of a. `past_registers`: whether copies are asynchronous on chips that have such."""
    TM, TN, BK, (a_patch, b_patch) = tile.TM, tile.TN, tile.BK, patches
    a_pitch, b_pitch, a_size, b_size = a_copy.pitch, b_copy.pitch, a_copy.pitch * BK, b_copy.pitch * BK
    a_fetch, a_put, a_add, a_place, a_collect = a_copy.fetch, a_copy.put, a_copy.add, a_copy.place, a_copy.collect
    b_fetch, b_put, b_place = b_copy.fetch, b_copy.put, b_copy.place
    a_prepare, b_prepare = a_copy.prepare, b_copy.prepare
    a_begin, b_begin, a_copies, copies = a_copy.begin, b_copy.begin, a_copy.copies, a_copy.copies + b_copy.copies
    per_step = -(-copies // _STEPS)
    wait = copies_wait(0)

    @device(forceinline=True)
    def read(k, a_tile, b_tile, a_at, b_at, a_part, b_part):
        """A thread's numbers of a step of k: 16 from shared memory (for 8 × 8)."""
        for i in range(0, TM, 4):
            a_part[i], a_part[i + 1], a_part[i + 2], a_part[i + 3] = load_4(a_tile, beyond(a_at, k * a_pitch + i // 4 * a_patch))
        for j in range(0, TN, 4):
            b_part[j], b_part[j + 1], b_part[j + 2], b_part[j + 3] = load_4(b_tile, beyond(b_at, k * b_pitch + j // 4 * b_patch))

    @device(forceinline=True)
    def multiply(a_part, b_part, sums):
        """64 FMAs."""
        for i in range(TM):
            for j in range(TN):
                sums[i * TN + j] += a_part[i] * b_part[j]

    @device(forceinline=True)
    def one_step(k, a_tile, b_tile, a_at, b_at, a_part, b_part, sums):
        read(k, a_tile, b_tile, a_at, b_at, a_part, b_part)
        multiply(a_part, b_part, sums)

    steps = unrolled(one_step, BK)

    @device(forceinline=True)
    def prepare(args, group, firsts, thread, states):
        a_args, b_args = args
        a_state, b_state = states
        a_first, b_first = firsts
        a_prepare(a_args, group, a_first, thread, a_state)
        b_prepare(b_args, group, b_first, thread, b_state)

    @device(forceinline=True)
    def no_places(tiles, thread):
        return uint32(0), uint32(0)

    @device(forceinline=True)
    def fetch(args, arrays, states, first, thread, nexts):
        a_args, b_args = args
        a, b = arrays
        a_state, b_state = states
        a_next, b_next = nexts
        a_fetch(a_args, a, a_state, first, thread, a_next)
        b_fetch(b_args, b, b_state, first, thread, b_next)

    @device(forceinline=True)
    def put(nexts, tiles, half, thread):
        a_next, b_next = nexts
        a_tile, b_tile = tiles
        a_put(a_next, a_tile, uint32(half * uint32(a_size)), thread)
        b_put(b_next, b_tile, uint32(half * uint32(b_size)), thread)

    @device(forceinline=True)
    def fill_by_registers(args, arrays, states, first, thread, places, nexts, tiles):
        fetch(args, arrays, states, first, thread, nexts)
        put(nexts, tiles, uint32(0), thread)

    @device(forceinline=True)
    def turn_by_registers(args, arrays, states, first, thread, places, nexts, tiles, half, at, parts, sums, row_sums):
        a_tile, b_tile = tiles
        a_part, b_part = parts
        own_row, own_column = at
        a_next, _ = nexts
        totals, _ = row_sums
        if sums_rows:
            a_add(0, a_next, totals)
        fetch(args, arrays, states, first, thread, nexts)
        a_at, b_at = uint32(half * uint32(a_size) + own_row), uint32(half * uint32(b_size) + own_column)
        steps(0, a_tile, b_tile, a_at, b_at, a_part, b_part, sums)
        put(nexts, tiles, uint32(half ^ uint32(1)), thread)

    if MLIR or not past_registers:  # numba-cuda-mlir has no custom instructions
        return Turn(prepare, no_places, fill_by_registers, turn_by_registers)

    @device(forceinline=True)
    def begin(n, args, arrays, states, first, thread, a_to, b_to):
        """Begins copy number n of both factors', if there is one."""
        a_args, b_args = args
        a, b = arrays
        a_state, b_state = states
        if n < a_copies:
            a_begin(n, a_args, a, a_state, first, thread, a_to)
        elif n < copies:
            b_begin(n - a_copies, b_args, b, b_state, first, thread, b_to)

    begin_all, begin_some = unrolled(begin, copies), unrolled(begin, per_step)

    @device(forceinline=True)
    def copying_step(k, args, arrays, states, first, thread, a_to, b_to, a_tile, b_tile, a_at, b_at, a_part, b_part, sums):
        read(k, a_tile, b_tile, a_at, b_at, a_part, b_part)
        begin_some(k * per_step, args, arrays, states, first, thread, a_to, b_to)
        multiply(a_part, b_part, sums)

    copying_steps = unrolled(copying_step, BK)

    @device(forceinline=True)
    def places(tiles, thread):
        a_tile, b_tile = tiles
        if asynchronous():
            return a_place(a_tile, thread), b_place(b_tile, thread)
        return uint32(0), uint32(0)

    @device(forceinline=True)
    def fill(args, arrays, states, first, thread, places, nexts, tiles):
        if asynchronous():
            a_to, b_to = places
            begin_all(0, args, arrays, states, first, thread, a_to, b_to)
            copies_commit()
            wait()
        else:
            fill_by_registers(args, arrays, states, first, thread, places, nexts, tiles)

    @device(forceinline=True)
    def turn(args, arrays, states, first, thread, places, nexts, tiles, half, at, parts, sums, row_sums):
        if asynchronous():
            a_tile, b_tile = tiles
            a_part, b_part = parts
            own_row, own_column = at
            a_first, b_first = places
            totals, wanted = row_sums
            if sums_rows and wanted:
                a_collect(0, a_tile, uint32(half * uint32(a_size)), thread, totals)
            other = uint32(half ^ uint32(1))
            a_to, b_to = uint32(a_first + other * uint32(4 * a_size)), uint32(b_first + other * uint32(4 * b_size))
            a_at, b_at = uint32(half * uint32(a_size) + own_row), uint32(half * uint32(b_size) + own_column)
            copying_steps(0, args, arrays, states, first, thread, a_to, b_to, a_tile, b_tile, a_at, b_at, a_part, b_part, sums)
            copies_commit()
            wait()
        else:
            turn_by_registers(args, arrays, states, first, thread, places, nexts, tiles, half, at, parts, sums, row_sums)

    return Turn(prepare, places, fill, turn)

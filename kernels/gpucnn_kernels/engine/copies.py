"""How an operand's tile gets to shared memory: through registers, or past them by asynchronous copies (core/asynchronous.py)."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpucnn_kernels.core._numba import float32, uint32, uint64
from gpucnn_kernels.core.asynchronous import copy_four, copy_word, fixed, global_address, shared_address
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.guarded import load_4_if, load_if
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4
from gpucnn_kernels.engine.tiles import Operand


@dataclass(frozen=True)
class Copy:
    """The copy of an operand's tile to shared memory: numbers per thread, words of their states, numbers in shared memory per depth, the
    sums of rows that a thread has, the asynchronous copies that it begins; and functions.

    prepare(args, group, first_row, thread, state)      before the loop
    through registers:
        fetch(args, array, state, first, thread, values)    reads a thread's numbers, from depth `first` on
        put(values, tile, offset, thread)                   writes them to the tile at `offset`
        add(0, values, sums)                                adds them to the sums of their rows
    past them:
        place(tile, thread)                                 the address of a thread's first number in the tile
        begin(n, args, array, state, first, thread, to)     begins copy number n, to the tile where the first number's address is `to`
        collect(0, tile, offset, thread, sums)              `add`, of what has arrived there
    spread(0, sums, values)     makes numbers of sums that can be put in the tile like any others, and whose rows have the same sums
    """

    count: int
    words: int
    pitch: int
    sums: int
    copies: int
    prepare: Callable[..., Any]
    fetch: Callable[..., Any]
    put: Callable[..., Any]
    add: Callable[..., Any]
    place: Callable[..., Any]
    begin: Callable[..., Any]
    collect: Callable[..., Any]
    spread: Callable[..., Any]


def copy_of(operand: Operand, rows: int, depths: int, threads: int) -> Copy:
    """The way in which `threads` threads copy rows × depths numbers of an operand."""
    along_rows, width, words, find, guarded = operand.along == "rows", operand.width, operand.words, operand.find, operand.guarded
    late = operand.late
    prepare_row = operand.prepare
    fetches, numbers = rows * depths // (threads * width), rows * depths // threads  # of a thread
    if fetches * threads * width != rows * depths:
        raise ValueError(f"{threads} threads cannot share a tile of {rows} × {depths} by {width}s")
    across = (rows if along_rows else depths) // width
    if across * width != (rows if along_rows else depths) or (threads % across and across % threads):
        raise ValueError(f"{threads} threads cannot share rows of {across} evenly")
    # Threads that are neighbours along depth write a whole row of shared memory apart: four extra numbers put them in different banks.
    pitch = rows if along_rows else rows + 4
    row_next, depth_next = (1, 0) if along_rows else (0, 1)  # where the rest of a fetch lies
    # An asynchronous copy is of four numbers where they are neighbours in the tile as well as in memory.
    at_once = width if along_rows else 1
    copy, size = (copy_four, 16) if at_once == 4 else (copy_word, 4)

    @device(forceinline=True)
    def position(thread):
        """Row and depth of a thread's first number."""
        along = uint32(uint32(thread % uint32(across)) * uint32(width))
        beside = uint32(thread // uint32(across))
        return (along, beside) if along_rows else (beside, along)

    @device(forceinline=True)
    def step(i):
        """From there to those of its fetch number i: constants, once the loops over i are unrolled."""
        along = i * threads % across * width
        beside = i * threads // across
        return (along, beside) if along_rows else (beside, along)

    @device(forceinline=True)
    def place_of(thread):
        """A thread's first number in the tile."""
        row, depth = position(thread)
        return uint32(depth * uint32(pitch) + row)

    @device(forceinline=True)
    def apart(n):
        """From there to number n: a constant, like `step`."""
        row_step, depth_step = step(n // width)
        v = n % width
        return (depth_step + v * depth_next) * pitch + row_step + v * row_next

    @device(forceinline=True)
    def prepare(args, group, first_row, thread, state):
        row, _ = position(thread)
        for i in range(fetches):
            row_step, _ = step(i)
            prepare_row(args, group, uint32(first_row + row + uint32(row_step)), state, i * words)

    @device(forceinline=True)
    def read_one(args, array, state, at, first, depth, values, out):
        offset, there = find(args, state, at, first, depth)
        value = float32(0)
        if guarded:
            value = load_if(array, uint64(offset), there)
        elif there:
            value = array[offset]
        values[out] = value

    @device(forceinline=True)
    def read_four(args, array, state, at, first, depth, values, out):
        offset, there = find(args, state, at, first, depth)
        v0 = v1 = v2 = v3 = float32(0)
        if guarded:
            v0, v1, v2, v3 = load_4_if(array, uint64(offset), there)
        elif there:
            if late:
                offset, _ = find(args, state, at, first, depth)  # once more: what the branch alone needs takes no register before it
            v0, v1, v2, v3 = load_4(array, uint64(offset))
        values[out], values[out + 1], values[out + 2], values[out + 3] = v0, v1, v2, v3

    read = read_four if width == 4 else read_one

    @device(forceinline=True)
    def fetch(args, array, state, first, thread, values):
        _, depth = position(thread)
        for i in range(fetches):
            _, depth_step = step(i)
            read(args, array, state, i * words, first, uint32(depth + uint32(depth_step)), values, i * width)

    @device(forceinline=True)
    def put_one(n, values, tile, at):
        tile[beyond(at, apart(n))] = values[n]

    put_all = unrolled(put_one, numbers)

    @device(forceinline=True)
    def put(values, tile, offset, thread):
        put_all(0, values, tile, uint32(offset + place_of(thread)))

    @device(forceinline=True)
    def place(tile, thread):
        return fixed(uint32(shared_address(tile) + uint32(4) * place_of(thread)))

    @device(forceinline=True)
    def begin(n, args, array, state, first, thread, to):
        fetch = n * at_once // width
        _, depth = position(thread)
        _, depth_step = step(fetch)
        offset, there = find(args, state, fetch * words, first, uint32(depth + uint32(depth_step)))
        source = uint64(global_address(array) + uint64(4) * uint64(offset) + uint64(n * at_once % width * 4))
        copy(uint32(to + uint32(4 * apart(n * at_once))), source, uint32(size) if there else uint32(0))

    # A thread's number n is of its row n // together % sums: a fetch along depth is of one row, and fetches along rows are all of the same.
    if not along_rows:
        together, sums = width, fetches
    else:
        together, sums = 1, width if threads % across == 0 else numbers

    @device(forceinline=True)
    def add(n, values, totals):
        totals[n // together % sums] += values[n]

    @device(forceinline=True)
    def collect(n, tile, offset, thread, totals):
        totals[n // together % sums] += tile[beyond(uint32(offset + place_of(thread)), apart(n))]

    @device(forceinline=True)
    def spread(n, totals, values):
        row = n // together % sums
        values[n] = totals[row] if n == row * together else float32(0)

    functions = prepare, fetch, put, unrolled(add, numbers), place, begin, unrolled(collect, numbers), unrolled(spread, numbers)
    return Copy(numbers, fetches * words, pitch, sums, numbers // at_once, *functions)

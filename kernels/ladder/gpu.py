"""How a kernel becomes fast: one matrix product in five versions, each adding one idea to the one before. For reading, not for use.

    c (M, N) = a (M, K) · b (K, N), all of them flat and row by row

A multiprocessor of an H100 does 128 FMAs a cycle. Memory gives it 12 bytes in that time, shared memory 128, and it starts 4 instructions
of a warp. So a kernel that reads 8 bytes per FMA is memory-bound; and every instruction that is not an FMA takes the slot of one.

    plain             a thread per result, both factors from global memory           8 bytes of it per FMA
    shared memory     a block copies a tile of each factor, all its threads use it   1/2 byte, and 8 of shared memory
    register tile     a thread has 8 × 8 results: 16 numbers are read for 64 FMAs    1/16 byte, and 1 of shared memory
    128 bits          the same bytes, four numbers by an instruction                 fewer instructions beside the FMAs
    double buffer     the next tile is on its way while this one is worked on        no waiting for memory, and one barrier per tile

The engine (engine/loop.py) is the last of these, with factors that need not be matrices: its docstring has the arithmetic. Here sizes are
multiples of the tile, so that nothing but the idea is to be seen.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32, uint64
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond, split
from gpucnn_kernels.core.launch import THREADS, Array, Stream, floats, run
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4, store_4
from gpucnn_kernels.engine.tiles import Tile


@kernel
def plain_kernel(a, b, c, M, N, K):
    """Neighbouring threads read neighbours of b and the same number of a, and still each FMA wants two numbers."""
    i = uint32(cuda.grid(1))
    if i >= c.size:
        return
    row, column = split(i, N)
    total = float32(0)
    for k in range(K):
        total += a[uint32(row * K + k)] * b[uint32(k * N + column)]
    c[i] = total


@functools.cache
def shared_memory(side: int) -> Any:
    """`side` × `side` threads with a result each: a number comes from global memory once for `side` uses."""

    @kernel(launch_bounds=side * side)
    def shared_memory_kernel(a, b, c, M, N, K):
        a_tile = cuda.shared.array((side, side), float32)
        b_tile = cuda.shared.array((side, side), float32)
        y, x = split(uint32(cuda.threadIdx.x), side)
        tile_row, tile_column = split(uint32(cuda.blockIdx.x), N // side)
        row = uint32(tile_row * side + y)
        column = uint32(tile_column * side + x)
        total = float32(0)
        for first in range(int32(0), K, int32(side)):
            a_tile[y, x] = a[uint32(row * K + first + x)]
            b_tile[y, x] = b[uint32((first + y) * N + column)]
            cuda.syncthreads()  # the tile is there
            for k in range(side):
                total += a_tile[y, k] * b_tile[k, x]
            cuda.syncthreads()  # and nobody reads it any more
        c[uint32(row * N + column)] = total

    return shared_memory_kernel


@functools.cache
def register_tile(tile: Tile) -> Any:
    """TM × TN results per thread, `across` columns and `down` rows apart: neighbouring threads read neighbouring banks."""
    BM, BN, BK, TM, TN, threads = tile.BM, tile.BN, tile.BK, tile.TM, tile.TN, tile.threads
    down, across, results = BM // TM, BN // TN, TM * TN
    pitch = BM + 4  # a lies across its tile: what is written along k falls into different banks
    a_size, b_size = BK * pitch, BK * BN

    @device(forceinline=True)
    def step(k, a_tile, b_tile, y, x, a_part, b_part, sums):
        for i in range(TM):
            a_part[i] = a_tile[beyond(y, k * pitch + i * down)]
        for j in range(TN):
            b_part[j] = b_tile[beyond(x, k * BN + j * across)]
        for i in range(TM):
            for j in range(TN):
                sums[i * TN + j] += a_part[i] * b_part[j]

    steps = unrolled(step, BK)

    @kernel(launch_bounds=(threads, tile.blocks_per_sm))
    def register_tile_kernel(a, b, c, M, N, K):
        a_tile = cuda.shared.array(a_size, float32)
        b_tile = cuda.shared.array(b_size, float32)
        sums = cuda.local.array(results, float32)
        a_part = cuda.local.array(TM, float32)
        b_part = cuda.local.array(TN, float32)
        thread = uint32(cuda.threadIdx.x)
        y, x = split(thread, across)
        tile_row, tile_column = split(uint32(cuda.blockIdx.x), N // BN)
        first_row = uint32(tile_row * BM)
        first_column = uint32(tile_column * BN)
        for i in range(results):
            sums[i] = float32(0)
        for first in range(int32(0), K, int32(BK)):
            for i in range(BM * BK // threads):
                row, k = split(uint32(thread + uint32(i * threads)), BK)
                a_tile[uint32(k * pitch + row)] = a[uint32((first_row + row) * K + first + k)]
            for i in range(BK * BN // threads):
                k, column = split(uint32(thread + uint32(i * threads)), BN)
                b_tile[uint32(k * BN + column)] = b[uint32((first + k) * N + first_column + column)]
            cuda.syncthreads()
            steps(0, a_tile, b_tile, y, x, a_part, b_part, sums)
            cuda.syncthreads()
        for i in range(TM):
            for j in range(TN):
                c[uint32((first_row + y + i * down) * N + first_column + x + j * across)] = sums[i * TN + j]

    return register_tile_kernel


@functools.cache
def vectors(tile: Tile, buffers: int) -> Any:
    """Four numbers by an instruction, from global memory and from shared memory: a thread's rows and columns are fours of neighbours.

    With two `buffers` the next tile is read to registers before this one is worked on, and put into the other buffer after it.
    """
    BM, BN, BK, TM, TN, threads = tile.BM, tile.BN, tile.BK, tile.TM, tile.TN, tile.threads
    down, across, results = BM // TM * 4, BN // TN * 4, TM * TN
    pitch = BM + 4
    a_size, b_size = BK * pitch, BK * BN
    a_room, b_room = buffers * a_size, buffers * b_size
    a_fours, b_fours = BM * BK // (4 * threads), BK * BN // (4 * threads)  # that a thread copies
    a_count, b_count = 4 * a_fours, 4 * b_fours

    @device(forceinline=True)
    def fetch(a, b, first, first_row, first_column, N, K, thread, a_next, b_next):
        for i in range(a_fours):
            row, k = split(uint32(thread + uint32(i * threads)), BK // 4)
            place = uint64(uint32((first_row + row) * K + first + k * 4))
            a_next[4 * i], a_next[4 * i + 1], a_next[4 * i + 2], a_next[4 * i + 3] = load_4(a, place)
        for i in range(b_fours):
            k, column = split(uint32(thread + uint32(i * threads)), BN // 4)
            place = uint64(uint32((first + k) * N + first_column + column * 4))
            b_next[4 * i], b_next[4 * i + 1], b_next[4 * i + 2], b_next[4 * i + 3] = load_4(b, place)

    @device(forceinline=True)
    def put(a_next, b_next, a_tile, b_tile, half, thread):
        for i in range(a_fours):
            row, k = split(uint32(thread + uint32(i * threads)), BK // 4)
            for v in range(4):
                a_tile[uint32(half * a_size + (k * 4 + v) * pitch + row)] = a_next[4 * i + v]
        for i in range(b_fours):
            place = uint64(uint32(half * b_size + (thread + i * threads) * 4))
            store_4(b_tile, place, b_next[4 * i], b_next[4 * i + 1], b_next[4 * i + 2], b_next[4 * i + 3])

    @device(forceinline=True)
    def step(k, a_tile, b_tile, y, x, a_part, b_part, sums):
        for i in range(0, TM, 4):
            a_part[i], a_part[i + 1], a_part[i + 2], a_part[i + 3] = load_4(a_tile, beyond(y, k * pitch + i // 4 * down))
        for j in range(0, TN, 4):
            b_part[j], b_part[j + 1], b_part[j + 2], b_part[j + 3] = load_4(b_tile, beyond(x, k * BN + j // 4 * across))
        for i in range(TM):
            for j in range(TN):
                sums[i * TN + j] += a_part[i] * b_part[j]

    steps = unrolled(step, BK)

    @kernel(launch_bounds=(threads, tile.blocks_per_sm))
    def vectors_kernel(a, b, c, M, N, K):
        a_tile = cuda.shared.array(a_room, float32, alignment=16)  # load_4 and store_4
        b_tile = cuda.shared.array(b_room, float32, alignment=16)
        sums = cuda.local.array(results, float32)
        a_part = cuda.local.array(TM, float32)
        b_part = cuda.local.array(TN, float32)
        a_next = cuda.local.array(a_count, float32)
        b_next = cuda.local.array(b_count, float32)
        thread = uint32(cuda.threadIdx.x)
        y, x = split(thread, BN // TN)
        y, x = uint32(y * 4), uint32(x * 4)
        tile_row, tile_column = split(uint32(cuda.blockIdx.x), N // BN)
        first_row = uint32(tile_row * BM)
        first_column = uint32(tile_column * BN)
        for i in range(results):
            sums[i] = float32(0)
        if buffers == 1:
            for first in range(int32(0), K, int32(BK)):
                fetch(a, b, first, first_row, first_column, N, K, thread, a_next, b_next)
                put(a_next, b_next, a_tile, b_tile, uint32(0), thread)
                cuda.syncthreads()
                steps(0, a_tile, b_tile, y, x, a_part, b_part, sums)
                cuda.syncthreads()
        else:
            fetch(a, b, int32(0), first_row, first_column, N, K, thread, a_next, b_next)
            put(a_next, b_next, a_tile, b_tile, uint32(0), thread)
            cuda.syncthreads()
            half = uint32(0)
            for first in range(int32(BK), int32(K + BK), int32(BK)):
                # After the last tile it comes again, unused: with a branch the loads would be moved behind the FMAs.
                following = int32(min(first, int32(K - BK)))
                fetch(a, b, following, first_row, first_column, N, K, thread, a_next, b_next)
                steps(0, a_tile, b_tile, uint32(half * a_size + y), uint32(half * b_size + x), a_part, b_part, sums)
                half = uint32(half ^ uint32(1))
                put(a_next, b_next, a_tile, b_tile, half, thread)
                cuda.syncthreads()  # the next tile is there, and nobody reads this one any more
        for i in range(TM):
            row = uint32(first_row + y + uint32(i // 4 * down + i % 4))
            for j in range(0, TN, 4):
                place = uint64(uint32(row * N + first_column + x + uint32(j // 4 * across)))
                at = i * TN + j
                store_4(c, place, sums[at], sums[at + 1], sums[at + 2], sums[at + 3])

    return vectors_kernel


@dataclass(frozen=True)
class Rung:
    """A version: its kernel, how many results a block of so many threads works out, how many blocks at a time the compiler must leave
    registers for, and the bytes that it reads per FMA."""

    name: str
    kernel: Any
    results: int
    threads: int
    blocks_per_sm: int | None
    global_bytes: float
    shared_bytes: float


@functools.cache
def rungs(tile: Tile = Tile(128, 128, 8, 8, 8, 2), side: int = 16) -> tuple[Rung, ...]:  # noqa: B008  (frozen)
    """The five, from the plain one up."""
    far, near = 4 * (1 / tile.BM + 1 / tile.BN), 4 * (1 / tile.TM + 1 / tile.TN)
    results = tile.BM * tile.BN
    return (
        Rung("plain", plain_kernel, THREADS, THREADS, None, 8, 0),
        Rung("shared memory", shared_memory(side), side * side, side * side, None, 8 / side, 8),
        Rung("register tile", register_tile(tile), results, tile.threads, tile.blocks_per_sm, far, near),
        Rung("128 bits", vectors(tile, 1), results, tile.threads, tile.blocks_per_sm, far, near),
        Rung("double buffer", vectors(tile, 2), results, tile.threads, tile.blocks_per_sm, far, near),
    )


def product(rung: Rung, a: Array, b: Array, c: Array, stream: Stream = 0) -> None:
    """Writes a (M, K) · b (K, N) to c (M, N). Sizes must be multiples of the rung's tile, and arrays begin at 16 bytes."""
    (m, k), n = a.shape, b.shape[1]
    numbers = (np.int32(number) for number in (m, n, k))
    flat = floats(a, "a"), floats(b, "b", (k, n)), floats(c, "c", (m, n))
    run(rung.kernel, -(-m * n // rung.results), rung.threads, stream, *flat, *numbers)

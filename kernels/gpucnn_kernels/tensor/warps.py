"""The same products on the tensor cores of chips before Hopper, and of chips after it that have no wgmma: the engine's third loop.

    c[m, n] = Σ over k of a[m, k] · b[k, n]

product.py says how three products in TF32 make one of float32's accuracy, and why sums are taken out of the tensor cores early, every 16
terms. What is different is that the instruction, mma.sync, belongs to a warp, which holds both factors in registers. A warp works out
WM × WN results, for 64 × 32 by 4 × 4 products of 16 × 8, and reads each number of a for four of them and each of b for four.

All threads copy and all multiply. While one stage of shared memory is multiplied the next ones are on their way, by cp.async, which needs
no registers: a's pixels word by word (each thread has a row, that is a position in the images, and zeros come where there is no pixel), b
as it was packed, 16 bytes at a time. One barrier per stage: behind it all have read the stage before, so its memory takes the next copies.

In shared memory everything lies in the order of registers (fragments.py): a lane reads a product's four numbers of a by one instruction,
and those of b, both parts, by another. So for the 48 products of 8 steps of k a warp issues 8 reads, and 48 instructions that take a's
numbers apart.

In bfloat16 (`precision="medium"`) there is one product of 16 steps of k where TF32 has two of 8. A lane's numbers of a are those of the
two, two to a register, and b is packed to match.

An infinity among the numbers becomes NaN, as in product.py, and NaN stays NaN. With one part (`precision="high"`) or in bfloat16
infinities are what they are with FMAs; bfloat16 makes infinities of the largest numbers too (`instructions.to_bfloat16`). Numbers below
the normal ones, 2⁻¹²⁶, count; what is less than TF32's least, 2⁻¹³⁶, is lost of both parts, or less than bfloat16's, 2⁻¹³³.
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
from gpucnn_kernels.core.integers import beyond, divide
from gpucnn_kernels.core.problem import FLOAT32
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4
from gpucnn_kernels.engine.operands import PIXELS
from gpucnn_kernels.engine.product import Product
from gpucnn_kernels.engine.tiles import Store
from gpucnn_kernels.tensor import fragments, instructions
from gpucnn_kernels.tensor.fragments import COLUMNS, DEPTHS, ROWS, WORDS
from gpucnn_kernels.tensor.instructions import bits_of
from gpucnn_kernels.tensor.parts import parts_of, words_of
from gpucnn_kernels.tensor.results import writer
from gpucnn_kernels.tensor.warp_products import column_multiplier, depths_of, taker, three_products

ALIGNED = 128  # bytes: the stages begin at a multiple
_a_word = device(fragments.a_word, forceinline=True)
_a_twist = device(fragments.a_twist, forceinline=True)
_a_step = device(fragments.a_step, forceinline=True)
_a_read = device(fragments.a_read, forceinline=True)
_b_read = device(fragments.b_read, forceinline=True)


@dataclass(frozen=True)
class WarpTile:
    """BM × BN results per block, BK steps of k at a time, WM × WN per warp. bits: what factors keep (parts.py). WM is a multiple of 32, so
    that a warp's products of 16 rows begin with an even one."""

    BN: int = 64
    bits: int = FLOAT32
    BM: int = 128
    BK: int = 16
    WM: int = 64
    WN: int = 32
    blocks_per_sm: int = 2

    @property
    def threads(self) -> int:
        return 32 * (self.BM // self.WM) * (self.BN // self.WN)

    @property
    def stage(self) -> int:
        """Bytes of a stage: a's numbers, then b's as they are packed; a multiple of 128."""
        return 4 * (self.BK * self.BM + words_of(self.bits, self.BK * self.BN))

    @property
    def stages(self) -> int:
        """The number of stages in 48 KB, which two blocks can have on every chip."""
        return (48 << 10) // self.stage

    @property
    def shared(self) -> int:
        """Bytes of shared memory, with what is lost to begin at a multiple of 128."""
        return ALIGNED + self.stages * self.stage


@functools.cache
def _multiplier(tile: WarpTile) -> Any:
    """A function that multiplies a stage: (shared, a_at, b_at, a, part) adds it to `part`, from a lane's first words of a and b; `a` is
    four arrays, room for a's parts."""
    bits, parts, depths = tile.bits, parts_of(tile.bits), depths_of(tile.bits)
    down, across = tile.WM // ROWS, tile.WN // COLUMNS
    a_words, b_words = tile.BM * depths, words_of(bits, tile.BN * depths)  # of a product's steps of k
    take_all, multiply_all = taker(down, bits, tile.BM * DEPTHS), column_multiplier(down, across, bits)
    multiply_three = three_products(down, across)

    @device(forceinline=True)
    def words(shared, at, more):
        first, second, third, fourth = load_4(shared, beyond(at, more))
        return bits_of(first), bits_of(second), bits_of(third), bits_of(fourth)

    @device(forceinline=True)
    def two_columns(pair, k, shared, at, big, part):
        """Those whose numbers of b come together."""
        b_0, b_1, b_2, b_3 = words(shared, at, k * b_words + pair * WORDS)
        multiply_all(0, 2 * pair, big, b_0, b_1, part)
        multiply_all(0, 2 * pair + 1, big, b_2, b_3, part)

    all_pairs = unrolled(two_columns, across // 2)

    @device(forceinline=True)
    def step(k, shared, a_at, b_at, big, small, part):
        take_all(0, shared, a_at, k * a_words, big, small)
        all_pairs(0, k, shared, b_at, big, part)

    all_steps = unrolled(step, tile.BK // depths)

    @device(forceinline=True)
    def one_column(column, shared, at, a, part):
        b = words(shared, at, column * WORDS), words(shared, at, b_words + column * WORDS)
        multiply_three(column, a, b, part)

    all_columns = unrolled(one_column, across)

    @device(forceinline=True)
    def multiply(shared, a_at, b_at, a, part):
        big, small, next_big, next_small = a
        if parts == 2:
            take_all(0, shared, a_at, 0, big, small)
            take_all(0, shared, a_at, a_words, next_big, next_small)
            all_columns(0, shared, b_at, a, part)
        else:
            all_steps(0, shared, a_at, b_at, big, small, part)

    return multiply


@functools.cache
def warps_kernel(tile: WarpTile, store: Store) -> Any:
    """The kernel: product.tensor_kernel's arguments, on a grid of blocks of `tile.threads` with `tile.shared` bytes."""
    BM, BN, BK, stages, stage_bytes, threads = tile.BM, tile.BN, tile.BK, tile.stages, tile.stage, tile.threads
    down, across = tile.WM // ROWS, tile.WN // COLUMNS
    results, numbers, registers = 4 * down * across, 4 * across, 4 * down
    a_bytes, b_bytes = 4 * BM * BK, 4 * words_of(tile.bits, BN * BK)
    depths, fours = BM * BK // threads, b_bytes // 16 // threads  # that a thread copies
    if depths % DEPTHS or fours * 16 * threads != b_bytes or tile.WM % (2 * ROWS) or tile.WN % (2 * COLUMNS) or stages < 2 or BK != 16:
        raise ValueError(f"not a tile that warps can do: {tile}")
    WM, WN, warps_n = tile.WM, tile.WN, BN // tile.WN
    prepare, row_offset = PIXELS.prepare, store.row_offset
    wait, multiply, write_all = instructions.copies_wait(stages - 2), _multiplier(tile), writer(store, numbers)
    a_warp, b_warp = tile.WM // ROWS * WORDS, tile.WN // COLUMNS * parts_of(tile.bits) // 2 * WORDS

    @device(forceinline=True)
    def copy_channel(i, to, source, step, channels):
        """Channel i of a thread's pixel, or 0 where there are no more: `channels` is how many there are, none outside the image. Where
        nothing is read the address may be anywhere."""
        at = uint32(uint32(to ^ uint32(_a_twist(i))) + uint32(_a_step(BM, i)))
        instructions.copy_word(at, uint64(source + uint64(uint32(uint32(i) * step))), uint32(4) if int32(i) < channels else uint32(0))

    copy_channels = unrolled(copy_channel, depths)

    @device(forceinline=True)
    def copy_four(i, to, source):
        instructions.copy_four(uint32(to + uint32(i * 16 * threads)), uint64(source + uint64(i * 16 * threads)), uint32(16))

    copy_fours = unrolled(copy_four, fours)

    @device(forceinline=True)
    def copy(block, blocks, to, b_to, a_at, b_at, b_step, state, walk, own_depth):
        """Begins to copy a block of BK steps, if there is one, to where the thread's first numbers belong."""
        if block < blocks:
            padded, padded_by, padded_shift, U, U_by, U_shift, step_h, step_w, channels, H, W, area = walk
            first = uint32(block * uint32(BK))
            tap = divide(first, padded_by, padded_shift)
            channel = uint32(uint32(first - tap * padded) + own_depth)
            t = divide(tap, U_by, U_shift)
            h = uint32(int32(int32(state[1]) + int32(t) * step_h))  # above the image: a huge number, so one comparison is enough
            w = uint32(int32(int32(state[2]) + int32(tap - t * U) * step_w))
            inside = h < H and w < W
            pixel = uint32(uint32(state[0] + h * W + w) + channel * area) if inside else uint32(0)
            copy_channels(
                0,
                to,
                uint64(a_at + uint64(pixel) * uint64(4)),
                uint32(area * uint32(4)),
                int32(channels - channel) if inside else int32(0),
            )
            copy_fours(0, b_to, uint64(b_at + uint64(block) * b_step))
        instructions.copies_commit()

    @device(forceinline=True)
    def write_row(i, c, c_args, sizes, epilogue, group, first_row, column, extra, sums):
        """Of a warp's i-th 16 rows."""
        M, N, _, _, _, _ = sizes
        row = uint32(first_row + uint32(i * ROWS))
        below = uint32(row + uint32(8))
        row_at, below_at = row_offset(c_args, M, N, group, row), row_offset(c_args, M, N, group, below)
        write_all(0, i * numbers, c, c_args, sizes, epilogue, group, row, row_at, below, below_at, column, extra, sums)

    write_rows = unrolled(write_row, down)

    @kernel(role="engine", launch_bounds=(threads, tile.blocks_per_sm))
    def warps_kernel(a, b, extra, c, sizes, epilogue, a_args, c_args):
        shared = cuda.shared.array(0, float32)
        state = cuda.local.array(3, uint32)
        sums = cuda.local.array(results, float32)
        part = cuda.local.array(results, float32)
        a_parts = (
            cuda.local.array(registers, uint32),
            cuda.local.array(registers, uint32),
            cuda.local.array(registers, uint32),
            cuda.local.array(registers, uint32),
        )
        _, _, blocks, _, tiles_m, tiles_n = sizes
        thread = uint32(cuda.threadIdx.x)
        number = uint32(cuda.blockIdx.x)
        tile_n = uint32(number % tiles_n)
        number = uint32(number // tiles_n)
        first_row = uint32(uint32(number % tiles_m) * uint32(BM))
        group = uint32(number // tiles_m)

        begin = instructions.shared_address(shared)
        stages_at = uint32(uint32(begin + uint32(ALIGNED - 1)) & uint32(0xFFFFFFFF - (ALIGNED - 1)))
        own, own_depth = uint32(thread % uint32(BM)), uint32(uint32(thread // uint32(BM)) * uint32(depths))
        prepare(a_args, group, uint32(first_row + own), state, 0)
        _, walk = a_args
        a_at = instructions.global_address(a)
        b_step = uint64(uint64(tiles_n) * uint64(b_bytes))
        b_at = uint64(instructions.global_address(b) + uint64(uint32(group * blocks) * tiles_n + tile_n) * uint64(b_bytes))
        b_at = uint64(b_at + uint64(thread * uint32(16)))
        to = uint32(stages_at + uint32(4) * uint32(_a_word(BM, own, uint32(0))) + uint32(own_depth * uint32(BM * 4)))
        b_to = uint32(uint32(stages_at + uint32(a_bytes)) + uint32(thread * uint32(16)))
        for block in range(stages - 1):
            ahead = uint32(uint32(block) * uint32(stage_bytes))
            copy(uint32(block), blocks, uint32(to + ahead), uint32(b_to + ahead), a_at, b_at, b_step, state, walk, own_depth)

        lane, warp = uint32(thread % uint32(32)), uint32(thread // uint32(32))
        warp_m, warp_n = uint32(warp // uint32(warps_n)), uint32(warp % uint32(warps_n))
        first = uint32(uint32(stages_at - begin) // uint32(4))
        a_first = uint32(uint32(first + warp_m * uint32(a_warp)) + uint32(_a_read(lane)))
        b_first = uint32(uint32(first + uint32(a_bytes // 4)) + uint32(warp_n * uint32(b_warp)) + uint32(_b_read(lane)))
        for i in range(results):
            sums[i] = float32(0)
        stage, free = uint32(0), uint32((stages - 1) * stage_bytes)
        for block in range(int32(blocks)):
            wait()
            cuda.syncthreads()
            copy(
                uint32(uint32(block) + uint32(stages - 1)),
                blocks,
                uint32(to + free),
                uint32(b_to + free),
                a_at,
                b_at,
                b_step,
                state,
                walk,
                own_depth,
            )
            free = stage
            for i in range(results):
                part[i] = float32(0)
            multiply(shared, uint32(a_first + stage // uint32(4)), uint32(b_first + stage // uint32(4)), a_parts, part)
            for i in range(results):
                sums[i] += part[i]
            stage = uint32(stage + uint32(stage_bytes))
            if stage == uint32(stages * stage_bytes):
                stage = uint32(0)

        row = uint32(uint32(first_row + warp_m * uint32(WM)) + uint32(lane // uint32(4)))
        column = uint32(uint32(tile_n * uint32(BN) + warp_n * uint32(WN)) + uint32(lane % uint32(4)) * uint32(2))
        write_rows(0, c, c_args, sizes, epilogue, group, row, column, extra, sums)

    return warps_kernel


def product(
    tile: WarpTile,
    pixels: tuple[Any, Any],
    c: tuple[Store, Any],
    sizes: tuple[int, int, int],
    epilogue: tuple[int, bool],
    groups: int,
) -> Product:
    """A product ready to be launched, as tensor.product.product makes them."""
    M, N, depth = sizes
    tiles_m, tiles_n = -(-M // tile.BM), -(-N // tile.BN)
    numbers = tuple(np.uint32(number) for number in (M, N, depth // tile.BK, groups, tiles_m, tiles_n))
    arguments = numbers, tuple(np.uint32(number) for number in epilogue), pixels, c[1]
    return Product(warps_kernel(tile, c[0]), tiles_m * tiles_n * groups, tile.threads, groups, 1, arguments, tile.shared)

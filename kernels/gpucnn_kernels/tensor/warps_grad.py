"""The gradient of a convolution's weight by warps: warps.py with both factors looked up.

    dweight[k, c, r, s] = Σ over n, p, q of dy[n, k, p, q] · x[n, c, p·stride + r·dilation − top, …]

As in weight_grad.py, rows are channels and taps (c, r, s), columns are filters, and the sum runs over positions, 16 at a time, cut into
slices. Where the pixel of a row lies, seen from that of the first tap and channel, stands in a table, with its tap as one bit: an AND with
the taps inside the image, seen from the position, tells whether there is a pixel.

Each thread copies two positions, by cp.async, of eight rows of a and four columns of b; the eight lanes side by side have neighbouring
positions, and the four rows of a warp lie in different banks (fragments.py). Both factors are taken apart, or rounded, in
registers. The warps whose rows are the tile's first add up the numbers of dy that they read, for the gradient of the bias.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, int64, uint32, uint64
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_2, load_4
from gpucnn_kernels.engine.product import Product
from gpucnn_kernels.engine.tiles import SUMS, Store
from gpucnn_kernels.tensor import fragments, instructions
from gpucnn_kernels.tensor.fragments import COLUMNS, DEPTHS, GRAD_COLUMN, ROWS, WORDS
from gpucnn_kernels.tensor.instructions import bits_of
from gpucnn_kernels.tensor.results import writer
from gpucnn_kernels.tensor.taps import first_pixel, put_row, taps_inside
from gpucnn_kernels.tensor.warp_products import column_multiplier, taker, three_products, two_parts
from gpucnn_kernels.tensor.warps import ALIGNED

_THREADS = 128
_HALVES = 2  # positions that a thread copies, eight apart
_a_word = device(fragments.a_word, forceinline=True)
_b_word = device(fragments.b_word, forceinline=True)
_grad_row = device(fragments.grad_row, forceinline=True)
_grad_own = device(fragments.grad_own, forceinline=True)
_grad_twist = device(fragments.grad_twist, forceinline=True)
_grad_step = device(fragments.grad_step, forceinline=True)
_a_read = device(fragments.a_read, forceinline=True)
_b_read = device(fragments.b_read, forceinline=True)


@dataclass(frozen=True)
class WarpGradTile:
    """64 filters × 128 channels and taps per block, 16 positions at a time, 64 × 32 per warp. bits: what factors keep (parts.py)."""

    bits: int = FLOAT32
    BN: int = 64
    BM: int = 128
    BK: int = DEPTHS * _HALVES
    WM: int = 64
    WN: int = 32
    threads: int = _THREADS
    blocks_per_sm: int = 2
    stages: int = 3  # two blocks have room for them on every chip, beside the table

    @property
    def stage(self) -> int:
        """Bytes of a stage: numbers of a, then of b; a multiple of 128."""
        return 4 * self.BK * (self.BM + self.BN)

    @property
    def shared(self) -> int:
        """Bytes of shared memory beside the table, with what is lost to begin at a multiple of 128."""
        return ALIGNED + self.stages * self.stage


@device(forceinline=True)
def _row_offset(args, M, N, batch, row):
    return uint32(batch * N * M + row)


@device(forceinline=True)
def _column_offset(args, M, N, batch, column):
    return uint32(column * M)


_TURNED = Store("turned gradient", "rows", True, _row_offset, _column_offset)
"""(batch, columns, rows) in memory: the gradient of a weight, whose rows are channels and taps here."""


@functools.cache
def _multiplier(tile: WarpGradTile) -> Any:
    """A function that multiplies a stage: (shared, a_at, b_at, a, part, totals) adds it to `part`, and a lane's numbers of b to `totals`,
    one for each of its columns. `a` is four arrays, room for a's parts."""
    down, across, bits = tile.WM // ROWS, tile.WN // COLUMNS, tile.bits
    a_words, b_half = tile.BM * DEPTHS, tile.BN * DEPTHS  # of 8 steps of k
    take_all, multiply_all, multiply_three = taker(down, bits, a_words), column_multiplier(down, across, bits), three_products(down, across)

    @device(forceinline=True)
    def column(number, y_0, y_1, y_2, y_3, a, part, totals):
        """A lane's numbers of b in the first 8 steps of k, and in the second."""
        big, _, next_big, _ = a
        if bits == FLOAT32:
            totals[number] += float32(y_0 + y_1)
            totals[number] += float32(y_2 + y_3)
            multiply_three(number, a, (two_parts(y_0, y_1), two_parts(y_2, y_3)), part)
        elif bits == BFLOAT16:
            totals[number] += float32(float32(y_0 + y_1) + float32(y_2 + y_3))
            multiply_all(0, number, big, instructions.to_bfloat16(y_0, y_1), instructions.to_bfloat16(y_2, y_3), part)
        else:
            totals[number] += float32(y_0 + y_1)
            totals[number] += float32(y_2 + y_3)
            multiply_all(0, number, big, instructions.to_tf32(y_0), instructions.to_tf32(y_1), part)
            multiply_all(0, number, next_big, instructions.to_tf32(y_2), instructions.to_tf32(y_3), part)

    @device(forceinline=True)
    def columns(pair, shared, at, a, part, totals):
        first, second, third, fourth = load_4(shared, beyond(at, pair * WORDS))
        fifth, sixth, seventh, eighth = load_4(shared, beyond(at, b_half + pair * WORDS))
        column(2 * pair, first, second, fifth, sixth, a, part, totals)
        column(2 * pair + 1, third, fourth, seventh, eighth, a, part, totals)

    all_columns = unrolled(columns, across // 2)

    @device(forceinline=True)
    def multiply(shared, a_at, b_at, a, part, totals):
        big, small, next_big, next_small = a
        take_all(0, shared, a_at, 0, big, small)  # in bfloat16 of all 16 steps
        if bits != BFLOAT16:
            take_all(0, shared, a_at, a_words, next_big, next_small)
        all_columns(0, shared, b_at, a, part, totals)

    return multiply


@functools.cache
def warps_grad_kernel(tile: WarpGradTile) -> Any:
    """The kernel: weight_grad.tensor_grad_kernel's arguments, on a grid of blocks of `tile.threads` with `tile.shared` bytes."""
    BM, BN, BK, WM, WN = tile.BM, tile.BN, tile.BK, tile.WM, tile.WN
    stages, stage_bytes, a_bytes = tile.stages, tile.stage, 4 * tile.BM * tile.BK
    down, across, warps = WM // ROWS, WN // COLUMNS, _THREADS // 32
    results, numbers, registers = 4 * down * across, 4 * across, 4 * down
    warps_n, table_words = BN // WN, 2 * BM
    a_warp, b_warp = WM // ROWS * WORDS, WN // COLUMNS // 2 * WORDS
    rows, columns = BM // warps, BN // warps  # that a warp copies
    own_rows = rows // 4
    wait, multiply, write_all = instructions.copies_wait(stages - 2), _multiplier(tile), writer(_TURNED, numbers)

    @device(forceinline=True)
    def read_row(i, table, own_row, offsets, taps):
        """Where the pixel of the thread's i-th row lies, and its tap. All are read before the first copy begins: a read of shared memory
        behind the beginning of a copy to it costs Ampere three instructions more."""
        offset, tap = load_2(table, uint64(uint32(uint32(own_row + uint32(_grad_row(i))) * uint32(2))))
        offsets[i], taps[i] = bits_of(offset), bits_of(tap)

    read_rows = unrolled(read_row, rows // 4)

    @device(forceinline=True)
    def copy_row(i, offsets, taps, to, source, inside):
        """A pixel for the thread's i-th row, or 0 outside the image, where the address may be anywhere."""
        at = uint32(uint32(to ^ uint32(_grad_twist(i))) + uint32(_grad_step(i)))
        there = uint32(taps[i] & inside) != uint32(0)
        instructions.copy_word(at, uint64(source + uint64(offsets[i])), uint32(4) if there else uint32(0))

    copy_rows = unrolled(copy_row, rows // 4)

    @device(forceinline=True)
    def copy_column(i, to, source, step, left):
        """A number of dy for the thread's i-th filter, or 0 past the last."""
        there = int32(2 * i) < left
        instructions.copy_word(
            uint32(to + uint32(i * GRAD_COLUMN)), uint64(source + uint64(uint32(uint32(i) * step))), uint32(4) if there else uint32(0)
        )

    copy_columns = unrolled(copy_column, columns // 4)

    @device(forceinline=True)
    def copy_half(half, first, offsets, taps, place, x_at, dy_at, dy_step, left, dy_args, x_args):
        """One of the thread's positions: of the rows, and of the filters, to the two addresses of `place`."""
        to, b_to = place
        (_, _, _, _, _, _, _, _, _, _, _, _, _, W), walk = x_args
        positions, _, _, _, _, _, _, image, _, _, _, _ = walk
        _, _, _, _, skipped, _ = dy_args
        position = uint32(first + uint32(half * DEPTHS))
        n, h0, w0 = first_pixel(position, x_args)
        there = position < positions
        inside = taps_inside(h0, w0, x_args) if there else uint32(0)
        pixel = int64(int64(uint32(n * image)) + int64(h0) * int64(uint32(W)) + int64(w0))
        source = uint64(x_at + uint64(pixel * int64(4)))
        copy_rows(0, offsets, taps, uint32(to + uint32(half * (BM * DEPTHS * 4))), source, inside)
        offset = uint64(uint32(position + n * skipped)) * uint64(4)
        own_left = left if there else int32(0)
        copy_columns(0, uint32(b_to + uint32(half * (BN * DEPTHS * 4))), uint64(dy_at + offset), dy_step, own_left)

    copy_halves = unrolled(copy_half, _HALVES)

    @device(forceinline=True)
    def write_row(i, c, sizes, epilogue, batch, first_row, column, extra, sums):
        """Of a warp's i-th 16 rows."""
        M, N, _, _, _, _ = sizes
        row = uint32(first_row + uint32(i * ROWS))
        below = uint32(row + uint32(8))
        row_at, below_at = _row_offset((), M, N, batch, row), _row_offset((), M, N, batch, below)
        write_all(0, i * numbers, c, (), sizes, epilogue, batch, row, row_at, below, below_at, column, extra, sums)

    write_rows = unrolled(write_row, down)

    @kernel(role="engine", launch_bounds=(_THREADS, tile.blocks_per_sm))
    def warps_grad_kernel(dy, x, extra, c, sizes, extra_role, dy_args, x_args):
        table = cuda.shared.array(table_words, float32, alignment=16)  # of words
        shared = cuda.shared.array(0, float32)
        sums = cuda.local.array(results, float32)
        part = cuda.local.array(results, float32)
        a_parts = (
            cuda.local.array(registers, uint32),
            cuda.local.array(registers, uint32),
            cuda.local.array(registers, uint32),
            cuda.local.array(registers, uint32),
        )
        totals = cuda.local.array(across, float32)
        offsets = cuda.local.array(own_rows, uint32)
        taps_of_rows = cuda.local.array(own_rows, uint32)
        filters, taps, slice_blocks, all_blocks, groups, tiles_m, tiles_n = sizes
        thread = uint32(cuda.threadIdx.x)
        number = uint32(cuda.blockIdx.x)
        first_filter = uint32(uint32(number % tiles_n) * uint32(BN))
        number = uint32(number // tiles_n)
        first_tap = uint32(uint32(number % tiles_m) * uint32(BM))
        batch = uint32(number // tiles_m)
        group = uint32(batch % groups)
        begin_block = uint32(uint32(batch // groups) * slice_blocks)
        blocks = uint32(min(slice_blocks, uint32(all_blocks - begin_block)))
        lane, warp = uint32(thread % uint32(32)), uint32(thread // uint32(32))

        put_row(table, thread, first_tap, x_args)  # there are as many threads as rows
        cuda.syncthreads()

        begin = instructions.shared_address(shared)
        stages_at = uint32(uint32(begin + uint32(ALIGNED - 1)) & uint32(0xFFFFFFFF - (ALIGNED - 1)))
        own_row, own_column = uint32(_grad_own(thread, rows)), uint32(_grad_own(thread, columns))
        depth = uint32(lane % uint32(8))
        to = uint32(stages_at + uint32(4) * uint32(_a_word(BM, own_row, depth)))
        b_to = uint32(uint32(stages_at + uint32(a_bytes)) + uint32(4) * uint32(_b_word(BN, 1, own_column, depth, 0)))
        (_, _, _, _, _, _, _, group_size, _, _, _, _, _, _), _ = x_args
        x_at = uint64(instructions.global_address(x) + uint64(uint32(group * group_size)) * uint64(4))
        _, plane, _, _, _, _ = dy_args
        own_filter = uint32(first_filter + own_column)
        left = int32(int32(filters) - int32(own_filter))
        dy_step = uint32(plane * uint32(8))  # two filters
        dy_at = uint64(instructions.global_address(dy) + uint64(uint32(uint32(group * filters) + own_filter) * plane) * uint64(4))
        first = uint32(uint32(begin_block * uint32(BK)) + depth)
        for ahead in range(stages - 1):
            if uint32(ahead) < blocks:
                at = uint32(ahead * stage_bytes)
                now = uint32(first + uint32(ahead * BK))
                read_rows(0, table, own_row, offsets, taps_of_rows)
                place = uint32(to + at), uint32(b_to + at)
                copy_halves(0, now, offsets, taps_of_rows, place, x_at, dy_at, dy_step, left, dy_args, x_args)
            instructions.copies_commit()

        warp_m, warp_n = uint32(warp // uint32(warps_n)), uint32(warp % uint32(warps_n))
        word = uint32(uint32(stages_at - begin) // uint32(4))
        a_first = uint32(uint32(word + warp_m * uint32(a_warp)) + uint32(_a_read(lane)))
        b_first = uint32(uint32(word + uint32(a_bytes // 4)) + uint32(warp_n * uint32(b_warp)) + uint32(_b_read(lane)))
        for i in range(results):
            sums[i] = float32(0)
        for i in range(across):
            totals[i] = float32(0)
        stage, free = uint32(0), uint32((stages - 1) * stage_bytes)
        for block in range(int32(blocks)):
            wait()
            cuda.syncthreads()
            if uint32(uint32(block) + uint32(stages - 1)) < blocks:
                now = uint32(first + uint32(uint32(block) + uint32(stages - 1)) * uint32(BK))
                read_rows(0, table, own_row, offsets, taps_of_rows)
                place = uint32(to + free), uint32(b_to + free)
                copy_halves(0, now, offsets, taps_of_rows, place, x_at, dy_at, dy_step, left, dy_args, x_args)
            instructions.copies_commit()
            free = stage
            for i in range(results):
                part[i] = float32(0)
            multiply(shared, uint32(a_first + stage // uint32(4)), uint32(b_first + stage // uint32(4)), a_parts, part, totals)
            for i in range(results):
                sums[i] += part[i]
            stage = uint32(stage + uint32(stage_bytes))
            if stage == uint32(stages * stage_bytes):
                stage = uint32(0)

        column = uint32(first_filter + warp_n * uint32(WN))
        if extra_role == SUMS and first_tap == 0 and warp_m == 0:
            for i in range(across):
                total = totals[i]
                total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 1)
                total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 2)
                filter_ = uint32(column + uint32(i * COLUMNS) + lane // uint32(4))
                if lane % uint32(4) == 0 and filter_ < filters:
                    extra[uint32(batch * filters + filter_)] = total
        row = uint32(uint32(first_tap + warp_m * uint32(WM)) + uint32(lane // uint32(4)))
        column = uint32(column + uint32(lane % uint32(4)) * uint32(2))
        zero = uint32(0)
        write_rows(0, c, (taps, filters, zero, zero, zero, zero), (zero, zero), batch, row, column, extra, sums)

    return warps_grad_kernel


def product(
    tile: WarpGradTile,
    dy: tuple[Any, ...],
    x: tuple[Any, Any],
    sizes: tuple[int, int, int],
    extra_role: int,
    *,
    groups: int,
    slices: int,
) -> Product:
    """The gradient ready to be launched, as weight_grad.product makes it, by fours or not."""
    filters, taps, positions = sizes
    blocks = -(-positions // tile.BK)
    slice_blocks = max(1, -(-blocks // slices))
    slices = max(1, -(-blocks // slice_blocks))
    tiles_m, tiles_n = -(-taps // tile.BM), -(-filters // tile.BN)
    numbers = tuple(np.uint32(number) for number in (filters, taps, slice_blocks, blocks, groups, tiles_m, tiles_n))
    arguments = numbers, np.uint32(extra_role), dy, x
    made = warps_grad_kernel(tile)
    return Product(made, tiles_m * tiles_n * groups * slices, tile.threads, groups * slices, slices, arguments, tile.shared)

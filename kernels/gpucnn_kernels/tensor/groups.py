"""Products of matrices that lie in memory, such as those of dense layers, on Hopper's tensor cores.

    c[m, n] = Σ over k of a[m, k] · b[k, n]

As accurate as float32, by three products in TF32 (product.py), and like matrices.py for warps: nothing is packed beforehand, and both
factors come as they lie in memory, along the depth k or along the rows of a and the columns of b, four numbers at a time where that is
possible.

The instruction works out cᵀ = bᵀ · aᵀ: its 128 rows are columns of c, and its columns are rows of c. In a dense layer the rows of c are
those of a batch, which may be few, so a tile may have 64 of them. Three warpgroups of 128 threads:

    the first copies b       to stages of shared memory, as it lies: rows of 32 depths, or depths of 128 columns, far enough apart that
                             the 32 lanes of a warp read 32 different banks
    and makes a              in the same stages, as wgmma wants it (making.py); and adds its rows up, for the gradient of a bias
    the others multiply      64 columns of c each: they take b apart in registers, and leave a where it is (stages.py)

As in the engine, a sum may be cut into slices, each worked out by blocks of its own. Infinities, NaN and small numbers: product.py.
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
from gpucnn_kernels.core.problem import FLOAT32
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.engine.loop import finish, kept
from gpucnn_kernels.engine.product import Product, in_slices
from gpucnn_kernels.engine.tiles import BIAS, MASK, SUMS
from gpucnn_kernels.tensor import hopper, instructions, making
from gpucnn_kernels.tensor.parts import words_of
from gpucnn_kernels.tensor.stages import DEPTH, HEAD, MOST_SHARED, begin_stages, multiplier

COLUMNS = 128  # BN: rows of the instructions of two warpgroups
_AHEAD = 3  # blocks of a that are on their way
_first_place = device(making.first_place, forceinline=True)
_first_turned = device(making.first_turned, forceinline=True)
_own_square = device(making.own_square, forceinline=True)


@dataclass(frozen=True)
class GroupTile:
    """BM × 128 results per block, 32 steps of k at a time, by three warpgroups. bits: what factors keep (parts.py)."""

    BM: int
    bits: int = FLOAT32
    BN: int = COLUMNS
    BK: int = DEPTH
    threads: int = 384
    blocks_per_sm: int = 1

    @property
    def stage(self) -> int:
        """Bytes of a stage: a's tiles, one for each part, then b's; a multiple of 1024."""
        return 4 * (words_of(self.bits, self.BM * DEPTH) + max(map(words, (False, True))))

    @property
    def raw(self) -> int:
        """Bytes of a as it comes, for the blocks that are on their way and the one that is made."""
        return 4 * (_AHEAD + 1) * self.BM * DEPTH

    @property
    def stages(self) -> int:
        """The number of stages: as many as there is room for, up to eight; more gain nothing."""
        return min(8, (MOST_SHARED - 2 * HEAD - self.raw) // self.stage)

    @property
    def shared(self) -> int:
        """Bytes of shared memory, with what is lost to begin at a multiple of 1024."""
        return 2 * HEAD + self.stages * self.stage + self.raw


@dataclass(frozen=True)
class Lying:
    """How a factor lies in memory: along its rows (columns, those of b), or along the depth; and how many numbers are copied at a time."""

    by_rows: bool
    width: int


# Where b lies in a stage. Plain functions, which the kernel calls and the tests use.


def steps(by_rows: bool) -> tuple[int, int]:
    """Words from a column of b to the next, and from a depth to the next."""
    return (1, COLUMNS + 8) if by_rows else (DEPTH + 4, 1)


def words(by_rows: bool) -> int:
    """Words that b takes."""
    return DEPTH * (COLUMNS + 8) if by_rows else COLUMNS * (DEPTH + 4)


def across(by_rows: bool, width: int) -> int:
    """The threads side by side along a line of memory, each of which copies `width` numbers."""
    return (COLUMNS if by_rows else DEPTH) // width


def first_copied(by_rows: bool, width: int, thread: int) -> tuple[int, int]:
    """Column and depth of the first numbers that a thread copies; it goes on by as many lines as the threads copy at a time."""
    beside = (COLUMNS if by_rows else DEPTH) // width
    along, number = thread % beside * width, thread // beside
    return (along, number) if by_rows else (number, along)


_first_copied = device(first_copied, forceinline=True)


@functools.cache
def _copier(lying: Lying) -> Any:
    """A function (0, to, source, step, columns_left, depths_left) that begins a thread's copies of b: to where its first numbers go in
    a stage, from where they lie; `step` bytes to its next line; what there is from its own column and depth on."""
    by_rows, at_once = lying.by_rows, making.THREADS // across(lying.by_rows, lying.width)
    column_step, depth_step = steps(by_rows)
    copy_one, size = (instructions.copy_four, 16) if lying.width == 4 else (instructions.copy_word, 4)
    to_next = 4 * at_once * (depth_step if by_rows else column_step)

    @device(forceinline=True)
    def copy_line(i, to, source, step, columns_left, depths_left):
        """The thread's i-th, or zeros past the last column and depth."""
        if by_rows:
            there = columns_left > int32(0) and int32(i * at_once) < depths_left
        else:
            there = depths_left > int32(0) and int32(i * at_once) < columns_left
        copy_one(uint32(to + uint32(i * to_next)), uint64(source + uint64(uint32(i) * step)), uint32(size) if there else uint32(0))

    return unrolled(copy_line, (DEPTH if by_rows else COLUMNS) // at_once)


@functools.cache
def groups_kernel(tile: GroupTile, a_lies: Lying, b_lies: Lying, row_sums: bool) -> Any:
    """The kernel: (a, b, extra, c, sizes, epilogue), on a grid of blocks of `tile.threads` with `tile.shared` bytes.

    `sizes` are M, N, the depth, the blocks of 32 steps that each slice has and that there are in all, and the tiles along M and N;
    `epilogue` what `extra` is for, and whether there is a ReLU (engine/tiles.py). c (slices, M, N). `row_sums`: whether there may be sums
    of a's rows; a then lies along them.
    """
    if row_sums and not a_lies.by_rows:
        raise ValueError("sums of rows are for an a that lies along them")
    BM, bits, stages, stage_bytes = tile.BM, tile.bits, tile.stages, tile.stage
    sums_count, a_bytes = BM // 2, 4 * words_of(bits, BM * DEPTH)
    a_by_rows, a_width, b_by_rows, b_width = a_lies.by_rows, a_lies.width, b_lies.by_rows, b_lies.width
    raw_bytes, raw_at, size = 4 * BM * DEPTH, stages * stage_bytes, 4 * a_width
    a_across, a_step = making.across(a_width), making.rows_step(a_width)
    (copy_a, put_a), swizzled = (making.along_rows if a_by_rows else making.along_depths)(BM, a_width, bits), making.swizzled(bits)
    totals_count = BM // (16 if a_by_rows else a_step)
    copy_b, b_lines, (column_step, depth_step) = _copier(b_lies), making.THREADS // across(b_by_rows, b_width), steps(b_by_rows)
    wait = instructions.copies_wait(_AHEAD)
    give, take = hopper.give_registers(104), hopper.take_registers(200)
    multiply_all = multiplier(BM, stages, stage_bytes, column_step, depth_step, bits)

    @device(forceinline=True)
    def write(number, c, extra, sizes, epilogue, at, column, below, first_row, shift, shift_below, sums):
        """The sum of that number: rows of c by twos, in the thread's first column and in the eighth after it."""
        M, N = sizes
        extra_role, relu = epilogue
        row = uint32(first_row + uint32(number // 4 * 8 + number % 2))
        own, shift = (below, shift_below) if number % 4 >= 2 else (column, shift)
        if own < N and row < M:
            offset = uint32(at + uint32(row * N) + own)
            value = sums[number]
            if extra_role == MASK:
                value = kept(value, extra[offset])
            c[offset] = finish(value, shift, relu)

    write_all = unrolled(write, sums_count)

    @kernel(role="engine", launch_bounds=(tile.threads, 1))
    def groups_kernel(a, b, extra, c, sizes, epilogue):
        shared = cuda.shared.array(0, float32, alignment=128)
        sums = cuda.local.array(sums_count, float32)
        part = cuda.local.array(sums_count, float32)
        totals = cuda.local.array(totals_count, float32)
        M, N, depth, slice_blocks, all_blocks, tiles_m, tiles_n = sizes
        extra_role, relu = epilogue
        thread = uint32(cuda.threadIdx.x)
        number = uint32(cuda.blockIdx.x)
        first_row = uint32(uint32(number % tiles_m) * uint32(BM))
        number = uint32(number // tiles_m)
        first_column = uint32(uint32(number % tiles_n) * uint32(COLUMNS))
        batch = uint32(number // tiles_n)
        begin_block = uint32(batch * slice_blocks)
        blocks = uint32(min(slice_blocks, uint32(all_blocks - begin_block)))
        begin = instructions.shared_address(shared)
        full, empty, stages_at = begin_stages(begin, thread, uint32(stages), uint32(256))

        stage, parity = uint32(0), uint32(0)
        if thread < uint32(making.THREADS):
            give()
            first_depth = uint32(begin_block * uint32(DEPTH))
            last_depth = uint32(min(depth, uint32(first_depth + blocks * uint32(DEPTH))))
            if a_by_rows:
                own_row, own_depth = _own_square(thread)
                written_row, place = _first_turned(bits, own_row, own_depth)
            else:
                written_row, along = uint32(thread // uint32(a_across)), uint32(thread % uint32(a_across))
                own_row, own_depth, place = written_row, uint32(along * uint32(a_width)), _first_place(a_width, bits, along)
            raw_to = uint32(uint32(stages_at + uint32(raw_at)) + uint32(thread * uint32(size)))
            raw = uint32(uint32(raw_to - begin) // uint32(4))
            at = uint32(uint32(uint32(stages_at - begin) // uint32(4)) + uint32(swizzled(uint32(written_row), uint32(place))))
            row, first = uint32(first_row + uint32(own_row)), uint32(first_depth + uint32(own_depth))
            rows_left, a_left = int32(int32(M) - int32(row)), int32(int32(last_depth) - int32(first))
            a_from = uint32(first * M + row) if a_by_rows else uint32(row * depth + first)
            a_at = uint64(instructions.global_address(a) + uint64(a_from) * uint64(4))
            a_line = uint32(M * uint32(4)) if a_by_rows else uint32(depth * uint32(4 * a_step))
            a_block = uint64(uint64(M if a_by_rows else uint32(1)) * uint64(4 * DEPTH))

            copied_column, copied_depth = _first_copied(b_by_rows, b_width, thread)
            b_to = uint32(copied_column * column_step + copied_depth * depth_step)
            b_to = uint32(uint32(stages_at + uint32(a_bytes)) + uint32(b_to * uint32(4)))
            column, first = uint32(first_column + uint32(copied_column)), uint32(first_depth + uint32(copied_depth))
            columns_left, b_left = int32(int32(N) - int32(column)), int32(int32(last_depth) - int32(first))
            b_from = uint32(first * N + column) if b_by_rows else uint32(column * depth + first)
            b_at = uint64(instructions.global_address(b) + uint64(b_from) * uint64(4))
            b_line = uint32(uint32(N if b_by_rows else depth) * uint32(4 * b_lines))
            b_block = uint64(uint64(N if b_by_rows else uint32(1)) * uint64(4 * DEPTH))

            for i in range(totals_count):
                totals[i] = float32(0)
            for block in range(-_AHEAD, int32(blocks)):
                slot = uint32(uint32(block + _AHEAD) % uint32(_AHEAD + 1))
                to = uint32(raw_to + uint32(slot * uint32(raw_bytes)))
                if a_by_rows:
                    copy_a(0, to, a_at, a_line, rows_left, a_left)
                else:
                    copy_a(0, to, a_at, a_line, rows_left, a_left > int32(0))
                instructions.copies_commit()
                a_at, a_left = uint64(a_at + a_block), int32(a_left - int32(DEPTH))
                if block >= 0:
                    while hopper.has_ended(uint32(empty + uint32(stage * uint32(8))), uint32(parity ^ uint32(1))) == 0:
                        pass
                    filled = uint32(full + uint32(stage * uint32(8)))
                    copy_b(0, uint32(b_to + uint32(stage * uint32(stage_bytes))), b_at, b_line, columns_left, b_left)
                    b_at, b_left = uint64(b_at + b_block), int32(b_left - int32(DEPTH))
                    wait()
                    slot = uint32(uint32(block) % uint32(_AHEAD + 1))
                    source = uint32(raw + uint32(slot * uint32(raw_bytes // 4)))
                    put_a(0, shared, source, uint32(at + uint32(stage * uint32(stage_bytes // 4))), totals)
                    hopper.written_for_products()
                    hopper.arrive(filled)
                    hopper.arrive_with_copies(filled)
                    stage = uint32(stage + uint32(1))
                    if stage == uint32(stages):
                        stage, parity = uint32(0), uint32(parity ^ uint32(1))
            if row_sums and extra_role == SUMS and first_column == 0:
                for i in range(totals_count):
                    total = totals[i]
                    total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 2)
                    total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 4)
                    total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 16)
                    own = uint32(row + uint32(i // 4 * making.ROWS_AT_ONCE + i % 4))
                    if own_depth == 0 and own < M:
                        extra[uint32(batch * M + own)] = total
        else:
            take()
            own = uint32(thread - uint32(making.THREADS))
            lane = uint32(thread % uint32(32))
            own_column = uint32(uint32(own // uint32(32)) * uint32(16) + uint32(lane // uint32(4)))
            b_first = uint32(uint32(uint32(stages_at - begin) + uint32(a_bytes)) // uint32(4))
            b_first = uint32(b_first + uint32(own_column * uint32(column_step)) + uint32(lane % uint32(4)) * uint32(depth_step))
            multiply_all(int32(blocks), shared, b_first, stages_at, full, empty, part, sums)
            column = uint32(first_column + own_column)
            below = uint32(column + uint32(8))
            shift, shift_below = float32(0), float32(0)
            if extra_role == BIAS:
                if column < N:
                    shift = extra[column]
                if below < N:
                    shift_below = extra[below]
            row = uint32(first_row + uint32(lane % uint32(4)) * uint32(2))
            at = uint32(uint32(batch * M) * N)
            write_all(0, c, extra, (M, N), (extra_role, relu), at, column, below, row, shift, shift_below, sums)

    return groups_kernel


def product(
    tile: GroupTile,
    by_rows: tuple[bool, bool],
    row_sums: bool,
    sizes: tuple[int, int, int],
    epilogue: tuple[int, bool],
    *,
    slices: int,
    widths: tuple[int, int],
) -> Product:
    """A product ready to be launched, as matrices.product makes them: whether a and b lie along their rows in memory, or along the depth;
    whether there may be sums of a's rows; `sizes` are M, N and the depth, `epilogue` what `extra` is for and whether there is a ReLU.
    `widths`: how many numbers of a and of b may be copied at once, 4 or 1. The sum is cut into `slices`, or into fewer if some would be
    empty."""
    M, N, depth = sizes
    blocks, slice_blocks, slices, tiles_m, tiles_n = in_slices(tile, sizes, slices)
    numbers = tuple(np.uint32(number) for number in (M, N, depth, slice_blocks, blocks, tiles_m, tiles_n))
    arguments = numbers, tuple(np.uint32(number) for number in epilogue)
    made = groups_kernel(tile, Lying(by_rows[0], widths[0]), Lying(by_rows[1], widths[1]), row_sums)
    return Product(made, tiles_m * tiles_n * slices, tile.threads, slices, slices, arguments, tile.shared)

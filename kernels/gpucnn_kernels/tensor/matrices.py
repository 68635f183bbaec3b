"""Products of matrices that lie in memory, such as those of dense layers, on the tensor cores of every chip from Ampere on.

    c[m, n] = Σ over k of a[m, k] · b[k, n]

warps.py says how warps feed tensor cores, and product.py why three products in TF32 make one of float32's accuracy. Here both factors are
copied as they lie in memory, along the depth k or along the rows of a and the columns of b, four numbers at a time where that is possible;
places.py says where they lie, and how lanes find theirs. Nothing is packed beforehand: a dense layer's weights are used once in a step.
Both factors are taken apart, or rounded, in registers.

As in the engine, a sum may be cut into slices, each worked out by blocks of its own. Infinities, NaN and small numbers: warps.py.
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
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4
from gpucnn_kernels.engine.product import Product, in_slices
from gpucnn_kernels.engine.tiles import SUMS, Store
from gpucnn_kernels.tensor import instructions, places
from gpucnn_kernels.tensor.fragments import COLUMNS, ROWS
from gpucnn_kernels.tensor.instructions import number_of
from gpucnn_kernels.tensor.parts import putter
from gpucnn_kernels.tensor.results import writer
from gpucnn_kernels.tensor.warp_products import column_multiplier, three_products, two_parts
from gpucnn_kernels.tensor.warps import ALIGNED

_THREADS = 128
_word = device(places.word, forceinline=True)
_own_line = device(places.own_line, forceinline=True)
_own_row = device(places.own_row, forceinline=True)
_first_of_a = device(places.first_of_a, forceinline=True)
_first_of_b = device(places.first_of_b, forceinline=True)
_STEP = 8  # steps of k that a lane reads at a time


@dataclass(frozen=True)
class MatrixTile:
    """BM × BN results per block, 16 steps of k at a time, WM × WN per warp. bits: what factors keep (parts.py)."""

    bits: int = FLOAT32
    BM: int = 128
    BN: int = 64
    BK: int = places.DEPTHS
    WM: int = 64
    WN: int = 32
    threads: int = _THREADS
    blocks_per_sm: int = 2
    stages: int = 3

    def shared(self, a_by_rows: bool, b_by_rows: bool) -> int:
        """Bytes of shared memory, with what is lost to begin at a multiple of 128."""
        return ALIGNED + 4 * self.stages * (places.words(a_by_rows, self.BM) + places.words(b_by_rows, self.BN))


@dataclass(frozen=True)
class Side:
    """A factor of a tile: its rows, those of them that a warp has, whether it lies along them in memory or along the depth, and how many
    numbers are copied at a time."""

    rows: int
    own: int
    by_rows: bool
    width: int


@functools.cache
def _copier(side: Side) -> tuple[Any, Any]:
    """Two functions: (matrix, first_row, first_depth, stage_at, thread, count, depth) → where a thread's first number goes to and comes
    from, the bytes to its next line, and how many rows and depths there are from its own on; and (0, to, source, step, rows_left,
    depths_left), which begins its copies."""
    rows, by_rows, width = side.rows, side.by_rows, side.width
    across = places.across(by_rows, rows, width)
    lines = _THREADS // across  # at a time
    copies, line_bytes = rows * places.DEPTHS // width // _THREADS, 4 * lines * places.pitch(by_rows, rows)
    copy_one, size = (instructions.copy_four, 16) if width == 4 else (instructions.copy_word, 4)

    @device(forceinline=True)
    def prepare(matrix, first_row, first_depth, stage_at, thread, count, depth):
        place, line = uint32(thread % uint32(across) * uint32(width)), uint32(_own_line(by_rows, uint32(thread // uint32(across))))
        row, own_depth = (place, line) if by_rows else (line, place)
        to = uint32(stage_at + uint32(4) * uint32(_word(by_rows, rows, row, own_depth)))
        row, own_depth = uint32(first_row + row), uint32(first_depth + own_depth)
        at = uint32(own_depth * count + row) if by_rows else uint32(row * depth + own_depth)
        source = uint64(instructions.global_address(matrix) + uint64(at) * uint64(4))
        step = uint64(uint64(count if by_rows else depth) * uint64(4 * lines))  # from a line to the next
        return to, source, step, int32(int32(count) - int32(row)), int32(int32(depth) - int32(own_depth))

    @device(forceinline=True)
    def copy_line(i, to, source, step, rows_left, depths_left):
        """The thread's i-th, or zeros past the last row and depth."""
        if by_rows:
            there = rows_left > int32(0) and int32(i * lines) < depths_left
        else:
            there = depths_left > int32(0) and int32(i * lines) < rows_left
        own = uint32(to + uint32(i * line_bytes))
        copy_one(own, uint64(source + uint64(i) * step), uint32(size) if there else uint32(0))

    return prepare, unrolled(copy_line, copies)


@functools.cache
def _reader(side: Side, of_a: bool) -> Any:
    """A function (0, shared, at, k, numbers) that reads a lane's numbers of 8 steps of k, `k` steps on from its first: in the order of the
    registers in TF32, four for each product of a and two for each of b. `at` is a word, or along depths an address."""
    pitch = places.pitch(side.by_rows, side.rows)

    @device(forceinline=True)
    def pieces(i, shared, at, k, numbers):
        """Along depths: of one product of a, or of two of b."""
        first, second, third, fourth = instructions.load_pieces(uint32(at + uint32(4 * (i * ROWS * pitch + k))))
        numbers[4 * i], numbers[4 * i + 1] = number_of(first), number_of(second)
        numbers[4 * i + 2], numbers[4 * i + 3] = number_of(third), number_of(fourth)

    @device(forceinline=True)
    def rows_of_a(i, shared, at, k, numbers):
        """Along rows: four rows, which are those of two products, at two depths."""
        x_0, x_1, x_2, x_3 = load_4(shared, beyond(at, 32 * i + k * pitch))
        y_0, y_1, y_2, y_3 = load_4(shared, beyond(at, 32 * i + (k + 4) * pitch))
        numbers[8 * i], numbers[8 * i + 1], numbers[8 * i + 2], numbers[8 * i + 3] = x_0, x_1, y_0, y_1
        numbers[8 * i + 4], numbers[8 * i + 5], numbers[8 * i + 6], numbers[8 * i + 7] = x_2, x_3, y_2, y_3

    @device(forceinline=True)
    def rows_of_b(i, shared, at, k, numbers):
        """Along rows: four columns, one of each product, at two depths."""
        x_0, x_1, x_2, x_3 = load_4(shared, beyond(at, 32 * i + k * pitch))
        y_0, y_1, y_2, y_3 = load_4(shared, beyond(at, 32 * i + (k + 4) * pitch))
        numbers[8 * i], numbers[8 * i + 1], numbers[8 * i + 2], numbers[8 * i + 3] = x_0, y_0, x_1, y_1
        numbers[8 * i + 4], numbers[8 * i + 5], numbers[8 * i + 6], numbers[8 * i + 7] = x_2, y_2, x_3, y_3

    if side.by_rows:
        return unrolled(rows_of_a if of_a else rows_of_b, side.own // 32)
    return unrolled(pieces, side.own // ROWS)


@functools.cache
def _multiplier(tile: MatrixTile, a_side: Side, b_side: Side, sums_of_rows: bool) -> Any:
    """A function that multiplies a stage: (shared, a_at, b_at, numbers, parts, part, totals) adds it to `part`, and a lane's numbers of a
    to `totals`, one for each of its rows, if there are `sums_of_rows`. `numbers` is room for those of a in 8 steps of k and in the next,
    and for those of b; `parts` for a's parts, likewise: big ones and small ones, of 8 steps and of the next."""
    bits = tile.bits
    down, across = tile.WM // ROWS, tile.WN // COLUMNS
    read_a, read_b = _reader(a_side, True), _reader(b_side, False)
    put, multiply_all, multiply_three = putter(bits), column_multiplier(down, across, bits), three_products(down, across)

    @device(forceinline=True)
    def add(i, a, totals):
        """The numbers of a product of a, to those of its rows."""
        totals[2 * i] += float32(a[4 * i] + a[4 * i + 2])
        totals[2 * i + 1] += float32(a[4 * i + 1] + a[4 * i + 3])

    @device(forceinline=True)
    def take(i, a, a_next, big, small):
        """Product number i's four registers of a; in bfloat16 of all 16 steps."""
        x_0, x_1, x_2, x_3 = a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3]
        y_0, y_1, y_2, y_3 = a_next[4 * i], a_next[4 * i + 1], a_next[4 * i + 2], a_next[4 * i + 3]
        put(i, x_0, x_1, x_2, x_3, y_0, y_1, y_2, y_3, big, small)

    add_all, take_all = unrolled(add, down), unrolled(take, down)

    @device(forceinline=True)
    def column(j, b, b_next, parts, part):
        big, _, next_big, _ = parts
        y_0, y_1, y_2, y_3 = b[2 * j], b[2 * j + 1], b_next[2 * j], b_next[2 * j + 1]
        if bits == FLOAT32:
            multiply_three(j, parts, (two_parts(y_0, y_1), two_parts(y_2, y_3)), part)
        elif bits == BFLOAT16:
            multiply_all(0, j, big, instructions.to_bfloat16(y_0, y_1), instructions.to_bfloat16(y_2, y_3), part)
        else:
            multiply_all(0, j, big, instructions.to_tf32(y_0), instructions.to_tf32(y_1), part)
            multiply_all(0, j, next_big, instructions.to_tf32(y_2), instructions.to_tf32(y_3), part)

    all_columns = unrolled(column, across)

    @device(forceinline=True)
    def multiply(shared, a_at, b_at, numbers, parts, part, totals):
        a, a_next, b, b_next = numbers
        big, small, next_big, next_small = parts
        read_a(0, shared, a_at, 0, a)
        read_b(0, shared, b_at, 0, b)
        read_a(0, shared, a_at, _STEP, a_next)
        read_b(0, shared, b_at, _STEP, b_next)
        if sums_of_rows:
            add_all(0, a, totals)
            add_all(0, a_next, totals)
        take_all(0, a, a_next, big, small)
        if bits != BFLOAT16:
            take_all(0, a_next, a_next, next_big, next_small)
        all_columns(0, b, b_next, parts, part)

    return multiply


@functools.cache
def matrices_kernel(tile: MatrixTile, a_side: Side, b_side: Side, store: Store) -> Any:
    """The kernel: (a, b, extra, c, sizes, epilogue), on a grid of blocks of `tile.threads` with `tile.shared` bytes.

    `sizes` are M, N, the depth, the blocks of 16 steps that each slice has and that there are in all, and the tiles along M and N;
    `epilogue` what `extra` is for, and whether there is a ReLU (engine/tiles.py).
    """
    BM, BN, BK, WM, WN, stages = tile.BM, tile.BN, tile.BK, tile.WM, tile.WN, tile.stages
    a_by_rows, b_by_rows = a_side.by_rows, b_side.by_rows
    a_bytes = 4 * places.words(a_by_rows, BM)
    stage_bytes = a_bytes + 4 * places.words(b_by_rows, BN)
    down, across, warps_n = WM // ROWS, WN // COLUMNS, BN // WN
    results, sums_of_row, registers, b_registers, own_rows = 4 * down * across, 4 * across, 4 * down, 2 * across, 2 * down
    a_warp, b_warp = (own * (1 if side.by_rows else places.pitch(False, side.rows)) for own, side in ((WM, a_side), (WN, b_side)))
    (a_prepare, a_copy), (b_prepare, b_copy) = _copier(a_side), _copier(b_side)
    row_offset, row_sums = store.row_offset, store.sums
    wait, multiply = instructions.copies_wait(stages - 2), _multiplier(tile, a_side, b_side, row_sums)
    product_step, column_step = (1, 4) if b_by_rows else (8, 1)
    write_all = writer(store, sums_of_row, product_step, column_step)

    @device(forceinline=True)
    def write_rows(i, c, sizes, epilogue, batch, first_row, lane, column, extra, sums):
        """Of a warp's product number i."""
        M, N, _, _, _, _ = sizes
        row = uint32(first_row + uint32(_own_row(a_by_rows, lane, 2 * i)))
        below = uint32(first_row + uint32(_own_row(a_by_rows, lane, 2 * i + 1)))
        row_at, below_at = row_offset((), M, N, batch, row), row_offset((), M, N, batch, below)
        write_all(0, i * sums_of_row, c, (), sizes, epilogue, batch, row, row_at, below, below_at, column, extra, sums)

    write_all_rows = unrolled(write_rows, down)

    @kernel(role="engine", launch_bounds=(tile.threads, tile.blocks_per_sm))
    def matrices_kernel(a, b, extra, c, sizes, epilogue):
        shared = cuda.shared.array(0, float32)
        sums = cuda.local.array(results, float32)
        part = cuda.local.array(results, float32)
        numbers = (
            cuda.local.array(registers, float32),
            cuda.local.array(registers, float32),
            cuda.local.array(b_registers, float32),
            cuda.local.array(b_registers, float32),
        )
        a_parts = (
            cuda.local.array(registers, uint32),
            cuda.local.array(registers, uint32),
            cuda.local.array(registers, uint32),
            cuda.local.array(registers, uint32),
        )
        totals = cuda.local.array(own_rows, float32)
        M, N, depth, slice_blocks, all_blocks, tiles_m, tiles_n = sizes
        thread = uint32(cuda.threadIdx.x)
        number = uint32(cuda.blockIdx.x)
        first_column = uint32(uint32(number % tiles_n) * uint32(BN))
        number = uint32(number // tiles_n)
        first_row = uint32(uint32(number % tiles_m) * uint32(BM))
        batch = uint32(number // tiles_m)
        begin_block = uint32(batch * slice_blocks)
        blocks = uint32(min(slice_blocks, uint32(all_blocks - begin_block)))
        lane, warp = uint32(thread % uint32(32)), uint32(thread // uint32(32))

        begin = instructions.shared_address(shared)
        stages_at = uint32(uint32(begin + uint32(ALIGNED - 1)) & uint32(0xFFFFFFFF - (ALIGNED - 1)))
        first_depth = uint32(begin_block * uint32(BK))
        a_to, a_source, a_step, a_rows, a_left = a_prepare(a, first_row, first_depth, stages_at, thread, M, depth)
        b_at = uint32(stages_at + uint32(a_bytes))
        b_to, b_source, b_step, b_rows, b_left = b_prepare(b, first_column, first_depth, b_at, thread, N, depth)
        a_block = uint64(uint64(M if a_by_rows else uint32(1)) * uint64(4 * BK))  # from a block of BK steps to the next
        b_block = uint64(uint64(N if b_by_rows else uint32(1)) * uint64(4 * BK))
        for ahead in range(stages - 1):
            if uint32(ahead) < blocks:
                at = uint32(ahead * stage_bytes)
                a_copy(0, uint32(a_to + at), a_source, a_step, a_rows, a_left)
                b_copy(0, uint32(b_to + at), b_source, b_step, b_rows, b_left)
                a_source, b_source = uint64(a_source + a_block), uint64(b_source + b_block)
                a_left, b_left = int32(a_left - int32(BK)), int32(b_left - int32(BK))
            instructions.copies_commit()

        # Where a lane begins to read: words, or addresses along depths.
        warp_m, warp_n = uint32(warp // uint32(warps_n)), uint32(warp % uint32(warps_n))
        words_at = uint32(uint32(stages_at - begin) // uint32(4))
        a_first = uint32(uint32(warp_m * uint32(a_warp)) + uint32(_first_of_a(a_by_rows, BM, lane)))
        b_first = uint32(uint32(uint32(a_bytes // 4) + warp_n * uint32(b_warp)) + uint32(_first_of_b(b_by_rows, BN, lane)))
        a_first = uint32(words_at + a_first) if a_by_rows else uint32(stages_at + uint32(4) * a_first)
        b_first = uint32(words_at + b_first) if b_by_rows else uint32(stages_at + uint32(4) * b_first)
        for i in range(results):
            sums[i] = float32(0)
        for i in range(own_rows):
            totals[i] = float32(0)
        stage, free = uint32(0), uint32((stages - 1) * stage_bytes)
        for block in range(int32(blocks)):
            wait()
            cuda.syncthreads()
            if uint32(uint32(block) + uint32(stages - 1)) < blocks:
                a_copy(0, uint32(a_to + free), a_source, a_step, a_rows, a_left)
                b_copy(0, uint32(b_to + free), b_source, b_step, b_rows, b_left)
                a_source, b_source = uint64(a_source + a_block), uint64(b_source + b_block)
                a_left, b_left = int32(a_left - int32(BK)), int32(b_left - int32(BK))
            instructions.copies_commit()
            free = stage
            for i in range(results):
                part[i] = float32(0)
            a_at = uint32(a_first + (stage // uint32(4) if a_by_rows else stage))
            b_at = uint32(b_first + (stage // uint32(4) if b_by_rows else stage))
            multiply(shared, a_at, b_at, numbers, a_parts, part, totals)
            for i in range(results):
                sums[i] += part[i]
            stage = uint32(stage + uint32(stage_bytes))
            if stage == uint32(stages * stage_bytes):
                stage = uint32(0)

        row = uint32(first_row + warp_m * uint32(WM))
        extra_role, relu = epilogue
        if row_sums and extra_role == SUMS and first_column == 0 and warp_n == 0:
            for i in range(own_rows):
                total = totals[i]
                total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 1)
                total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 2)
                own = uint32(row + uint32(_own_row(a_by_rows, lane, i)))
                if lane % uint32(4) == 0 and own < M:
                    extra[uint32(batch * M + own)] = total
        column = uint32(uint32(first_column + warp_n * uint32(WN)) + uint32(lane % uint32(4)) * uint32(2 * column_step))
        zero = uint32(0)
        write_all_rows(0, c, (M, N, zero, zero, zero, zero), (extra_role, relu), batch, row, lane, column, extra, sums)

    return matrices_kernel


def product(
    tile: MatrixTile,
    by_rows: tuple[bool, bool],
    store: Store,
    sizes: tuple[int, int, int],
    epilogue: tuple[int, bool],
    *,
    slices: int,
    widths: tuple[int, int],
) -> Product:
    """A product ready to be launched: whether a and b lie along their rows in memory, or along the depth; `sizes` are M, N and the depth,
    `epilogue` what `extra` is for and whether there is a ReLU. `widths`: how many numbers of a and of b may be read at once, 4 or 1. The
    sum is cut into `slices`, or into fewer if some would be empty."""
    M, N, depth = sizes
    blocks, slice_blocks, slices, tiles_m, tiles_n = in_slices(tile, sizes, slices)
    numbers = tuple(np.uint32(number) for number in (M, N, depth, slice_blocks, blocks, tiles_m, tiles_n))
    arguments = numbers, tuple(np.uint32(number) for number in epilogue)
    a, b = Side(tile.BM, tile.WM, by_rows[0], widths[0]), Side(tile.BN, tile.WN, by_rows[1], widths[1])
    made = matrices_kernel(tile, a, b, store)
    return Product(made, tiles_m * tiles_n * slices, tile.threads, slices, slices, arguments, tile.shared(*by_rows))

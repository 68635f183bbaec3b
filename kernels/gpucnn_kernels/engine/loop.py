"""Products of matrices at the speed of the chip: one loop over tiles, that everything fast in this package runs on.

    c[m, n] = Σ over k of a[m, k] · b[k, n]

Nothing says that a, b and c are matrices in memory. What one is, is told by small functions that are plugged in (tiles.py), and
a convolution is such a product with an `a` whose elements are looked up in the image (conv/tiled.py).

Why a tile. An FMA, the chip's multiply-and-add, takes two factors: 8 bytes. An H100 does 2 · 10¹³ FMAs a second or more, and would have
to read 200 TB/s; its memory gives 3. So every number read has to be used some 60 times or more. A block of threads that works out a tile
of BM × BN results reads BM + BN numbers per step of k and does BM · BN FMAs with them. For 128 × 128 that is 1024 bytes for 16384 FMAs, a
sixteenth of a byte per FMA instead of 8.

Why shared memory. All threads of the block need those numbers, each number many of them. Shared memory is 100 KB or more beside the
arithmetic units of a multiprocessor: one thread reads a number from global memory, all read it from there.

Why registers. Shared memory gives a multiprocessor 128 bytes a cycle, that is 32 numbers, while its 128 arithmetic units want 256. So
each thread works out TM × TN results at once: for 8 × 8 it reads 16 numbers for 64 FMAs, one byte per FMA, and threads of a warp that read
the same number share one reading. The 64 sums stay in registers all the while.

Why double buffering. Global memory answers after some 500 cycles. While the FMAs of one tile run, the numbers of the next are on their
way, into registers or past them (turn.py), to the other half of shared memory, which nobody is reading. So one barrier per tile is enough,
and nobody waits for memory unless everybody does.

What is done with a result before it is written costs next to nothing: it is in a register already. So a bias and ReLU belong here, and so
does the gradient of a ReLU that stood before: dx is 0 where that gave nothing (MASK). And the numbers of `a` pass through the registers of
their block anyway: added up there, they are the gradient of the bias (SUMS), for as many additions as numbers are read from memory. Those
that go past registers are read back from shared memory, by the blocks of the first columns.

Reading and writing four numbers at a time (vector.py) quarters the instructions that are not FMAs. The threads of a warp form a patch of
4 × 8, and a thread's rows and columns come in fours, a patch apart: then what a warp reads at a time lies in different banks of shared
memory, or is the same number.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32, uint64
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4, store_4
from gpucnn_kernels.engine.copies import copy_of
from gpucnn_kernels.engine.cut import WHOLE, Way
from gpucnn_kernels.engine.tiles import BIAS, MASK, SUMS, Operand, Store, Tile
from gpucnn_kernels.engine.turn import turn_of


@device(forceinline=True)
def finish(value, shift, relu):
    """The bias added, then ReLU where `relu`."""
    value = float32(value + shift)
    if relu and value <= float32(0):  # NaN stays NaN
        value = float32(0)
    return value


@device(forceinline=True)
def kept(value, mask):
    """ReLU's gradient: the value where its result was positive, 0 where it was 0 or NaN."""
    return value if mask > float32(0) else float32(0)


@functools.cache
def tile_kernel(tile: Tile, a_operand: Operand, b_operand: Operand, store: Store, way: Way = WHOLE, past_registers: bool = False) -> Any:
    """The kernel of a product: (a, b, extra, c, sizes, epilogue, a_args, b_args, c_args) on a grid of blocks of `tile.threads`.

    `sizes` are M, N, the blocks of BK steps that each slice of the sum has and that there are in all, the groups, and the tiles along M
    and N; a batch is a group of a slice: batch = slice · groups + group. `epilogue`: whether four results may be written at once (and
    four numbers of a mask read), what `extra` is for, and whether there is a ReLU. The rest of the arguments are the operands' and the
    store's own. `way`: whether there are tiles with several blocks (cut.py), where there are no slices of the whole product.
    `past_registers`: whether numbers get to shared memory by asynchronous copies, on chips that have such (turn.py).
    """
    BM, BN, BK, TM, TN, threads = tile.BM, tile.BN, tile.BK, tile.TM, tile.TN, tile.threads
    a_copy, b_copy = copy_of(a_operand, BM, BK, threads), copy_of(b_operand, BN, BK, threads)
    a_put, a_spread, a_rows = a_copy.put, a_copy.spread, a_copy.sums
    a_count, a_words, b_count, b_words, a_pitch = a_copy.count, a_copy.words, b_copy.count, b_copy.words, a_copy.pitch
    a_room, b_room, results = 2 * a_pitch * BK, 2 * b_copy.pitch * BK, TM * TN  # shapes of arrays must be names of constants
    row_offset, column_offset, bias_index, row_sums = store.row_offset, store.column_offset, store.bias_index, store.sums
    # A line is what stays while four neighbours are written at a time: a column, or a row.
    along_rows = store.along == "rows"
    lines, items, line_step, item_step = (TN, TM, 1, TN) if along_rows else (TM, TN, TN, 1)

    lanes = min(32, threads)
    lanes_n = min(8, BN // TN)
    lanes_m = lanes // lanes_n
    warps_n = BN // TN // lanes_n
    if lanes_m % 2 or lanes_m * lanes_n != lanes or BM % (lanes_m * TM) or BK % 8 or TM % 4 or TN % 4:
        raise ValueError(f"not a tile that the engine can do: {tile}")
    a_patch, b_patch = lanes_m * 4, lanes_n * 4  # from a thread's four rows, or columns, to its next four
    sizes_of, place_of, join = way.sizes, way.place, way.joiner(results, threads)

    loop = turn_of(tile, a_copy, b_copy, (a_patch, b_patch), row_sums, past_registers)
    prepare, places_of, fill, turn = loop.prepare, loop.places, loop.fill, loop.turn

    line_offset, lines_patch, items_patch = (column_offset, b_patch, a_patch) if along_rows else (row_offset, a_patch, b_patch)

    @device(forceinline=True)
    def mask_line(line, mask, line_at, first_item, item_limit, item_offsets, vector, sums):
        """The sums of a line are 0 where `mask` is not positive. It is read without a branch, so that the readings need not wait for one
        another: where there is no result, element 0 stands in."""
        for item in range(0, items, 4):
            at = line * line_step + item * item_step
            beside = uint32(first_item + uint32(item // 4 * items_patch))
            if vector:
                m0, m1, m2, m3 = load_4(mask, uint64(uint32(line_at + item_offsets[item]) if beside < item_limit else uint32(0)))
            else:
                m0 = mask[uint32(line_at + item_offsets[item]) if beside < item_limit else uint32(0)]
                m1 = mask[uint32(line_at + item_offsets[item + 1]) if uint32(beside + uint32(1)) < item_limit else uint32(0)]
                m2 = mask[uint32(line_at + item_offsets[item + 2]) if uint32(beside + uint32(2)) < item_limit else uint32(0)]
                m3 = mask[uint32(line_at + item_offsets[item + 3]) if uint32(beside + uint32(3)) < item_limit else uint32(0)]
            sums[at] = kept(sums[at], m0)
            sums[at + item_step] = kept(sums[at + item_step], m1)
            sums[at + 2 * item_step] = kept(sums[at + 2 * item_step], m2)
            sums[at + 3 * item_step] = kept(sums[at + 3 * item_step], m3)

    @device(forceinline=True)
    def write_line(line, c, c_args, sizes, batch, first_line, first_item, item_offsets, extra, group, shifts, epilogue, sums):
        M, N, _, _, _, _, _ = sizes
        vector, extra_role, relu = epilogue
        limit, item_limit = (N, M) if along_rows else (M, N)
        number = uint32(first_line + uint32(line // 4 * lines_patch + line % 4))
        if number < limit:
            line_at = line_offset(c_args, M, N, batch, number)
            line_shift = float32(0)
            if along_rows and extra_role == BIAS:
                line_shift = extra[bias_index(c_args, N, group, number)]
            if extra_role == MASK:
                mask_line(line, extra, line_at, first_item, item_limit, item_offsets, vector, sums)
            for item in range(0, items, 4):
                at = line * line_step + item * item_step
                v0 = finish(sums[at], line_shift if along_rows else shifts[item], relu)
                v1 = finish(sums[at + item_step], line_shift if along_rows else shifts[item + 1], relu)
                v2 = finish(sums[at + 2 * item_step], line_shift if along_rows else shifts[item + 2], relu)
                v3 = finish(sums[at + 3 * item_step], line_shift if along_rows else shifts[item + 3], relu)
                beside = uint32(first_item + uint32(item // 4 * items_patch))
                if vector:
                    if beside < item_limit:
                        store_4(c, uint64(uint32(line_at + item_offsets[item])), v0, v1, v2, v3)
                else:
                    if beside < item_limit:
                        c[uint32(line_at + item_offsets[item])] = v0
                    if uint32(beside + uint32(1)) < item_limit:
                        c[uint32(line_at + item_offsets[item + 1])] = v1
                    if uint32(beside + uint32(2)) < item_limit:
                        c[uint32(line_at + item_offsets[item + 2])] = v2
                    if uint32(beside + uint32(3)) < item_limit:
                        c[uint32(line_at + item_offsets[item + 3])] = v3

    write_lines = unrolled(write_line, lines)

    @kernel(role="engine", launch_bounds=(threads, tile.blocks_per_sm))
    def engine_kernel(a, b, extra, c, sizes, epilogue, a_args, b_args, c_args):
        a_tile = cuda.shared.array(a_room, float32, alignment=16)  # load_4 reads both
        b_tile = cuda.shared.array(b_room, float32, alignment=16)
        sums = cuda.local.array(results, float32)
        a_part = cuda.local.array(TM, float32)
        b_part = cuda.local.array(TN, float32)
        a_next = cuda.local.array(a_count, float32)
        b_next = cuda.local.array(b_count, float32)
        a_sums = cuda.local.array(a_rows, float32)
        a_state = cuda.local.array(a_words, uint32)
        b_state = cuda.local.array(b_words, uint32)
        item_offsets = cuda.local.array(items, uint32)
        shifts = cuda.local.array(TN, float32)
        own_sizes = sizes_of(sizes)
        M, N, slice_blocks, all_blocks, groups, tiles_m, tiles_n = own_sizes

        tile_number, part_number, begin_block, own_blocks = place_of(sizes, uint32(cuda.blockIdx.x), slice_blocks)
        number = tile_number
        first_column = uint32(uint32(number % tiles_n) * uint32(BN))
        number = uint32(number // tiles_n)
        first_row = uint32(uint32(number % tiles_m) * uint32(BM))
        batch = uint32(number // tiles_m)
        group = uint32(batch % groups)
        block = uint32(uint32(uint32(batch // groups) * slice_blocks) + begin_block)
        end = uint32(min(uint32(block + own_blocks), all_blocks))
        last = block

        thread = uint32(cuda.threadIdx.x)
        warp = uint32(thread // uint32(lanes))
        lane = uint32(thread % uint32(lanes))
        lane_m = uint32(uint32(lane // uint32(2 * lanes_n)) * uint32(2) + uint32(lane % uint32(2)))
        lane_n = uint32(uint32(lane // uint32(2)) % uint32(lanes_n))
        own_row = uint32(uint32(warp // uint32(warps_n)) * uint32(lanes_m * TM) + lane_m * uint32(4))
        own_column = uint32(uint32(warp % uint32(warps_n)) * uint32(lanes_n * TN) + lane_n * uint32(4))

        for i in range(TM * TN):
            sums[i] = float32(0)
        for i in range(a_rows):
            a_sums[i] = float32(0)
        args, arrays, states, nexts, tiles = (a_args, b_args), (a, b), (a_state, b_state), (a_next, b_next), (a_tile, b_tile)
        prepare(args, group, (first_row, first_column), thread, states)
        places = places_of(tiles, thread)
        _, extra_role, _ = epilogue
        summing = extra_role == SUMS and first_column == 0
        if block < end:
            last = uint32(end - uint32(1))
            fill(args, arrays, states, uint32(block * uint32(BK)), thread, places, nexts, tiles)
        cuda.syncthreads()
        half = uint32(0)
        while block < end:
            block = uint32(block + uint32(1))
            # After the last block the same one comes again, unused: with a branch here the compiler would move these loads to where
            # their values are stored, behind the FMAs, and everybody would wait for memory.
            first = uint32(uint32(min(block, last)) * uint32(BK))
            at, parts = (own_row, own_column), (a_part, b_part)
            turn(args, arrays, states, first, thread, places, nexts, tiles, half, at, parts, sums, (a_sums, summing))
            half = uint32(half ^ uint32(1))
            cuda.syncthreads()

        own_row = uint32(own_row + first_row)
        own_column = uint32(own_column + first_column)
        if row_sums and summing:
            a_spread(0, a_sums, a_next)
            a_put(a_next, a_tile, uint32(0), thread)
            cuda.syncthreads()
            for item in range(int32(thread), BM, threads):
                row = uint32(item)
                total = float32(0)
                for k in range(BK):
                    total += a_tile[uint32(row + uint32(k * a_pitch))]
                if uint32(first_row + row) < M:
                    extra[uint32(batch * M + first_row + row)] = total
        if join(b, sizes, tile_number, part_number, thread, sums):
            if along_rows:
                for i in range(TM):
                    item_offsets[i] = row_offset(c_args, M, N, batch, uint32(own_row + uint32(i // 4 * a_patch + i % 4)))
                write_lines(0, c, c_args, own_sizes, batch, own_column, own_row, item_offsets, extra, group, shifts, epilogue, sums)
            else:
                for j in range(TN):
                    column = uint32(own_column + uint32(j // 4 * b_patch + j % 4))
                    item_offsets[j] = column_offset(c_args, M, N, batch, column)
                    shifts[j] = float32(0)
                    if extra_role == BIAS and column < N:
                        shifts[j] = extra[bias_index(c_args, N, group, column)]
                write_lines(0, c, c_args, own_sizes, batch, own_row, own_column, item_offsets, extra, group, shifts, epilogue, sums)

    return engine_kernel

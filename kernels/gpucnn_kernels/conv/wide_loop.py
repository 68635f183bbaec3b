"""The engine's product for chips of 128 FMA lanes to a multiprocessor: 16 × 8 results per thread, copies that pass no registers.

    c[m, n] = Σ over k of a[m, k] · b[k, n]        m: positions in images, n: filters, k: taps × channels (tiled.py)

A quarter of such a multiprocessor can begin an FMA in every cycle, and nothing else in that cycle. So what counts is how many of the
instructions are FMAs. A turn of the loop is 8 steps of k. Of a thread's instructions in it, on sm_89, with 128 × 128 results per block:

                                          engine/loop.py, 8 × 8     here, 16 × 8
    FMAs                                            512                 1024
    reads of shared memory, by fours                 32                   48
    reads of global memory, writes to shared         13                    –
    copies from global to shared memory               –                   10
    all others                                       72                   72
                                                81 % FMAs            89 % FMAs

**Registers.** There are 128 sums, and 24 numbers of a and b twice: those of step k + 1 are read during the FMAs of step k. With addresses
and counters that makes some 220, of the 255 that a thread can have. Two blocks of 128 threads fit: 2 · 128 · 255 of 65536.

**Copies** are cp.async's (tensor/instructions.py): pixels word by word, since padding shifts them, weights by fours. A thread copies the
same one or two pixels in all channels of a turn, which costs one addition to an address per copy; where a pixel is, it works out once for
each tap. The copy itself fills in zeros for pixels outside of the image and for channels that are not there. Only a few copies are
begun between two steps of k: a burst of them would keep reads of shared memory waiting.

**Stages.** Shared memory holds the numbers of four turns, 8 or 10 KB each: one turn's are multiplied, the others are on their way. A turn
has one barrier, before its last step, whose numbers are in registers by then. Behind it the first numbers of the next turn are read, which
arrive during the last step's FMAs. From the next turn on, what has been multiplied is overwritten.

**Banks.** The lanes of a warp form a patch of 8 × 4. A lane's rows and columns come in fours, a patch apart. So a read of a is of 8 · 4
neighbouring numbers, and a read of b of 4 · 4: no bank has to give two words. A warp's copies write 32 neighbouring words, or 32 · 4.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.conv.wide_ends import WideTile, own_column, own_row, writer
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32, uint64
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.engine.operands import IMAGES, PIXELS
from gpucnn_kernels.tensor import instructions

H, W, FIRST_W, INSIDE, STATE = range(5)
# What a thread knows of a pixel: its row, its column, that at the first tap of a row, and whether it is in the image; and how many words.


_own_row, _own_column = device(own_row, forceinline=True), device(own_column, forceinline=True)


@functools.cache
def _copier(tile: WideTile, whole: bool) -> Any:
    """Functions for a thread's pixels and weights: begin_tap, copy_one, advance (see there). `pixel` holds STATE words of each pixel;
    `walk` is the channel and the tap within its row; `at` is where each pixel's next channel is in memory, and the next weights."""
    BM, BK, threads, pixels, fours = tile.BM, tile.BK, tile.threads, tile.pixels, tile.fours

    @device(forceinline=True)
    def begin_tap(args, images, pixel, at):
        """Works out where the pixels are, from their rows and columns; one outside of the image is not read, wherever it is."""
        _, (_, _, _, _, _, _, _, _, _, height, width, _) = args
        for p in range(pixels):
            h, w = pixel[p * STATE + H], pixel[p * STATE + W]
            inside = h < height and w < width
            pixel[p * STATE + INSIDE] = uint32(1) if inside else uint32(0)
            at[p] = uint64(images[p] + uint64(4) * uint64(uint32(h * width + w) if inside else uint32(0)))

    @device(forceinline=True)
    def copy_one(number, args, a_to, b_to, more, step, four_step, pixel, walk, at):
        """Begins the copy of that number of a turn, if there is one: pixels, channel by channel, then weights; zeros unless `more`."""
        _, (_, _, _, _, _, _, _, _, channels, _, _, _) = args
        if number < pixels * BK:
            p, channel = number % pixels, number // pixels
            there = more and pixel[p * STATE + INSIDE] != uint32(0)
            if not whole:
                there = there and uint32(walk[0] + uint32(channel)) < channels
            to = uint32(a_to + uint32(4 * (channel * BM + p * threads)))
            instructions.copy_word(to, at[p], uint32(4) if there else uint32(0))
            at[p] = uint64(at[p] + step)
        elif number < pixels * BK + fours:
            to = uint32(b_to + uint32(16 * threads * (number - pixels * BK)))
            instructions.copy_four(to, at[pixels], uint32(16) if more else uint32(0))
            at[pixels] = uint64(at[pixels] + four_step)

    @device(forceinline=True)
    def advance(args, images, pixel, walk, at):
        """To the next turn's channels, or to the next tap."""
        _, (padded, _, _, U, _, _, step_h, step_w, _, _, _, _) = args
        walk[0] = uint32(walk[0] + uint32(BK))
        if walk[0] == padded:
            walk[0], walk[1] = uint32(0), uint32(walk[1] + uint32(1))
            row_ends = walk[1] == U
            if row_ends:
                walk[1] = uint32(0)
            for p in range(pixels):
                pixel[p * STATE + W] = pixel[p * STATE + FIRST_W] if row_ends else uint32(int32(pixel[p * STATE + W]) + step_w)
                if row_ends:
                    pixel[p * STATE + H] = uint32(int32(pixel[p * STATE + H]) + step_h)
            begin_tap(args, images, pixel, at)

    return begin_tap, copy_one, advance


@functools.cache
def wide_kernel(tile: WideTile, whole: bool) -> Any:
    """The kernel: (a, b, extra, c, sizes, epilogue, a_args, c_args) on a grid of blocks of `tile.threads`.

    `sizes` are M, N, turns, groups, and the tiles along M and N. `b` holds depth × N in each group, N up to whole tiles; `a_args` are those
    of operands.PIXELS, `c_args` those of IMAGES, `epilogue` is the engine's (engine/loop.py). whole: whether the channels are a multiple of
    BK, so that no turn lacks any.
    """
    BM, BN, BK, TM, TN, threads, stages, stage = tile.BM, tile.BN, tile.BK, tile.TM, tile.TN, tile.threads, tile.stages, tile.stage
    (lanes_m, lanes_n), pixels, fours, per_step = tile.lanes, tile.pixels, tile.fours, tile.copies
    warps_n = max(1, BN // TN // lanes_n)
    copies, rows_at_once = pixels * BK + fours, 4 * threads // BN  # steps of k whose weights all threads copy at a time
    if (
        pixels * threads != BM
        or rows_at_once * BN != 4 * threads
        or fours * rows_at_once != BK
        or BM // TM % lanes_m
        or BN // TN % lanes_n
        or lanes_m % 2
        or TM % 4
        or TM > 32
        or TN % 4
        or BK % 2
        or stages < 2
        or per_step * (BK - 1) < copies
    ):
        raise ValueError(f"not a tile that this kernel can do: {tile}")
    # Shapes of arrays must be names of constants.
    words, results, a_pair, b_pair = stages * stage, TM * TN, 2 * TM, 2 * TN
    states, places, masked = pixels * STATE, pixels + 1, tile.at_once * TM
    a_patch, b_patch, stage_bytes, room_bytes = lanes_m * 4, lanes_n * 4, 4 * stage, 4 * stages * stage
    wait, wait_for_all, write_all = instructions.copies_wait(stages - 2), instructions.copies_wait(0), writer(tile)
    begin_tap, copy_one, advance = _copier(tile, whole)
    copy_all, copy_some = unrolled(copy_one, copies), unrolled(copy_one, per_step)
    prepare, row_offset = PIXELS.prepare, IMAGES.row_offset

    @device(forceinline=True)
    def read(k, a_at, b_at, a_part, b_part):
        """A thread's numbers of step k, to the half of `a_part` and `b_part` where those of the step before are not."""
        a_half, b_half = k % 2 * TM, k % 2 * TN
        for i in range(0, TM, 4):
            x0, x1, x2, x3 = instructions.read_four(uint32(a_at + uint32(4 * (k * BM + i // 4 * a_patch))))
            a_part[a_half + i], a_part[a_half + i + 1], a_part[a_half + i + 2], a_part[a_half + i + 3] = x0, x1, x2, x3
        for j in range(0, TN, 4):
            x0, x1, x2, x3 = instructions.read_four(uint32(b_at + uint32(4 * (k * BN + j // 4 * b_patch))))
            b_part[b_half + j], b_part[b_half + j + 1], b_part[b_half + j + 2], b_part[b_half + j + 3] = x0, x1, x2, x3

    @device(forceinline=True)
    def multiply(k, a_part, b_part, sums):
        for i in range(TM):
            for j in range(TN):
                sums[i * TN + j] += a_part[k % 2 * TM + i] * b_part[k % 2 * TN + j]

    @device(forceinline=True)
    def one_step(k, args, a_at, b_at, a_to, b_to, more, step, four_step, a_part, b_part, sums, pixel, walk, at):
        read(k + 1, a_at, b_at, a_part, b_part)
        copy_some(k * per_step, args, a_to, b_to, more, step, four_step, pixel, walk, at)
        multiply(k, a_part, b_part, sums)

    steps = unrolled(one_step, BK - 1)

    @device(forceinline=True)
    def fill(turn, args, turns, a_to, b_to, step, four_step, images, pixel, walk, at):
        """Begins the copies of a turn before the first."""
        a_first, b_first = uint32(a_to + uint32(turn * stage_bytes)), uint32(b_to + uint32(turn * stage_bytes))
        copy_all(0, args, a_first, b_first, uint32(turn) < turns, step, four_step, pixel, walk, at)
        instructions.copies_commit()
        advance(args, images, pixel, walk, at)

    fill_all = unrolled(fill, stages - 1)

    @kernel(role="engine", launch_bounds=(threads, tile.blocks_per_sm))
    def wide_kernel(a, b, extra, c, sizes, epilogue, a_args, c_args):
        shared = cuda.shared.array(words, float32, alignment=16)
        sums = cuda.local.array(results, float32)
        a_part = cuda.local.array(a_pair, float32)
        b_part = cuda.local.array(b_pair, float32)
        state = cuda.local.array(3, uint32)
        pixel = cuda.local.array(states, uint32)
        walk = cuda.local.array(2, uint32)
        images = cuda.local.array(pixels, uint64)
        at = cuda.local.array(places, uint64)
        offsets = cuda.local.array(TM, uint32)
        masks = cuda.local.array(masked, float32)
        M, N, turns, _, tiles_m, tiles_n = sizes
        thread = uint32(cuda.threadIdx.x)
        number = uint32(cuda.blockIdx.x)
        first_column = uint32(uint32(number % tiles_n) * uint32(BN))
        number = uint32(number // tiles_n)
        first_row = uint32(uint32(number % tiles_m) * uint32(BM))
        group = uint32(number // tiles_m)

        _, (_, _, _, _, _, _, _, _, _, _, _, area) = a_args
        step = uint64(uint64(area) * uint64(4))
        for p in range(pixels):
            prepare(a_args, group, uint32(first_row + thread + uint32(p * threads)), state, 0)
            images[p] = uint64(instructions.global_address(a) + uint64(4) * uint64(state[0]))
            pixel[p * STATE + H], pixel[p * STATE + W], pixel[p * STATE + FIRST_W] = state[1], state[2], state[2]
        line = uint64(uint64(tiles_n) * uint64(4 * BN))  # bytes of a step of k
        four_step = uint64(line * uint64(rows_at_once))
        at[pixels] = uint64(instructions.global_address(b) + uint64(group * turns) * uint64(line * uint64(BK)))
        at[pixels] = uint64(at[pixels] + uint64(thread // uint32(BN // 4)) * line)
        at[pixels] = uint64(at[pixels] + uint64(4) * uint64(first_column + uint32(thread % uint32(BN // 4)) * uint32(4)))
        walk[0], walk[1] = uint32(0), uint32(0)
        begin_tap(a_args, images, pixel, at)

        # What is fixed here is in registers, and is not worked out again in every turn.
        begin = instructions.shared_address(shared)
        a_to = instructions.fixed(uint32(begin + uint32(4) * thread))
        b_to = instructions.fixed(uint32(begin + uint32(4 * BK * BM) + uint32(16) * thread))
        row = uint32(_own_row(lanes_m, lanes_n, warps_n, TM, thread))
        column = uint32(_own_column(lanes_m, lanes_n, warps_n, TN, thread))
        a_at = instructions.fixed(uint32(begin + uint32(4) * row))
        b_at = instructions.fixed(uint32(begin + uint32(4) * uint32(column + uint32(BK * BM))))
        for i in range(results):
            sums[i] = float32(0)

        fill_all(0, a_args, turns, a_to, b_to, step, four_step, images, pixel, walk, at)
        wait()
        cuda.syncthreads()
        read(0, a_at, b_at, a_part, b_part)
        turn, stage_at, into = uint32(0), uint32(0), uint32((stages - 1) * stage_bytes)
        while turn < turns:
            turn = uint32(turn + uint32(1))
            more = uint32(turn + uint32(stages - 2)) < turns
            steps(
                0,
                a_args,
                uint32(a_at + stage_at),
                uint32(b_at + stage_at),
                uint32(a_to + into),
                uint32(b_to + into),
                more,
                step,
                four_step,
                a_part,
                b_part,
                sums,
                pixel,
                walk,
                at,
            )
            instructions.copies_commit()
            advance(a_args, images, pixel, walk, at)
            into = stage_at
            stage_at = uint32(stage_at + uint32(stage_bytes))
            if stage_at == uint32(room_bytes):
                stage_at = uint32(0)
            wait()
            cuda.syncthreads()
            read(0, uint32(a_at + stage_at), uint32(b_at + stage_at), a_part, b_part)  # zeros after the last turn
            multiply(BK - 1, a_part, b_part, sums)
        wait_for_all()

        row, column = uint32(row + first_row), uint32(column + first_column)
        for i in range(TM):
            offsets[i] = row_offset(c_args, M, N, group, uint32(row + uint32(i // 4 * a_patch + i % 4)))
        write_all(0, c, c_args, sizes, epilogue, group, row, column, offsets, extra, masks, sums)

    return wide_kernel

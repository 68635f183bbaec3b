"""Convolution of 3 × 3 by Winograd's algorithm, F(2×2, 3×3): 16 products for four outputs instead of 36, all in one kernel.

A tile is 2 × 2 outputs of an image, which 4 × 4 pixels d and a filter g of 3 × 3 give:

    y = Aᵀ · [Σ over channels of (G·g·Gᵀ) ⊙ (Bᵀ·d·B)] · A

           1  0 −1  0         1  0  0
    Bᵀ  =  0  1  1  0   G  =  ½  ½  ½   Aᵀ  =  1  1  1  0
           0 −1  1  0         ½ −½  ½          0  1 −1  1
           0 −1  0  1         0  0  1

(S. Winograd, Arithmetic Complexity of Computations, SIAM 1980; A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks",
CVPR 2016. The points are 0, 1, −1 and ∞; the signs of the last rows are such that the first and the last row of Bᵀ are alike.) What is
between the brackets are 16 products of matrices, one for each of the 16 points: tiles × channels by channels × filters.

A block has 32 tiles and 64 filters at all 16 points, 128 sums in registers of each of its 256 threads: a warp has two points, and a lane
8 × 8 results of each (divided as in D. Yan et al., "Optimizing Batched Winograd Convolution on GPUs", PPoPP 2020). A turn of the loop is
four channels. The filters come transformed (winograd_ends.py). The pixels are transformed on their way to shared memory: a thread has half
a tile of a channel, two rows of Bᵀ·d·B, for which it needs three rows of pixels:

    rows 0 and 1 from pixels 0, 1, 2        d₀ − d₂,  d₁ + d₂
    rows 3 and 2 from pixels 3, 2, 1        d₃ − d₁,  d₂ − d₁

With the pixels' rows in this order both halves are a − c and b ± c, so there is no branch. As in engine/loop.py, the pixels and filters of
the next turn are read before the products of this one, and there are two buffers, with one barrier per turn.

At the end, the sums pass through shared memory, 16 filters at a time, because a tile's 16 points are in eight warps.

**NaN and infinity** mean what they mean in plain.py. A transform mixes the pixels of a tile, so that an infinity would become NaN in
outputs that it has nothing to do with, and a large finite number might become an infinity. So a thread that finds one of a tile's four
outputs not finite computes all four once more, directly. A pixel that an output depends on has a part in it through at least one point,
so none is missed.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.conv.strips import beside
from gpucnn_kernels.conv.winograd_ends import POINTS, WinogradTile, ending
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond, split
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4, store_4


@functools.cache
def winograd_kernel(tile: WinogradTile) -> Any:
    """The kernel of a convolution: (x, packed, weight, extra, y, sizes, source, target, taps, epilogue) on blocks of `tile.threads`,
    one for each 32 tiles and 64 filters.

    sizes: channels, filters, turns, blocks of filters, tiles in all, of an image, of a row. source: H, W, H·W, elements from an image to
    the next, and the row and column of the first tile's first pixel. target: P, Q, P·Q, elements from an image to the next. taps: elements
    from a filter to the next, from a channel to the next, the first tap, and from a tap to the next. epilogue: whether two results may
    be written at once, what `extra` is for (engine/tiles.py), and whether there is a ReLU.
    """
    BM, BN, BC, TM, TN, threads = tile.tiles, tile.filters, tile.channels, tile.TM, tile.TN, tile.threads
    (lanes_m, lanes_n), at_once, pitch = tile.lanes, tile.at_once, tile.pitch
    lanes = lanes_m * lanes_n
    quads = POINTS * BC * BN // (4 * threads)  # reads of four transformed weights by a thread and turn
    if threads != 2 * BC * BM or 4 * quads * threads != POINTS * BC * BN or (lanes > 1 and lanes_m % 2) or TM % 4 or TN % 4:
        raise ValueError(f"not a tile that this kernel can do: {tile}")
    pixels, weights = POINTS * BC * BM, POINTS * BC * BN  # transformed, of a turn
    row_step, column_step, channel_step = 4 * BC * BM, BC * BM, BM  # of transformed pixels
    a_patch, b_patch = lanes_m * 4, lanes_n * 4  # from a thread's four tiles, or filters, to its next four
    results, fetched = 2 * TM * TN, 4 * quads  # shapes of arrays must be names of constants
    words = max(2 * (pixels + weights), POINTS * at_once * pitch)

    @device(forceinline=True)
    def read_pixel(i, x, rows, plane, inside, values):
        """Pixel i % 4 of row i // 4. Outside of the image it stays the 0 that it was."""
        if uint32(inside & uint32(1 << i)) != uint32(0):
            values[i] = x[beside(int32(rows[i // 4] + plane), i % 4)]

    @device(forceinline=True)
    def read_weights(i, packed, at, values):
        v0, v1, v2, v3 = load_4(packed, beyond(at, 4 * i * threads))
        values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3] = v0, v1, v2, v3

    @device(forceinline=True)
    def put_weights(i, shared, at, values):
        store_4(shared, beyond(at, 4 * i * threads), values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3])

    @device(forceinline=True)
    def put_row(shared, at, t0, t1, t2, t3):
        """A row of Bᵀ·d times B."""
        shared[beyond(at, 0)] = float32(t0 - t2)
        shared[beyond(at, column_step)] = float32(t1 + t2)
        shared[beyond(at, 2 * column_step)] = float32(t2 - t1)
        shared[beyond(at, 3 * column_step)] = float32(t3 - t1)

    @device(forceinline=True)
    def put_pixels(shared, at, first, second, sign, d):
        """Both rows of a half tile, at their places."""
        put_row(shared, uint32(at + first), d[0] - d[8], d[1] - d[9], d[2] - d[10], d[3] - d[11])
        put_row(shared, uint32(at + second), d[4] + sign * d[8], d[5] + sign * d[9], d[6] + sign * d[10], d[7] + sign * d[11])

    @device(forceinline=True)
    def multiply(number, shared, a_at, b_at, a_part, b_part, sums):
        """A channel at one of the two points: 16 numbers from shared memory, 64 FMAs (for 8 × 8)."""
        for i in range(0, TM, 4):
            a_part[i], a_part[i + 1], a_part[i + 2], a_part[i + 3] = load_4(shared, beyond(a_at, number * BM + i // 4 * a_patch))
        for j in range(0, TN, 4):
            b_part[j], b_part[j + 1], b_part[j + 2], b_part[j + 3] = load_4(shared, beyond(b_at, number * BN + j // 4 * b_patch))
        for i in range(TM):
            for j in range(TN):
                sums[(number // BC * TM + i) * TN + j] += a_part[i] * b_part[j]

    read_all_pixels, read_all_weights, put_all_weights = (
        unrolled(read_pixel, 12),
        unrolled(read_weights, quads),
        unrolled(put_weights, quads),
    )
    steps = unrolled(multiply, 2 * BC)
    finish_all, once_more = ending(tile)

    @kernel(role="engine", launch_bounds=(threads, 1))
    def winograd_kernel(x, packed, weight, extra, y, sizes, source, target, taps, epilogue):
        shared = cuda.shared.array(words, float32, alignment=16)
        sums = cuda.local.array(results, float32)
        a_part = cuda.local.array(TM, float32)
        b_part = cuda.local.array(TN, float32)
        d = cuda.local.array(12, float32)
        g = cuda.local.array(fetched, float32)
        rows = cuda.local.array(3, int32)
        bad = cuda.local.array(1, uint32)
        channels, _, turns, blocks_k, tiles, image_tiles, row_tiles = sizes
        H, W, area, image, origin_h, origin_w = source
        _, Q, _, target_image = target

        block_m, block_k = split(uint32(cuda.blockIdx.x), blocks_k)
        thread = uint32(cuda.threadIdx.x)

        # A thread has one tile from the beginning to the end, and half of it in one channel of a turn.
        own = uint32(block_m * uint32(BM) + uint32(thread % uint32(BM)))
        there = own < tiles
        n, rest = split(own if there else uint32(0), image_tiles)
        i, j = split(rest, row_tiles)
        p, q = uint32(i * uint32(2)), uint32(j * uint32(2))
        place = there, p, q, uint32(n * target_image + p * Q + q)
        channel = uint32(uint32(thread // uint32(BM)) % uint32(BC))
        part = int32(thread // uint32(BM * BC))
        sign = float32(int32(1) - int32(2) * part)
        h, w = int32(int32(p) + origin_h + int32(3) * part), int32(int32(q) + origin_w)
        step = int32(int32(1) - int32(2) * part)
        inside = uint32(0)
        for r in range(3):
            row = int32(h + step * int32(r))
            rows[r] = int32(int32(n * image) + row * int32(W) + w)
            for s in range(4):
                if there and uint32(row) < H and uint32(w + s) < W:
                    inside = uint32(inside | uint32(1 << (4 * r + s)))
        pixels_at = uint32(channel * uint32(channel_step) + uint32(thread % uint32(BM)))
        first_row, second_row = uint32(uint32(3 * part) * uint32(row_step)), uint32(uint32(1 + part) * uint32(row_step))
        weights_at = uint32(uint32(block_k * turns) * uint32(weights) + thread * uint32(4))

        lane, group = uint32(thread % uint32(lanes)), uint32(thread // uint32(lanes))
        lane_m = uint32(uint32(lane // uint32(2 * lanes_n)) * uint32(2) + uint32(lane % uint32(2)))
        lane_n = uint32(uint32(lane // uint32(2)) % uint32(lanes_n))
        own_a = uint32(group * uint32(2 * BC * BM) + lane_m * uint32(4))
        own_b = uint32(uint32(2 * pixels) + group * uint32(2 * BC * BN) + lane_n * uint32(4))

        for number in range(2 * TM * TN):
            sums[number] = float32(0)
        for number in range(12):
            d[number] = float32(0)
        last_channel, last = uint32(channels - uint32(1)), uint32(turns - uint32(1))
        read_all_pixels(0, x, rows, int32(min(channel, last_channel) * area), inside, d)
        read_all_weights(0, packed, weights_at, g)
        put_pixels(shared, pixels_at, first_row, second_row, sign, d)
        put_all_weights(0, shared, uint32(uint32(2 * pixels) + thread * uint32(4)), g)
        cuda.syncthreads()
        turn, half = uint32(0), uint32(0)
        while turn < turns:
            turn = uint32(turn + uint32(1))
            # After the last turn the same one comes again, unused, so that there is no branch (engine/loop.py). Past the last channel,
            # where the weights are 0, so does the last channel.
            next_turn = uint32(min(turn, last))
            c = uint32(min(uint32(next_turn * uint32(BC) + channel), last_channel))
            read_all_pixels(0, x, rows, int32(c * area), inside, d)
            read_all_weights(0, packed, uint32(weights_at + next_turn * uint32(weights)), g)
            steps(0, shared, uint32(half * uint32(pixels) + own_a), uint32(half * uint32(weights) + own_b), a_part, b_part, sums)
            half = uint32(half ^ uint32(1))
            put_pixels(shared, uint32(half * uint32(pixels) + pixels_at), first_row, second_row, sign, d)
            put_all_weights(0, shared, uint32(uint32(2 * pixels) + half * uint32(weights) + thread * uint32(4)), g)
            cuda.syncthreads()

        first_filter = uint32(block_k * uint32(BN))
        put_at = uint32(uint32(group * uint32(2 * at_once) + lane_n) * uint32(pitch) + lane_m * uint32(4))
        bad[0] = uint32(0)
        finish_all(0, shared, y, extra, put_at, place, first_filter, thread, sizes, target, epilogue, sums, bad)
        if bad[0] != uint32(0):
            once_more(x, weight, extra, y, bad[0], sizes, source, target, taps, epilogue, n, place, first_filter, thread)

    return winograd_kernel

"""The gradient of a convolution's weight on Hopper's tensor cores: tensor_product.py with both factors looked up.

    dweight[k, c, r, s] = Σ over n, p, q of dy[n, k, p, q] · x[n, c, p·stride + r·dilation − top, …]

Rows are channels and taps (c, r, s), columns are filters, and the sum runs over positions, 32 at a time. Four warpgroups:

    the first copies a       pixels: its threads are 32 positions side by side, so that a warp reads neighbours in the image, and each of
                             its four warps takes every fourth row; where a row's pixel lies, seen from a position, stands in a table
    the second makes b       of dy: it reads numbers into registers, takes each apart, and writes both parts where wgmma wants them; and
                             adds them up, for the gradient of the bias
    the others multiply      as in tensor_product.py

As in the engine, the sums are cut into slices, each worked out by blocks of its own, and added up in order.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn_kernels import hopper
from gpucnn_kernels._numba import cuda, device, float32, int32, kernel, uint32, uint64
from gpucnn_kernels.hopper import bits_of, number_of
from gpucnn_kernels.product import Product
from gpucnn_kernels.tensor_stages import DEPTH, HEAD, MOST_SHARED, begin_stages, multiplier, tf32
from gpucnn_kernels.tiles import SUMS, repeat
from gpucnn_kernels.vector import divide, load_4, store_4

_ROWS = 128
_PITCH = DEPTH + 4  # from a row of a to the next: then the 32 lanes of a warp read 32 different banks


@dataclass(frozen=True)
class TensorGradTile:
    """BN filters × 128 channels and taps per block, 32 positions at a time, by four warpgroups."""

    BN: int
    BM: int = _ROWS
    BK: int = DEPTH
    threads: int = 512
    blocks_per_sm: int = 1

    @property
    def stage(self) -> int:
        """Bytes of a stage: b's two tiles, then a's; a multiple of 1024."""
        return 4 * (2 * self.BN * DEPTH + _ROWS * _PITCH)

    @property
    def stages(self) -> int:
        """As many as there is room for, beside the table; more than eight gain nothing."""
        return min(8, (MOST_SHARED - 3 * HEAD) // self.stage)

    @property
    def shared(self) -> int:
        """Bytes of shared memory beside the table, with what is lost to begin at a multiple of 1024."""
        return 2 * HEAD + self.stages * self.stage


@functools.cache
def tensor_grad_kernel(tile: TensorGradTile, width: int) -> Any:
    """The kernel: (dy, x, extra, c, sizes, extra_is, dy_args, x_args), on a grid of blocks of `tile.threads` with `tile.shared` bytes.

    c (batch, filters, channels · taps), where a batch is a group of a slice: batch = slice · groups + group. `sizes` are filters, channels
    · taps of a group, the blocks of 32 positions that each slice has and that there are in all, groups, and the tiles along channels and
    taps and along filters. If `extra_is` SUMS, `extra` (batch, filters) becomes the sums of dy. The rest are the arguments of
    operands.gradients and of operands.TAPS. A width of 4 wants dy at a multiple of 16 bytes and P·Q a multiple of 4.
    """
    BN, stages, stage_bytes = tile.BN, tile.stages, tile.stage
    sums_count, b_bytes = BN // 2, 4 * 2 * BN * DEPTH
    table_words = 2 * _ROWS
    across = DEPTH // width  # threads side by side along positions
    rows_step = 128 // across
    count = BN // rows_step  # fetches of dy per thread
    numbers, totals_count = count * width, count if width == 4 else 1  # with single numbers there is no room for so many totals
    give, give_fewer, take = hopper.give_registers(40), hopper.give_registers(112), hopper.take_registers(176)
    multiply_all = multiplier(BN, stages, stage_bytes, _PITCH, 1)

    @device(forceinline=True)
    def copy_row(i, table, warp, to, a_at, pixel, h0, w0, H, W, there):
        """The pixel of the warp's row number i, or 0 where it is outside of the image."""
        row = uint32(uint32(i * 4) + warp)
        offset, place = table[uint32(row * uint32(2))], table[uint32(row * uint32(2) + uint32(1))]
        h = uint32(h0 + int32(place >> uint32(16)))
        w = uint32(w0 + int32(place & uint32(0xFFFF)))
        inside = there and h < H and w < W
        at = uint32(pixel + offset) if inside else uint32(0)
        hopper.copy_word(uint32(to + row * uint32(4 * _PITCH)), uint64(a_at + uint64(at) * uint64(4)), uint32(4) if inside else uint32(0))

    copy_rows = repeat(copy_row, _ROWS // 4)

    @device(forceinline=True)
    def fetch(i, dy, first, positions, plane_by, plane_shift, skipped, plane, filters, column, position, values):
        """Numbers of filter number `column` + i · rows_step from a position on; 0 past the last of either."""
        filter_ = uint32(column + uint32(i * rows_step))
        there = filter_ < filters and position < positions
        at = uint32(uint32(first + filter_ * plane) + position + divide(position, plane_by, plane_shift) * skipped) if there else uint32(0)
        if width == 4:
            v0, v1, v2, v3 = load_4(dy, uint64(at))
            values[i * 4] = v0 if there else float32(0)
            values[i * 4 + 1] = v1 if there else float32(0)
            values[i * 4 + 2] = v2 if there else float32(0)
            values[i * 4 + 3] = v3 if there else float32(0)
        else:
            values[i] = dy[at] if there else float32(0)

    fetch_all = repeat(fetch, count)

    @device(forceinline=True)
    def big_of(x):
        return number_of(tf32(bits_of(float32(x))))

    @device(forceinline=True)
    def put(i, shared, at, values, totals):
        """Both parts of what was fetched, to b's tiles; `at` is where the first lies, and that of a row further on is exchanged alike,
        because rows_step is a multiple of 8 or the exchange is worked out anew."""
        if width == 4:
            place = uint64(at + uint32(i * rows_step * DEPTH))
            x0, x1, x2, x3 = values[i * 4], values[i * 4 + 1], values[i * 4 + 2], values[i * 4 + 3]
            totals[i] += float32(float32(x0 + x1) + float32(x2 + x3))
            b0, b1, b2, b3 = big_of(x0), big_of(x1), big_of(x2), big_of(x3)
            store_4(shared, place, b0, b1, b2, b3)
            store_4(shared, uint64(place + uint64(BN * DEPTH)), big_of(x0 - b0), big_of(x1 - b1), big_of(x2 - b2), big_of(x3 - b3))
        else:
            # Rows go on by 4, and the exchange of pieces repeats every 8: every other row has bit 2 of its number turned.
            place = uint32(uint32(at + uint32(i * rows_step * DEPTH)) ^ uint32(i % 2 * 16))
            big = big_of(values[i])
            shared[place] = big
            shared[uint32(place + uint32(BN * DEPTH))] = big_of(values[i] - big)

    put_all = repeat(put, count)

    @device(forceinline=True)
    def write(number, c, tap, below, first_filter, taps, filters, at, sums):
        """The sum of that number: filters by twos, the thread's first row (channel and tap) and the eighth below."""
        filter_ = uint32(first_filter + uint32(number // 4 * 8 + number % 2))
        own = below if number % 4 >= 2 else tap
        if own < taps and filter_ < filters:
            c[uint32(uint32(at + filter_ * taps) + own)] = sums[number]

    write_all = repeat(write, sums_count)

    @kernel(launch_bounds=(tile.threads, 1))
    def tensor_grad_kernel(dy, x, extra, c, sizes, extra_is, dy_args, x_args):
        table = cuda.shared.array(table_words, uint32)
        shared = cuda.shared.array(0, float32)
        sums = cuda.local.array(sums_count, float32)
        part = cuda.local.array(sums_count, float32)
        values = cuda.local.array(numbers, float32)
        totals = cuda.local.array(totals_count, float32)
        filters, taps, slice_blocks, all_blocks, groups, tiles_m, tiles_n = sizes
        thread = uint32(cuda.threadIdx.x)
        number = uint32(cuda.blockIdx.x)
        first_filter = uint32(uint32(number % tiles_n) * uint32(BN))
        number = uint32(number // tiles_n)
        first_tap = uint32(uint32(number % tiles_m) * uint32(_ROWS))
        batch = uint32(number // tiles_m)
        group = uint32(batch % groups)
        begin_block = uint32(uint32(batch // groups) * slice_blocks)
        blocks = uint32(min(slice_blocks, uint32(all_blocks - begin_block)))
        lane, warp = uint32(thread % uint32(32)), uint32(thread // uint32(32))

        if thread < uint32(_ROWS):  # where the pixel of a row lies, seen from that of the first tap and channel
            (rows, taps_of, taps_by, taps_shift, S, S_by, S_shift, group_size, dilation_h, dilation_w, _, _, H, W), _ = x_args
            row = uint32(min(uint32(first_tap + thread), uint32(rows - uint32(1))))
            channel = divide(row, taps_by, taps_shift)
            tap = uint32(row - channel * taps_of)
            r = divide(tap, S_by, S_shift)
            down, right = uint32(r * uint32(dilation_h)), uint32(uint32(tap - r * S) * uint32(dilation_w))
            table[uint32(thread * uint32(2))] = uint32(uint32(channel * uint32(H * W)) + uint32(down * W) + right)
            table[uint32(thread * uint32(2) + uint32(1))] = uint32(uint32(down << uint32(16)) | right)
        begin = hopper.shared_address(shared)
        full, empty, stages_at = begin_stages(begin, thread, uint32(stages), uint32(256))  # and a barrier for the table

        stage, parity = uint32(0), uint32(0)
        if warp < uint32(4):
            give()
            (_, _, _, _, _, _, _, group_size, _, _, top, left, H, W), walk = x_args
            positions, plane, plane_by, plane_shift, Q, Q_by, Q_shift, image, stride_h, stride_w, _, _ = walk
            a_at = hopper.global_address(x)
            for block in range(int32(blocks)):
                while hopper.has_ended(uint32(empty + uint32(stage * uint32(8))), uint32(parity ^ uint32(1))) == 0:
                    pass
                position = uint32(uint32(uint32(begin_block + uint32(block)) * uint32(DEPTH)) + lane)
                n = divide(position, plane_by, plane_shift)
                rest = uint32(position - n * plane)
                p = divide(rest, Q_by, Q_shift)
                h0 = int32(int32(p) * stride_h - top)
                w0 = int32(int32(uint32(rest - p * Q)) * stride_w - left)
                pixel = uint32(uint32(n * image + group * group_size) + uint32(h0 * int32(W) + w0))
                to = uint32(uint32(stages_at + uint32(b_bytes)) + uint32(stage * uint32(stage_bytes)) + uint32(lane * uint32(4)))
                copy_rows(0, table, warp, to, a_at, pixel, h0, w0, H, W, position < positions)
                hopper.arrive_with_copies(uint32(full + uint32(stage * uint32(8))))
                stage = uint32(stage + uint32(1))
                if stage == uint32(stages):
                    stage, parity = uint32(0), uint32(parity ^ uint32(1))
        elif warp < uint32(8):
            give_fewer()
            own = uint32(thread - uint32(128))
            column, along = uint32(own // uint32(across)), uint32(own % uint32(across))
            _, plane, plane_by, plane_shift, skipped, positions = dy_args
            first = uint32(uint32(group * filters) * plane)
            own_column = uint32(first_filter + column)
            at = uint32(uint32(uint32(stages_at - begin)) // uint32(4)) + uint32(column * uint32(DEPTH))
            at = uint32(at + uint32(uint32(along * uint32(width)) ^ uint32(uint32(column % uint32(8)) * uint32(4))))
            for i in range(totals_count):
                totals[i] = float32(0)
            position = uint32(uint32(begin_block * uint32(DEPTH)) + along * uint32(width))
            fetch_all(0, dy, first, positions, plane_by, plane_shift, skipped, plane, filters, own_column, position, values)
            for _ in range(int32(blocks)):
                while hopper.has_ended(uint32(empty + uint32(stage * uint32(8))), uint32(parity ^ uint32(1))) == 0:
                    pass
                put_all(0, shared, uint32(at + uint32(stage * uint32(stage_bytes // 4))), values, totals)
                hopper.written_for_products()
                hopper.arrive(uint32(full + uint32(stage * uint32(8))))
                position = uint32(position + uint32(DEPTH))  # those after the last block are fetched too, and not used
                fetch_all(0, dy, first, positions, plane_by, plane_shift, skipped, plane, filters, own_column, position, values)
                stage = uint32(stage + uint32(1))
                if stage == uint32(stages):
                    stage, parity = uint32(0), uint32(parity ^ uint32(1))
            if width == 4 and extra_is == SUMS and first_tap == 0:
                for i in range(count):
                    total = totals[i]
                    total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 1)
                    total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 2)
                    total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 4)
                    filter_ = uint32(own_column + uint32(i * rows_step))
                    if along == 0 and filter_ < filters:
                        extra[uint32(batch * filters + filter_)] = total
        else:
            take()
            own_row = uint32(uint32(warp - uint32(8)) * uint32(16) + uint32(lane // uint32(4)))
            a_first = uint32(uint32(uint32(stages_at - begin) + uint32(b_bytes)) // uint32(4))
            a_first = uint32(a_first + own_row * uint32(_PITCH) + uint32(lane % uint32(4)))
            multiply_all(int32(blocks), shared, a_first, stages_at, full, empty, part, sums)
            tap = uint32(first_tap + own_row)
            column = uint32(first_filter + uint32(lane % uint32(4)) * uint32(2))
            write_all(0, c, tap, uint32(tap + uint32(8)), column, taps, filters, uint32(uint32(batch * filters) * taps), sums)

    return tensor_grad_kernel


def product(
    tile: TensorGradTile, dy: tuple[Any, ...], x: tuple[Any, Any], sizes: tuple[int, int, int], extra_is: int, groups: int, slices: int,
    width: int,
) -> Product:  # fmt: skip
    """The gradient ready to be launched, as product.product makes products: dy's and x's arguments; `sizes` are filters, channels · taps
    and positions of a group; the sum over positions is cut into `slices`, or fewer where that leaves none empty."""
    filters, taps, positions = sizes
    blocks = -(-positions // tile.BK)
    slice_blocks = max(1, -(-blocks // slices))
    slices = max(1, -(-blocks // slice_blocks))
    tiles_m, tiles_n = -(-taps // tile.BM), -(-filters // tile.BN)
    numbers = tuple(np.uint32(number) for number in (filters, taps, slice_blocks, blocks, groups, tiles_m, tiles_n))
    made = tensor_grad_kernel(tile, width)
    return Product(
        made, tiles_m * tiles_n * groups * slices, tile.threads, groups * slices, slices, (numbers, np.uint32(extra_is), dy, x), tile.shared
    )

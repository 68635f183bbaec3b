"""The gradient of a convolution's weight on Hopper's tensor cores: tensor/product.py with both factors looked up.

    dweight[k, c, r, s] = Σ over n, p, q of dy[n, k, p, q] · x[n, c, p·stride + r·dilation − top, …]

Rows are channels and taps (c, r, s), columns are filters, and the sum runs over positions, 32 at a time. Four warpgroups:

    the first copies a       pixels: the lanes of a warp are 32 positions side by side, which are neighbours in the image, and each of the
                             four warps takes 32 rows. Where the pixel of a row lies, seen from that of the first tap and channel, stands
                             in a table, with its tap as one bit: then an AND with the taps that lie inside the image, seen from the
                             position, tells whether there is a pixel
    the second makes b       of dy: its threads copy numbers to memory of their own, some blocks ahead, take each apart and write both
                             parts where wgmma wants them; and add them up, for the gradient of the bias
    the others multiply      as in tensor/product.py

As in the engine, the sums are cut into slices, each worked out by blocks of its own, and added up in order.
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
from gpucnn_kernels.core.integers import divide
from gpucnn_kernels.core.problem import FLOAT32
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4
from gpucnn_kernels.engine.product import Product
from gpucnn_kernels.engine.tiles import SUMS
from gpucnn_kernels.tensor import hopper, instructions, making
from gpucnn_kernels.tensor.instructions import bits_of
from gpucnn_kernels.tensor.parts import words_of
from gpucnn_kernels.tensor.stages import DEPTH, HEAD, MOST_SHARED, begin_stages, multiplier
from gpucnn_kernels.tensor.taps import first_pixel, put_row, taps_inside

_ROWS = 128
_PITCH = DEPTH + 4  # from a row of a to the next: then the 32 lanes of a warp read 32 different banks
_AHEAD = 3  # blocks of dy that are on their way
_first_place = device(making.first_place, forceinline=True)


@dataclass(frozen=True)
class TensorGradTile:
    """BN filters × 128 channels and taps per block, 32 positions at a time, by four warpgroups. bits: what factors
    keep (parts.py)."""

    BN: int
    bits: int = FLOAT32
    BM: int = _ROWS
    BK: int = DEPTH
    threads: int = 512
    blocks_per_sm: int = 1

    @property
    def stage(self) -> int:
        """Bytes of a stage: b's tiles, one for each part, then a's; a multiple of 1024."""
        return 4 * (words_of(self.bits, self.BN * DEPTH) + _ROWS * _PITCH)

    @property
    def raw(self) -> int:
        """Bytes of dy as it comes, for the blocks that are on their way and the one that is taken apart."""
        return 4 * (_AHEAD + 1) * self.BN * DEPTH

    @property
    def stages(self) -> int:
        """The number of stages: as many as there is room for beside the table, up to eight; more gain nothing."""
        return min(8, (MOST_SHARED - 3 * HEAD - self.raw) // self.stage)

    @property
    def shared(self) -> int:
        """Bytes of shared memory beside the table, with what is lost to begin at a multiple of 1024."""
        return 2 * HEAD + self.stages * self.stage + self.raw


@functools.cache
def tensor_grad_kernel(tile: TensorGradTile, width: int) -> Any:
    """The kernel: (dy, x, extra, c, sizes, extra_role, dy_args, x_args), on a grid of blocks of `tile.threads` with `tile.shared` bytes.

    c (batch, filters, channels · taps), where a batch is a group of a slice: batch = slice · groups + group. `sizes` are filters, channels
    · taps of a group, the blocks of 32 positions that each slice has and that there are in all, groups, and the tiles along channels and
    taps and along filters. If `extra_role` SUMS, `extra` (batch, filters) becomes the sums of dy. The rest are the arguments of
    operands.gradients and of operands.TAPS. A width of 4 wants dy at a multiple of 16 bytes and P·Q a multiple of 4.
    """
    BN, stages, stage_bytes = tile.BN, tile.stages, tile.stage
    sums_count, b_bytes = BN // 2, 4 * words_of(tile.bits, BN * DEPTH)
    table_words = 2 * _ROWS
    across, rows_step, bits = making.across(width), making.rows_step(width), tile.bits
    count, size = BN // rows_step, 4 * width  # copies per thread and block, and bytes of each
    raw_bytes, raw_at = 4 * BN * DEPTH, stages * stage_bytes
    wait = instructions.copies_wait(_AHEAD)
    give, give_fewer, take = hopper.give_registers(56), hopper.give_registers(96), hopper.take_registers(176)
    multiply_all = multiplier(BN, stages, stage_bytes, _PITCH, 1, bits)
    (copy_filters, put_all), swizzled = making.along_depths(BN, width, bits), making.swizzled(bits)

    @device(forceinline=True)
    def copy_pixel(to, pixel_at, offset, bit, taps):
        instructions.copy_word(to, uint64(pixel_at + uint64(bits_of(offset))), uint32(4) if bits_of(bit) & taps else uint32(0))

    @device(forceinline=True)
    def copy_rows_of_four(i, table, row, to, pixel_at, taps):
        """The pixels of four rows, or 0 where there are none."""
        at = uint64(uint32(row + uint32(4 * i)) * uint32(2))
        offset_0, bit_0, offset_1, bit_1 = load_4(table, at)
        offset_2, bit_2, offset_3, bit_3 = load_4(table, uint64(at + uint64(4)))
        own = uint32(to + uint32(4 * i * 4 * _PITCH))
        copy_pixel(own, pixel_at, offset_0, bit_0, taps)
        copy_pixel(uint32(own + uint32(4 * _PITCH)), pixel_at, offset_1, bit_1, taps)
        copy_pixel(uint32(own + uint32(8 * _PITCH)), pixel_at, offset_2, bit_2, taps)
        copy_pixel(uint32(own + uint32(12 * _PITCH)), pixel_at, offset_3, bit_3, taps)

    copy_rows = unrolled(copy_rows_of_four, 8)

    @device(forceinline=True)
    def write(number, c, tap, below, first_filter, taps, filters, at, sums):
        """The sum of that number: filters by twos, the thread's first row (channel and tap) and the eighth below."""
        filter_ = uint32(first_filter + uint32(number // 4 * 8 + number % 2))
        own = below if number % 4 >= 2 else tap
        if own < taps and filter_ < filters:
            c[uint32(uint32(at + filter_ * taps) + own)] = sums[number]

    write_all = unrolled(write, sums_count)

    @kernel(role="engine", launch_bounds=(tile.threads, 1))
    def tensor_grad_kernel(dy, x, extra, c, sizes, extra_role, dy_args, x_args):
        table = cuda.shared.array(table_words, float32, alignment=16)  # of words; load_4 reads them
        shared = cuda.shared.array(0, float32, alignment=16)  # behind the table, and so at a multiple of 128 bytes
        sums = cuda.local.array(sums_count, float32)
        part = cuda.local.array(sums_count, float32)
        totals = cuda.local.array(count, float32)
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

        if thread < uint32(_ROWS):
            put_row(table, thread, first_tap, x_args)
        begin = instructions.shared_address(shared)
        full, empty, stages_at = begin_stages(begin, thread, uint32(stages), uint32(256))  # and a barrier for the table

        stage, parity = uint32(0), uint32(0)
        if warp < uint32(4):
            give()
            (_, _, _, _, _, _, _, group_size, _, _, _, _, _, W), walk = x_args
            positions, _, _, _, _, _, _, image, _, _, _, _ = walk
            x_at = instructions.global_address(x)
            own_rows = uint32(warp * uint32(32))
            for block in range(int32(blocks)):
                while hopper.has_ended(uint32(empty + uint32(stage * uint32(8))), uint32(parity ^ uint32(1))) == 0:
                    pass
                position = uint32(uint32(uint32(begin_block + uint32(block)) * uint32(DEPTH)) + lane)
                n, h0, w0 = first_pixel(position, x_args)
                inside = taps_inside(h0, w0, x_args)
                if position >= positions:
                    inside = uint32(0)
                # Where nothing is read the address may be anywhere.
                pixel = int64(int64(uint32(n * image + group * group_size)) + int64(h0) * int64(uint32(W)) + int64(w0))
                to = uint32(uint32(stages_at + uint32(b_bytes)) + uint32(stage * uint32(stage_bytes)) + uint32(lane * uint32(4)))
                to = uint32(to + own_rows * uint32(4 * _PITCH))
                copy_rows(0, table, own_rows, to, uint64(x_at + uint64(pixel * int64(4))), inside)
                hopper.arrive_with_copies(uint32(full + uint32(stage * uint32(8))))
                stage = uint32(stage + uint32(1))
                if stage == uint32(stages):
                    stage, parity = uint32(0), uint32(parity ^ uint32(1))
        elif warp < uint32(8):
            give_fewer()
            own = uint32(thread - uint32(128))
            column, along = uint32(own // uint32(across)), uint32(own % uint32(across))
            _, plane, plane_by, plane_shift, skipped, positions = dy_args
            own_column = uint32(first_filter + column)
            filters_left = int32(int32(filters) - int32(own_column))
            step = uint32(uint32(plane) * uint32(4 * rows_step))
            dy_at = uint64(instructions.global_address(dy) + uint64(uint32(uint32(group * filters) + own_column) * plane) * uint64(4))
            raw_to = uint32(uint32(stages_at + uint32(raw_at)) + uint32(own * uint32(size)))
            raw = uint32(uint32(raw_to - begin) // uint32(4))
            at = uint32(uint32(uint32(stages_at - begin)) // uint32(4))
            at = uint32(at + uint32(swizzled(column, uint32(_first_place(width, bits, along)))))
            for i in range(count):
                totals[i] = float32(0)
            position = uint32(uint32(begin_block * uint32(DEPTH)) + along * uint32(width))
            for block in range(-_AHEAD, int32(blocks)):
                # Blocks past the last are copied too, and not used.
                slot = uint32(uint32(block + _AHEAD) % uint32(_AHEAD + 1))
                there = position < positions
                offset = uint32(position + divide(position, plane_by, plane_shift) * skipped)
                to = uint32(raw_to + uint32(slot * uint32(raw_bytes)))
                copy_filters(0, to, uint64(dy_at + uint64(offset) * uint64(4)), step, filters_left, there)
                instructions.copies_commit()
                position = uint32(position + uint32(DEPTH))
                if block >= 0:
                    wait()
                    while hopper.has_ended(uint32(empty + uint32(stage * uint32(8))), uint32(parity ^ uint32(1))) == 0:
                        pass
                    slot = uint32(uint32(block) % uint32(_AHEAD + 1))
                    source = uint32(raw + uint32(slot * uint32(raw_bytes // 4)))
                    put_all(0, shared, source, uint32(at + uint32(stage * uint32(stage_bytes // 4))), totals)
                    hopper.written_for_products()
                    hopper.arrive(uint32(full + uint32(stage * uint32(8))))
                    stage = uint32(stage + uint32(1))
                    if stage == uint32(stages):
                        stage, parity = uint32(0), uint32(parity ^ uint32(1))
            if extra_role == SUMS and first_tap == 0:
                for i in range(count):
                    total = totals[i]
                    lanes = across // 2
                    while lanes > 0:
                        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, lanes)
                        lanes //= 2
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
    tile: TensorGradTile,
    dy: tuple[Any, ...],
    x: tuple[Any, Any],
    sizes: tuple[int, int, int],
    extra_role: int,
    *,
    groups: int,
    slices: int,
    width: int,
) -> Product:
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
        made,
        tiles_m * tiles_n * groups * slices,
        tile.threads,
        groups * slices,
        slices,
        (numbers, np.uint32(extra_role), dy, x),
        tile.shared,
    )

"""What surrounds the loop of wide_loop.py: its tile, which thread has which results, and how they are written.

A thread writes four positions of a column at a time where the launch says so, and reads a mask likewise (engine/tiles.py).
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from gpucnn_kernels.core._numba import float32, uint32, uint64
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4, store_4
from gpucnn_kernels.engine.loop import finish, kept
from gpucnn_kernels.engine.operands import IMAGES
from gpucnn_kernels.engine.tiles import BIAS, MASK


@dataclass(frozen=True)
class WideTile:
    """BM × BN results per block, BK steps of k at a time, TM × TN per thread. copies: how many a thread begins between two steps of k."""

    BM: int = 128
    BN: int = 128
    BK: int = 8
    TM: int = 16
    TN: int = 8
    stages: int = 4
    copies: int = 2
    blocks_per_sm: int = 2

    @property
    def threads(self) -> int:
        return self.BM // self.TM * (self.BN // self.TN)

    @property
    def stage(self) -> int:
        """Numbers of a stage: a's, then b's."""
        return self.BK * (self.BM + self.BN)

    @property
    def at_once(self) -> int:
        """The columns of results that a thread writes at a time, and for which it reads masks: as many numbers as registers are free."""
        return min(4, 32 // self.TM)

    @property
    def pixels(self) -> int:
        """The pixels that a thread copies in a turn, in all its channels."""
        return self.BM // self.threads

    @property
    def fours(self) -> int:
        """Likewise the weights, four at a time."""
        return self.BK * self.BN // (4 * self.threads)

    @property
    def lanes(self) -> tuple[int, int]:
        """The patch of a warp's lanes: along rows and along columns."""
        down = min(8, self.BM // self.TM)
        return down, min(32, self.threads) // down


def own_row(lanes_m: int, lanes_n: int, warps_n: int, TM: int, thread: int) -> int:
    """The first row of a thread's results in those of its block."""
    lane, warp = thread % (lanes_m * lanes_n), thread // (lanes_m * lanes_n)
    return warp // warps_n * (lanes_m * TM) + (lane // (2 * lanes_n) * 2 + lane % 2) * 4


def own_column(lanes_m: int, lanes_n: int, warps_n: int, TN: int, thread: int) -> int:
    """Likewise the first column."""
    lane, warp = thread % (lanes_m * lanes_n), thread // (lanes_m * lanes_n)
    return warp % warps_n * (lanes_n * TN) + lane // 2 % lanes_n * 4


@functools.cache
def writer(tile: WideTile) -> Any:
    """A function that writes a thread's sums: (0, c, c_args, sizes, epilogue, group, row, column, offsets, extra, masks, sums), by a few
    columns. All readings of a mask for these are on their way before the first is waited for."""
    TM, TN, at_once = tile.TM, tile.TN, tile.at_once
    a_patch, b_patch = tile.lanes[0] * 4, tile.lanes[1] * 4
    column_offset, bias_index = IMAGES.column_offset, IMAGES.bias_index

    @device(forceinline=True)
    def read_masks(extra, vector, row, M, line_at, there, offsets, at, masks):
        """Of a column. Where there is no result, element 0 stands in."""
        for item in range(0, TM, 4):
            beside = uint32(row + uint32(item // 4 * a_patch))
            if vector:
                place = uint64(uint32(line_at + offsets[item]) if there and beside < M else uint32(0))
                masks[at + item], masks[at + item + 1], masks[at + item + 2], masks[at + item + 3] = load_4(extra, place)
            else:
                for i in range(item, item + 4):
                    result = there and uint32(beside + uint32(i - item)) < M
                    masks[at + i] = extra[uint32(line_at + offsets[i]) if result else uint32(0)]

    @device(forceinline=True)
    def write_column(number, c, row, M, line_at, offsets, shift, vector, relu, sums):
        for item in range(0, TM, 4):
            at = item * TN + number
            v0 = finish(sums[at], shift, relu)
            v1 = finish(sums[at + TN], shift, relu)
            v2 = finish(sums[at + 2 * TN], shift, relu)
            v3 = finish(sums[at + 3 * TN], shift, relu)
            beside = uint32(row + uint32(item // 4 * a_patch))
            if vector:
                if beside < M:
                    store_4(c, uint64(uint32(line_at + offsets[item])), v0, v1, v2, v3)
            else:
                if beside < M:
                    c[uint32(line_at + offsets[item])] = v0
                if uint32(beside + uint32(1)) < M:
                    c[uint32(line_at + offsets[item + 1])] = v1
                if uint32(beside + uint32(2)) < M:
                    c[uint32(line_at + offsets[item + 2])] = v2
                if uint32(beside + uint32(3)) < M:
                    c[uint32(line_at + offsets[item + 3])] = v3

    @device(forceinline=True)
    def write_some(number, c, c_args, sizes, epilogue, group, row, column, offsets, extra, masks, sums):
        M, N, _, _, _, _ = sizes
        vector, extra_role, relu = epilogue
        first = number * at_once
        begin = uint32(column + uint32(first // 4 * b_patch + first % 4))
        if extra_role == MASK:
            for j in range(at_once):
                line = uint32(begin + uint32(j))
                read_masks(extra, vector, row, M, column_offset(c_args, M, N, group, line), line < N, offsets, j * TM, masks)
            for j in range(at_once):
                for i in range(TM):
                    sums[i * TN + first + j] = kept(sums[i * TN + first + j], masks[j * TM + i])
        for j in range(at_once):
            line = uint32(begin + uint32(j))
            if line < N:
                shift = float32(0)
                if extra_role == BIAS:
                    shift = extra[bias_index(c_args, N, group, line)]
                write_column(first + j, c, row, M, column_offset(c_args, M, N, group, line), offsets, shift, vector, relu, sums)

    return unrolled(write_some, TN // at_once)

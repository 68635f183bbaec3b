"""The pixels of a block of threads in shared memory, four times: for the gradient of convolution and 2 × 2 max pooling in one.

A thread reads one pixel of four, that of the corner that won the pooling, and each filter has its own winner.
So there are four copies of the patch, one for each corner, shifted so that each corner's pixels are at the same positions in their copy.
The copies are a multiple of 32 words apart. Within a copy the pixels are sorted by phase, as in patch.py, and rows of pooled
positions are `across` mod 32 words apart. Then position i reads bank i + constant mod 32, for any winner, and a tap is a constant added by
the reading instruction. With a single copy, neighbours would be two words apart, more or less by chance, and two reads would collide.
A pixel is fetched once and written to all copies; the phases of all copies lie in the gap between two rows, which needs little more room.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from gpucnn_kernels.conv.patch import BANKS, patch_of
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.launch import Pair, Window

_BATCH = 4  # loads that a thread issues before it waits for the first


@dataclass(frozen=True, slots=True)
class Corners:
    """The pixels that a stretch of pooled positions reads, four times in shared memory.

    Row i, column j of the patch is, in the copy of corner (a, b), row i − a·stride_h and column j − b·stride_w.
    """

    channels: int
    kernel: Pair
    stride: Pair
    dilation: Pair
    across: int  # pooled positions in a row
    rows: int  # of the image
    columns: int

    @property
    def step(self) -> Pair:
        """Pixels from one pooled position to the next, down and across; as many phases."""
        return 2 * self.stride[0], 2 * self.stride[1]

    @property
    def row(self) -> int:
        """Words of one phase's row."""
        return -(-self.columns // self.step[1])

    @property
    def copy(self) -> int:
        """Words from a corner's copy to the next: a row of every channel and phase, up to a multiple of the banks."""
        return _up(self.channels * self.step[0] * self.step[1] * self.row)

    @property
    def pitch(self) -> int:
        """Words from one row of pooled positions to the next."""
        return 4 * self.copy + self.across % BANKS

    @property
    def size(self) -> int:
        return -(-self.rows // self.step[0]) * self.pitch


def corners_of(channels: int, window: Window, stretch: int, room: int) -> Corners | None:
    """The pixels of `stretch` pooled positions, or None where they take more than `room` words."""
    patch = patch_of(channels, window, stretch, side=2, room=room)
    if patch is None:
        return None
    corners = Corners(channels, window.kernel, window.stride, window.dilation, patch.across, patch.rows, patch.columns)
    return corners if corners.size <= room else None


@functools.cache
def corners_loader(corners: Corners, threads: int) -> Any:
    """The device function with which a block's threads copy the pixels to shared memory.

    A thread keeps to its column: values that depend on the column are computed once, and a row costs one division.
    """
    rows, columns, pitch, copy, words = corners.rows, corners.columns, corners.pitch, corners.copy, corners.row
    (step_h, step_w), (stride_h, stride_w) = corners.step, corners.stride
    channels = corners.channels
    lines = channels * rows
    wide = min(columns, threads)
    at_once = threads // wide

    @device(forceinline=True)
    def down(row, c):
        """Words to a row of a channel in a copy."""
        phase = uint32(c * uint32(step_h) + row % uint32(step_h))
        return uint32(uint32(row // uint32(step_h)) * uint32(pitch) + phase * uint32(step_w * words))

    @device(forceinline=True)
    def along(column):
        """And to a column."""
        return uint32(uint32(column % uint32(step_w)) * uint32(words) + column // uint32(step_w))

    @device(forceinline=True)
    def load(tile, x, n, first_row, bounds, thread):
        """Image n, from the row that row `first_row` of pooled positions begins at. bounds: of `bounds_of`."""
        H, W, top, left = bounds
        values = cuda.local.array(_BATCH, float32)
        first_h = int32(first_row * uint32(step_h)) - top
        first_line = uint32(thread // uint32(wide))
        column = uint32(thread % uint32(wide))
        if first_line >= uint32(at_once):  # a surplus thread
            column = uint32(columns)
        while column < uint32(columns):
            w = int32(int32(column) - left)
            inside = w >= 0 and w < W
            left_word = along(column)
            has_right = column >= uint32(stride_w)
            right_word = along(uint32(column - uint32(stride_w))) if has_right else uint32(0)
            first = first_line
            while first < uint32(lines):
                for i in range(_BATCH):
                    line = uint32(first + uint32(i * at_once))
                    c = uint32(0) if channels == 1 else uint32(line // uint32(rows))
                    h = int32(int32(line - c * uint32(rows)) + first_h)
                    values[i] = float32(0)
                    if line < uint32(lines) and inside and h >= 0 and h < H:
                        values[i] = x[uint32(((n * uint32(channels) + c) * uint32(H) + uint32(h)) * uint32(W) + uint32(w))]
                for i in range(_BATCH):
                    line = uint32(first + uint32(i * at_once))
                    if line < uint32(lines):
                        c = uint32(0) if channels == 1 else uint32(line // uint32(rows))
                        row = uint32(line - c * uint32(rows))
                        at = down(row, c)
                        tile[uint32(at + left_word)] = values[i]
                        if has_right:
                            tile[beyond(uint32(at + right_word), copy)] = values[i]
                        if row >= uint32(stride_h):
                            at = down(uint32(row - uint32(stride_h)), c)
                            tile[beyond(uint32(at + left_word), 2 * copy)] = values[i]
                            if has_right:
                                tile[beyond(uint32(at + right_word), 3 * copy)] = values[i]
                first = uint32(first + uint32(_BATCH * at_once))
            column = uint32(column + uint32(wide))

    return load


def _up(words: int) -> int:
    """`words` up to a multiple of the banks."""
    return -(-words // BANKS) * BANKS

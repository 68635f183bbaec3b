"""The pixels of a block of threads in shared memory, for convolutions of few channels.

A patch is laid out so that neighbouring positions lie in neighbouring words, whatever the stride. Shared memory has 32 banks, word i is
in bank i mod 32, and a warp (32 threads) that reads two words of one bank takes twice as long. With stride 2 neighbours would be two
words apart; so pixels are sorted by phase, even columns in one plane and odd ones in another, and rows likewise. A stretch
continues in the next row, which begins a pitch further: a pitch of Q mod 32 makes that the next bank.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.launch import Pair, Window, geometry

ROOM = 12288  # floats: the 48 KB that a block has on every chip
BANKS = 32
_BATCH = 4  # loads that a thread issues before it waits for the first


@dataclass(frozen=True, slots=True)
class Patch:
    """The pixels that a stretch of neighbouring positions reads, and their layout in shared memory.

    A position is `side` × `side` outputs of the convolution: 1, or 2 where they are pooled. `across` positions are a row of the plane.
    """

    channels: int
    kernel: Pair
    stride: Pair
    dilation: Pair
    side: int
    across: int
    rows: int  # of the image
    columns: int
    pitch: int  # words from one row of a phase to the next

    @property
    def step(self) -> Pair:
        """Pixels from one position to the next, down and across; as many phases."""
        return self.side * self.stride[0], self.side * self.stride[1]

    @property
    def plane(self) -> int:
        """Words of a phase."""
        return -(-self.rows // self.step[0]) * self.pitch

    @property
    def channel(self) -> int:
        """Words of a channel."""
        return self.step[0] * self.step[1] * self.plane

    @property
    def spread(self) -> bool:
        """Whether 32 neighbouring positions are in different banks, across the ends of rows as well."""
        return self.across % BANKS == 0 or (self.pitch - self.across) % BANKS == 0

    @property
    def size(self) -> int:
        return self.channels * self.channel

    def shares(self, threads: int) -> Pair:
        """(columns, rows) that so many threads copy at a time: all columns, or an equal share of them."""
        wide = -(-self.columns // -(-self.columns // threads))
        return wide, threads // wide

    def copying(self, threads: int) -> int:
        """Roughly the instructions with which each of so many threads copies its share."""
        wide, lines = self.shares(threads)
        return -(-self.columns // wide) * (20 + 14 * -(-self.channels * self.rows // lines))


def patch_of(channels: int, window: Window, stretch: int, side: int = 1, room: int = ROOM, across: int | None = None) -> Patch | None:
    """The patch of `stretch` positions, or None where it takes more than `room` words. across: the positions in a row of a band, where it
    is not a whole row of the plane."""
    down, width = window.output[0] // side, across or window.output[1] // side
    # Stretches begin at multiples of their length: at the beginning of a row, or anywhere in it.
    rows = min(stretch // width if stretch % width == 0 else (stretch + width - 2) // width + 1, down)
    sizes = [
        (count - 1) * side * stride + (side - 1) * stride + (taps - 1) * dilation + 1
        for count, stride, taps, dilation in zip((rows, width), window.stride, window.kernel, window.dilation, strict=True)
    ]
    least = -(-sizes[1] // (side * window.stride[1]))
    for pitch in (least + (width - least) % BANKS if width % BANKS else least, least):  # without bank conflicts, if there is room
        patch = Patch(channels, window.kernel, window.stride, window.dilation, side, width, sizes[0], sizes[1], pitch)
        if patch.size <= room:
            return patch
    return None


@functools.lru_cache(maxsize=256)
def bounds_of(window: Window) -> tuple[Any, ...]:
    """H, W, and the padding on top and on the left: with them a loader finds out what lies outside of an image."""
    height, width, *_, top, left, _, _, _, _ = geometry(window)
    return height, width, top, left


@functools.cache
def patch_loader(patch: Patch, threads: int, start: int) -> Any:
    """The device function with which a block's threads copy a patch to shared memory, from word `start`.

    A thread keeps to its column: values that depend on the column are computed once, and a row costs one division. It has no line numbers:
    with them, nvJitLink 13 cannot compile some kernels that it is inlined in ("Unknown symbol $L__BB0_33").
    """
    rows, columns, pitch, plane, channel, channels = patch.rows, patch.columns, patch.pitch, patch.plane, patch.channel, patch.channels
    step_h, step_w = patch.step
    lines, (wide, at_once) = channels * rows, patch.shares(threads)

    @device(forceinline=True)
    def channel_and_row(line):
        c = uint32(0) if channels == 1 else uint32(line // uint32(rows))
        return c, uint32(line - c * uint32(rows))

    @device(lines=False, forceinline=True)
    def load(tile, x, n, place, bounds, thread):
        """Image n; place: the position's row and column that it begins at. bounds: of `bounds_of`."""
        H, W, top, left = bounds
        first_row, first_column = place
        values = cuda.local.array(_BATCH, float32)
        first_h = int32(first_row * uint32(step_h)) - top
        first_w = int32(first_column * uint32(step_w)) - left
        first_line = uint32(thread // uint32(wide))
        column = uint32(thread % uint32(wide))
        if first_line >= uint32(at_once):  # a surplus thread
            column = uint32(columns)
        while column < uint32(columns):
            w = uint32(int32(column) + first_w)  # a negative column becomes a huge number, so one comparison is enough
            along = uint32(uint32(start) + uint32(column % uint32(step_w)) * uint32(plane) + column // uint32(step_w))
            first = first_line
            while first < uint32(lines):
                for i in range(_BATCH):
                    line = uint32(first + uint32(i * at_once))
                    c, row = channel_and_row(line)
                    h = uint32(int32(row) + first_h)
                    inside = line < uint32(lines) and w < uint32(W) and h < uint32(H)
                    value = x[uint32(((n * uint32(channels) + c) * uint32(H) + h) * uint32(W) + w) if inside else uint32(0)]
                    values[i] = value if inside else float32(0)  # a choice takes fewer instructions than a branch
                for i in range(_BATCH):
                    line = uint32(first + uint32(i * at_once))
                    if line < uint32(lines):
                        c, row = channel_and_row(line)
                        phase = uint32(uint32(row % uint32(step_h)) * uint32(step_w * plane))
                        down = uint32(c * uint32(channel) + phase + uint32(row // uint32(step_h)) * uint32(pitch))
                        tile[uint32(along + down)] = values[i]
                first = uint32(first + uint32(_BATCH * at_once))
            column = uint32(column + uint32(wide))

    return load

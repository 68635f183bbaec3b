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
    def size(self) -> int:
        return self.channels * self.channel


def patch_of(channels: int, window: Window, stretch: int, side: int = 1, room: int = ROOM) -> Patch | None:
    """The patch of `stretch` positions, or None where it takes more than `room` words."""
    positions = (window.output[0] // side, window.output[1] // side)
    rows = min((stretch + positions[1] - 2) // positions[1] + 1, positions[0])  # that a stretch can lie in
    sizes = [
        (count - 1) * side * stride + (side - 1) * stride + (taps - 1) * dilation + 1
        for count, stride, taps, dilation in zip((rows, positions[1]), window.stride, window.kernel, window.dilation, strict=True)
    ]
    least = -(-sizes[1] // (side * window.stride[1]))
    for pitch in (least + (positions[1] - least) % BANKS, least):  # without bank conflicts, if there is room
        patch = Patch(channels, window.kernel, window.stride, window.dilation, side, positions[1], sizes[0], sizes[1], pitch)
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

    It has no line numbers: with them, nvJitLink 13 cannot compile some kernels that it is inlined in ("Unknown symbol $L__BB0_33").
    """
    rows, columns, pitch, plane = patch.rows, patch.columns, patch.pitch, patch.plane
    step_h, step_w = patch.step
    total = patch.channels * rows * columns
    channels = patch.channels

    @device(lines=False, forceinline=True)
    def load(tile, x, n, first_row, bounds, thread):
        """Image n, from the row that position row `first_row` begins at. bounds: of `bounds_of`."""
        H, W, top, left = bounds
        values = cuda.local.array(_BATCH, float32)
        first_h = int32(first_row * uint32(step_h)) - top
        first = thread
        while first < uint32(total):
            for i in range(_BATCH):
                e = uint32(first + uint32(i * threads))
                rest = uint32(e // uint32(columns))
                w = int32(int32(e % uint32(columns)) - left)
                h = int32(int32(rest % uint32(rows)) + first_h)
                c = uint32(rest // uint32(rows))
                values[i] = float32(0)
                if e < uint32(total) and h >= 0 and h < H and w >= 0 and w < W:
                    values[i] = x[uint32(((n * uint32(channels) + c) * uint32(H) + uint32(h)) * uint32(W) + uint32(w))]
            for i in range(_BATCH):
                e = uint32(first + uint32(i * threads))
                if e < uint32(total):
                    rest = uint32(e // uint32(columns))
                    column = uint32(e % uint32(columns))
                    row = uint32(rest % uint32(rows))
                    c = uint32(rest // uint32(rows))
                    phase = uint32((c * uint32(step_h) + row % uint32(step_h)) * uint32(step_w) + column % uint32(step_w))
                    word = uint32((row // uint32(step_h)) * uint32(pitch) + column // uint32(step_w))
                    tile[uint32(uint32(start) + phase * uint32(plane) + word)] = values[i]
            first = uint32(first + uint32(_BATCH * threads))

    return load

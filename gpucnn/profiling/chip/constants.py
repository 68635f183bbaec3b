"""The constants of a launch, its grid and arguments, in the layout of a chip."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpucnn_kernels.core.launch import Launch

_FIRST_ARGUMENT = {7: 0x160, 8: 0x160, 9: 0x210, 10: 0x380, 12: 0x380}
"""The offset of the arguments by the chip's major number: as ptxas writes it in EIATTR_PARAM_CBANK, the same for all kernels of a
generation."""
_SIZES = {7: 0x0, 8: 0x0, 9: 0x0, 10: 0x360, 12: 0x360}  # threads of a block, then blocks of the grid, in three words each
_APART = 1 << 36  # bytes from an array's made-up address to the next one's


class LaunchConstants:
    """A function of an offset in bytes that returns the 32-bit word there, or None if it is unknown."""

    def __init__(self, launch: Launch, capability: tuple[int, int]) -> None:
        self.words: dict[int, int] = {}
        sizes = _SIZES[capability[0]]
        for index, number in enumerate((launch.threads, 1, 1, launch.blocks, 1, 1)):
            self.words[sizes + 4 * index] = number
        self.words.update({0x18 + 4 * index: 0 for index in range(3)})  # where the grid begins
        at = _FIRST_ARGUMENT[capability[0]]
        arrays: dict[int, int] = {}
        for value in launch.arguments:
            for raw in _parts(value, arrays):
                at = -(-at // len(raw)) * len(raw)
                self._put(at, raw)
                at += len(raw)

    def _put(self, at: int, raw: bytes) -> None:
        for index in range(0, len(raw), 4):
            piece = raw[index : index + 4]
            word, shift = (at + index) // 4 * 4, (at + index) % 4 * 8
            self.words[word] = self.words.get(word, 0) | int.from_bytes(piece, "little") << shift

    def __call__(self, offset: int) -> int | None:
        return self.words.get(offset)


def _parts(value: Any, arrays: dict[int, int]) -> Iterator[bytes]:
    """An argument as Numba passes it: a tuple as its members, an array as two pointers, its size, the size of a number, its address, and
    its shape and strides."""
    if isinstance(value, tuple):
        for each in value:
            yield from _parts(each, arrays)
    elif isinstance(value, np.generic):
        yield value.tobytes()
    elif hasattr(value, "shape"):
        where = arrays.setdefault(id(value), (len(arrays) + 1) * _APART)
        numbers = (0, 0, value.size, value.dtype.itemsize, where, *value.shape, *value.strides)
        yield from (struct.pack("<q", int(number)) for number in numbers)
    elif isinstance(value, bool):
        yield bytes([value])
    elif isinstance(value, int):
        yield struct.pack("<q", value)
    else:
        yield struct.pack("<d", float(value))

"""Tables of offsets: they tell the inner loop which number of an image to read.

A window that slides over an image is two tables: where each output's first tap lies in the image, framed by its padding, and how far each
tap lies behind the first. Stride, dilation and padding are in the tables, so the loops know nothing of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.language import record
from gpucnn_loops.threads import address, lasting, number, step_of

Table = NDArray[np.int64]
GROUPS = 8  # the most groups of images: each has its own sums over images, which are added up in order
TERMS = 256  # the fewest terms of a group's sums: with fewer, these would take too long to add up
IMAGES = 8  # enough images for a group, however few terms they have
MOST_SUMS = 1 << 22  # the most numbers in all groups' sums


class Window(Protocol):
    """R × S taps sliding over H × W pixels, P × Q positions: gpucnn.ops.shapes has such a class."""

    def __hash__(self) -> int: ...
    @property
    def input(self) -> tuple[int, int]: ...
    @property
    def kernel(self) -> tuple[int, int]: ...
    @property
    def stride(self) -> tuple[int, int]: ...
    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]: ...
    @property
    def dilation(self) -> tuple[int, int]: ...
    @property
    def output(self) -> tuple[int, int]: ...


@record("f* i")
class Images(NamedTuple):
    """The position of images in memory: the address of the first, and the distance from each to the next in numbers."""

    first: int
    step: int


def images(array: NDArray[Any], skipped: int = 0) -> Images:
    """The position of images of float32 or int32, or of a part of each that begins so many numbers later."""
    return Images(address(array) + 4 * skipped, step_of(array))


@record("i i i i i i i")
class Frame(NamedTuple):
    """An image of c planes, h × w pixels, whose first pixel is at (top, left) in planes of high × wide."""

    c: int
    h: int
    w: int
    top: int
    left: int
    high: int
    wide: int

    @property
    def size(self) -> int:
        """The size of the framed image; 0 if it is the image itself."""
        return self.c * self.high * self.wide if (self.high, self.wide) != (self.h, self.w) else 0


def framed(c: int, window: Window) -> Frame:
    """The frame for a window's padding, without rows and columns past the last tap."""
    high, wide = (
        max(begin + size, (count - 1) * stride + (k - 1) * dilation + 1)
        for (begin, _), size, count, stride, k, dilation in zip(
            window.padding, window.input, window.output, window.stride, window.kernel, window.dilation, strict=True
        )
    )
    return Frame(c, *window.input, window.padding[0][0], window.padding[1][0], high, wide)


def grid(rows: Sequence[int] | Table, columns: Sequence[int] | Table, line: int) -> Table:
    """rows[i]·line + columns[j], flat."""
    return (np.asarray(rows, np.int64)[:, None] * line + np.asarray(columns, np.int64)).reshape(-1)


def one_window(window: Window) -> bool:
    """Whether there is one window, of all pixels and nothing else."""
    near = all(d == 1 or size == 1 for d, size in zip(window.dilation, window.kernel, strict=True))  # else taps may lie behind the image
    return near and window.kernel == window.input and window.padding == ((0, 0), (0, 0)) and window.output == (1, 1)


def outputs(window: Window, wide: int) -> Table:
    """The position of each output's first tap, in planes of that width."""
    rows, columns = (np.arange(count) * stride for count, stride in zip(window.output, window.stride, strict=True))
    return grid(rows, columns, wide)


def taps(c: int, window: Window, high: int, wide: int) -> Table:
    """The distance of each tap, of all channels, from the first."""
    rows, columns = (np.arange(k) * dilation for k, dilation in zip(window.kernel, window.dilation, strict=True))
    return grid(np.arange(c) * high, grid(rows, columns, wide), wide)


def lanes(count: int) -> int:
    """The smallest multiple of 16 that holds this many channels."""
    return -(-count // 16) * 16


class Tables:
    """Named tables with their addresses: `t.rows` is a table, `t.at.rows` its address."""

    def __init__(self, **tables: Any) -> None:
        self.__dict__.update({name: np.ascontiguousarray(table, np.int64) for name, table in tables.items()})
        self.at = _Addresses()
        self.at.__dict__.update({name: lasting(table, self) for name, table in self.__dict__.items() if name != "at"})

    def __getattr__(self, name: str) -> Table:
        raise AttributeError(name)


class _Addresses:
    def __getattr__(self, name: str) -> int:
        raise AttributeError(name)


def edges(n: int, sums: int, terms: int) -> list[int]:
    """Where the groups of n images begin, and where the last one ends; there are 1, 2, 4 or 8. sums: the numbers that each group sums up.
    terms: those of each sum from one image."""
    count = max(1, min(n // min(IMAGES, -(-TERMS // terms)), GROUPS, MOST_SUMS // sums))
    count = 1 << count.bit_length() - 1  # which 2, 4 or 8 threads share evenly
    return [n * group // count for group in range(count + 1)]


def parts(count: int, divisible: int) -> int:
    """The number of parts, at most `divisible`, for each of `count` pieces of work: one, unless the pieces cannot be divided evenly.

    A part has whole outputs, so this changes no bits. Data that all parts need, such as a transposed image, are made in each of them.
    """
    threads = number()
    return 1 if count % threads == 0 or count > 4 * threads else min(threads, divisible)


@dataclass(frozen=True)
class Sliding:
    """A `Window` of this package's own."""

    input: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    output: tuple[int, int]

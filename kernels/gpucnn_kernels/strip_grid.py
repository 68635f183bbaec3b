"""Strips, for pooling: how a grid of them is laid out, which a thread computes, and which windows reach its pixels."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import int32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.integers import divide, magic
from gpucnn_kernels.core.launch import Window


@functools.lru_cache(maxsize=256)
def grid_of(rows: int, columns: int, planes: int, most: int) -> tuple[int, int, tuple[Any, ...]]:
    """(length, count, grid): strips of at most `most` rows over so many rows and columns of each plane, all of them about as long; how many
    there are, and what `place` takes."""
    length = -(-rows // -(-rows // most))
    strips = -(-rows // length)
    count = planes * strips * columns
    return length, count, (np.uint32(count), np.uint32(columns), *magic(columns), np.uint32(strips), *magic(strips))


@functools.lru_cache(maxsize=256)
def sides(window: Window) -> tuple[np.int32, ...]:
    """H, W, P, Q."""
    return tuple(map(np.int32, (*window.input, *window.output)))


@functools.lru_cache(maxsize=256)
def with_padding(window: Window) -> tuple[np.int32, ...]:
    """H, W, the padding on top and on the left, P, Q."""
    return tuple(map(np.int32, (*window.input, window.padding[0][0], window.padding[1][0], *window.output)))


@device(forceinline=True)
def place(i, grid, length):
    """The plane, first row and column of strip i. Neighbouring strips lie side by side."""
    _, columns, columns_by, columns_shift, strips, strips_by, strips_shift = grid
    rest = divide(i, columns_by, columns_shift)
    plane = divide(rest, strips_by, strips_shift)
    return plane, int32(int32(rest - plane * strips) * int32(length)), int32(i - rest * columns)


def reach(taps: int, stride: int, before: int) -> tuple[int, int]:
    """The first window that reads one of `stride` pixels, and how many do, counted from the window that has the same number as they."""
    first = -((taps - 1 - before) // stride)
    return first, (stride - 1 + before) // stride - first + 1

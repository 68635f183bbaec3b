"""Strips, for pooling: how a grid of them is laid out, which a thread computes, and which windows reach its pixels."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import int32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.integers import divide, magic


def grid_of(rows: int, columns: int, planes: int, most: int) -> tuple[int, int, tuple[Any, ...]]:
    """(length, count, grid): strips of at most `most` rows over so many rows and columns of each plane, all of them about as long; how many
    there are, and what `place` takes."""
    length = -(-rows // -(-rows // most))
    strips = -(-rows // length)
    count = planes * strips * columns
    return length, count, (np.uint32(count), np.uint32(columns), *magic(columns), np.uint32(strips), *magic(strips))


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

"""The taps of a window as pairs of slices: which outputs a tap serves, and the pixels that it reads for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gpucnn.ops.shapes import Window


class Tap(NamedTuple):
    """Tap (r, s): for the outputs `into` (slices over P and Q) it reads the pixels `pixels` (slices over H and W)."""

    r: int
    s: int
    into: tuple[slice, slice]
    pixels: tuple[slice, slice]


def taps(window: Window) -> Iterator[Tap]:
    """Every tap that touches the image, in row-major order; outputs whose tap falls into the padding are left out."""
    rows = [_axis(window, 0, r) for r in range(window.kernel[0])]
    columns = [_axis(window, 1, s) for s in range(window.kernel[1])]
    for r, row in enumerate(rows):
        for s, column in enumerate(columns):
            if row and column:
                yield Tap(r, s, (row[0], column[0]), (row[1], column[1]))


def covers_all(window: Window) -> bool:
    """Whether every tap of every output is a pixel: no padding is read."""
    return all(
        begin == 0 and (count - 1) * stride + extent <= size
        for (begin, _), count, stride, extent, size in zip(
            window.padding, window.output, window.stride, window.extent, window.input, strict=True
        )
    )


def _axis(window: Window, axis: int, tap: int) -> tuple[slice, slice] | None:
    stride, count, size = window.stride[axis], window.output[axis], window.input[axis]
    shift = tap * window.dilation[axis] - window.padding[axis][0]  # output i reads pixel i·stride + shift
    first = max(0, -(shift // stride))  # the least i with i·stride + shift ≥ 0
    last = min(count - 1, (size - 1 - shift) // stride)
    if last < first:
        return None
    begin = first * stride + shift
    return slice(first, last + 1), slice(begin, begin + (last - first) * stride + 1, stride)

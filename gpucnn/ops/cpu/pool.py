"""Pooling, tap by tap: R·S passes over all windows at once, a few planes at a time.

x, dx (N, C, H, W); y, dy and indices (N, C, P, Q).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from gpucnn.ops.cpu._engine import expected
from gpucnn.ops.cpu._taps import covers_all, taps
from gpucnn.ops.cpu._threads import SLAB, Array, share, workers_for
from gpucnn.ops.shapes import Window

__all__ = ["avg_pool2d", "avg_pool2d_grad", "max_pool2d", "max_pool2d_grad"]


def max_pool2d(
    x: Array, window: Window, *, out: Array | None = None, indices: Array | None = None, places: bool = True
) -> tuple[Array, Array | None]:
    """(y, indices): the largest pixel of each window and its int32 index in the H·W plane.

    The first of equals wins; NaN wins over numbers, and the first NaN over later ones. Padding never wins. places: whether the indices are
    wanted, as they are where a gradient will be; otherwise None may be in their place.
    """
    shape = (*x.shape[:2], *window.output)
    y = out if out is not None and out.flags.c_contiguous else np.empty(shape, x.dtype)
    found = np.empty(shape, np.int32) if indices is None else indices
    s, width = window.kernel[1], window.input[1]
    number = np.min_scalar_type(window.kernel[0] * s - 1)  # as few bytes as possible, because taps are compared for every pixel
    offsets = np.array([_offset(r, c, window) for r in range(window.kernel[0]) for c in range(s)], np.int32)
    rows, columns = _corners(window)
    corners = (rows[:, None] * width + columns).astype(np.int32)
    # Until another tap wins, it is the first one inside the image, so that a window of only −inf also has an index in the image.
    first = np.add.outer(_first_tap(rows, window.dilation[0]) * s, _first_tap(columns, window.dilation[1])).astype(number)

    def best_taps(x: Array, y: Array, winner: Array, nan: bool) -> None:
        y[...] = -np.inf
        winner[...] = first
        for tap in taps(window):
            value, best, won = np.ascontiguousarray(x[:, *tap.pixels]), y[:, *tap.into], winner[:, *tap.into]
            better = ~(value <= best) & (best == best) if nan else value > best  # where there are NaN: larger, or the first of them
            np.maximum(best, value, out=best)  # NaN stays
            # The last tap that was better is the winner, and taps come in ascending order: no slow masked write is needed.
            np.maximum(won, better.view(np.uint8) * number.type(tap.r * s + tap.s), out=won)

    def work(x: Array, y: Array, places: Array) -> None:
        winner = np.empty(y.shape, number)
        best_taps(x, y, winner, nan=False)
        if np.isnan(y).any():
            best_taps(x, y, winner, nan=True)
        np.take(offsets, winner, out=places, mode="clip")
        places += corners

    _by_planes(work, x, y, found)
    return _put(y, out), found


def max_pool2d_grad(dy: Array, indices: Array, window: Window, *, relu: Array | None = None, out: Array | None = None) -> Array:
    """dx: each window's gradient, at the pixel that won it; a pixel that won several windows gets their sum.

    relu: y, if a ReLU produced x; then a window whose maximum is not positive passes no gradient on.
    """
    dx = np.empty((*dy.shape[:2], *window.input), dy.dtype) if out is None else out
    rows, columns = _corners(window)
    corners = (rows[:, None] * window.input[1] + columns).astype(np.int32)
    once = _tiles_exactly(window)
    zero = dy.dtype.type(0)

    def work(dy: Array, indices: Array, dx: Array, *maxima: Array) -> None:
        if maxima:
            dy = np.where(maxima[0] > 0, dy, zero)
        winner = indices - corners  # the winning tap, as its offset from the window's corner
        if not once:
            dx[...] = 0
        for tap in taps(window):
            won = winner[:, *tap.into] == _offset(tap.r, tap.s, window)
            if once:
                dx[:, *tap.pixels] = np.where(won, dy[:, *tap.into], zero)
            else:
                dx[:, *tap.pixels] += np.where(won, dy[:, *tap.into], zero)

    _by_planes(work, dy, indices, dx, *(() if relu is None else (relu,)))
    return dx


def avg_pool2d(x: Array, window: Window, count_include_pad: bool = True, *, out: Array | None = None) -> Array:
    """y: the mean of each window, over the pixels that `window_counts` counts."""
    y = out if out is not None and out.flags.c_contiguous else np.empty((*x.shape[:2], *window.output), x.dtype)
    counts = window_counts(window, count_include_pad).astype(x.dtype)

    def work(x: Array, y: Array) -> None:
        y[...] = 0
        for tap in taps(window):
            y[:, *tap.into] += x[:, *tap.pixels]
        y /= counts

    _by_planes(work, x, y)
    return _put(y, out)


def avg_pool2d_grad(dy: Array, window: Window, count_include_pad: bool = True, *, out: Array | None = None) -> Array:
    """dx: each window's gradient, divided evenly among the pixels of its mean."""
    dx = np.empty((*dy.shape[:2], *window.input), dy.dtype) if out is None else out
    counts = window_counts(window, count_include_pad).astype(dy.dtype)

    def work(dy: Array, dx: Array) -> None:
        part = dy / counts
        dx[...] = 0
        for tap in taps(window):
            dx[:, *tap.pixels] += part[:, *tap.into]

    _by_planes(work, dy, dx)
    return dx


def window_counts(window: Window, count_include_pad: bool) -> Array:
    """The divisor of each window's sum, (P, Q) int64: its pixels, with declared padding where `count_include_pad`.

    As in PyTorch, pixels past the padded image (ceil_mode) never count; as in Keras, padding from "same" never counts.
    """
    sides = []
    for size, (begin, end), k, stride, dilation, count in zip(
        window.input, window.padding, window.kernel, window.stride, window.dilation, window.output, strict=True
    ):
        padded = count_include_pad and not window.same
        low, high = (-begin, size + end) if padded else (0, size)
        reads = np.arange(count)[:, None] * stride - begin + np.arange(k) * dilation
        sides.append(((reads >= low) & (reads < high)).sum(axis=1))
    counts: Array = np.multiply.outer(sides[0], sides[1])
    return counts


def scratch(elements: int) -> int:
    """The elements needed besides inputs and outputs of this many pixels: a few passes over a slab for each thread."""
    return 0 if expected() else 2 * workers_for(-(-elements // SLAB), elements) * min(SLAB, elements)


def _corners(window: Window) -> tuple[Array, Array]:
    """Row and column of each window's tap (0, 0), which may lie in the padding."""
    rows, columns = (
        np.arange(count) * stride - begin for count, stride, (begin, _) in zip(window.output, window.stride, window.padding, strict=True)
    )
    return rows, columns


def _offset(r: int, s: int, window: Window) -> int:
    """The distance from the pixel under tap (0, 0) to that under tap (r, s), in the flattened plane."""
    return r * window.dilation[0] * window.input[1] + s * window.dilation[1]


def _first_tap(corners: Array, dilation: int) -> Array:
    """The first tap at or after pixel 0, for windows whose tap 0 is at `corners`."""
    tap: Array = np.maximum(0, -(corners // dilation))
    return tap


def _tiles_exactly(window: Window) -> bool:
    """Whether every pixel is read exactly once."""
    sizes = tuple(count * k for count, k in zip(window.output, window.kernel, strict=True))
    return window.stride == window.kernel and window.dilation == (1, 1) and covers_all(window) and sizes == window.input


def _put(y: Array, out: Array | None) -> Array:
    """y, copied if `out` is a part of larger images, whose planes are not contiguous."""
    if out is None or out is y:
        return y
    out[...] = y
    return out


def _by_planes(work: Callable[..., None], *arrays: Array) -> None:
    """`work` on slices of the planes of all arrays, (N·C, height, width), as many planes at a time as fit the cache."""
    planes = [array.reshape(-1, *array.shape[2:]) for array in arrays]
    total = planes[0].shape[0]
    step = max(1, SLAB // max(plane[0].size for plane in planes))

    def body(pieces: Iterable[int]) -> None:
        for piece in pieces:
            work(*(plane[piece * step : (piece + 1) * step] for plane in planes))

    share(-(-total // step), body, work=sum(plane.size for plane in planes))

"""Pooling, tap by tap: R·S passes over all windows at once, a few planes at a time.

x, dx (N, C, H, W); y, dy and indices (N, C, P, Q).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from gpucnn.ops.cpu._taps import covers_all, taps
from gpucnn.ops.cpu._threads import SLAB, Array, share
from gpucnn.ops.shapes import Window


def max_pool2d(
    x: Array, window: Window, *, out: Array | None = None, indices: Array | None = None
) -> tuple[Array, Array]:
    """(y, indices): the largest pixel of each window and its int32 place in the H·W plane.

    The first of equals wins; NaN wins over numbers, and the first NaN over later ones. Padding never wins.
    """
    shape = (*x.shape[:2], *window.output)
    y = np.empty(shape, x.dtype) if out is None else out
    places = np.empty(shape, np.int32) if indices is None else indices
    pixel = np.arange(window.input[0] * window.input[1], dtype=np.int32).reshape(window.input)
    start = _first_pixels(window)

    def work(x: Array, y: Array, places: Array) -> None:
        nan = bool(np.isnan(np.max(x)))
        y[...] = -np.inf
        places[...] = start
        for tap in taps(window):
            value, best, place = x[:, *tap.pixels], y[:, *tap.into], places[:, *tap.into]
            if nan:
                better = ~(value <= best) & (best == best)  # larger, or the first NaN
            else:
                better = value > best
            np.copyto(best, value, where=better)
            np.copyto(place, pixel[tap.pixels], where=better)

    _by_planes(work, x, y, places)
    return y, places


def max_pool2d_grad(dy: Array, indices: Array, window: Window, *, out: Array | None = None) -> Array:
    """dx: each window's gradient, at the pixel that won it; a pixel that won several windows gets their sum."""
    dx = np.empty((*dy.shape[:2], *window.input), dy.dtype) if out is None else out
    pixel = np.arange(window.input[0] * window.input[1], dtype=np.int32).reshape(window.input)
    once = _tiles_exactly(window)
    zero = dy.dtype.type(0)

    def work(dy: Array, indices: Array, dx: Array) -> None:
        if not once:
            dx[...] = 0
        for tap in taps(window):
            won = indices[:, *tap.into] == pixel[tap.pixels]
            if once:
                dx[:, *tap.pixels] = np.where(won, dy[:, *tap.into], zero)
            else:
                dx[:, *tap.pixels] += np.where(won, dy[:, *tap.into], zero)

    _by_planes(work, dy, indices, dx)
    return dx


def avg_pool2d(x: Array, window: Window, count_include_pad: bool = True, *, out: Array | None = None) -> Array:
    """y: the mean of each window, over the pixels that `window_counts` counts."""
    y = np.empty((*x.shape[:2], *window.output), x.dtype) if out is None else out
    counts = window_counts(window, count_include_pad).astype(x.dtype)

    def work(x: Array, y: Array) -> None:
        y[...] = 0
        for tap in taps(window):
            y[:, *tap.into] += x[:, *tap.pixels]
        y /= counts

    _by_planes(work, x, y)
    return y


def avg_pool2d_grad(dy: Array, window: Window, count_include_pad: bool = True, *, out: Array | None = None) -> Array:
    """dx: each window's gradient shared out evenly among the pixels that its mean was taken over."""
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
    """What each window's sum is divided by, (P, Q) int64: its pixels, with declared padding where `count_include_pad`.

    As PyTorch: what hangs over the padded image (ceil_mode) never counts; padding from "same" never counts, as in Keras.
    """
    sides = []
    for size, (begin, end), k, stride, dilation, count in zip(
        window.input, window.padding, window.kernel, window.stride, window.dilation, window.output, strict=True
    ):
        padded = count_include_pad and not window.same
        low, high = (-begin, size + end) if padded else (0, size)
        reads = np.arange(count)[:, None] * stride - begin + np.arange(k) * dilation
        sides.append(((reads >= low) & (reads < high)).sum(axis=1))
    return np.multiply.outer(sides[0], sides[1])


def _first_pixels(window: Window) -> Array:
    """The place of each window's first pixel that is no padding, (P, Q) int32."""
    sides = []
    for (begin, _), stride, dilation, count in zip(window.padding, window.stride, window.dilation, window.output, strict=True):
        corner = np.arange(count) * stride - begin
        sides.append(np.where(corner < 0, corner % dilation, corner))
    return (sides[0][:, None] * window.input[1] + sides[1]).astype(np.int32)


def _tiles_exactly(window: Window) -> bool:
    """Whether every pixel is read exactly once."""
    sizes = tuple(count * k for count, k in zip(window.output, window.kernel, strict=True))
    return window.stride == window.kernel and window.dilation == (1, 1) and covers_all(window) and sizes == window.input


def _by_planes(work: Callable[..., None], *arrays: Array) -> None:
    """`work` on slices of the planes of all arrays, (N·C, height, width), as many planes at a time as fit the cache."""
    planes = [array.reshape(-1, *array.shape[2:]) for array in arrays]
    total = planes[0].shape[0]
    step = max(1, SLAB // max(plane[0].size for plane in planes))

    def body(pieces: Iterable[int]) -> None:
        for piece in pieces:
            work(*(plane[piece * step : (piece + 1) * step] for plane in planes))

    share(-(-total // step), body)

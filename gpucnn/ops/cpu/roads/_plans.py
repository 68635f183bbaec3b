"""The plan of a convolution (its algorithm and tables of offsets), made once for each shape."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import pool as _pool
from gpucnn.ops.cpu._engine import loops
from gpucnn.ops.cpu._threads import Array
from gpucnn.ops.shapes import Window

PLANS = 512  # kept
MOST = 1 << 26  # numbers of a framed image, which each thread holds one of


@functools.lru_cache(maxsize=PLANS)
def convolution(c: int, k: int, window: Window, groups: int) -> Any:
    """The plan of a convolution; None if NumPy computes it."""
    (top, bottom), (left, right) = window.padding
    high, wide = window.input[0] + top + bottom, window.input[1] + left + right
    if max(c, k) // groups * max(high * wide, window.output[0] * window.output[1]) * 4 > MOST:
        return None
    made = _engine.modules()
    if made is None:
        return None
    if made.whole.fits(window, groups):
        return made.whole.Whole()
    if groups == c == k and groups > 1 and made.depthwise.fits(window):
        return made.depthwise.Depthwise(k, window)
    if made.winograd.fits(c, k, window, groups):
        return made.winograd.Winograd(c, k, window)
    if made.pixels.fits(c, k, window, groups):
        return made.pixels.Pixels(c, k, window, groups)
    if made.pointwise.fits(window):
        return made.pointwise.Pointwise(c, k, window, groups)
    return made.direct.Direct(c, k, window, groups)


def plan_of(window: Window, groups: int, c: int, k: int, *arrays: Array | None) -> Any:
    """The plan of a convolution of these arrays; None if NumPy computes it."""
    return convolution(c, k, window, groups) if loops(*arrays) else None


@functools.lru_cache(maxsize=PLANS)
def pooled(c: int, k: int, window: Window, pool_window: Window, groups: int) -> Any:
    """The plan of a convolution with ReLU and max pooling in one pass; None if they run one after the other."""
    made, whole = _engine.modules(), convolution(c, k, window, groups)
    if groups != 1 or whole is None:
        return None
    if made.pooled.halves(window, pool_window):
        return made.first.First(c, k, window) if made.first.fits(c, k, window) else made.pooled.Pooled(c, k, window)
    pixels_last = isinstance(whole, made.pixels.Pixels) and whole.ahead is not None  # the lanes of their tiles
    channels_last = not pixels_last and not isinstance(whole, made.depthwise.Depthwise)
    return made.windows.Windows(c, k, window, pool_window) if channels_last and made.windows.fits(k, window) else None


@functools.lru_cache(maxsize=PLANS)
def counts(window: Window, count_include_pad: bool) -> Any:
    """How many values each average is taken over."""
    return _engine.modules().average.Counts(_pool.window_counts(window, count_include_pad).astype(np.float32))


def integers(indices: Array | None) -> bool:
    """Whether the loops support this array of indices or labels."""
    return indices is None or (indices.dtype == np.int32 and indices.flags.c_contiguous and indices.flags.aligned)


def contiguous(array: Array) -> bool:
    """Whether an array has no gaps; a branch's part of all channels has one after each image."""
    return bool(array.flags.c_contiguous)

"""Pooling by compiled loops."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import pool as reference
from gpucnn.ops.cpu._engine import images, loops
from gpucnn.ops.cpu._threads import Array, empty
from gpucnn.ops.cpu.roads._plans import counts, integers
from gpucnn.ops.shapes import Window

__all__ = ["avg_pool2d", "avg_pool2d_grad", "max_pool2d", "max_pool2d_grad"]


def max_pool2d(
    x: Array, window: Window, *, out: Array | None = None, indices: Array | None = None, places: bool = True
) -> tuple[Array, Array | None]:
    if not (loops(x) and images(out) and integers(indices)):
        return reference.max_pool2d(x, window, out=out, indices=indices)
    shape = (*x.shape[:2], *window.output)
    y = empty(shape) if out is None else out
    found = empty(shape, np.int32) if indices is None and places else indices
    _engine.modules().pool.max_pool2d(x, window, y, found)
    return y, found


def max_pool2d_grad(dy: Array, indices: Array, window: Window, *, relu: Array | None = None, out: Array | None = None) -> Array:
    if not (loops(relu, out) and images(dy) and integers(indices)):
        return reference.max_pool2d_grad(dy, indices, window, relu=relu, out=out)
    dx = empty((*dy.shape[:2], *window.input)) if out is None else out
    _engine.modules().pool.max_pool2d_grad(dy, indices, window, relu, dx)
    return dx


def avg_pool2d(x: Array, window: Window, count_include_pad: bool = True, *, out: Array | None = None) -> Array:
    if not (loops(x) and images(out)):
        return reference.avg_pool2d(x, window, count_include_pad, out=out)
    y = empty((*x.shape[:2], *window.output)) if out is None else out
    _engine.modules().average.avg_pool2d(x, window, counts(window, count_include_pad), y)
    return y


def avg_pool2d_grad(dy: Array, window: Window, count_include_pad: bool = True, *, out: Array | None = None) -> Array:
    if not (loops(out) and images(dy)):
        return reference.avg_pool2d_grad(dy, window, count_include_pad, out=out)
    dx = empty((*dy.shape[:2], *window.input)) if out is None else out
    _engine.modules().average.avg_pool2d_grad(dy, window, counts(window, count_include_pad), dx)
    return dx

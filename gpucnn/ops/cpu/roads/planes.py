"""Means of whole planes by compiled loops."""

from __future__ import annotations

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import planes as reference
from gpucnn.ops.cpu._engine import loops
from gpucnn.ops.cpu._threads import Array, empty

__all__ = ["global_avg_pool2d", "global_avg_pool2d_grad"]


def global_avg_pool2d(x: Array, *, out: Array | None = None) -> Array:
    if not loops(x, out):
        return reference.global_avg_pool2d(x, out=out)
    y = empty(x.shape[:2]) if out is None else out
    _engine.modules().average.global_avg_pool2d(x, y)
    return y


def global_avg_pool2d_grad(dy: Array, size: tuple[int, ...], *, out: Array | None = None) -> Array:
    if not loops(dy, out):
        return reference.global_avg_pool2d_grad(dy, size, out=out)
    dx = empty((*dy.shape, *size)) if out is None else out
    _engine.modules().average.global_avg_pool2d_grad(dy, dx)
    return dx

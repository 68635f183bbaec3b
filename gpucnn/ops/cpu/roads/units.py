"""tanh by compiled loops."""

from __future__ import annotations

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import units as reference
from gpucnn.ops.cpu._engine import loops
from gpucnn.ops.cpu._threads import Array, empty

__all__ = ["tanh", "tanh_grad"]


def tanh(x: Array, *, out: Array | None = None) -> Array:
    if not loops(x, out):
        return reference.tanh(x, out=out)
    y = empty(x.shape) if out is None else out
    _engine.modules().tanh.tanh(x, y)
    return y


def tanh_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    if not loops(dy, y, out):
        return reference.tanh_grad(dy, y, out=out)
    dx = empty(dy.shape) if out is None else out
    _engine.modules().tanh.tanh_grad(dy, y, dx)
    return dx

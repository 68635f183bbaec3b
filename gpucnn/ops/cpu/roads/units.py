"""tanh by compiled loops."""

from __future__ import annotations

from gpucnn.ops.cpu import units as reference
from gpucnn.ops.cpu._threads import Array
from gpucnn.ops.cpu.roads._elementwise import by_loops

__all__ = ["tanh", "tanh_grad"]


def tanh(x: Array, *, out: Array | None = None) -> Array:
    return by_loops("tanh", reference.tanh, x, out=out)


def tanh_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    return by_loops("tanh", reference.tanh_grad, dy, y, out=out)

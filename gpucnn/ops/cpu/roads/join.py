"""Sums of branches by compiled loops."""

from __future__ import annotations

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import join as reference
from gpucnn.ops.cpu._engine import images, loops
from gpucnn.ops.cpu._threads import Array, empty

__all__ = ["add", "copied"]


def add(a: Array, b: Array, *, relu: bool = False, mask: Array | None = None, out: Array | None = None) -> Array:
    if (relu and mask is not None) or a.shape != b.shape or not loops(a, b, mask, out):
        return reference.add(a, b, relu=relu, mask=mask, out=out)
    y = empty(a.shape) if out is None else out
    _engine.modules().elementwise.add(a, b, relu, mask, y)
    return y


def copied(x: Array, *, out: Array | None = None) -> Array:
    if not images(x, out):
        return reference.copied(x, out=out)
    y = empty(x.shape) if out is None else out
    _engine.modules().sums.copy(x, y)
    return y

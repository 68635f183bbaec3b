"""Dropout by compiled loops."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import dropout as reference
from gpucnn.ops.cpu._engine import loops
from gpucnn.ops.cpu._threads import Array, empty

__all__ = ["dropout", "next_call"]


def dropout(x: Array, calls: Array, rate: float, seed: int, *, first: int = 0, out: Array | None = None) -> Array:
    if first % 4 or not loops(x, out):  # loops draw four words at a time
        return reference.dropout(x, calls, rate, seed, first=first, out=out)
    y = empty(x.shape) if out is None else out
    scale = float(np.float32(1 / (1 - rate)))
    _engine.modules().elementwise.dropout(x, calls, reference.drop_threshold(rate), scale, seed, first // 4, y)
    return y


def next_call(calls: Array) -> None:
    if _engine.modules() is None:
        reference.next_call(calls)
    else:
        _engine.modules().elementwise.next_call(calls)

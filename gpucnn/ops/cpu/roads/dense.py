"""Fully connected layers by compiled loops."""

from __future__ import annotations

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import dense as reference
from gpucnn.ops.cpu._engine import loops
from gpucnn.ops.cpu._threads import Array, empty

__all__ = ["dense", "dense_input_grad", "dense_weight_grad"]


def dense(x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False, out: Array | None = None, bits: int = 24) -> Array:
    if not loops(x, weight, bias, out):
        return reference.dense(x, weight, bias, relu=relu, out=out)
    y = empty((x.shape[0], weight.shape[0])) if out is None else out
    _engine.modules().dense.dense(x, weight, bias, relu, y)
    return y


def dense_input_grad(dy: Array, weight: Array, *, relu: Array | None = None, out: Array | None = None, bits: int = 24) -> Array:
    if not loops(dy, weight, relu, out):
        return reference.dense_input_grad(dy, weight, relu=relu, out=out)
    dx = empty((dy.shape[0], weight.shape[1])) if out is None else out
    _engine.modules().dense.dense_input_grad(dy, weight, relu, dx)
    return dx


def dense_weight_grad(dy: Array, x: Array, *, out: Array | None = None, dbias: Array | None = None, bits: int = 24) -> Array:
    if not loops(dy, x, out, dbias):
        return reference.dense_weight_grad(dy, x, out=out, dbias=dbias)
    if dbias is not None:
        _engine.modules().sums.column_sums(dy, dbias)
    dweight = empty((dy.shape[1], x.shape[1])) if out is None else out
    _engine.modules().dense.dense_weight_grad(dy, x, dweight)
    return dweight

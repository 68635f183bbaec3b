"""ReLU, sigmoid and softmax by compiled loops."""

from __future__ import annotations

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import activations as reference
from gpucnn.ops.cpu._engine import loops
from gpucnn.ops.cpu._threads import Array, empty

__all__ = ["relu", "relu_grad", "sigmoid", "sigmoid_grad", "softmax", "softmax_grad"]


def relu(x: Array, *, out: Array | None = None) -> Array:
    if not loops(x, out):
        return reference.relu(x, out=out)
    y = empty(x.shape) if out is None else out
    _engine.modules().elementwise.relu(x, y)
    return y


def relu_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    if not loops(dy, y, out):
        return reference.relu_grad(dy, y, out=out)
    dx = empty(dy.shape) if out is None else out
    _engine.modules().elementwise.relu_grad(dy, y, dx)
    return dx


def sigmoid(x: Array, *, out: Array | None = None) -> Array:
    if not loops(x, out):
        return reference.sigmoid(x, out=out)
    y = empty(x.shape) if out is None else out
    _engine.modules().softmax.sigmoid(x, y)
    return y


def sigmoid_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    if not loops(dy, y, out):
        return reference.sigmoid_grad(dy, y, out=out)
    dx = empty(dy.shape) if out is None else out
    _engine.modules().softmax.sigmoid_grad(dy, y, dx)
    return dx


def softmax(x: Array, *, out: Array | None = None) -> Array:
    if not (loops(x, out) and x.ndim and x.shape[-1]):
        return reference.softmax(x, out=out)
    y = empty(x.shape) if out is None else out
    _engine.modules().softmax.softmax(x, y)
    return y


def softmax_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    if not (loops(dy, y, out) and y.ndim and y.shape[-1]):
        return reference.softmax_grad(dy, y, out=out)
    dx = empty(dy.shape) if out is None else out
    _engine.modules().softmax.softmax_grad(dy, y, dx)
    return dx

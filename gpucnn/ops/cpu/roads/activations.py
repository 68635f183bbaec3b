"""ReLU, sigmoid and softmax by compiled loops."""

from __future__ import annotations

from gpucnn.ops.cpu import activations as reference
from gpucnn.ops.cpu._threads import Array
from gpucnn.ops.cpu.roads._elementwise import by_loops

__all__ = ["relu", "relu_grad", "sigmoid", "sigmoid_grad", "softmax", "softmax_grad"]


def relu(x: Array, *, out: Array | None = None) -> Array:
    return by_loops("elementwise", reference.relu, x, out=out)


def relu_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    return by_loops("elementwise", reference.relu_grad, dy, y, out=out)


def sigmoid(x: Array, *, out: Array | None = None) -> Array:
    return by_loops("softmax", reference.sigmoid, x, out=out)


def sigmoid_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    return by_loops("softmax", reference.sigmoid_grad, dy, y, out=out)


def softmax(x: Array, *, out: Array | None = None) -> Array:
    return by_loops("softmax", reference.softmax, x, out=out, supported=x.ndim > 0 and x.shape[-1] > 0)


def softmax_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    return by_loops("softmax", reference.softmax_grad, dy, y, out=out, supported=y.ndim > 0 and y.shape[-1] > 0)

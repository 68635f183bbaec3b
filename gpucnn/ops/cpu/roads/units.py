"""Smooth and bounded variants of ReLU, and the hyperbolic tangent, by compiled loops."""

from __future__ import annotations

from gpucnn.ops.cpu import units as reference
from gpucnn.ops.cpu._threads import Array
from gpucnn.ops.cpu.roads._elementwise import by_loops

__all__ = [
    "elu",
    "elu_grad",
    "gelu",
    "gelu_grad",
    "hard_sigmoid",
    "hard_sigmoid_grad",
    "hard_swish",
    "hard_swish_grad",
    "leaky_relu",
    "leaky_relu_grad",
    "relu6",
    "relu6_grad",
    "silu",
    "silu_grad",
    "tanh",
    "tanh_grad",
]


def elu(x: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.elu, x, out=out, numbers=(alpha,))


def elu_grad(dy: Array, y: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.elu_grad, dy, y, out=out, numbers=(alpha,))


def gelu(x: Array, approximate: bool = False, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.gelu, x, out=out, numbers=(approximate,))


def gelu_grad(dy: Array, x: Array, approximate: bool = False, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.gelu_grad, dy, x, out=out, numbers=(approximate,))


def hard_sigmoid(x: Array, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.hard_sigmoid, x, out=out)


def hard_sigmoid_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.hard_sigmoid_grad, dy, y, out=out)


def hard_swish(x: Array, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.hard_swish, x, out=out)


def hard_swish_grad(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.hard_swish_grad, dy, x, out=out)


def leaky_relu(x: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.leaky_relu, x, out=out, numbers=(negative_slope,))


def leaky_relu_grad(dy: Array, y: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.leaky_relu_grad, dy, y, out=out, numbers=(negative_slope,))


def relu6(x: Array, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.relu6, x, out=out)


def relu6_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.relu6_grad, dy, y, out=out)


def silu(x: Array, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.silu, x, out=out)


def silu_grad(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    return by_loops("units", reference.silu_grad, dy, x, out=out)


def tanh(x: Array, *, out: Array | None = None) -> Array:
    return by_loops("tanh", reference.tanh, x, out=out)


def tanh_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    return by_loops("tanh", reference.tanh_grad, dy, y, out=out)

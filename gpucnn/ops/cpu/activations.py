"""Activations: elementwise, except softmax, which works along the last axis."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array, slabs

__all__ = ["relu", "relu_grad", "sigmoid", "sigmoid_grad", "softmax", "softmax_grad"]

PER_NUMBER = {  # floating-point operations for each number: what `gpucnn profile` counts
    "relu": 1,
    "relu_grad": 1,
    "sigmoid": 3,  # e⁻ᶻ, a sum, a quotient: three, however many instructions the exponential takes
    "sigmoid_grad": 3,
    "softmax": 5,  # maximum, difference, exponential, sum and quotient
    "softmax_grad": 4,  # a sum of products, then a difference and a product
}


def relu(x: Array, *, out: Array | None = None) -> Array:
    """max(x, 0); NaN stays NaN."""
    y = np.empty_like(x) if out is None else out
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    slabs(lambda part: np.maximum(flat_x[part], 0, out=flat_y[part]), x.size)
    return y


def relu_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy where y > 0, else 0; `y` is relu's output (its input does as well)."""
    dx = np.empty_like(dy) if out is None else out
    flat_dy, flat_y, flat_dx, zero = dy.reshape(-1), y.reshape(-1), dx.reshape(-1), dy.dtype.type(0)

    def work(part: slice) -> None:
        flat_dx[part] = np.where(flat_y[part] > 0, flat_dy[part], zero)  # not a product, because infinity times zero is NaN

    slabs(work, dy.size)
    return dx


def sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """1 / (1 + e⁻ˣ), without overflow."""
    decay = np.exp(-np.abs(x))  # in (0, 1]
    y: Array = np.divide(np.where(x >= 0, x.dtype.type(1), decay), 1 + decay, out=out)
    return y


def sigmoid_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy·y·(1 − y), where `y` is sigmoid's output."""
    dx: Array = np.multiply(dy, y * (1 - y), out=out)
    return dx


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """eˣ / Σ eˣ along the last axis, shifted by the row's maximum."""
    y: Array = np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    np.exp(y, out=y)
    y /= y.sum(axis=-1, keepdims=True)
    return y


def softmax_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """y·(dy − Σ dy·y) along the last axis, where `y` is softmax's output."""
    inner = np.multiply(dy, y).sum(axis=-1, keepdims=True)
    dx: Array = np.subtract(dy, inner, out=out)
    dx *= y
    return dx

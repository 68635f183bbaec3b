"""Activations: elementwise, except softmax, which works along the last axis."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn_kernels import activations as kernels

__all__ = ["relu", "relu_grad", "sigmoid", "sigmoid_grad", "softmax", "softmax_grad"]


def relu(x: Array, *, out: Array | None = None) -> Array:
    """max(x, 0); NaN stays NaN."""
    y = empty(x, x.shape) if out is None else out
    kernels.relu(x, y, stream(x))
    return y


def relu_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy where y > 0, else 0; `y` is relu's output (its input does as well)."""
    dx = empty(dy, dy.shape) if out is None else out
    kernels.relu_grad(dy, y, dx, stream(dy))
    return dx


def sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """1 / (1 + e⁻ˣ), without overflow."""
    y = empty(x, x.shape) if out is None else out
    kernels.sigmoid(x, y, stream(x))
    return y


def sigmoid_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy·y·(1 − y), where `y` is sigmoid's output."""
    dx = empty(dy, dy.shape) if out is None else out
    kernels.sigmoid_grad(dy, y, dx, stream(dy))
    return dx


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """eˣ / Σ eˣ along the last axis, shifted by the row's maximum."""
    y = empty(x, x.shape) if out is None else out
    kernels.softmax(x, y, stream(x))
    return y


def softmax_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """y·(dy − Σ dy·y) along the last axis, where `y` is softmax's output."""
    dx = empty(dy, dy.shape) if out is None else out
    kernels.softmax_grad(dy, y, dx, stream(dy))
    return dx

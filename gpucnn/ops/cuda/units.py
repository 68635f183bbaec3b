"""Smooth and bounded variants of ReLU, and the hyperbolic tangent. Elementwise."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn_kernels import units as kernels

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


def leaky_relu(x: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """x, or negative_slope · x where x is not positive."""
    y = empty(x, x.shape) if out is None else out
    kernels.leaky_relu(x, y, negative_slope, stream(x))
    return y


def leaky_relu_grad(dy: Array, y: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """dy, or negative_slope · dy where y, leaky ReLU's output, is not positive."""
    dx = empty(dy, dy.shape) if out is None else out
    kernels.leaky_relu_grad(dy, y, dx, negative_slope, stream(dy))
    return dx


def elu(x: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """x, or alpha · (eˣ − 1) where x is not positive."""
    y = empty(x, x.shape) if out is None else out
    kernels.elu(x, y, alpha, stream(x))
    return y


def elu_grad(dy: Array, y: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """dy, or dy · (y + alpha) where y, ELU's output, is not positive."""
    dx = empty(dy, dy.shape) if out is None else out
    kernels.elu_grad(dy, y, dx, alpha, stream(dy))
    return dx


def relu6(x: Array, *, out: Array | None = None) -> Array:
    """min(max(x, 0), 6); NaN stays NaN."""
    y = empty(x, x.shape) if out is None else out
    kernels.relu6(x, y, stream(x))
    return y


def relu6_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy where 0 < y < 6, else 0; `y` is the output (the input does as well)."""
    dx = empty(dy, dy.shape) if out is None else out
    kernels.relu6_grad(dy, y, dx, stream(dy))
    return dx


def hard_sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """x / 6 + 1/2, no less than 0 and no more than 1."""
    y = empty(x, x.shape) if out is None else out
    kernels.hard_sigmoid(x, y, stream(x))
    return y


def hard_sigmoid_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy / 6 where 0 < y < 1, else 0; `y` is the output."""
    dx = empty(dy, dy.shape) if out is None else out
    kernels.hard_sigmoid_grad(dy, y, dx, stream(dy))
    return dx


def hard_swish(x: Array, *, out: Array | None = None) -> Array:
    """x · hard_sigmoid(x)."""
    y = empty(x, x.shape) if out is None else out
    kernels.hard_swish(x, y, stream(x))
    return y


def hard_swish_grad(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dy · (x / 3 + 1/2) where −3 < x < 3, dy above, 0 below; `x` is the input."""
    dx = empty(dy, dy.shape) if out is None else out
    kernels.hard_swish_grad(dy, x, dx, stream(dy))
    return dx


def tanh(x: Array, *, out: Array | None = None) -> Array:
    """The hyperbolic tangent."""
    y = empty(x, x.shape) if out is None else out
    kernels.tanh(x, y, stream(x))
    return y


def tanh_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy · (1 − y²), where `y` is the output."""
    dx = empty(dy, dy.shape) if out is None else out
    kernels.tanh_grad(dy, y, dx, stream(dy))
    return dx


def silu(x: Array, *, out: Array | None = None) -> Array:
    """x · σ(x), σ(x) = 1 / (1 + e⁻ˣ)."""
    y = empty(x, x.shape) if out is None else out
    kernels.silu(x, y, stream(x))
    return y


def silu_grad(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dy · (σ(x) + x · σ(x) · σ(−x)), where `x` is the input."""
    dx = empty(dy, dy.shape) if out is None else out
    kernels.silu_grad(dy, x, dx, stream(dy))
    return dx


def gelu(x: Array, approximate: bool = False, *, out: Array | None = None) -> Array:
    """x · Φ(x), with Φ the normal distribution; with the hyperbolic tangent if `approximate`."""
    y = empty(x, x.shape) if out is None else out
    kernels.gelu(x, y, approximate, stream(x))
    return y


def gelu_grad(dy: Array, x: Array, approximate: bool = False, *, out: Array | None = None) -> Array:
    """dy · (Φ(x) + x · Φ′(x)), where `x` is the input."""
    dx = empty(dy, dy.shape) if out is None else out
    kernels.gelu_grad(dy, x, dx, approximate, stream(dy))
    return dx

"""Smooth and bounded variants of ReLU, and the hyperbolic tangent. Elementwise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gpucnn.ops.cpu._erf import erfc
from gpucnn.ops.cpu._threads import Array, slabs

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

PER_NUMBER = {  # floating-point operations for each number, of which an exponential is one and the normal distribution three
    "leaky_relu": 2,  # a comparison and a product
    "leaky_relu_grad": 2,
    "relu6": 2,  # two comparisons; in the next two a sum and a product before them, and in the last another product after them
    "relu6_grad": 2,
    "hard_sigmoid": 4,
    "hard_sigmoid_grad": 3,
    "hard_swish": 5,
    "hard_swish_grad": 5,
    "elu": 3,
    "elu_grad": 3,
    "tanh": 1,
    "tanh_grad": 4,
    "silu": 4,
    "silu_grad": 8,
    "gelu": 4,
    "gelu_grad": 8,
}


def leaky_relu(x: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """x, or negative_slope · x where x is not positive."""
    return _pieces(lambda x: np.where(x <= 0, x * x.dtype.type(negative_slope), x), out, x)


def leaky_relu_grad(dy: Array, y: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """dy, or negative_slope · dy where y, leaky ReLU's output, is not positive."""
    return _pieces(lambda dy, y: np.where(y > 0, dy, dy * y.dtype.type(negative_slope)), out, dy, y)


def elu(x: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """x, or alpha · (eˣ − 1) where x is not positive."""
    return _pieces(lambda x: np.where(x <= 0, np.expm1(np.minimum(x, 0)) * x.dtype.type(alpha), x), out, x)


def elu_grad(dy: Array, y: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """dy, or dy · (y + alpha) where y, ELU's output, is not positive."""
    return _pieces(lambda dy, y: np.where(y > 0, dy, dy * (y + y.dtype.type(alpha))), out, dy, y)


def relu6(x: Array, *, out: Array | None = None) -> Array:
    """min(max(x, 0), 6); NaN stays NaN."""
    return _pieces(lambda x: np.minimum(np.maximum(x, 0), x.dtype.type(6)), out, x)


def relu6_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy where 0 < y < 6, else 0; `y` is the output (the input does as well)."""
    return _pieces(lambda dy, y: np.where((y > 0) & (y < 6), dy, dy.dtype.type(0)), out, dy, y)


def hard_sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """x / 6 + 1/2, no less than 0 and no more than 1."""
    return _pieces(_straight, out, x)


def hard_sigmoid_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy / 6 where 0 < y < 1, else 0; `y` is the output."""
    return _pieces(lambda dy, y: np.where((y > 0) & (y < 1), dy / 6, dy.dtype.type(0)), out, dy, y)


def hard_swish(x: Array, *, out: Array | None = None) -> Array:
    """x · hard_sigmoid(x)."""
    return _pieces(lambda x: x * _straight(x), out, x)


def hard_swish_grad(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dy · (x / 3 + 1/2) where −3 < x < 3, dy above, 0 below; `x` is the input."""

    def gradient(dy: Array, x: Array) -> Array:
        dx: Array = np.where(x > -3, np.where(x < 3, dy * (x / 3 + 0.5), dy), dy.dtype.type(0))
        return dx

    return _pieces(gradient, out, dy, x)


def tanh(x: Array, *, out: Array | None = None) -> Array:
    """The hyperbolic tangent."""
    return _pieces(np.tanh, out, x)


def tanh_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy · (1 − y²), where `y` is the output."""
    return _pieces(lambda dy, y: dy * ((1 - y) * (1 + y)), out, dy, y)


def silu(x: Array, *, out: Array | None = None) -> Array:
    """x · σ(x), σ(x) = 1 / (1 + e⁻ˣ)."""
    return _pieces(lambda x: x * _logistic(x), out, x)


def silu_grad(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dy · (σ(x) + x · σ(x) · σ(−x)), where `x` is the input."""

    def gradient(dy: Array, x: Array) -> Array:
        part = _logistic(x)
        dx: Array = dy * (part + x * (part * _logistic(-x)))
        return dx

    return _pieces(gradient, out, dy, x)


def gelu(x: Array, approximate: bool = False, *, out: Array | None = None) -> Array:
    """x · Φ(x), with Φ the normal distribution; with the hyperbolic tangent if `approximate`."""
    return _pieces(lambda x: x * _normal(x, approximate), out, x)


def gelu_grad(dy: Array, x: Array, approximate: bool = False, *, out: Array | None = None) -> Array:
    """dy · (Φ(x) + x · Φ′(x)), where `x` is the input."""

    def gradient(dy: Array, x: Array) -> Array:
        if approximate:
            part, scale = np.tanh(_inner(x)), math.sqrt(2 / math.pi)
            steep = (1 - part) * (1 + part) * (scale / 2 * (1 + 3 * 0.044715 * x * x))
            slope = 0.5 * (1 + part) + x * steep
        else:
            slope = _normal(x, False) + x * np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
        dx: Array = dy * slope
        return dx

    return _pieces(gradient, out, dy, x)


def _straight(x: Array) -> Array:
    result: Array = np.minimum(np.maximum(x + 3, 0), x.dtype.type(6)) / 6
    return result


def _logistic(x: Array) -> Array:
    decay = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, x.dtype.type(1), decay) / (1 + decay)
    return result


def _inner(x: Array) -> Array:
    result: Array = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return result


def _normal(x: Array, approximate: bool) -> Array:
    """Φ(x), or its approximation."""
    result: Array = 0.5 * (1 + np.tanh(_inner(x))) if approximate else 0.5 * erfc(-x * math.sqrt(0.5))
    return result


def _pieces(work: Callable[..., Array], out: Array | None, *arrays: Array) -> Array:
    """`work` on pieces of all arrays that fit the cache, on all threads; into `out`, which may be the first of them."""
    result = np.empty_like(arrays[0]) if out is None else out
    flat, target = [array.reshape(-1) for array in arrays], result.reshape(-1)

    def body(part: slice) -> None:
        target[part] = work(*(array[part] for array in flat))

    slabs(body, target.size)
    return result

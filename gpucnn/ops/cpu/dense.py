"""Dense layers: x (N, C), weight (K, C), bias (K), y (N, K)."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array


def dense(x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False, out: Array | None = None) -> Array:
    """y = x·weightᵀ + bias, then max(y, 0) where `relu`."""
    y = np.matmul(x, weight.T, out=out)
    if bias is not None:
        y += bias
    if relu:
        np.maximum(y, 0, out=y)
    return y


def dense_input_grad(dy: Array, weight: Array, *, out: Array | None = None) -> Array:
    """dx (N, C) = dy·weight."""
    return np.matmul(dy, weight, out=out)


def dense_weight_grad(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dweight (K, C) = dyᵀ·x."""
    return np.matmul(dy.T, x, out=out)

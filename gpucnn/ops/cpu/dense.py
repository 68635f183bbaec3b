"""Dense layers: x (N, C), weight (K, C), bias (K), y (N, K)."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array, matmul


def dense(x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False, out: Array | None = None) -> Array:
    """y = x·weightᵀ + bias, then max(y, 0) where `relu`."""
    y = matmul(x, weight.T, np.empty((x.shape[0], weight.shape[0]), x.dtype) if out is None else out)
    if bias is not None:
        y += bias
    if relu:
        np.maximum(y, 0, out=y)
    return y


def dense_input_grad(dy: Array, weight: Array, *, out: Array | None = None) -> Array:
    """dx (N, C) = dy·weight."""
    return matmul(dy, weight, np.empty((dy.shape[0], weight.shape[1]), dy.dtype) if out is None else out)


def dense_weight_grad(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dweight (K, C) = dyᵀ·x."""
    return matmul(dy.T, x, np.empty((dy.shape[1], x.shape[1]), dy.dtype) if out is None else out)

"""Dense layers: x (N, C), weight (K, C), bias (K), y (N, K)."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array, matmul
from gpucnn.ops.cpu.activations import relu_grad
from gpucnn.ops.cpu.conv import bias_grad

__all__ = ["dense", "dense_input_grad", "dense_weight_grad"]


def dense(x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False, out: Array | None = None, bits: int = 24) -> Array:
    """y = x·weightᵀ + bias, then max(y, 0) if `relu`.

    bits: what factors keep at least of a float32's bits, in the gradients too; on the CPU they always keep all.
    """
    y = matmul(x, weight.T, np.empty((x.shape[0], weight.shape[0]), x.dtype) if out is None else out)
    if bias is not None:
        y += bias
    if relu:
        np.maximum(y, 0, out=y)
    return y


def dense_input_grad(dy: Array, weight: Array, *, relu: Array | None = None, out: Array | None = None, bits: int = 24) -> Array:
    """dx (N, C) = dy·weight. relu: x, if a ReLU produced it; then dx is 0 where x is not positive."""
    dx = matmul(dy, weight, np.empty((dy.shape[0], weight.shape[1]), dy.dtype) if out is None else out)
    return dx if relu is None else relu_grad(dx, relu, out=dx)


def dense_weight_grad(dy: Array, x: Array, *, out: Array | None = None, dbias: Array | None = None, bits: int = 24) -> Array:
    """dweight (K, C) = dyᵀ·x. Writes `bias_grad` to `dbias`, if given."""
    if dbias is not None:
        bias_grad(dy, out=dbias)
    return matmul(dy.T, x, np.empty((dy.shape[1], x.shape[1]), dy.dtype) if out is None else out)

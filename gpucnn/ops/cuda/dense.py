"""Dense layers: x (N, C), weight (K, C), bias (K), y (N, K)."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn_kernels import gemm as kernels


def dense(x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False, out: Array | None = None) -> Array:
    """y = x·weightᵀ + bias, then max(y, 0) where `relu`."""
    y = empty(x, (x.shape[0], weight.shape[0])) if out is None else out
    kernels.dense(x, weight, bias, y, relu, stream(x))
    return y


def dense_input_grad(dy: Array, weight: Array, *, out: Array | None = None) -> Array:
    """dx (N, C) = dy·weight."""
    dx = empty(dy, (dy.shape[0], weight.shape[1])) if out is None else out
    kernels.dense_input_grad(dy, weight, dx, stream(dy))
    return dx


def dense_weight_grad(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dweight (K, C) = dyᵀ·x."""
    dweight = empty(dy, (dy.shape[1], x.shape[1])) if out is None else out
    kernels.dense_weight_grad(dy, x, dweight, stream(dy))
    return dweight

"""Dense layers: x (N, C), weight (K, C), bias (K), y (N, K)."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream, workspace
from gpucnn_kernels.choose import select
from gpucnn_kernels.dense import plain as kernels
from gpucnn_kernels.dense import tiled as tiled_gemm


def dense(x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False, out: Array | None = None) -> Array:
    """y = x·weightᵀ + bias, then max(y, 0) where `relu`."""
    y = empty(x, (x.shape[0], weight.shape[0])) if out is None else out
    sizes = (x.shape[0], weight.shape[0], x.shape[1])
    choice = select.dense(x.shape[0], x.shape[1], weight.shape[0])
    if choice.tile is None:
        kernels.dense(x, weight, bias, y, relu, stream(x))
    else:
        space = workspace(x, tiled_gemm.workspace_size(sizes, choice.tile, choice.slices))
        tiled_gemm.dense(x, weight, bias, y, space, relu, stream(x), tile=choice.tile, slices=choice.slices)
    return y


def dense_input_grad(dy: Array, weight: Array, *, relu: Array | None = None, out: Array | None = None) -> Array:
    """dx (N, C) = dy·weight. `relu` is x where ReLU made it: dx is 0 where x is not positive."""
    dx = empty(dy, (dy.shape[0], weight.shape[1])) if out is None else out
    sizes = (dy.shape[0], weight.shape[1], dy.shape[1])
    choice = select.dense_input_grad(dy.shape[0], weight.shape[1], dy.shape[1])
    if choice.tile is None:
        kernels.dense_input_grad(dy, weight, dx, stream(dy), relu=relu)
    else:
        space = workspace(dy, tiled_gemm.workspace_size(sizes, choice.tile, choice.slices))
        tiled_gemm.dense_input_grad(dy, weight, dx, space, stream(dy), tile=choice.tile, slices=choice.slices, relu=relu)
    return dx


def dense_weight_grad(dy: Array, x: Array, *, out: Array | None = None, dbias: Array | None = None) -> Array:
    """dweight (K, C) = dyᵀ·x; `bias_grad` in `dbias`, if given."""
    dweight = empty(dy, (dy.shape[1], x.shape[1])) if out is None else out
    sizes = (dy.shape[1], x.shape[1], dy.shape[0])
    choice = select.dense_weight_grad(dy.shape[0], x.shape[1], dy.shape[1])
    if choice.tile is None:
        kernels.dense_weight_grad(dy, x, dweight, stream(dy), dbias=dbias)
    else:
        space = workspace(dy, tiled_gemm.workspace_size(sizes, choice.tile, choice.slices))
        tiled_gemm.dense_weight_grad(dy, x, dweight, space, stream(dy), tile=choice.tile, slices=choice.slices, dbias=dbias)
    return dweight

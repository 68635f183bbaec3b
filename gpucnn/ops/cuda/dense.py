"""Dense layers: x (N, C), weight (K, C), bias (K), y (N, K)."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream, workspace
from gpucnn_kernels.choose import problems, select

__all__ = ["dense", "dense_input_grad", "dense_weight_grad"]


def dense(x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False, out: Array | None = None, bits: int = 24) -> Array:
    """y = x·weightᵀ + bias, then max(y, 0) if `relu`.

    bits: the least number of a float32's 24 bits that factors keep: 11 allow TF32 on tensor cores, and 8 bfloat16. The same holds for
    the gradients.
    """
    y = empty(x, (x.shape[0], weight.shape[0])) if out is None else out
    choice = select.choose(problems.dense(x.shape[0], x.shape[1], weight.shape[0], bits))
    room = workspace(x, choice.workspace)
    choice.launch(x, weight, bias, y, relu, stream(x), workspace=room, slices=choice.slices)
    return y


def dense_input_grad(dy: Array, weight: Array, *, relu: Array | None = None, out: Array | None = None, bits: int = 24) -> Array:
    """dx (N, C) = dy·weight. relu: x, if a ReLU produced it; then dx is 0 where x is not positive."""
    dx = empty(dy, (dy.shape[0], weight.shape[1])) if out is None else out
    choice = select.choose(problems.dense_input_grad(dy.shape[0], weight.shape[1], dy.shape[1], bits))
    room = workspace(dy, choice.workspace)
    choice.launch(dy, weight, dx, stream(dy), relu=relu, workspace=room, slices=choice.slices)
    return dx


def dense_weight_grad(dy: Array, x: Array, *, out: Array | None = None, dbias: Array | None = None, bits: int = 24) -> Array:
    """dweight (K, C) = dyᵀ·x. Writes `bias_grad` to `dbias`, if given."""
    dweight = empty(dy, (dy.shape[1], x.shape[1])) if out is None else out
    choice = select.choose(problems.dense_weight_grad(dy.shape[0], x.shape[1], dy.shape[1], bits))
    room = workspace(dy, choice.workspace)
    choice.launch(dy, x, dweight, stream(dy), dbias=dbias, workspace=room, slices=choice.slices)
    return dweight

"""Convolution. x (N, C, H, W), weight (K, C/groups, R, S), bias (K), y and dy (N, K, P, Q)."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream, whole, workspace
from gpucnn.ops.cuda.join import copied
from gpucnn.ops.shapes import Window
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.engine import bias as sums

__all__ = ["bias_grad", "conv2d", "conv2d_input_grad", "conv2d_weight_grad"]


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    groups: int = 1,
    *,
    relu: bool = False,
    out: Array | None = None,
    bits: int = 24,
) -> Array:
    """y[n, k, p, q] = Σ over c, r, s of weight[k, c, r, s] · x[n, c, p·stride + r·dilation − padding, …], plus bias, then ReLU.

    bits: the least number of a float32's 24 bits that factors keep: 11 allow TF32 on tensor cores, and 8 bfloat16. The same holds for
    the gradients.
    """
    y = empty(x, (x.shape[0], weight.shape[0], *window.output)) if out is None else out
    choice = select.choose(problems.conv2d(x.shape[0], x.shape[1], weight.shape[0], window, groups, bits))
    room = workspace(x, choice.workspace)
    target = y if choice.variant.parts or whole(y) else empty(x, y.shape)
    choice.launch(x, weight, bias, target, window, groups, relu, stream(x), workspace=room)
    return y if target is y else copied(target, out=y)


def conv2d_input_grad(
    dy: Array,
    weight: Array,
    window: Window,
    groups: int = 1,
    *,
    relu: Array | None = None,
    out: Array | None = None,
    bits: int = 24,
) -> Array:
    """dx (N, C, H, W): the gradient of `conv2d` with respect to x, given that of y.

    relu: x, if a ReLU produced it. Then dx includes ReLU's gradient: it is 0 where x is not positive.
    """
    dx = empty(dy, (dy.shape[0], weight.shape[1] * groups, *window.input)) if out is None else out
    choice = select.choose(problems.conv2d_input_grad(dy.shape[0], dx.shape[1], dy.shape[1], window, groups, bits))
    room = workspace(dy, choice.workspace)
    given = dy if choice.variant.parts or whole(dy) else copied(dy)
    choice.launch(given, weight, dx, window, groups, stream(dy), relu=relu, workspace=room)
    return dx


def conv2d_weight_grad(
    dy: Array,
    x: Array,
    window: Window,
    groups: int = 1,
    *,
    out: Array | None = None,
    dbias: Array | None = None,
    bits: int = 24,
) -> Array:
    """dweight (K, C/groups, R, S): the gradient of `conv2d` with respect to weight, given that of y; writes `bias_grad` to `dbias` if
    given."""
    dweight = empty(dy, (dy.shape[1], x.shape[1] // groups, *window.kernel)) if out is None else out
    choice = select.choose(problems.conv2d_weight_grad(dy.shape[0], x.shape[1], dy.shape[1], window, groups, bits))
    room = workspace(dy, choice.workspace)
    given = dy if choice.variant.parts or whole(dy) else copied(dy)
    choice.launch(given, x, dweight, window, groups, stream(dy), dbias=dbias, workspace=room, slices=choice.slices)
    return dweight


def bias_grad(dy: Array, *, out: Array | None = None) -> Array:
    """dbias (K): the sum of dy (N, K) or (N, K, P, Q) over everything but channels."""
    dbias = empty(dy, (dy.shape[1],)) if out is None else out
    sums.bias_grad(dy, dbias, stream(dy))
    return dbias

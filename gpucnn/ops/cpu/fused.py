"""Operations that are one kernel on a GPU, so that intermediate results are not written to memory. Here they run one after the other.

x (N, C, H, W), weight (K, C/groups, R, S), bias (K); y and indices (N, K, …).
"""

from __future__ import annotations

from gpucnn.ops.cpu._threads import Array
from gpucnn.ops.cpu.conv import conv2d, conv2d_weight_grad
from gpucnn.ops.cpu.join import add
from gpucnn.ops.cpu.norm import batch_norm_apply
from gpucnn.ops.cpu.pool import max_pool2d, max_pool2d_grad
from gpucnn.ops.shapes import Window

__all__ = ["conv2d_batch_norm_apply", "conv2d_relu_max_pool2d", "conv2d_relu_max_pool2d_weight_grad"]


def conv2d_relu_max_pool2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    pool_window: Window,
    groups: int = 1,
    *,
    out: Array | None = None,
    indices: Array | None = None,
    places: bool = True,
    bits: int = 24,
) -> tuple[Array, Array | None]:
    """(y, indices): the maxima of relu(conv2d(x)), and their int32 indices in the convolution's P·Q plane, as in `max_pool2d`.

    The convolution's own output is not kept, and the gradient does not need it: a window's maximum is positive exactly if the output
    that won it is. So ReLU's gradient can be computed from the pooled values, `max_pool2d_grad(…, relu=y)`. places: whether the indices are
    wanted, as they are where a gradient will be; otherwise None may be in their place.
    """
    return max_pool2d(conv2d(x, weight, bias, window, groups, relu=True), pool_window, out=out, indices=indices, places=places)


def conv2d_relu_max_pool2d_weight_grad(
    dy: Array,
    indices: Array,
    x: Array,
    window: Window,
    pool_window: Window,
    groups: int = 1,
    *,
    relu: Array | None = None,
    out: Array | None = None,
    dbias: Array | None = None,
    bits: int = 24,
) -> Array:
    """dweight (K, C/groups, R, S), and dbias (K) if given, from the gradient dy of the pooled values, for a layer that passes no
    gradient on: that of the convolution's own output is never formed. relu: the pooled values, unless dy already includes ReLU's
    gradient."""
    dconv = max_pool2d_grad(dy, indices, pool_window, relu=relu)
    return conv2d_weight_grad(dconv, x, window, groups, out=out, dbias=dbias)


def conv2d_batch_norm_apply(
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    groups: int,
    affine: tuple[Array, Array],
    running: tuple[Array, Array],
    *,
    eps: float,
    relu: bool = False,
    added: Array | None = None,
    out: Array | None = None,
    bits: int = 24,
) -> Array:
    """add(batch_norm_apply(conv2d(x, weight, bias, window, groups), *affine, running, eps=eps), added), then ReLU if `relu`, for
    predictions. Without `added` nothing is added."""
    y = conv2d(x, weight, bias, window, groups)
    if added is None:
        return batch_norm_apply(y, *affine, running, eps=eps, relu=relu, out=out)
    return add(batch_norm_apply(y, *affine, running, eps=eps), added, relu=relu, out=out)

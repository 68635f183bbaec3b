"""Convolution with what follows it: in one pass if the shape has a plan for that, else one after the other."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import fused as reference
from gpucnn.ops.cpu._engine import images, loops
from gpucnn.ops.cpu._threads import Array, empty
from gpucnn.ops.cpu.roads._plans import contiguous, convolution, integers, plan_of, pooled
from gpucnn.ops.cpu.roads.conv import conv2d, conv2d_weight_grad
from gpucnn.ops.cpu.roads.join import copied
from gpucnn.ops.cpu.roads.pool import max_pool2d, max_pool2d_grad
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
    n, c, k = *x.shape[:2], weight.shape[0]
    if not (loops(x, weight, bias) and images(out) and integers(indices)):
        return reference.conv2d_relu_max_pool2d(x, weight, bias, window, pool_window, groups, out=out, indices=indices)
    plan = pooled(c, k, window, pool_window, groups)
    if plan is None or not (out is None or contiguous(out)):
        return max_pool2d(conv2d(x, weight, bias, window, groups, relu=True), pool_window, out=out, indices=indices, places=places)
    shape = (n, k, *pool_window.output)
    y = empty(shape) if out is None else out
    found = empty(shape, np.int32) if indices is None and places else indices
    whole = convolution(c, k, window, groups)
    if hasattr(whole, "forward_pool"):
        other = pool_window if isinstance(plan, _engine.modules().windows.Windows) else None
        for image in whole.forward_pool(x, weight, bias, y, found, other):
            one = slice(image, image + 1)
            plan.forward(x[one], weight, bias, y[one], None if found is None else found[one])
    else:
        plan.forward(x, weight, bias, y, found)
    return y, found


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
    c, k = x.shape[1], dy.shape[1]
    if not (loops(x, relu, out, dbias) and images(dy) and integers(indices)):
        return reference.conv2d_relu_max_pool2d_weight_grad(dy, indices, x, window, pool_window, groups, relu=relu, out=out, dbias=dbias)
    plan = pooled(c, k, window, pool_window, groups)
    if plan is not None and plan.sums_winners and contiguous(dy):
        dweight = empty((k, c, *window.kernel)) if out is None else out
        if plan.weight_grad(dy, relu, indices, x, dweight, dbias):
            return dweight
    return conv2d_weight_grad(max_pool2d_grad(dy, indices, pool_window, relu=relu), x, window, groups, out=out, dbias=dbias)


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
    n, c, k = *x.shape[:2], weight.shape[0]
    plan = plan_of(window, groups, c, k, x, weight, bias, *affine, *running, added)
    if plan is None or not images(out):
        return reference.conv2d_batch_norm_apply(x, weight, bias, window, groups, affine, running, eps=eps, relu=relu, added=added, out=out)
    y = empty((n, k, *window.output)) if out is None else out
    target = y if plan.parts or contiguous(y) else empty(y.shape)
    norm = _engine.modules().after.Norm(*running, *affine, eps)
    plan.forward(x, weight, bias, relu, target, norm, added)
    return y if target is y else copied(target, out=y)

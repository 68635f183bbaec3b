"""Convolution and its gradients by compiled loops: the plan of a shape says by which."""

from __future__ import annotations

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import conv as reference
from gpucnn.ops.cpu._engine import images, loops
from gpucnn.ops.cpu._threads import Array, empty
from gpucnn.ops.cpu.roads._plans import contiguous, plan_of
from gpucnn.ops.cpu.roads.join import copied
from gpucnn.ops.shapes import Window

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
    n, c, k = *x.shape[:2], weight.shape[0]
    plan = plan_of(window, groups, c, k, x, weight, bias)
    if plan is None or not images(out):
        return reference.conv2d(x, weight, bias, window, groups, relu=relu, out=out)
    y = empty((n, k, *window.output)) if out is None else out
    target = y if plan.parts or contiguous(y) else empty(y.shape)
    plan.forward(x, weight, bias, relu, target)
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
    n, k, c = *dy.shape[:2], weight.shape[1] * groups
    plan = plan_of(window, groups, c, k, weight, relu, out)
    if plan is None or not images(dy):
        return reference.conv2d_input_grad(dy, weight, window, groups, relu=relu, out=out)
    dx = empty((n, c, *window.input)) if out is None else out
    plan.input_grad(dy if plan.parts or contiguous(dy) else copied(dy), weight, relu, dx)
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
    c, k = x.shape[1], dy.shape[1]
    plan = plan_of(window, groups, c, k, x, out, dbias)
    if plan is None or not images(dy):
        return reference.conv2d_weight_grad(dy, x, window, groups, out=out, dbias=dbias)
    dweight = empty((k, c // groups, *window.kernel)) if out is None else out
    plan.weight_grad(dy if plan.parts or contiguous(dy) else copied(dy), x, dweight, dbias)
    return dweight


def bias_grad(dy: Array, *, out: Array | None = None) -> Array:
    if dy.ndim != 2 or not loops(dy, out):
        return reference.bias_grad(dy, out=out)
    dbias = empty(dy.shape[1:]) if out is None else out
    _engine.modules().sums.column_sums(dy, dbias)
    return dbias

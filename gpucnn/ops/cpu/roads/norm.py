"""Batch normalization by compiled loops."""

from __future__ import annotations

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import norm as reference
from gpucnn.ops.cpu._engine import images, loops
from gpucnn.ops.cpu._threads import Array, empty

__all__ = ["batch_norm", "batch_norm_apply", "batch_norm_grad"]


def batch_norm(
    x: Array,
    weight: Array,
    bias: Array,
    running: tuple[Array, Array],
    *,
    momentum: float,
    eps: float,
    relu: bool = False,
    out: Array | None = None,
) -> tuple[Array, Array, Array]:
    if not (loops(x, weight, bias, *running) and images(out)):
        return reference.batch_norm(x, weight, bias, running, momentum=momentum, eps=eps, relu=relu, out=out)
    y = empty(x.shape) if out is None else out
    mean, rstd = _engine.modules().norm.batch_norm(x, weight, bias, running, momentum, eps, relu, y)
    return y, mean, rstd


def batch_norm_apply(
    x: Array, weight: Array, bias: Array, running: tuple[Array, Array], *, eps: float, relu: bool = False, out: Array | None = None
) -> Array:
    if not (loops(weight, bias, *running) and images(x, out)):
        return reference.batch_norm_apply(x, weight, bias, running, eps=eps, relu=relu, out=out)
    y = empty(x.shape) if out is None else out
    made = _engine.modules()
    (vectors,), _after = made.after.after_sums(len(bias), len(bias), 1, norm=made.after.Norm(*running, weight, bias, eps))
    made.norm.normalize(x, *vectors[1:], relu, y)
    return y


def batch_norm_grad(
    dy: Array,
    x: Array,
    weight: Array,
    kept: tuple[Array, Array],
    *,
    input_grad: bool = True,
    relu: bool = False,
    out: Array | None = None,
    dweight: Array | None = None,
    dbias: Array | None = None,
) -> Array | None:
    if not (loops(x, weight, *kept, out, dweight, dbias) and images(dy)):
        return reference.batch_norm_grad(dy, x, weight, kept, input_grad=input_grad, relu=relu, out=out, dweight=dweight, dbias=dbias)
    dx = (empty(x.shape) if out is None else out) if input_grad else None
    dw, db = (empty(weight.shape) if array is None else array for array in (dweight, dbias))
    _engine.modules().norm.batch_norm_grad(dy, x, weight, *kept, relu, dx, dw, db)
    return dx

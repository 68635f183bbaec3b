"""Batch normalization. x, y, dy and dx (N, C, …); everything else has one value for each channel."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream, workspace
from gpucnn_kernels import norm as kernels
from gpucnn_kernels import norm_grad

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
    """(y, mean, rstd): y = (x − mean) · rstd · weight + bias, then ReLU if `relu`, with the mean and 1 / √(variance + eps) of x itself.

    Updates the `running` mean and variance: running += momentum · (new − running), where the new variance is that of a sample, with n − 1.
    They stay unchanged if the new values are not finite.
    """
    y = empty(x, x.shape) if out is None else out
    mean, rstd = empty(x, (x.shape[1],)), empty(x, (x.shape[1],))
    space = workspace(x, kernels.workspace_size(*x.shape[:2]))
    kernels.batch_norm(x, weight, bias, running, (mean, rstd), y, stream(x), workspace=space, momentum=momentum, eps=eps, relu=relu)
    return y, mean, rstd


def batch_norm_apply(
    x: Array, weight: Array, bias: Array, running: tuple[Array, Array], *, eps: float, relu: bool = False, out: Array | None = None
) -> Array:
    """y, normalized by the `running` mean and variance, which do not change."""
    y = empty(x, x.shape) if out is None else out
    kernels.batch_norm_apply(x, weight, bias, running, y, stream(x), eps=eps, relu=relu)
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
    """dx if `input_grad`. Writes to `dweight` and `dbias`, if given. kept: mean and rstd from `batch_norm`.

    relu: whether a ReLU produced x; then dx includes its gradient and is 0 where x is not positive. `out` may be dy.
    """
    sums = tuple(empty(x, (x.shape[1],)) if array is None else array for array in (dweight, dbias))
    dx = (empty(x, x.shape) if out is None else out) if input_grad else None
    space = workspace(x, kernels.workspace_size(*x.shape[:2]))
    norm_grad.batch_norm_grad(dy, x, weight, kept, (sums[0], sums[1]), dx, stream(dy), workspace=space, relu=relu)
    return dx

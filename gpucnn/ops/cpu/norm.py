"""Batch normalization. x, y, dy and dx (N, C, …); everything else has one value for each channel.

S. Ioffe and C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift" (ICML 2015).
A thread processes as many channels at a time as fit the cache, so a channel's sums do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gpucnn.ops.cpu._threads import SLAB, Array, share

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
    y = np.empty_like(x) if out is None else out
    mean, variance = np.empty_like(weight), np.empty_like(weight)
    rows, targets, count = _rows(x), _rows(y), x.size // x.shape[1]

    def work(part: slice) -> None:
        mean[part] = _sums(rows[:, part]) / count
        centred = rows[:, part] - mean[part, None]
        variance[part] = _sums(centred * centred) / count
        _normalized(centred, weight[part] / np.sqrt(variance[part] + x.dtype.type(eps)), bias[part], relu, targets[:, part])

    _by_channels(work, x)
    move(running, mean, variance, count, momentum)
    return y, mean, 1 / np.sqrt(variance + x.dtype.type(eps))


def move(running: tuple[Array, Array], mean: Array, variance: Array, count: int, momentum: float) -> None:
    """Moves the `running` mean and variance towards those of `count` numbers, using the sample variance, unless these are not
    finite."""
    new = mean, (variance * (count / (count - 1))).astype(mean.dtype, copy=False)
    step, finite = mean.dtype.type(momentum), np.isfinite(new[0]) & np.isfinite(new[1])
    own: Any = slice(None) if finite.all() else finite
    for array, now in zip(running, new, strict=True):
        array[own] += step * (now[own] - array[own])


def batch_norm_apply(
    x: Array, weight: Array, bias: Array, running: tuple[Array, Array], *, eps: float, relu: bool = False, out: Array | None = None
) -> Array:
    """y, normalized by the `running` mean and variance, which do not change."""
    y = np.empty(x.shape, x.dtype) if out is None else out
    rows, targets, (mean, variance) = _rows(x), _rows(y), running
    scale = weight / np.sqrt(variance + x.dtype.type(eps))
    _by_channels(lambda part: _normalized(rows[:, part] - mean[part, None], scale[part], bias[part], relu, targets[:, part]), x)
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
    dx = (np.empty_like(x) if out is None else out) if input_grad else None
    dw, db = (np.empty_like(weight) if array is None else array for array in (dweight, dbias))
    (mean, rstd), count, zero = kept, x.dtype.type(x.size // x.shape[1]), x.dtype.type(0)
    gradients, rows, targets = _rows(dy), _rows(x), None if dx is None else _rows(dx)

    def work(part: slice) -> None:
        normal, gradient = (rows[:, part] - mean[part, None]) * rstd[part, None], gradients[:, part]
        db[part] = _sums(gradient)
        dw[part] = _sums(gradient * normal)
        if targets is not None:
            normal *= (dw[part] / count)[:, None]
            normal += (db[part] / count)[:, None]
            found = (gradient - normal) * (weight[part] * rstd[part])[:, None]
            targets[:, part] = np.where(rows[:, part] > 0, found, zero) if relu else found

    _by_channels(work, x)
    return dx


def _rows(x: Array) -> Array:
    """(N, C, pixels)."""
    return x.reshape(*x.shape[:2], -1)


def _sums(values: Array) -> Array:
    """The sums of (N, C, pixels) for each channel: pairwise along each row, then over the images."""
    total: Array = values.sum(axis=2).sum(axis=0)
    return total


def _normalized(centred: Array, scale: Array, bias: Array, relu: bool, into: Array) -> None:
    centred *= scale[:, None]
    centred += bias[:, None]
    if relu:
        np.maximum(centred, 0, out=into)
    else:
        into[...] = centred


def _by_channels(work: Callable[[slice], None], x: Array) -> None:
    channels = x.shape[1]
    step = max(1, min(SLAB * channels // x.size, -(-channels // 8)))

    def body(pieces: Iterable[int]) -> None:
        for piece in pieces:
            work(slice(piece * step, (piece + 1) * step))

    share(-(-channels // step), body, work=4 * x.size)

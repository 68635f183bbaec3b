"""Batch normalization of a batch that several ranks share: sums over the parts of all ranks, on NumPy or CuPy arrays.

`part` is this rank's part (training/team.py). A rank whose part is empty gets an example anyway, with weight 0.
"""

from __future__ import annotations

from typing import Any

from gpucnn.arrays import quiet
from gpucnn.layers.parameter import Array


@quiet
def moments(x: Array, part: Any, xp: Any) -> tuple[Array, Array]:
    """Mean and variance (C,) of the whole batch, bit-identical on every rank, given this rank's part x (N, C, …)."""
    mean = _mean(x, part, xp)
    return mean, _mean(xp.square(x - _across(mean, x)), part, xp)


@quiet
def move(running: tuple[Array, Array], found: tuple[Array, Array], count: int, momentum: float, xp: Any) -> None:
    """Updates the running mean and variance with those of `count` numbers, using the sample variance; leaves them unchanged if those are
    not finite."""
    mean, variance = found[0], found[1] * found[1].dtype.type(count / (count - 1))
    finite = xp.isfinite(mean) & xp.isfinite(variance)
    for array, new in zip(running, (mean, variance), strict=True):
        array += array.dtype.type(momentum) * xp.where(finite, new - array, array.dtype.type(0))


@quiet
def average(running: tuple[Array, Array], part: Any, xp: Any) -> None:
    """Replaces each rank's values by their mean over all ranks, weighted by each rank's share of the batch."""
    both = xp.stack(running) * running[0].dtype.type(part.share)
    part.sum(both)
    for array, new in zip(running, both, strict=True):
        array[...] = new


@quiet
def input_gradient(dy: Array, x: Array, weight: Array, kept: tuple[Array, Array], sums: tuple[Array, Array], part: Any, xp: Any) -> Array:
    """dx of this rank's part, where `sums` are its dweight and dbias: weight · rstd · (dy − (Σ dbias + normalized x · Σ dweight) /
    count), with the sums and the count of the whole batch."""
    both = xp.stack(sums)
    part.sum(both)
    if not part.count:
        return xp.zeros_like(x)
    both *= both.dtype.type(x.shape[1] / (x.size // x.shape[0] * part.size))
    (dweight, dbias), (mean, rstd) = both, kept
    dx = (x - _across(mean, x)) * _across(rstd * dweight, x)
    dx += _across(dbias, x)
    xp.subtract(dy, dx, out=dx)
    dx *= _across(weight * rstd, x)
    return dx


def _mean(values: Array, part: Any, xp: Any) -> Array:
    """The mean of each channel over the whole batch."""
    if part.count:
        axes = (0, *range(2, values.ndim))
        # NumPy adds rows one after another, which rounds more than a kernel's tree does.
        own = values.mean(axis=axes, dtype="float64" if xp.__name__ == "numpy" else values.dtype)
        total = xp.ascontiguousarray((own * part.share).astype(values.dtype))
    else:
        total = xp.zeros(values.shape[1], values.dtype)
    part.sum(total)
    return total


def _across(channels: Array, x: Array) -> Array:
    """An array (C,) shaped to broadcast against x (N, C, …)."""
    return channels.reshape(1, -1, *(1,) * (x.ndim - 2))

"""Operations that join branches: the sum of two arrays, and concatenation of channels."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array, slabs

__all__ = ["add", "add_bias", "copied"]


def add(a: Array, b: Array, *, relu: bool = False, mask: Array | None = None, out: Array | None = None) -> Array:
    """a + b, then ReLU if `relu`. mask: a ReLU's output; the sum is 0 where it is not positive, which is ReLU's gradient."""
    y = np.empty_like(a) if out is None else out
    flat_a, flat_b, flat_y, zero = a.reshape(-1), b.reshape(-1), y.reshape(-1), a.dtype.type(0)
    flat_mask = None if mask is None else mask.reshape(-1)

    def work(part: slice) -> None:
        np.add(flat_a[part], flat_b[part], out=flat_y[part])
        if relu:
            np.maximum(flat_y[part], 0, out=flat_y[part])
        if flat_mask is not None:
            flat_y[part] = np.where(flat_mask[part] > 0, flat_y[part], zero)

    slabs(work, a.size)
    return y


def add_bias(x: Array, bias: Array, *, relu: bool = False, out: Array | None = None) -> Array:
    """x (N, C, …) + bias (C), then ReLU if `relu`."""
    y: Array = np.add(x, bias.reshape(-1, *(1,) * (x.ndim - 2)), out=out)
    return np.maximum(y, 0, out=y) if relu else y


def copied(x: Array, *, out: Array | None = None) -> Array:
    """A copy of x (N, …). There may be gaps between the images of x and of `out`, which may be some channels of larger images."""
    if out is None:
        return np.array(x, order="C")
    out[...] = x
    return out

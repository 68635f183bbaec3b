"""Operations that join branches: the sum of two arrays, and concatenation of channels."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn_kernels import join as kernels

__all__ = ["add", "add_bias", "copied"]


def add(a: Array, b: Array, *, relu: bool = False, mask: Array | None = None, out: Array | None = None) -> Array:
    """a + b, then ReLU if `relu`. mask: a ReLU's output; the sum is 0 where it is not positive, which is ReLU's gradient."""
    y = empty(a, a.shape) if out is None else out
    kernels.add(a, b, y, relu, stream(a), mask=mask)
    return y


def add_bias(x: Array, bias: Array, *, relu: bool = False, out: Array | None = None) -> Array:
    """x (N, C, …) + bias (C), then ReLU if `relu`."""
    y = empty(x, x.shape) if out is None else out
    kernels.add_bias(x, bias, y, relu, stream(x))
    return y


def copied(x: Array, *, out: Array | None = None) -> Array:
    """A copy of x (N, …). There may be gaps between the images of x and of `out`, which may be some channels of larger images."""
    y = empty(x, x.shape) if out is None else out
    kernels.copy_images(x, y, stream(x))
    return y

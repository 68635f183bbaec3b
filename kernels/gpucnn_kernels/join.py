"""Operations that join arrays: sums of two, of one and a bias, and concatenation of channels. One thread per element.

A sum may apply ReLU, and a sum of gradients the gradient of a ReLU: that saves a pass over memory.
Branches whose kernels can do so write into their part of all channels, which lies in one piece for each image only; others are copied.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.integers import divide, magic
from gpucnn_kernels.core.launch import Array, Stream, floats, images, run_each


@kernel
def add_kernel(a, b, mask, y, relu, masked):
    i = uint32(cuda.grid(1))
    if i < y.size:
        total = a[i] + b[i]
        if relu and total <= float32(0):  # NaN stays NaN
            total = float32(0)
        if masked and not mask[i] > float32(0):
            total = float32(0)
        y[i] = total


@kernel
def copy_images_kernel(x, y, count, size, size_by, size_shift, x_step, y_step):
    """Element j of image n, for j below `size`: from x[n · x_step + j] to y[n · y_step + j]."""
    i = uint32(cuda.grid(1))
    if i < count:
        n = divide(i, size_by, size_shift)
        j = uint32(i - n * size)
        y[uint32(n * y_step + j)] = x[uint32(n * x_step + j)]


@kernel
def add_bias_kernel(x, bias, y, C, c_by, c_shift, plane_by, plane_shift, relu):
    i = uint32(cuda.grid(1))
    if i < y.size:
        row = divide(i, plane_by, plane_shift)
        total = x[i] + bias[uint32(row - divide(row, c_by, c_shift) * C)]
        if relu and total <= float32(0):
            total = float32(0)
        y[i] = total


def add_bias(x: Array, bias: Array, y: Array, relu: bool = False, stream: Stream = 0) -> None:
    """Writes x (N, C, …) plus bias (C), then ReLU where `relu`, to y. y may be x."""
    shape = tuple(x.shape)
    c = shape[1]
    run_each(
        add_bias_kernel,
        math.prod(shape),
        stream,
        floats(x, "x"),
        floats(bias, "bias", (c,)),
        floats(y, "y", shape),
        np.uint32(c),
        *magic(c),
        *magic(math.prod(shape[2:])),
        np.int32(relu),
    )


def add(a: Array, b: Array, y: Array, relu: bool = False, stream: Stream = 0, *, mask: Array | None = None) -> None:
    """Writes a + b to y, then ReLU where `relu`; 0 where a `mask` is given and not positive. y may be a or b."""
    shape = tuple(a.shape)
    run_each(
        add_kernel,
        math.prod(shape),
        stream,
        floats(a, "a"),
        floats(b, "b", shape),
        floats(a, "a") if mask is None else floats(mask, "mask", shape),  # never read without: keeps one signature
        floats(y, "y", shape),
        np.int32(relu),
        np.int32(mask is not None),
    )


def copy_images(x: Array, y: Array, stream: Stream = 0) -> None:
    """Writes x to y, both (N, …). The images of either may lie apart, as some channels of larger images do."""
    shape = tuple(x.shape)
    size = math.prod(shape[1:])
    (source, from_step), (target, to_step) = images(x, "x", shape), images(y, "y", shape)
    sizes = np.uint32(shape[0] * size), np.uint32(size), *magic(size), np.uint32(from_step or size), np.uint32(to_step or size)
    run_each(copy_images_kernel, shape[0] * size, stream, source, target, *sizes)

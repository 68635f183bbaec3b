"""What brings arrays together: sums of two, of one and a bias, and channels put beside one another. One thread per element.

A sum may apply ReLU, and a sum of gradients may take the gradient of a ReLU along: what these save is a pass over memory of their own.
Channels are copied: kernels write to whole arrays, and in N C H W a branch's channels lie in one piece for each image only.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.integers import divide, magic
from gpucnn_kernels.core.launch import Array, Stream, floats, run_each


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
def copy_channels_kernel(x, y, size, size_by, size_shift, x_stride, x_first, y_stride, y_first):
    """Element j of image n: from x[n · x_stride + x_first + j] to y[n · y_stride + y_first + j], for j below `size`."""
    i = uint32(cuda.grid(1))
    n = divide(i, size_by, size_shift)
    j = uint32(i - n * size)
    if uint32(n * x_stride) < x.size and uint32(n * y_stride) < y.size:
        y[uint32(n * y_stride + y_first + j)] = x[uint32(n * x_stride + x_first + j)]


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
        add_bias_kernel, math.prod(shape), stream, floats(x, "x"), floats(bias, "bias", (c,)), floats(y, "y", shape), np.uint32(c),
        *magic(c), *magic(math.prod(shape[2:])), np.int32(relu),
    )  # fmt: skip


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


def put_channels(x: Array, y: Array, first: int, stream: Stream = 0) -> None:
    """Writes x (N, C, …) to the channels of y (N, D, …) from `first` on."""
    _copy(x, y, x.shape, 0, first, stream)


def take_channels(y: Array, x: Array, first: int, stream: Stream = 0) -> None:
    """Writes the channels of y (N, D, …) from `first` on to x (N, C, …), as many as that has."""
    _copy(y, x, x.shape, first, 0, stream)


def _copy(source: Array, target: Array, shape: tuple[int, ...], source_first: int, target_first: int, stream: Stream) -> None:
    pixels = math.prod(shape[2:])
    for array, name, first in ((source, "source", source_first), (target, "target", target_first)):
        if (array.shape[0], *array.shape[2:]) != (shape[0], *shape[2:]) or not 0 <= first <= array.shape[1] - shape[1]:
            raise ValueError(f"{shape[1]} channels from {first} on do not fit the {name} of shape {tuple(array.shape)}")
    size = shape[1] * pixels
    run_each(
        copy_channels_kernel,
        shape[0] * size,
        stream,
        floats(source, "source"),
        floats(target, "target"),
        np.uint32(size),
        *magic(size),
        np.uint32(source.shape[1] * pixels),
        np.uint32(source_first * pixels),
        np.uint32(target.shape[1] * pixels),
        np.uint32(target_first * pixels),
    )

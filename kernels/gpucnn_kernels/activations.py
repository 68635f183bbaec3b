"""Activations and their gradients. ReLU and sigmoid: one thread per element. Softmax: one warp per row.

Softmax is eˣ / Σ eˣ along a row, shifted by the row's maximum, so that nothing overflows. The 32 lanes of a warp share a row: each takes
every 32nd element; then their maxima, and later their sums, are combined in a tree (reduce.py).
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.launch import Array, Stream, floats, run, run_each
from gpucnn_kernels.core.reduce import LANES, larger, tree_max, tree_sum


@device
def logistic(z):
    """1 / (1 + e⁻ᶻ), computed with a non-positive exponent so that nothing overflows."""
    decay = float32(math.exp(-abs(z)))
    if z >= float32(0):
        return float32(1) / (float32(1) + decay)
    return decay / (float32(1) + decay)


@kernel
def relu_kernel(x, y):
    i = uint32(cuda.grid(1))
    if i < y.size:
        value = x[i]
        if value <= float32(0):  # NaN stays NaN
            value = float32(0)
        y[i] = value


@kernel
def relu_grad_kernel(dy, y, dx):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        gradient = dy[i]
        if not y[i] > float32(0):
            gradient = float32(0)
        dx[i] = gradient


@kernel
def sigmoid_kernel(x, y):
    i = uint32(cuda.grid(1))
    if i < y.size:
        y[i] = logistic(x[i])


@kernel
def sigmoid_grad_kernel(dy, y, dx):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        dx[i] = dy[i] * (y[i] * (float32(1) - y[i]))


@kernel
def softmax_kernel(x, y, K):
    lanes = cuda.shared.array(LANES, float32)
    first = uint32(cuda.blockIdx.x * K)
    lane = int32(cuda.threadIdx.x)
    largest = float32(-math.inf)
    for k in range(lane, K, int32(LANES)):
        largest = larger(x[uint32(first + k)], largest)
    lanes[lane] = largest
    tree_max(lanes, lane, LANES)
    largest = lanes[0]
    cuda.syncthreads()  # all lanes must have read the maximum before the sums overwrite it
    total = float32(0)
    for k in range(lane, K, int32(LANES)):
        value = float32(math.exp(x[uint32(first + k)] - largest))
        y[uint32(first + k)] = value
        total += value
    lanes[lane] = total
    tree_sum(lanes, lane, LANES)
    total = lanes[0]
    for k in range(lane, K, int32(LANES)):
        y[uint32(first + k)] /= total


@kernel
def softmax_grad_kernel(dy, y, dx, K):
    lanes = cuda.shared.array(LANES, float32)
    first = uint32(cuda.blockIdx.x * K)
    lane = int32(cuda.threadIdx.x)
    total = float32(0)
    for k in range(lane, K, int32(LANES)):
        total += dy[uint32(first + k)] * y[uint32(first + k)]
    lanes[lane] = total
    tree_sum(lanes, lane, LANES)
    total = lanes[0]
    for k in range(lane, K, int32(LANES)):
        dx[uint32(first + k)] = (dy[uint32(first + k)] - total) * y[uint32(first + k)]


def relu(x: Array, y: Array, stream: Stream = 0) -> None:
    """Writes max(x, 0) to y; NaN stays NaN. y may be x."""
    shape = tuple(x.shape)
    run_each(relu_kernel, math.prod(shape), stream, floats(x, "x"), floats(y, "y", shape))


def relu_grad(dy: Array, y: Array, dx: Array, stream: Stream = 0) -> None:
    """Writes dy where y > 0, else 0, to dx. dx may be dy."""
    shape = tuple(dy.shape)
    run_each(relu_grad_kernel, math.prod(shape), stream, floats(dy, "dy"), floats(y, "y", shape), floats(dx, "dx", shape))


def sigmoid(x: Array, y: Array, stream: Stream = 0) -> None:
    """Writes 1 / (1 + e⁻ˣ) to y. y may be x."""
    shape = tuple(x.shape)
    run_each(sigmoid_kernel, math.prod(shape), stream, floats(x, "x"), floats(y, "y", shape))


def sigmoid_grad(dy: Array, y: Array, dx: Array, stream: Stream = 0) -> None:
    """Writes dy·y·(1 − y) to dx. dx may be dy."""
    shape = tuple(dy.shape)
    run_each(sigmoid_grad_kernel, math.prod(shape), stream, floats(dy, "dy"), floats(y, "y", shape), floats(dx, "dx", shape))


def softmax(x: Array, y: Array, stream: Stream = 0) -> None:
    """Writes the softmax of x along its last axis to y. y may be x."""
    shape = tuple(x.shape)
    flat = floats(x, "x"), floats(y, "y", shape)
    run(softmax_kernel, math.prod(shape[:-1]), LANES, stream, *flat, np.int32(shape[-1]))


def softmax_grad(dy: Array, y: Array, dx: Array, stream: Stream = 0) -> None:
    """Writes y·(dy − Σ dy·y), summed along the last axis, to dx. dx may be dy."""
    shape = tuple(dy.shape)
    flat = floats(dy, "dy"), floats(y, "y", shape), floats(dx, "dx", shape)
    run(softmax_grad_kernel, math.prod(shape[:-1]), LANES, stream, *flat, np.int32(shape[-1]))

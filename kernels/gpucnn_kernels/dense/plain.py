"""Matrix products for dense layers, tile by tile through shared memory.

A block of 256 threads computes a 16 × 16 tile of the result, one number per thread. It walks along the inner dimension 16 steps at a
time: first the threads copy a 16 × 16 tile of each factor to shared memory, one number each, then every thread adds the 16 products of
its row and its column. So each number is read from global memory once for 16 uses.

The three products of a dense layer, x (N, C), weight (K, C), y (N, K), differ in which factor is transposed. One kernel does them all,
with a stride for each axis of each factor; a matrix transposed is the same memory with its strides exchanged:

    y = x·weightᵀ + bias        dx = dy·weight        dweight = dyᵀ·x
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.integers import split
from gpucnn_kernels.core.launch import Array, Pair, Stream, floats, run
from gpucnn_kernels.core.variant import Variant
from gpucnn_kernels.engine.bias import bias_grad
from gpucnn_kernels.engine.tiles import BIAS, MASK, NOTHING

TILE = 16
_WIDTH = TILE + 1  # a column more, so that the 16 numbers of a tile's column lie in 16 different banks of shared memory
THREADS = TILE * TILE


@kernel(role="product")
def gemm_kernel(a, b, extra, c, sizes, extra_role, relu):
    M, N, K, a_row, a_column, b_row, b_column = sizes
    a_tile = cuda.shared.array((TILE, _WIDTH), float32)
    b_tile = cuda.shared.array((TILE, _WIDTH), float32)
    y, x = split(uint32(cuda.threadIdx.x), TILE)
    tile_row, tile_column = split(uint32(cuda.blockIdx.x), (N + TILE - 1) // TILE)
    first_row = uint32(tile_row * TILE)
    first_column = uint32(tile_column * TILE)
    # Neighbouring threads (neighbouring x) copy numbers that are neighbours in memory, along whichever axis these lie.
    a_y = y if a_column == 1 else x
    a_x = x if a_column == 1 else y
    b_y = y if b_column == 1 else x
    b_x = x if b_column == 1 else y
    total = float32(0)
    for first in range(int32(0), K, int32(TILE)):
        row = uint32(first_row + a_y)
        column = uint32(first + a_x)
        if row < M and column < K:
            a_tile[a_y, a_x] = a[uint32(row * a_row + column * a_column)]
        else:
            a_tile[a_y, a_x] = float32(0)
        row = uint32(first + b_y)
        column = uint32(first_column + b_x)
        if row < K and column < N:
            b_tile[b_y, b_x] = b[uint32(row * b_row + column * b_column)]
        else:
            b_tile[b_y, b_x] = float32(0)
        cuda.syncthreads()
        for k in range(TILE):
            total += a_tile[y, k] * b_tile[k, x]
        cuda.syncthreads()
    row = uint32(first_row + y)
    column = uint32(first_column + x)
    if row < M and column < N:
        at = uint32(row * N + column)
        if extra_role == BIAS:
            total += extra[column]
        if relu and total <= float32(0):  # NaN stays NaN
            total = float32(0)
        if extra_role == MASK and not extra[at] > float32(0):
            total = float32(0)
        c[at] = total


def dense(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    relu: bool = False,
    stream: Stream = 0,
    *,
    workspace: Array | None = None,
    slices: int = 1,
) -> None:
    """Writes x·weightᵀ to y (N, K), plus bias (K) unless it is None, then ReLU where `relu`.

    `workspace` and `slices` are for variants that cut the sums, here and below.
    """
    (n, c), k = x.shape, weight.shape[0]
    flat = floats(x, "x", (n, c)), floats(weight, "weight", (k, c)), floats(y, "y", (n, k))
    extra = (NOTHING, flat[0]) if bias is None else (BIAS, floats(bias, "bias", (k,)))
    _gemm(flat, (n, k, c), ((c, 1), (1, c)), stream, extra, relu)


def dense_input_grad(
    dy: Array,
    weight: Array,
    dx: Array,
    stream: Stream = 0,
    *,
    relu: Array | None = None,
    workspace: Array | None = None,
    slices: int = 1,
) -> None:
    """Writes dy·weight to dx (N, C). `relu`: x, where it is ReLU's output; then dx is the gradient of ReLU's input, 0 where x is not
    positive."""
    (n, k), c = dy.shape, weight.shape[1]
    flat = floats(dy, "dy", (n, k)), floats(weight, "weight", (k, c)), floats(dx, "dx", (n, c))
    extra = (NOTHING, flat[0]) if relu is None else (MASK, floats(relu, "relu", (n, c)))
    _gemm(flat, (n, c, k), ((k, 1), (c, 1)), stream, extra)


def dense_weight_grad(
    dy: Array,
    x: Array,
    dweight: Array,
    stream: Stream = 0,
    *,
    dbias: Array | None = None,
    workspace: Array | None = None,
    slices: int = 1,
) -> None:
    """Writes dyᵀ·x to dweight (K, C), and the sums of dy's columns to dbias (K) unless it is None."""
    (n, k), c = dy.shape, x.shape[1]
    flat = floats(dy, "dy", (n, k)), floats(x, "x", (n, c)), floats(dweight, "dweight", (k, c))
    _gemm(flat, (k, c, n), ((1, k), (c, 1)), stream, (NOTHING, flat[0]))
    if dbias is not None:
        bias_grad(dy, dbias, stream)


def _gemm(
    arrays: tuple[Array, Array, Array],
    sizes: tuple[int, int, int],
    strides: tuple[Pair, Pair],
    stream: Stream,
    extra: tuple[int, Array],
    relu: bool = False,
) -> None:
    """c (M, N) = a (M, K) · b (K, N); `arrays` are a, b, c, all flat, `sizes` M, N, K, and `strides` those of a and b: elements from row to
    row and from column to column. `extra`: the role of a fourth array, and the array; any array will do if it is unused, so that there
    is one signature."""
    (a, b, c), (m, n, _) = arrays, sizes
    run(
        gemm_kernel,
        -(-m // TILE) * -(-n // TILE),
        THREADS,
        stream,
        a,
        b,
        extra[1],
        c,
        _numbers(sizes, strides),
        np.int32(extra[0]),
        np.int32(relu),
    )


@functools.lru_cache(maxsize=256)
def _numbers(sizes: tuple[int, int, int], strides: tuple[Pair, Pair]) -> tuple[np.int32, ...]:
    return tuple(map(np.int32, (*sizes, *strides[0], *strides[1])))


FORWARD = Variant("plain", dense)
INPUT_GRAD = Variant("plain", dense_input_grad)
WEIGHT_GRAD = Variant("plain", dense_weight_grad)

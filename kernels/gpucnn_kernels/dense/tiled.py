"""The three products of a dense layer on the engine. x (N, C), weight (K, C), bias (K), y (N, K).

    y = x·weightᵀ + bias        dx = dy·weight        dweight = dyᵀ·x

A batch of 128 and 256 outputs are few tiles for a chip with a hundred multiprocessors and more. So the sum is cut into slices, each worked
out by its own blocks in a workspace, and these are added up in order; `slices` of 1 writes the result at once.
"""

from __future__ import annotations

import functools

import numpy as np

from gpucnn_kernels.core.launch import Array, Stream, aligned, floats
from gpucnn_kernels.engine.operands import GRADIENT, MATRIX, matrix
from gpucnn_kernels.engine.product import Product, product
from gpucnn_kernels.engine.tiles import BIAS, MASK, NOTHING, SUMS, Operand, Store, Tile


@functools.lru_cache(maxsize=256)
def _plan(
    sizes: tuple[int, int, int], a_along: str, b_along: str, store: Store, tile: Tile, slices: int, vector: bool, out_vector: bool,
    extra_is: int, relu: bool,
) -> Product:  # fmt: skip
    """The product of matrices: sizes M, N and depth; a factor lies along "depths" as (rows, depth) or along "rows" as (depth, rows)."""
    M, N, depth = sizes
    lengths = [depth if along == "depths" else rows for along, rows in ((a_along, M), (b_along, N))]  # of a line in memory
    width = 4 if vector and all(length % 4 == 0 for length in lengths) else 1

    def factor(along: str, rows: int) -> tuple[Operand, tuple[np.uint32, ...]]:
        strides = (depth, 1) if along == "depths" else (1, rows)
        return matrix(along, width), tuple(np.uint32(number) for number in (*strides, 0, rows, depth))

    # With slices a bias or a mask comes after the sum of the slices; how many there are is known once the product is made.
    ends = out_vector and N % 4 == 0, extra_is, relu
    whole = product(tile, factor(a_along, M), factor(b_along, N), (store, ()), sizes, ends, 1, slices)
    if whole.slices > 1 and (extra_is in (BIAS, MASK) or relu):
        return _plan(sizes, a_along, b_along, store, tile, slices, vector, out_vector, NOTHING, False)
    return whole


def workspace_size(sizes: tuple[int, int, int], tile: Tile, slices: int) -> int:
    """Elements (float32) that a product of `sizes` (M, N, depth) in so many slices needs beside its result; 0 for one slice. The sums of
    rows that a gradient of the bias is, a column more, have room in it."""
    whole = _plan(sizes, "depths", "depths", MATRIX, tile, slices, True, True, NOTHING, False)
    return whole.slices * sizes[0] * (sizes[1] + 1) if whole.slices > 1 else 0


def dense(
    x: Array, weight: Array, bias: Array | None, y: Array, workspace: Array, relu: bool = False, stream: Stream = 0, *,
    tile: Tile, slices: int = 1,
) -> None:  # fmt: skip
    """gemm.dense on the engine. `workspace`: `workspace_size((N, K, C), …)` elements or more, flat."""
    (n, c), k = x.shape, weight.shape[0]
    flat = floats(x, "x", (n, c)), floats(weight, "weight", (k, c)), floats(y, "y", (n, k))
    extra = None if bias is None else floats(bias, "bias", (k,))
    _run(flat, MATRIX, BIAS, extra, workspace, (n, k, c), "depths", "depths", relu, stream, tile, slices)


def dense_input_grad(
    dy: Array, weight: Array, dx: Array, workspace: Array, stream: Stream = 0, *, tile: Tile, slices: int = 1, relu: Array | None = None
) -> None:
    """gemm.dense_input_grad on the engine. `workspace`: `workspace_size((N, C, K), …)` elements or more, flat."""
    (n, k), c = dy.shape, weight.shape[1]
    flat = floats(dy, "dy", (n, k)), floats(weight, "weight", (k, c)), floats(dx, "dx", (n, c))
    extra = None if relu is None else floats(relu, "relu", (n, c))
    _run(flat, MATRIX, MASK, extra, workspace, (n, c, k), "depths", "rows", False, stream, tile, slices)


def dense_weight_grad(
    dy: Array, x: Array, dweight: Array, workspace: Array, stream: Stream = 0, *, tile: Tile, slices: int = 1, dbias: Array | None = None
) -> None:
    """gemm.dense_weight_grad on the engine. `workspace`: `workspace_size((K, C, N), …)` elements or more, flat."""
    (n, k), c = dy.shape, x.shape[1]
    flat = floats(dy, "dy", (n, k)), floats(x, "x", (n, c)), floats(dweight, "dweight", (k, c))
    extra = None if dbias is None else floats(dbias, "dbias", (k,))
    _run(flat, GRADIENT, SUMS, extra, workspace, (k, c, n), "rows", "rows", False, stream, tile, slices)


def _run(
    flat: tuple[Array, Array, Array], store: Store, extra_is: int, extra: Array | None, workspace: Array, sizes: tuple[int, int, int],
    a_along: str, b_along: str, relu: bool, stream: Stream, tile: Tile, slices: int,
) -> None:  # fmt: skip
    a, b, c = flat
    if extra is None:
        extra_is = NOTHING
    out_vector = aligned(c) and (extra_is != MASK or aligned(extra))
    plan = _plan(sizes, a_along, b_along, store, tile, slices, aligned(a) and aligned(b), out_vector, extra_is, relu)
    plan.run_whole(a, b, extra, c, workspace, extra_is, relu, stream)

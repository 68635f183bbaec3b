"""The three products of a dense layer on the engine. x (N, C), weight (K, C), bias (K), y (N, K).

    y = x·weightᵀ + bias        dx = dy·weight        dweight = dyᵀ·x

A batch of 128 and 256 outputs makes few tiles for a chip with a hundred multiprocessors or more. So the sum is cut into slices, each
computed by its own blocks in a workspace, and these are added up in order; with `slices` of 1 the result is written directly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from gpucnn_kernels.core.launch import Array, Stream, aligned, floats
from gpucnn_kernels.core.problem import Problem
from gpucnn_kernels.core.variant import Variant
from gpucnn_kernels.engine.merit import LEAST_STEPS, weigh
from gpucnn_kernels.engine.operands import GRADIENT, MATRIX, matrix
from gpucnn_kernels.engine.product import Last, Product, product
from gpucnn_kernels.engine.tiles import BEST, BIAS, MASK, NOTHING, SUMS, TILES, Operand, Store, Tile


@dataclass(frozen=True, slots=True)
class Form:
    """One of the three products: the axis along which each factor is contiguous, where the result goes, and the role of the fourth
    array. A factor lies along "depths" as (rows, depth) or along "rows" as (depth, rows)."""

    a: str
    b: str
    store: Store
    extra: int

    def lines(self, sizes: tuple[int, int, int]) -> tuple[int, int]:
        """The lengths of a line of a and of b in memory, given M, N and the depth."""
        M, N, depth = sizes
        return depth if self.a == "depths" else M, depth if self.b == "depths" else N


_FORWARD = Form("depths", "depths", MATRIX, BIAS)
_INPUT_GRAD = Form("depths", "rows", MATRIX, MASK)
_WEIGHT_GRAD = Form("rows", "rows", GRADIENT, SUMS)


@dataclass(frozen=True, slots=True)
class Epilogue:
    """The steps after the sum, and whether factors and results may be read and written in fours."""

    extra: int = NOTHING
    relu: bool = False
    a_vector: bool = True
    b_vector: bool = True
    out_vector: bool = True


Multiplier: TypeAlias = Callable[[Any, Form, tuple[int, int, int], Epilogue, int], Product]  # a tile, M, N and depth, slices


def multiply(tile: Tile, form: Form, sizes: tuple[int, int, int], epilogue: Epilogue, slices: int) -> Product:
    """The product of matrices on the engine."""
    M, N, depth = sizes
    width = 4 if epilogue.a_vector and epilogue.b_vector and all(length % 4 == 0 for length in form.lines(sizes)) else 1

    def factor(along: str, rows: int) -> tuple[Operand, tuple[np.uint32, ...]]:
        strides = (depth, 1) if along == "depths" else (1, rows)
        return matrix(along, width, tile.guards), tuple(np.uint32(number) for number in (*strides, 0, rows, depth))

    last = epilogue.out_vector and N % 4 == 0, epilogue.extra, epilogue.relu
    return product(tile, factor(form.a, M), factor(form.b, N), (form.store, ()), sizes, last, slices=slices, past_registers=width == 4)


@functools.lru_cache(maxsize=256)
def _plan(form: Form, sizes: tuple[int, int, int], tile: Any, make: Multiplier, slices: int, epilogue: Epilogue) -> Product:
    """The product of matrices: sizes M, N and depth."""
    # With slices a bias or a mask comes after the sum of the slices; how many there are is known once the product is made.
    whole = make(tile, form, sizes, epilogue, slices)
    if whole.slices > 1 and (epilogue.extra in (BIAS, MASK) or epilogue.relu):
        return _plan(form, sizes, tile, make, slices, replace(epilogue, extra=NOTHING, relu=False))
    return whole


def workspace_size(sizes: tuple[int, int, int], tile: Any, slices: int, make: Multiplier = multiply) -> int:
    """Elements (float32) that a product of `sizes` (M, N, depth) in so many slices needs beside its result; 0 for one slice. It has
    room for the gradient of the bias, the sums of rows: one more column."""
    whole = _plan(_FORWARD, sizes, tile, make, slices, Epilogue())
    return whole.slices * sizes[0] * (sizes[1] + 1) if whole.slices > 1 else 0


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
    tile: Any,
    make: Multiplier = multiply,
) -> None:
    """plain.dense on the engine. `workspace`: `workspace_size((N, K, C), …)` elements or more, flat."""
    (n, c), k = x.shape, weight.shape[0]
    flat = floats(x, "x", (n, c)), floats(weight, "weight", (k, c)), floats(y, "y", (n, k))
    extra = None if bias is None else floats(bias, "bias", (k,))
    plan, role = _made(_FORWARD, flat, extra, (n, k, c), relu, (tile, make), slices)
    plan.run_whole(flat, Last(extra, role, relu), workspace, stream)


def dense_input_grad(
    dy: Array,
    weight: Array,
    dx: Array,
    stream: Stream = 0,
    *,
    relu: Array | None = None,
    workspace: Array | None = None,
    slices: int = 1,
    tile: Any,
    make: Multiplier = multiply,
) -> None:
    """plain.dense_input_grad on the engine. `workspace`: `workspace_size((N, C, K), …)` elements or more, flat."""
    (n, k), c = dy.shape, weight.shape[1]
    flat = floats(dy, "dy", (n, k)), floats(weight, "weight", (k, c)), floats(dx, "dx", (n, c))
    extra = None if relu is None else floats(relu, "relu", (n, c))
    plan, role = _made(_INPUT_GRAD, flat, extra, (n, c, k), False, (tile, make), slices)
    plan.run_whole(flat, Last(extra, role), workspace, stream)


def dense_weight_grad(
    dy: Array,
    x: Array,
    dweight: Array,
    stream: Stream = 0,
    *,
    dbias: Array | None = None,
    workspace: Array | None = None,
    slices: int = 1,
    tile: Any,
    make: Multiplier = multiply,
) -> None:
    """plain.dense_weight_grad on the engine. `workspace`: `workspace_size((K, C, N), …)` elements or more, flat."""
    (n, k), c = dy.shape, x.shape[1]
    flat = floats(dy, "dy", (n, k)), floats(x, "x", (n, c)), floats(dweight, "dweight", (k, c))
    extra = None if dbias is None else floats(dbias, "dbias", (k,))
    plan, role = _made(_WEIGHT_GRAD, flat, extra, (k, c, n), False, (tile, make), slices)
    plan.run_whole(flat, Last(extra, role), workspace, stream)


def _made(
    form: Form,
    flat: tuple[Array, Array, Array],
    extra: Array | None,
    sizes: tuple[int, int, int],
    relu: bool,
    how: tuple[Any, Multiplier],
    slices: int,
) -> tuple[Product, int]:
    """The product for arrays of this alignment, and the role of `extra`."""
    a, b, c = flat
    role = NOTHING if extra is None else form.extra
    out_vector = aligned(c) and (role != MASK or aligned(extra))
    return _plan(form, sizes, *how, slices, Epilogue(role, relu, aligned(a), aligned(b), out_vector)), role


def variants(
    name: str, tile: Any, best: float, make: Multiplier = multiply, least_steps: int = LEAST_STEPS, **more: Any
) -> dict[str, Variant]:
    """The variants of that name by operation, on tiles of which a full one gives `best`, with so many blocks of steps at least in a slice
    (engine/merit.py)."""

    def room(problem: Problem, slices: int) -> int:
        return workspace_size((problem.M, problem.N, problem.depth), tile, slices, make)

    measure = functools.partial(weigh, tile=tile, best=best, least_steps=least_steps, evenly=True)
    launchers = (dense, dense_input_grad, dense_weight_grad)
    return {
        launcher.__name__: Variant(
            name, functools.partial(launcher, tile=tile, make=make), workspace=room, weigh=measure, slices=True, **more
        )
        for launcher in launchers
    }


ALL = [variants(name, tile, BEST[name]) for name, tile in TILES.items()]

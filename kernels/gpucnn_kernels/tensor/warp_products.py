"""What a warp multiplies on tensor cores, for its kernels (warps.py, warps_grad.py, matrices.py): numbers of a as products take them, and
the products of one column of b."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4
from gpucnn_kernels.tensor import instructions
from gpucnn_kernels.tensor.fragments import DEPTHS, WORDS
from gpucnn_kernels.tensor.parts import apart, putter


def depths_of(bits: int) -> int:
    """Steps of k of a product."""
    return 2 * DEPTHS if bits == BFLOAT16 else DEPTHS


@functools.cache
def taker(down: int, bits: int, a_words: int) -> Any:
    """A function that reads a lane's numbers of a: (0, shared, at, k, big, small) leaves both parts of `down` products' in two arrays, or
    what there is of them in the first, from the word at + k on. a_words: from 8 steps of k to the next."""

    put = putter(bits)

    @device(forceinline=True)
    def read(i, shared, at, k):
        """In the order of the registers in TF32."""
        first, second, third, fourth = load_4(shared, beyond(at, k + i * WORDS))
        return (third, fourth, first, second) if i % 2 == 1 else (first, second, third, fourth)

    @device(forceinline=True)
    def take(i, shared, at, k, big, small):
        x_0, x_1, x_2, x_3 = read(i, shared, at, k)
        y_0, y_1, y_2, y_3 = x_0, x_1, x_2, x_3
        if bits == BFLOAT16:
            y_0, y_1, y_2, y_3 = read(i, shared, at, k + a_words)
        put(i, x_0, x_1, x_2, x_3, y_0, y_1, y_2, y_3, big, small)

    return unrolled(take, down)


@functools.cache
def column_multiplier(down: int, across: int, bits: int) -> Any:
    """A function (0, column, a, b_0, b_1, part) that adds to `part` the products of `down` of a with that column of b's."""
    multiply_one = instructions.multiply_warp_bfloat16 if bits == BFLOAT16 else instructions.multiply_warp

    @device(forceinline=True)
    def multiply(i, column, a, b_0, b_1, part):
        at = 4 * (i * across + column)
        part[at], part[at + 1], part[at + 2], part[at + 3] = multiply_one(
            a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3], b_0, b_1, part[at], part[at + 1], part[at + 2], part[at + 3]
        )

    return unrolled(multiply, down)


@functools.cache
def three_products(down: int, across: int) -> Any:
    """A function (0, column, a, b, part) that adds to `part` the three products of `down` of a with that column of b's, of 16 steps of k.
    a: big and small parts of the first 8 steps, then those of the second, in four arrays; b: of each 8 steps two registers of big parts
    and two of small ones. Those with a small part come first (stages.py says why)."""
    multiply = column_multiplier(down, across, FLOAT32)

    @device(forceinline=True)
    def multiply_three(column, a, b, part):
        big, small, next_big, next_small = a
        (big_0, big_1, small_0, small_1), (next_big_0, next_big_1, next_small_0, next_small_1) = b
        multiply(0, column, small, big_0, big_1, part)
        multiply(0, column, big, small_0, small_1, part)
        multiply(0, column, next_small, next_big_0, next_big_1, part)
        multiply(0, column, next_big, next_small_0, next_small_1, part)
        multiply(0, column, big, big_0, big_1, part)
        multiply(0, column, next_big, next_big_0, next_big_1, part)

    return multiply_three


@device(forceinline=True)
def two_parts(y_0, y_1):
    """A lane's two numbers of b in 8 steps of k, as `three_products` takes them."""
    big_0, small_0 = apart(y_0)
    big_1, small_1 = apart(y_1)
    return big_0, big_1, small_0, small_1

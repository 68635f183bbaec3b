"""A number for tensor cores, by the bits of a float32 that it keeps.

24   two parts in TF32: a big one, rounded, and a small one, which is what that leaves (product.py says why)
11   the big part alone
 8   bfloat16, two numbers to a word, each the upper half of a float32

What an infinity leaves is NaN, and so is every sum with it, whichever factor it is in. Numbers that round to infinity, in TF32 those from
2¹²⁸ − 2¹¹⁶ on, are as infinities.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.core._numba import float32, uint32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32, TF32
from gpucnn_kernels.tensor.instructions import bits_of, number_of, to_bfloat16, to_tf32


@device(forceinline=True)
def tf32(bits):
    """The bits of a float32 rounded to TF32: to nearest, ties away from zero. Some NaN become -0, which their small parts make up for."""
    return uint32(uint32(bits + uint32(0x1000)) & uint32(0xFFFFE000))


@device(forceinline=True)
def apart(x):
    """The two parts of a number, as bits."""
    big = tf32(bits_of(x))
    return big, bits_of(float32(x - number_of(big)))


@functools.cache
def putter(bits: int) -> Any:
    """A function that leaves what tensor cores are given of a product's four numbers of a, x, and in bfloat16 of the four after them, y:
    (i, x_0 … x_3, y_0 … y_3, big, small), as number i in `big`, and in `small` their small parts, if there are two."""

    @device(forceinline=True)
    def put(i, x_0, x_1, x_2, x_3, y_0, y_1, y_2, y_3, big, small):
        if bits == BFLOAT16:
            big[4 * i], big[4 * i + 1] = to_bfloat16(x_0, x_2), to_bfloat16(x_1, x_3)
            big[4 * i + 2], big[4 * i + 3] = to_bfloat16(y_0, y_2), to_bfloat16(y_1, y_3)
        elif bits == FLOAT32:
            big[4 * i], small[4 * i] = apart(x_0)
            big[4 * i + 1], small[4 * i + 1] = apart(x_1)
            big[4 * i + 2], small[4 * i + 2] = apart(x_2)
            big[4 * i + 3], small[4 * i + 3] = apart(x_3)
        else:
            big[4 * i], big[4 * i + 1] = to_tf32(x_0), to_tf32(x_1)
            big[4 * i + 2], big[4 * i + 3] = to_tf32(x_2), to_tf32(x_3)

    return put


ENDING = {FLOAT32: "", TF32: "-tf32", BFLOAT16: "-bf16"}
"""Of the names of variants."""


def parts_of(bits: int) -> int:
    """The parts of a number that keeps so many bits."""
    return 2 if bits == FLOAT32 else 1


def words_of(bits: int, numbers: int) -> int:
    """The words of 4 bytes that so many numbers take."""
    return parts_of(bits) * numbers // (2 if bits == BFLOAT16 else 1)


@functools.cache
def first_part(bits: int) -> Any:
    """A function that gives the big part of a number in TF32, as a number; of two parts where it keeps all its bits."""

    @device(forceinline=True)
    def big_of(x):
        return number_of(tf32(bits_of(float32(x))) if bits == FLOAT32 else to_tf32(float32(x)))

    return big_of


@device(forceinline=True)
def small_part(x, big):
    """What the big part of a number leaves, rounded to TF32, as a number. The NaN that an infinity leaves stays one, and so does the NaN
    that a GPU makes, of which `tf32` makes -0."""
    return number_of(to_tf32(float32(x - big)))

"""A number for tensor cores: a big part, rounded to TF32, and a small one, which is what that leaves (product.py says why)."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.core._numba import float32, uint32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.tensor.instructions import bits_of, number_of, to_tf32


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
def first_part(parts: int) -> Any:
    """A function that gives the big one of so many parts of a number, as a number."""

    @device(forceinline=True)
    def big_of(x):
        return number_of(tf32(bits_of(float32(x))) if parts == 2 else to_tf32(float32(x)))

    return big_of

"""Index arithmetic: division by sizes known only at launch, and constant offsets that cost no instruction.

An integer division takes some twenty instructions. For a fixed divisor, a multiplication and a shift are enough (Granlund and
Montgomery, Division by Invariant Integers using Multiplication, PLDI 1994): `magic` finds the two numbers on the host, `divide` uses them.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from gpucnn_kernels.core._numba import uint32, uint64
from gpucnn_kernels.core.compile import device


@device
def split(i, size):
    """i // size and i % size, unsigned."""
    return uint32(i // uint32(size)), uint32(i % uint32(size))


@device(forceinline=True)
def beyond(index, constant):
    """index + constant, in 64 bits: then the constant becomes part of the load or store instruction and costs nothing.

    In 32 bits the sum might wrap around, so the compiler would have to add first.
    """
    return uint64(uint64(index) + uint64(constant))


@device(forceinline=True)
def divide(number, multiplier, shift):
    """number // divisor for number < 2³¹, where `multiplier` and `shift` are `magic(divisor)`."""
    return uint32(uint32(uint64(number) * uint64(multiplier) >> uint64(31)) >> uint32(shift))


def magic(divisor: int) -> tuple[np.uint32, np.uint32]:
    """The multiplier m and the shift s with which n // divisor = n·m >> (31 + s), for every n < 2³¹ and 1 ≤ divisor < 2³¹.

    m = ⌈2^(31 + s) / d⌉ is too large by e/d with e < d ≤ 2ˢ, so n·m / 2^(31 + s) is too large by less than 1/d, and never reaches
    the next integer.
    """
    if not 1 <= divisor < 2**31:
        raise ValueError(f"cannot divide by {divisor}: a divisor is from 1 to 2³¹ − 1")
    shift = (divisor - 1).bit_length()
    return np.uint32(-(-(1 << (31 + shift)) // divisor)), np.uint32(shift)

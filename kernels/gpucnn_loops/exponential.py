"""eˣ of 16 numbers, for numbers that are not positive: what tanh, sigmoid, softmax and the smooth variants of ReLU are made of.

eˣ = 2ⁿ · eʳ with a whole n and |r| ≤ ln 2 / 2; a polynomial computes eʳ, that of the Cephes library (S. L. Moshier 1989: expf).
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn_loops.language import helper, intrinsic, ir, types, vector
from gpucnn_loops.vector import IV, L, V, fma, splat, splat_of

F = np.float32
FAR = F(-87)  # e⁻⁸⁷ is a normal number
HALF, ONE = F(0.5), F(1)
CLOSE = F(-0.34)  # above, the difference of eˣ from 1 would cancel, and x itself is small enough for the polynomial
Q0, Q1, Q2, Q3, Q4, Q5 = F(1.9875691500e-4), F(1.3981999507e-3), F(8.3334519073e-3), F(4.1665795894e-2), F(1.6666665459e-1), F(0.5)
TURNS = F(1 / np.log(2))
LN2_HIGH, LN2_LOW = F(-0.693359375), F(2.12194440e-4)  # ln 2 = −their sum; an integer of up to 8 bits times the first is exact
MAGIC = F(1.5 * 2**23)  # added to a number, rounds it to a whole one, which then stands in the last bits


def _where(comparison: str) -> Any:
    """(signature, code) of an intrinsic that takes a vector, a limit and two vectors, and gives lanes of the first where the comparison
    holds, and otherwise of the second."""

    def code(c, b, s, args):
        v, limit, one, other = args
        return b.select(b.fcmp_ordered(comparison, v, splat_of(b, limit)), one, other)

    return vector(vector, types.float32, vector, vector), code


@intrinsic
def where_less(typing, v, limit, a, b):
    """a where v < limit, else b, as for NaN."""
    return _where("<")


@intrinsic
def where_more(typing, v, limit, a, b):
    """a where v > limit, else b, as for NaN."""
    return _where(">")


@intrinsic
def times_power(typing, v, whole):
    """v · 2ⁿ, n the integer in the last bits of the number to which `MAGIC` was added."""

    def code(c, b, s, args):
        return b.bitcast(b.add(b.bitcast(args[0], IV), b.shl(b.bitcast(args[1], IV), ir.Constant(IV, [23] * L))), V)

    return vector(vector, vector), code


@helper
def remainder16(r):
    """(eʳ − 1 − r) / r of 16 numbers between −ln 2 / 2 and ln 2 / 2."""
    return fma(fma(fma(fma(fma(splat(Q0), r, splat(Q1)), r, splat(Q2)), r, splat(Q3)), r, splat(Q4)), r, splat(Q5)) * r


@helper
def exp16(x):
    """eˣ of 16 numbers ≤ 0; NaN stays NaN."""
    near = where_less(x, FAR, x * splat(HALF), x)
    near = where_less(near, FAR, splat(FAR), near)
    whole = fma(near, splat(TURNS), splat(MAGIC))
    n = whole - splat(MAGIC)
    r = fma(n, splat(LN2_LOW), fma(n, splat(LN2_HIGH), near))
    e = times_power(fma(remainder16(r), r, r + splat(ONE)), whole)
    e = where_less(x, FAR, e * e, e)
    return where_less(x, ONE, e, x)  # the last bits of a NaN are not an exponent


@helper
def expm1_16(x):
    """eˣ − 1 of 16 numbers ≤ 0; NaN stays NaN."""
    return where_more(x, CLOSE, fma(remainder16(x), x, x), exp16(x) - splat(ONE))

"""The hyperbolic tangent and its gradient, 16 numbers at a time. NumPy takes ten times as long, on one thread.

tanh t = 1 − 2e / (1 + e), e = e⁻²ᵗ, for t = |x|; for small t this would cancel, and a polynomial takes its place. The polynomials are
those of the Cephes library (S. L. Moshier 1989: tanhf, expf). The loops are written with vectors, because a result may overwrite its
operand.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.elementwise import elements
from gpucnn_loops.language import helper, intrinsic, ir, types, vector
from gpucnn_loops.loops import loop
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.turn import fill
from gpucnn_loops.vector import IV, L, V, fma, load, splat, splat_of, store

Array = NDArray[np.float32]
F = np.float32
SMALL = F(0.625)
FAR = F(43)  # e⁻⁸⁶ is a normal number, and tanh is 1 long before
ONE, TWO, DOUBLE = F(1), F(2), F(-2)
P0, P1, P2, P3, P4 = F(-5.70498872745e-3), F(2.06390887954e-2), F(-5.37397155531e-2), F(1.33314422036e-1), F(-3.33332819422e-1)
Q0, Q1, Q2, Q3, Q4, Q5 = F(1.9875691500e-4), F(1.3981999507e-3), F(8.3334519073e-3), F(4.1665795894e-2), F(1.6666665459e-1), F(0.5)
TURNS = F(-2 / np.log(2))
LN2_HIGH, LN2_LOW = F(-0.693359375), F(2.12194440e-4)  # ln 2 = −their sum; an integer of up to 8 bits times the first is exact
MAGIC = F(1.5 * 2**23)  # added to a number, rounds it to a whole one, which then stands in the last bits


@intrinsic
def magnitude(typing, v):
    """|v|."""

    def code(c, b, s, args):
        return b.bitcast(b.and_(b.bitcast(args[0], IV), ir.Constant(IV, [0x7FFFFFFF] * L)), V)

    return vector(vector), code


@intrinsic
def signed(typing, v, by):
    """v, which is not negative, with the sign of `by`."""

    def code(c, b, s, args):
        sign = b.and_(b.bitcast(args[1], IV), ir.Constant(IV, [0x80000000] * L))
        return b.bitcast(b.or_(b.bitcast(args[0], IV), sign), V)

    return vector(vector, vector), code


@intrinsic
def least(typing, v, limit):
    """The lesser of v and `limit`; NaN stays NaN."""

    def code(c, b, s, args):
        most = splat_of(b, args[1])
        return b.select(b.fcmp_ordered(">", args[0], most), most, args[0])

    return vector(vector, types.float32), code


@intrinsic
def where_less(typing, v, limit, a, b):
    """a where v < limit, else b, as for NaN."""

    def code(c, bl, s, args):
        v, limit, a, b = args
        return bl.select(bl.fcmp_ordered("<", v, splat_of(bl, limit)), a, b)

    return vector(vector, types.float32, vector, vector), code


@intrinsic
def times_power(typing, v, whole):
    """v · 2ⁿ, n the integer in the last bits of the number to which `MAGIC` was added."""

    def code(c, b, s, args):
        return b.bitcast(b.add(b.bitcast(args[0], IV), b.shl(b.bitcast(args[1], IV), ir.Constant(IV, [23] * L))), V)

    return vector(vector, vector), code


@helper
def tanh16(x):
    """tanh of 16 numbers; NaN stays NaN, −0 stays −0."""
    t = magnitude(x)
    z = t * t
    p = fma(fma(fma(fma(splat(P0), z, splat(P1)), z, splat(P2)), z, splat(P3)), z, splat(P4))
    near = fma(p * z, t, t)
    a = least(t, FAR)
    whole = fma(a, splat(TURNS), splat(MAGIC))
    n = whole - splat(MAGIC)
    r = fma(n, splat(LN2_LOW), fma(n, splat(LN2_HIGH), splat(DOUBLE) * a))
    q = fma(fma(fma(fma(fma(splat(Q0), r, splat(Q1)), r, splat(Q2)), r, splat(Q3)), r, splat(Q4)), r, splat(Q5))
    e = times_power(fma(q * r, r, r + splat(ONE)), whole)
    far = splat(ONE) - splat(TWO) * e / (splat(ONE) + e)
    return signed(where_less(t, SMALL, near, far), x)


@loop("i i f* f* f*")
def tanh_part(first, last, x, y, rest):
    """y = tanh x."""
    whole = first + (last - first) // L * L
    for i in range(first, whole, L):
        store(y, i, tanh16(load(x, i)))
    if whole < last:
        for i in range(whole, last):
            rest[i - whole] = x[i]
        store(rest, 0, tanh16(load(rest, 0)))
        for i in range(whole, last):
            y[i] = rest[i - whole]


@loop("i i f* f* f*")
def tanh_grad_part(first, last, dy, y, dx):
    """dx = dy · (1 − y) · (1 + y)."""
    whole = first + (last - first) // L * L
    for i in range(first, whole, L):
        v = load(y, i)
        store(dx, i, load(dy, i) * ((splat(ONE) - v) * (splat(ONE) + v)))
    for i in range(whole, last):
        dx[i] = dy[i] * ((ONE - y[i]) * (ONE + y[i]))


COST = 26  # an element takes as long as this many multiply-adds


def tanh(x: Array, y: Array) -> None:
    """y = tanh x; y may be x."""

    def body(first: int, last: int) -> None:
        rest = Scratch(L)
        fill(*rest.piece(0), 0)
        tanh_part(first, last, address(x), address(y), *rest.addresses())

    elements(x.size, body, COST)


def tanh_grad(dy: Array, y: Array, dx: Array) -> None:
    """dx = dy · (1 − y²); dx may be dy."""
    elements(dy.size, lambda first, last: tanh_grad_part(first, last, address(dy), address(y), address(dx)))

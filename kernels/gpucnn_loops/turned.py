"""Products of a few rows with the rows of a matrix that are the lanes, as a dense layer's outputs are for a few examples.

A large weight is then read from memory for hardly any multiply-adds, and whatever else is done with it takes most of the time. So 16×16 of
its numbers are turned in registers and multiplied there: they are never stored. With AVX-512, 5408 inputs and 256 outputs took 0.8 of the
time of turning them in a pass before the products.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from gpucnn_loops.language import cgutils, floats, intrinsic, ir, types
from gpucnn_loops.loops import loop
from gpucnn_loops.turn import BLOCK, PART, turned_of
from gpucnn_loops.vector import I64, L, fma_of, load_at, splat_of, store_at


@intrinsic(prefer_literal=True)
def turned_tile(typing, Q, m, n, x, w, ws, count, y):
    """y (Q, 16) = x (m, ws) · w (count, ws)ᵀ, of the first n columns of both, for m ≤ Q, which is a literal, and count ≤ 16. n is a
    multiple of 16. Behind m rows and `count` lanes the last ones are computed once more."""
    q_count = Q.literal_value

    def code(c, b, s, args):
        _, m, n, x, w, ws, count, y = args

        def number(i):
            return ir.Constant(I64, i)

        def row(of, i, end):
            last = b.sub(end, number(1))
            return b.gep(of, [b.mul(b.select(b.icmp_signed("<", number(i), last), number(i), last), ws)])

        line, zero = [row(x, q, m) for q in range(q_count)], ir.Constant(PART, [0.0] * BLOCK)
        for first in range(0, L, BLOCK):
            lanes = [row(w, first + i, count) for i in range(BLOCK)]
            sums = [cgutils.alloca_once(b, PART) for _ in range(q_count)]
            for slot in sums:
                b.store(zero, slot)
            with cgutils.for_range(b, b.sdiv(n, number(BLOCK)), intp=I64) as inner:
                col = b.mul(inner.index, number(BLOCK))
                for i, column in enumerate(turned_of(b, [load_at(b, b.gep(lane, [col]), PART) for lane in lanes])):
                    for own, slot in zip(line, sums, strict=True):
                        one = splat_of(b, b.load(b.gep(own, [b.add(col, number(i))])), PART)
                        b.store(fma_of(b, one, column, b.load(slot)), slot)
            for q, slot in enumerate(sums):
                store_at(b, b.load(slot), b.gep(y, [number(q * L + first)]))
        return c.get_dummy_value()

    i = types.int64
    return types.void(Q, i, i, floats, floats, i, i, floats), code


@loop("i i f* f* i i f*")
def product_of_turned(m, n, x, w, ws, count, y):
    """As `turned_tile`, for one to eight rows of x. Beyond the last row y may be written, up to eight in all."""
    if m == 1:
        turned_tile(1, m, n, x, w, ws, count, y)
    elif m == 2:
        turned_tile(2, m, n, x, w, ws, count, y)
    elif m <= 4:
        turned_tile(4, m, n, x, w, ws, count, y)
    else:
        turned_tile(8, m, n, x, w, ws, count, y)

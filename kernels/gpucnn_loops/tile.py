"""The one inner loop that all products share.

A tile keeps Q·W sums in registers, each a vector of 16 lanes: it reads Q numbers of x and W vectors of w for each step of the sum, and does
Q·W multiply-adds with them. AVX-512 has 32 registers: 5 × 4 sums, 4 of w and one of x fit. AVX2 has 16 of half the size, so a vector is
two of them: with more than 6 × 1, sums would go to memory. NEON has 32 of a quarter: 6 × 1 fills 24. Other processors have 2 × 1.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.language import cgutils, floats, helper, intrinsic, ir, types, words
from gpucnn_loops.loops import loop
from gpucnn_loops.machine import FEATURES
from gpucnn_loops.tables import Tables
from gpucnn_loops.threads import Scratch, address, number
from gpucnn_loops.vector import ARM, I64, ZERO, L, V, at, fma_of, load_at, splat_of, store_at

WIDE = "avx512f" in FEATURES
ROWS = 6 if "avx2" in FEATURES or ARM else 2  # of a narrow tile
# Where a tile of so many sums reads x at even distances, so many steps are one turn of the loop: fewer instructions are left beside the
# multiply-adds, and dense layers took 0.83 to 0.94 times as long.
UNROLLED, STEPS = 16 if WIDE else 6, 4
HIGH = 9 if WIDE else ROWS  # of a tile by lane


def _begun(b, mode, place):
    """The first value of a sum, which LLVM then keeps in a register: 0 where mode is 0, else what y holds."""
    slot = cgutils.alloca_once(b, V)
    with b.if_else(b.icmp_signed("==", mode, ir.Constant(I64, 0))) as (fresh, going):
        with fresh:
            b.store(ZERO, slot)
        with going:
            b.store(load_at(b, place), slot)
    return slot


@intrinsic(prefer_literal=True)
def tile(typing, Q, W, n, x, rows, row, cols, w, ws, y, ys, mode):
    """y[q·ys + 16·v …] (+)= Σ over i < n of x[rows[row + q] + cols[i]] · w[i·ws + 16·v …], for q < Q and v < W, which are literals.

    Either of rows and cols is a table, or the distance of one to the next. Sums start at 0 where mode is 0, else at the value in y.
    """
    q_count, w_count = Q.literal_value, W.literal_value
    tables = [isinstance(places, types.CPointer) for places in (rows, cols)]
    at_once = 1 if any(tables) or q_count * w_count < UNROLLED else STEPS

    def code(c, b, s, args):
        _, _, n, x, rows, row, cols, w, ws, y, ys, mode = args

        def constant(value):
            return ir.Constant(I64, value)

        def place_of(places, table, index):
            return b.load(b.gep(places, [index])) if table else b.mul(places, index)

        line = [b.gep(x, [place_of(rows, tables[0], b.add(row, constant(q)))]) for q in range(q_count)]
        out = [[b.gep(y, [b.add(b.mul(constant(q), ys), constant(L * v))]) for v in range(w_count)] for q in range(q_count)]
        sums = [[_begun(b, mode, place) for place in each] for each in out]

        def step(i):
            col, lane = place_of(cols, tables[1], i), b.gep(w, [b.mul(i, ws)])
            lanes = [load_at(b, b.gep(lane, [constant(L * v)])) for v in range(w_count)]
            for q in range(q_count):
                number = splat_of(b, b.load(b.gep(line[q], [col])))
                for v in range(w_count):
                    b.store(fma_of(b, number, lanes[v], b.load(sums[q][v])), sums[q][v])

        several = b.sdiv(n, constant(at_once))
        with cgutils.for_range(b, several, intp=I64) as inner:
            first = b.mul(inner.index, constant(at_once))
            for next_one in range(at_once):
                step(b.add(first, constant(next_one)))
        if at_once > 1:
            with cgutils.for_range_slice(b, b.mul(several, constant(at_once)), n, constant(1), intp=I64) as (i, _):
                step(i)
        for each, places in zip(sums, out, strict=True):
            for slot, place in zip(each, places, strict=True):
                store_at(b, b.load(slot), place)
        return c.get_dummy_value()

    i = types.int64
    return types.void(Q, W, i, floats, rows, i, cols, floats, i, floats, i, i), code


@intrinsic(prefer_literal=True)
def lane_tile(typing, Q, n, x, rows, cols, w, ws, y, places, mode):
    """y[places[q] …] (+)= Σ over i < n of x[rows[q] + cols[i] …] · w[i·ws …], lane by lane, for q < Q, which is a literal."""

    def code(c, b, s, args):
        _, n, x, rows, cols, w, ws, y, places, mode = args
        rows, out = (
            [b.gep(base, [b.load(b.gep(table, [ir.Constant(I64, q)]))]) for q in range(Q.literal_value)]
            for base, table in ((x, rows), (y, places))
        )
        sums = [_begun(b, mode, place) for place in out]
        with cgutils.for_range(b, n, intp=I64) as inner:
            col, lanes = b.load(b.gep(cols, [inner.index])), load_at(b, b.gep(w, [b.mul(inner.index, ws)]))
            for row, slot in zip(rows, sums, strict=True):
                b.store(fma_of(b, load_at(b, b.gep(row, [col])), lanes, b.load(slot)), slot)
        for slot, place in zip(sums, out, strict=True):
            store_at(b, b.load(slot), place)
        return c.get_dummy_value()

    i = types.int64
    return types.void(Q, i, floats, words, words, floats, i, floats, words, i), code


@helper
def _wide(m, n, x, rows, cols, w, ws, lanes, y, ys, mode):
    # Rows of 16, 32 and 48 lanes are eights first. What is left of m is a sum of fives and fours, or, where it is 1, 2, 3, 6, 7 or 11, of
    # fives and ones.
    lane = 0
    while lane < lanes:
        wide = lanes - lane
        block = 64 if wide >= 64 and wide != 80 else 48 if wide >= 48 else 32 if wide >= 32 else 16
        from_w, row = at(w, lane), 0
        while row < m:
            left = m - row
            q = 8 if block < 64 and left >= 8 else 4 if left % 4 == 0 else 5 if left >= 5 else 1
            place = at(y, row * ys + lane)
            if block == 64:
                if q == 5:
                    tile(5, 4, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                elif q == 4:
                    tile(4, 4, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                else:
                    tile(1, 4, n, x, rows, row, cols, from_w, ws, place, ys, mode)
            elif block == 48:
                if q == 8:
                    tile(8, 3, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                elif q == 5:
                    tile(5, 3, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                elif q == 4:
                    tile(4, 3, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                else:
                    tile(1, 3, n, x, rows, row, cols, from_w, ws, place, ys, mode)
            elif block == 32:
                if q == 8:
                    tile(8, 2, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                elif q == 5:
                    tile(5, 2, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                elif q == 4:
                    tile(4, 2, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                else:
                    tile(1, 2, n, x, rows, row, cols, from_w, ws, place, ys, mode)
            elif q == 8:
                tile(8, 1, n, x, rows, row, cols, from_w, ws, place, ys, mode)
            elif q == 5:
                tile(5, 1, n, x, rows, row, cols, from_w, ws, place, ys, mode)
            elif q == 4:
                tile(4, 1, n, x, rows, row, cols, from_w, ws, place, ys, mode)
            else:
                tile(1, 1, n, x, rows, row, cols, from_w, ws, place, ys, mode)
            row += q
        lane += block


@helper
def _narrow(m, n, x, rows, cols, w, ws, lanes, y, ys, mode):
    # m is cut into as few and as equal parts as can be. Rows are the outer loop: the other way round dense layers took 1.2 times as long.
    for block in range(0, lanes, 64):
        row = 0
        for left in range((m + ROWS - 1) // ROWS, 0, -1):
            q = (m - row + left - 1) // left
            for lane in range(block, min(lanes, block + 64), 16):
                place, from_w = at(y, row * ys + lane), at(w, lane)
                if q == 6:
                    tile(6, 1, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                elif q == 5:
                    tile(5, 1, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                elif q == 4:
                    tile(4, 1, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                elif q == 3:
                    tile(3, 1, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                elif q == 2:
                    tile(2, 1, n, x, rows, row, cols, from_w, ws, place, ys, mode)
                else:
                    tile(1, 1, n, x, rows, row, cols, from_w, ws, place, ys, mode)
            row += q


_tiles = _wide if WIDE else _narrow


# y (m rows, ys apart) (+)= x[rows + cols] (m, n) · w (n, lanes; ws apart). lanes is a multiple of 16; mode 0 starts sums at 0.
# A convolution: rows are outputs' places in the image, cols are the taps' offsets. The gradient of its weight: rows are taps, cols are
# outputs.
@loop("i i f* w* w* f* i i f* i i")
def product(m, n, x, rows, cols, w, ws, lanes, y, ys, mode):
    _tiles(m, n, x, rows, cols, w, ws, lanes, y, ys, mode)


# As `product` for x (m, n) in rows that lie `apart`. A dense layer: rows are outputs, or examples. Winograd's: rows are tiles.
@loop("i i f* i f* i i f* i i")
def product_of_rows(m, n, x, apart, w, ws, lanes, y, ys, mode):
    _tiles(m, n, x, apart, 1, w, ws, lanes, y, ys, mode)


# As `product` for xᵀ, of x (n, m) in rows that lie `apart`. The gradient of Winograd's kernels: rows are tiles, columns channels.
@loop("i i f* i f* i i f* i i")
def product_of_columns(m, n, x, apart, w, ws, lanes, y, ys, mode):
    _tiles(m, n, x, 1, apart, w, ws, lanes, y, ys, mode)


# As `product`, but lane by lane: it reads a vector of 16 in place of a number of x, for channels that do not mix. y's rows are at `places`.
@loop("i i f* w* w* f* i f* w* i")
def product_by_lane(m, n, x, rows, cols, w, ws, y, places, mode):
    row = 0
    while row <= m - HIGH:
        lane_tile(HIGH, n, x, at(rows, row), cols, w, ws, y, at(places, row), mode)
        row += HIGH
    while row <= m - 3:
        lane_tile(3, n, x, at(rows, row), cols, w, ws, y, at(places, row), mode)
        row += 3
    while row < m:
        lane_tile(1, n, x, at(rows, row), cols, w, ws, y, at(places, row), mode)
        row += 1


@functools.cache
def _all_the_same() -> tuple[Tables, NDArray[np.float32]]:
    """Tables of a tile whose steps all read the same numbers, and these numbers."""
    return Tables(rows=np.zeros(ROWS), cols=np.zeros(1 << 16)), np.full(4 * L, 0.5, np.float32)


def at_most() -> int:
    """Runs one tile on all threads, on numbers that never leave the first-level cache: the fastest possible. Returns its multiply-adds."""
    (same, x), rows, lanes, times = _all_the_same(), 5 if WIDE else ROWS, 4 * L if WIDE else L, 4
    steps = len(same.cols)

    def body(first: int, last: int) -> None:
        y = Scratch(rows * lanes).addresses()[0]
        for _ in range(first * times, last * times):
            product(rows, steps, address(x), same.at.rows, same.at.cols, address(x), 0, lanes, y, lanes, 0)

    share(number(), body, 1 << 30)
    return number() * times * rows * steps * lanes

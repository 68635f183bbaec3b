"""The gradient of the weight of a few filters, at a step of 1 along rows: lanes are neighbouring pixels.

With filters as lanes, as in `direct.py`, most lanes would be empty. Here the sum of a filter and a tap is a vector, whose lanes are added
in the end: 16 numbers of a row of dy times the 16 pixels that lie the tap's distance from them. Behind a row's last output dy is 0, and
pixels are made 0 as well, for 0 · ∞ would be NaN. With 6 filters of 5×5 on 32×32 pixels it took 0.4 of the time.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops import tables
from gpucnn_loops.crew import share
from gpucnn_loops.language import cgutils, floats, helper, intrinsic, ir, types, words
from gpucnn_loops.loops import loop
from gpucnn_loops.sums import add_up
from gpucnn_loops.tables import Frame, Images, Tables, Window, edges, framed, images, lanes
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.tile import WIDE
from gpucnn_loops.turn import fill, put_in_frame
from gpucnn_loops.vector import I64, IV, ZERO, L, at, fma_of, lanes_before, load, load_at, store, store_at, sum16

Array = NDArray[np.float32]
FILTERS, TAPS = (6, 4) if WIDE else (3, 2)  # of a tile: its sums stay in registers
BAND = 6144  # numbers of dy that the tiles go through one after the other: 24 KB
# Times as long as with filters as lanes, for the same products: most vectors of pixels are in two lines of the cache.
SPLIT = 1.6 if WIDE else 2.0
BEGINNING = 96  # what reading and writing the sums of an image takes, in products
TURNING = 12  # what turning a vector of outputs takes, where channels or filters are lanes, in products
NOTHING = np.float32(0)


@intrinsic(prefer_literal=True)
def row_tile(typing, Q, T, rows, vectors, dy, plane, x, wide, cols, inside, y, ys):
    """y[q·ys + 16·t …] += Σ over r < rows and v < vectors of dy[q·plane + 16·(vectors·r + v) …] · x[cols[t] + r·wide + 16·v …], for q < Q
    and t < T, which are literals. Of the last vector of a row, only pixels of the lanes `inside` count."""
    q_count, t_count = Q.literal_value, T.literal_value

    def code(c, b, s, args):
        _, _, rows, vectors, dy, plane, x, wide, cols, inside, y, ys = args

        def number(value):
            return ir.Constant(I64, value)

        given = [b.gep(dy, [b.mul(plane, number(q))]) for q in range(q_count)]
        pixels = [b.gep(x, [b.load(b.gep(cols, [number(t)]))]) for t in range(t_count)]
        out = [[b.gep(y, [b.add(b.mul(ys, number(q)), number(L * t))]) for t in range(t_count)] for q in range(q_count)]
        sums = [[cgutils.alloca_once_value(b, load_at(b, place)) for place in line] for line in out]
        counts = b.icmp_signed("<", b.bitcast(inside, IV), ir.Constant(IV, [0] * L))

        def step(row, vector, last):
            from_dy = b.mul(b.add(b.mul(row, vectors), vector), number(L))
            from_x = b.add(b.mul(row, wide), b.mul(vector, number(L)))
            gradients = [load_at(b, b.gep(each, [from_dy])) for each in given]
            for t, tap in enumerate(pixels):
                value = load_at(b, b.gep(tap, [from_x]))
                if last:
                    value = b.select(counts, value, ZERO)
                for gradient, line in zip(gradients, sums, strict=True):
                    b.store(fma_of(b, gradient, value, b.load(line[t])), line[t])

        before = b.sub(vectors, number(1))
        with cgutils.for_range(b, rows, intp=I64) as outer:
            with cgutils.for_range(b, before, intp=I64) as inner:
                step(outer.index, inner.index, False)
            step(outer.index, before, True)
        for line, places in zip(sums, out, strict=True):
            for slot, place in zip(line, places, strict=True):
                store_at(b, b.load(slot), place)
        return c.get_dummy_value()

    i = types.int64
    return types.void(Q, T, i, i, floats, i, floats, i, words, inside, floats, i), code


@helper
def _wide_tile(q, rows, vectors, dy, plane, x, wide, cols, inside, y, ys):
    if q == 6:
        row_tile(6, 4, rows, vectors, dy, plane, x, wide, cols, inside, y, ys)
    elif q == 5:
        row_tile(5, 4, rows, vectors, dy, plane, x, wide, cols, inside, y, ys)
    elif q == 4:
        row_tile(4, 4, rows, vectors, dy, plane, x, wide, cols, inside, y, ys)
    elif q == 3:
        row_tile(3, 4, rows, vectors, dy, plane, x, wide, cols, inside, y, ys)
    elif q == 2:
        row_tile(2, 4, rows, vectors, dy, plane, x, wide, cols, inside, y, ys)
    else:
        row_tile(1, 4, rows, vectors, dy, plane, x, wide, cols, inside, y, ys)


@helper
def _narrow_tile(q, rows, vectors, dy, plane, x, wide, cols, inside, y, ys):
    if q == 3:
        row_tile(3, 2, rows, vectors, dy, plane, x, wide, cols, inside, y, ys)
    elif q == 2:
        row_tile(2, 2, rows, vectors, dy, plane, x, wide, cols, inside, y, ys)
    else:
        row_tile(1, 2, rows, vectors, dy, plane, x, wide, cols, inside, y, ys)


_tile = _wide_tile if WIDE else _narrow_tile


@loop("i i", Images, Images, "f* i f* i", Frame, "i i i i i i w* f* f*")
def weight_sums(first, last, x, dy, sums, width, biases, biased, frame, step, k, p, q, begin, end, cols, framed, given):
    """sums (k, width, 16) of the taps begin … end − 1, from images first … last − 1, and biases (k, 16). begin and width are multiples of
    the taps of a tile. step: that of the window down the image."""
    vectors = (q + L - 1) // L
    inside, band = lanes_before(q - L * (vectors - 1)), max(1, BAND // (k * vectors * L))
    for image in range(first, last):
        put_in_frame(at(x.first, image * x.step), frame, framed, NOTHING)
        source = at(dy.first, image * dy.step)
        for row in range(k * p):
            to, line = at(given, row * vectors * L), at(source, row * q)
            for i in range(q):
                to[i] = line[i]
        for filter in range(k if biased else 0):
            total = load(biases, filter * L)
            for i in range(0, p * vectors * L, L):
                total = total + load(given, filter * p * vectors * L + i)
            store(biases, filter * L, total)
        for row in range(0, p, band):
            rows, filter = min(band, p - row), 0
            for left in range((k + FILTERS - 1) // FILTERS, 0, -1):
                some = (k - filter + left - 1) // left
                own, pixels = at(given, (filter * p + row) * vectors * L), at(framed, row * step * frame.wide)
                for tap in range(begin, end, TAPS):
                    to = at(sums, (filter * width + tap) * L)
                    _tile(some, rows, vectors, own, p * vectors * L, pixels, step * frame.wide, at(cols, tap), inside, to, width * L)
                filter += some


@loop("i i i f* f*")
def lanes_added(rows, count, width, sums, y):
    """y (rows, count): the sums of the lanes of sums (rows, width, 16)."""
    for row in range(rows):
        for i in range(count):
            y[row * count + i] = sum16(load(sums, (row * width + i) * L))


def gains(c: int, k: int, window: Window) -> bool:
    """Whether the gradient of the weight takes less time with pixels as lanes. That of a 1×1 kernel, whose planes `direct.py` reads in long
    pieces, took 1.1 times as long here."""
    if k > L or window.kernel == (1, 1) or window.stride[1] != 1 or min(before for before, _ in window.padding) < 0:
        return False
    taps, (p, q) = c * math.prod(window.kernel), window.output
    return SPLIT * k * lanes_of_taps(taps) * (p * lanes(q) + BEGINNING) < L * p * q * (taps + TURNING)


def lanes_of_taps(taps: int) -> int:
    """The taps that whole tiles have."""
    return -(-taps // TAPS) * TAPS


class PixelSums:
    """The plan of the gradient of a weight (K, C/groups, R, S) from x (N, C, H, W) and dy (N, K, P, Q), whose images may lie apart."""

    def __init__(self, c: int, k: int, window: Window, groups: int = 1) -> None:
        self.c, self.k, self.window, self.groups = c // groups, k // groups, window, groups
        self.frame = framed(self.c, window)
        cols = tables.taps(self.c, window, self.frame.high, self.frame.wide)
        self.taps, self.width = len(cols), lanes_of_taps(len(cols))
        self.tables = Tables(cols=cols[np.minimum(np.arange(self.width), self.taps - 1)])

    def weight_grad(self, dy: Array, x: Array, dweight: Array, dbias: Array | None) -> None:
        """dweight (K, C/groups, R, S), and dbias (K)."""
        n, frame, (p, q), tiles = len(x), self.frame, self.window.output, self.width // TAPS
        each, own = self.k * self.width * L, self.k * L
        ends = edges(n, self.groups * each, p * q)
        count = len(ends) - 1
        parts = tables.parts(count, tiles)
        borders = [tiles * part // parts * TAPS for part in range(parts + 1)]
        scratch = Scratch(count * self.groups * each, count * self.groups * own, shared=True)
        for index in range(2):
            fill(*scratch.piece(index), 0)
        sums, biases = scratch.addresses()
        plane, out = self.c * frame.h * frame.w, self.k * p * q

        def body(first: int, last: int) -> None:
            room = Scratch(self.c * frame.high * frame.wide + L, self.k * p * lanes(q))
            for index in range(2):
                fill(*room.piece(index), 0)
            for piece in range(first, last):
                group, part = divmod(piece, parts)
                for g in range(self.groups):
                    arrays = *images(x, g * plane), *images(dy, g * out)
                    to = sums + 4 * (group * self.groups + g) * each, self.width, biases + 4 * (group * self.groups + g) * own
                    sizes = self.window.stride[0], self.k, p, q, borders[part], borders[part + 1], self.tables.at.cols
                    biased = part == 0 and dbias is not None
                    weight_sums(ends[group], ends[group + 1], *arrays, *to, biased, *frame, *sizes, *room.addresses())

        share(count * parts, body, n * self.groups * self.k * p * lanes(q) * self.width)
        add_up(sums, count, self.groups * each, self.groups * each, sums)
        lanes_added(self.groups * self.k, self.taps, self.width, sums, address(dweight))
        if dbias is not None:
            add_up(biases, count, self.groups * own, self.groups * own, biases)
            lanes_added(self.groups * self.k, 1, 1, biases, address(dbias))

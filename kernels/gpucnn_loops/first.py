"""Convolutions of few taps, as first layers are, with bias, ReLU, 2×2 pooling and its argmax in one pass, whose lanes are neighbouring
windows; and the gradient of the weight from the pooled gradient.

With nine taps, loading and storing a tile of sums takes as long as computing it, and so does turning the result to planes. Here four
vectors hold the four outputs of sixteen windows: their maxima go straight to where they belong. Neighbouring windows are two pixels apart,
so every second pixel of every second row is copied, from the first on, from the second on and so forth. Each tap reads one of these parts,
in which a row is as long as a row of windows: so sixteen windows may begin anywhere in their plane, and go on in the next row.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops import tables
from gpucnn_loops.after import after_sums
from gpucnn_loops.crew import share
from gpucnn_loops.language import cgutils, floats, helper, intrinsic, ir, record, types, vector, words
from gpucnn_loops.loops import loop
from gpucnn_loops.pool import keep_largest
from gpucnn_loops.sums import add_up, zero_or_nan
from gpucnn_loops.tables import Frame, Images, Table, Tables, Window, edges, framed, images, lanes
from gpucnn_loops.threads import Scratch, address, flags, lasting
from gpucnn_loops.tile import ROWS, WIDE
from gpucnn_loops.turn import fill, put_in_frame
from gpucnn_loops.vector import (
    I64,
    L,
    V,
    add_place,
    as_floats,
    at,
    chosen,
    fma_of,
    lanes_before,
    load,
    load_at,
    load_even,
    splat,
    splat_of,
    store,
    store_at,
    sum16,
    where_positive,
    where_same,
)

Array = NDArray[np.float32]
FILTERS = 4 if WIDE else 1  # of a tile forward, with four sums each
TAPS, TOGETHER = (6, 3) if WIDE else (3, 2)  # of a tile of the gradient: taps, and filters
MOST, CHANNELS, PARTS = 147, 8, 16  # the most taps of all channels, channels, and parts of a row
# What a filter takes for 16 windows here, and a window for 16 filters in `pooled.py`, besides a multiply-add of a vector for each tap, in
# such multiply-adds: measured with 9 to 147 taps and planes of 16 to 1024 windows. With AVX2, `pooled.py` has few taps' sums in registers.
BESIDE, BESIDE_TILES = 2, 10 if WIDE else 0
NOTHING = np.float32(0)


def fits(c: int, k: int, window: Window) -> bool:
    """Whether a convolution whose pooling halves it is one of these: few taps, 16 windows, and by estimate cheaper with windows as
    lanes than with filters."""
    high, wide = (size // 2 for size in window.output)
    taps = c * math.prod(window.kernel)
    few = taps <= MOST and c <= CHANNELS and _parts(window) <= PARTS and window.stride == (1, 1) and high * wide >= L
    enough = WIDE or ROWS == 6  # registers: AVX-512, AVX2 or NEON
    return few and enough and lanes(high * wide) * k * (taps + BESIDE) < lanes(k) * high * wide * (taps + BESIDE_TILES)


def _parts(window: Window) -> int:
    """The parts of a row: one for each column of a kernel, gaps included, and one more for the windows' right outputs."""
    return (window.kernel[1] - 1) * window.dilation[1] + 2


@intrinsic(prefer_literal=True)
def window_sums(typing, Q, n, x, above, below, right, w, bias):
    """4·Q vectors: bias[q] + Σ over i < n of w[q·n + i] · x[above[i] …], for each of Q filters, a literal, and the same `right` of it, at
    x[below[i] …] and right of that."""

    def code(c, b, s, args):
        _, n, x, above, below, right, w, bias = args
        count = range(Q.literal_value)
        sums = [[cgutils.alloca_once(b, V) for _ in range(4)] for _ in count]
        for q, own in enumerate(sums):
            start = splat_of(b, b.load(b.gep(bias, [ir.Constant(I64, q)])))
            for slot in own:
                b.store(start, slot)
        sides = x, b.gep(x, [right])
        filters = [b.gep(w, [b.mul(ir.Constant(I64, q), n)]) for q in count]
        with cgutils.for_range(b, n, intp=I64) as inner:
            places = [b.load(b.gep(table, [inner.index])) for table in (above, below)]
            pixels = [load_at(b, b.gep(side, [place])) for place in places for side in sides]
            for row, own in zip(filters, sums, strict=True):
                number = splat_of(b, b.load(b.gep(row, [inner.index])))
                for lanes_of, slot in zip(pixels, own, strict=True):
                    b.store(fma_of(b, number, lanes_of, b.load(slot)), slot)
        return c.make_tuple(b, s.return_type, [b.load(slot) for own in sums for slot in own])

    i = types.int64
    return types.UniTuple(vector, 4 * Q.literal_value)(Q, i, floats, words, words, i, floats, floats), code


@intrinsic(prefer_literal=True)
def tap_tile(typing, T, Q, n, x, above, below, cols, g, gs, y, ys):
    """y[q·ys + 16·t …] += Σ over i < n of g[q·gs + 16·i …] · x[above[t] + cols[i] …] + g[q·gs + 16·(n + i) …] · x[below[t] + cols[i] …],
    lane by lane, for t < T and q < Q, literals."""

    def code(c, b, s, args):
        _, _, n, x, above, below, cols, g, gs, y, ys = args

        def number(i):
            return ir.Constant(I64, i)

        out = [[b.gep(y, [b.add(b.mul(number(q), ys), number(L * t))]) for t in range(T.literal_value)] for q in range(Q.literal_value)]
        sums = [[cgutils.alloca_once_value(b, load_at(b, place)) for place in own] for own in out]
        for half, table in enumerate((above, below)):
            taps = [b.gep(x, [b.load(b.gep(table, [number(t)]))]) for t in range(T.literal_value)]
            start = b.mul(n, number(half * L))
            given = [b.gep(g, [b.add(start, b.mul(number(q), gs))]) for q in range(Q.literal_value)]
            with cgutils.for_range(b, n, intp=I64) as inner:
                col, at_step = b.load(b.gep(cols, [inner.index])), b.mul(inner.index, number(L))
                gradients = [load_at(b, b.gep(own, [at_step])) for own in given]
                for t, tap in enumerate(taps):
                    pixels = load_at(b, b.gep(tap, [col]))
                    for gradient, own in zip(gradients, sums, strict=True):
                        b.store(fma_of(b, gradient, pixels, b.load(own[t])), own[t])
        for own, places in zip(sums, out, strict=True):
            for slot, place in zip(own, places, strict=True):
                store_at(b, b.load(slot), place)
        return c.get_dummy_value()

    i = types.int64
    return types.void(T, Q, i, floats, words, words, words, floats, i, floats, i), code


@record("i i i i i i i")
class Parted(NamedTuple):
    """`parts` parts of the even rows of a frame and as many of the odd ones, `part` numbers each; and the outputs: high × wide windows, in
    planes of `across` columns, of k filters with so many taps."""

    parts: int
    part: int
    high: int
    wide: int
    across: int
    k: int
    taps: int


@loop("f*", Frame, Parted, "f* f*")
def part_rows(planes, frame, plan, framed, parted):
    """parted[channel, row % 2, i, row // 2, j] = row[i + 2·j], for the rows of planes (c, h, w) in their frame. Behind a
    part's last row up to 15 numbers are written, and the others stay as they are."""
    put_in_frame(planes, frame, framed, NOTHING)
    for channel in range(frame.c):
        for row in range(frame.high):
            line, first = at(framed, (channel * frame.high + row) * frame.wide), (2 * channel + row % 2) * plan.parts
            for i in range(plan.parts):
                to = at(parted, (first + i) * plan.part + row // 2 * plan.wide)
                for j in range(0, plan.wide, L):  # what is behind the row is written over by the next one
                    store(to, j, load_even(line, 2 * j + i))


@helper
def one_filter(pixels, above, below, weight, bias, corner, plan, y, indices, plane, placed):
    """The maxima of 16 windows for a filter. plane: as for four; not needed."""
    places = as_floats(indices)
    s = window_sums(1, plan.taps, pixels, above, below, plan.part, weight, bias)
    keep_largest(s[0], s[1], s[2], s[3], corner, plan.across, y, places, 0, placed)


@helper
def four_filters(pixels, above, below, weight, bias, corner, plan, y, indices, plane, placed):
    """The maxima of 16 windows for four filters."""
    places = as_floats(indices)
    s = window_sums(4, plan.taps, pixels, above, below, plan.part, weight, bias)
    keep_largest(s[0], s[1], s[2], s[3], corner, plan.across, y, places, 0, placed)
    keep_largest(s[4], s[5], s[6], s[7], corner, plan.across, y, places, plane, placed)
    keep_largest(s[8], s[9], s[10], s[11], corner, plan.across, y, places, 2 * plane, placed)
    keep_largest(s[12], s[13], s[14], s[15], corner, plan.across, y, places, 3 * plane, placed)


filters = four_filters if FILTERS == 4 else one_filter


@loop("i i", Images, "f* f*", Images, "i* i", Frame, Parted, "w* w* f* f* f*")
def forward(first, last, x, weight, bias, y, indices, placed, frame, plan, above, below, corners, framed, parted):
    """y (images, k, high, wide): maxima of relu(conv(x) + bias); and, if placed, indices: their places in planes of `across` columns.

    above, below: where each tap of a window's upper and lower outputs lies. corners: the place of each window's first output.
    """
    plane, k, taps = plan.high * plan.wide, plan.k, plan.taps
    step = FILTERS if k >= FILTERS else 1
    for image in range(first, last):
        part_rows(at(x.first, image * x.step), frame, plan, framed, parted)
        # The last windows are those at the end, and the last filters too: some are computed twice.
        for lane in range(0, plane, L):
            place = min(lane, plane - L)
            pixels, corner, to = at(parted, place), load(corners, place), image * y.step + place
            for after in range(step, k + step, step):
                channel = min(after, k) - step
                w, b, own = at(weight, channel * taps), at(bias, channel), to + channel * plane
                if step == FILTERS:
                    filters(pixels, above, below, w, b, corner, plan, at(y.first, own), at(indices, own), plane, placed)
                else:
                    one_filter(pixels, above, below, w, b, corner, plan, at(y.first, own), at(indices, own), plane, placed)


@loop("i i", Images, Images, "f* i i* f* f*", Frame, Parted, "w* w* w* f* f* f* f* f*")
def weight_sums(first, last, x, dy, y, masked, indices, sums, broken, frame, plan, above, below, cols, corners, framed, parted, g, few):
    """sums[filter, tap, lane] += Σ of dy · the pixel under the tap at the winning output, where y > 0 if masked, and sums[filter, taps,
    lane] += Σ of dy. There is room for whole groups of filters. broken[0] += 0, or NaN where x is not finite.

    above, below, corners: as forward. cols: where the left and the right outputs of each 16 windows lie. g: of a group's filters, the
    gradients of all windows' upper outputs, left and right in turn, and then of their lower ones; three of a window's four are 0. few: 32
    numbers, for the last windows.
    """
    plane, taps, zero = plan.high * plan.wide, plan.taps, splat(NOTHING)
    steps, each = 2 * ((plane + L - 1) // L), (taps + 1) * L  # vectors of half of a filter's g, and numbers of its sums
    size, half = 2 * steps * L, steps * L
    for image in range(first, last):
        source = at(x.first, image * x.step)
        broken[0] += zero_or_nan(source, frame.c * frame.h * frame.w)
        part_rows(source, frame, plan, framed, parted)
        start = image * dy.step
        for channel in range(0, plan.k, TOGETHER):
            for one in range(channel, min(channel + TOGETHER, plan.k)):
                given, by, won = at(dy.first, start + one * plane), at(y, start + one * plane), at(indices, start + one * plane)
                total, to = load(sums, one * each + taps * L), (one - channel) * size
                for place in range(0, plane, L):
                    if one * plane + place + L <= plan.k * plane:
                        v, p = load(given, place), load(as_floats(won), place)
                        if masked:
                            v = where_positive(load(by, place), v)
                    else:
                        own = as_floats(at(won, place))
                        for i in range(plane - place):
                            few[i] = NOTHING if masked and not by[place + i] > 0 else given[place + i]
                            few[L + i] = own[i]
                        v, p = load(few, 0), load(few, L)
                    v = chosen(lanes_before(plane - place), v, zero)
                    total = total + v
                    corner = load(corners, place)
                    store(g, to, where_same(p, corner, v))
                    store(g, to + L, where_same(p, add_place(corner, 1), v))
                    store(g, to + half, where_same(p, add_place(corner, plan.across), v))
                    store(g, to + half + L, where_same(p, add_place(corner, plan.across + 1), v))
                    to += 2 * L
                store(sums, one * each + taps * L, total)
            # Filters behind the last one have gradients of the group before; nobody reads their sums.
            tap, sums_of = 0, at(sums, channel * each)
            while tap <= taps - TAPS:
                tap_tile(TAPS, TOGETHER, steps, parted, at(above, tap), at(below, tap), cols, g, size, at(sums_of, tap * L), each)
                tap += TAPS
            while TAPS > 3 and tap <= taps - 3:
                tap_tile(3, TOGETHER, steps, parted, at(above, tap), at(below, tap), cols, g, size, at(sums_of, tap * L), each)
                tap += 3
            while tap < taps:
                tap_tile(1, TOGETHER, steps, parted, at(above, tap), at(below, tap), cols, g, size, at(sums_of, tap * L), each)
                tap += 1


@loop("f* i i f* f* i")
def add_lanes(sums, k, taps, dweight, dbias, biased):
    """dweight (k, taps) and dbias (k) from their sums of each lane."""
    for channel in range(k):
        for tap in range(taps):
            dweight[channel * taps + tap] = sum16(load(sums, (channel * (taps + 1) + tap) * L))
        if biased:
            dbias[channel] = sum16(load(sums, (channel * (taps + 1) + taps) * L))


class First:
    """The plan of such a convolution, of 16 windows at least. x (N, C, H, W), y, dy and indices (N, K, P // 2, Q // 2)."""

    sums_winners = True  # for every shape that `fits`; `Pooled` has a limit

    def __init__(self, c: int, k: int, window: Window) -> None:
        (p, q), (r, s), (dh, dw) = window.output, window.kernel, window.dilation
        self.frame = framed(c, window)
        high, wide = p // 2, q // 2
        parts, part = _parts(window), (self.frame.high + 1) // 2 * wide + L
        self.plan = Parted(parts, part, high, wide, q, k, c * r * s)
        self.size = c * 2 * parts * part

        def taps(below: int) -> Table:
            row = np.arange(r) * dh + below
            rows = row % 2 * parts * part + row // 2 * wide
            return tables.grid(np.arange(c) * 2 * parts, (rows[:, None] + np.arange(s) * dw * part).reshape(-1), part)

        self.tables = Tables(above=taps(0), below=taps(1), cols=tables.grid(np.arange(0, high * wide, L), [0, part], 1))
        self.corners = np.zeros(lanes(high * wide), np.int32)
        self.corners[: high * wide] = tables.grid(2 * np.arange(high), 2 * np.arange(wide), q)
        lasting(self.corners)

    def _room(self, *more: int) -> list[int]:
        """The addresses of a framed image, around which is 0, of its parts, and of pieces of these sizes."""
        frame = self.frame
        scratch = Scratch(frame.c * frame.high * frame.wide + 2 * L, self.size, *more)
        for piece in range(2):
            fill(*scratch.piece(piece), 0)
        return scratch.addresses()

    def forward(self, x: Array, weight: Array, bias: Array | None, y: Array, indices: NDArray[np.int32] | None) -> None:
        """y: the maxima; indices: their places in the convolution's planes, unless they are not wanted."""
        plan = self.plan
        _vectors, after = after_sums(plan.k, lanes(plan.k), 1, bias)
        places = 0 if indices is None else address(indices)
        arrays = *images(x), address(weight), after[0].vectors, *images(y), places, indices is not None
        known = *self.frame, *plan, self.tables.at.above, self.tables.at.below, address(self.corners)

        def body(first: int, last: int) -> None:
            forward(first, last, *arrays, *known, *self._room())

        share(len(x), body, len(x) * 4 * plan.k * lanes(plan.high * plan.wide) * (plan.taps + 8))

    def weight_grad(self, dy: Array, y: Array | None, indices: NDArray[np.int32], x: Array, dweight: Array, dbias: Array | None) -> bool:
        """dweight and dbias from the pooled gradient dy, where y > 0 if y is given. False, with nothing done, where x is not finite."""
        n, plan, t = len(x), self.plan, self.tables
        size = -(-plan.k // TOGETHER) * TOGETHER * (plan.taps + 1) * L
        ends = edges(n, size, plan.high * plan.wide)
        groups = len(ends) - 1
        scratch, broken = Scratch(groups * size, shared=True), flags((groups,))
        (sums,) = scratch.addresses()
        fill(*scratch.piece(0), 0)
        arrays = *images(x), *images(dy), address(dy if y is None else y), y is not None, address(indices)
        known = *self.frame, *plan, t.at.above, t.at.below, t.at.cols, address(self.corners)

        def body(first: int, last: int) -> None:
            room = self._room(TOGETHER * 2 * len(t.cols) * L, 2 * L)
            for group in range(first, last):
                to = sums + 4 * group * size, address(broken) + 4 * group
                fill(to[1], 1, 0)
                weight_sums(ends[group], ends[group + 1], *arrays, *to, *known, *room)

        share(groups, body, n * 4 * plan.k * lanes(plan.high * plan.wide) * plan.taps)
        if np.isnan(broken).any():
            return False
        add_up(sums, groups, size, size, sums)
        add_lanes(sums, plan.k, plan.taps, address(dweight), address(dweight if dbias is None else dbias), dbias is not None)
        return True

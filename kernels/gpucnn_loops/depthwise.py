"""Depthwise convolution, one filter for each plane: lanes are neighbouring pixels, and a tap is one number times a row.

At stride s an image is split into s·s planes, one for each remainder of rows and columns: there every tap's pixels lie side by side, as at
stride 1. And where outputs lie in rows as wide as these planes, all rows are one: output t reads pixel t + (the tap's place), and a vector
goes across the ends of rows, so that images of 7 columns fill 16 lanes. What comes out between two rows is left out in the end; in the
gradients there are zeros.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.direct import Direct
from gpucnn_loops.language import record
from gpucnn_loops.loops import loop
from gpucnn_loops.tables import Tables, Window, edges, framed
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.turn import fill
from gpucnn_loops.vector import L, at, fma, high_pairs, load, low_pairs, pairs, relu16, splat, spread, store, sum16, where_positive

Array = NDArray[np.float32]
ZERO = np.float32(0)
PARTS = 64  # the most planes that strides may split an image into; with more, the planes would be mostly padding for vectors
RAMP = np.repeat(np.array([1, 0], np.float32), L)  # from place 16 − n on: n times 1, then 0


@record("i i i i i i i i")
class Grid(NamedTuple):
    """h × w pixels from (top, left) on, every sh-th row and every sw-th column of them in a plane of their own: rows of `wide`, and `room`
    numbers in a plane."""

    h: int
    w: int
    top: int
    left: int
    sh: int
    sw: int
    wide: int
    room: int


@record("i i i i")
class Sizes(NamedTuple):
    """Taps of a filter, outputs, and filters."""

    taps: int
    p: int
    q: int
    k: int


@loop("f* i", Grid, "f* f*")
def split(image, beyond, grid, ramp, planes):
    """Pixel (i, j) goes to plane ((i + top) % sh, (j + left) % sw), place ((i + top) // sh, (j + left) // sw), rows of `wide`.

    Behind the last pixel of a row come up to 15 zeros, before the next row comes. `beyond` numbers may be read from image[0] on.
    """
    h, w, top, left, sh, sw, wide, room = grid
    begin_part, begin_row = top % sh, top // sh
    if sw == 2:  # even and odd pixels of a row come from the same two vectors
        even, odd = left % 2 * room + left // 2, (left + 1) % 2 * room + (left + 1) // 2
        evens, odds = (w + 1) // 2, w // 2
        part, row = begin_part, begin_row
        for i in range(h):
            to, source = at(planes, part * 2 * room + row * wide), at(image, i * w)
            part += 1
            if part == sh:  # a division would cost more than all the rest of a short row
                part, row = 0, row + 1
            for j in range(0, evens, L):
                if i * w + 2 * (j + L) <= beyond:
                    a, b = pairs(source, 2 * j)
                    store(to, even + j, a if evens - j >= L else where_positive(load(ramp, L - (evens - j)), a))
                    if odds > j:
                        store(to, odd + j, b if odds - j >= L else where_positive(load(ramp, L - (odds - j)), b))
                else:
                    for lane in range(j, min(j + L, evens)):
                        to[even + lane] = source[2 * lane]
                    for lane in range(j, min(j + L, odds)):
                        to[odd + lane] = source[2 * lane + 1]
        return
    for b in range(sw):
        first = (b - left) % sw
        count = (w - first + sw - 1) // sw
        column = b * room + (first + left) // sw
        part, row = begin_part, begin_row
        for i in range(h):
            to, source = at(planes, part * sw * room + row * wide + column), at(image, i * w + first)
            part += 1
            if part == sh:
                part, row = 0, row + 1
            for j in range(0, count, L):
                if sw == 1 and i * w + first + j + L <= beyond:
                    v = load(source, j)
                    store(to, j, v if count - j >= L else where_positive(load(ramp, L - (count - j)), v))
                else:
                    for lane in range(j, min(j + L, count)):
                        to[lane] = source[lane * sw]


@loop("f* i i i f* i")
def rows_out(rows, wide, p, q, y, room):
    """y (p, q) from rows of `wide`. A row is written up to 15 numbers too far, and then the next one comes, or the next plane: there are
    `room` numbers."""
    for i in range(p):
        for j in range(0, q, L):
            if i * q + j + L <= room:
                store(y, i * q + j, load(rows, i * wide + j))
            else:
                for lane in range(j, min(j + L, q)):
                    y[i * q + lane] = rows[i * wide + lane]


@loop("i i i f* f* f* i i f*", Grid, Sizes, "w* f* f* f*")
def forward(first, last, total, x, weight, bias, biased, relu, y, grid, sizes, where, ramp, planes, sums):
    """y of the planes first … last − 1 of x (total, h, w), after ReLU if `relu`; plane n·k + j has the filter j."""
    pixels, wide = grid.h * grid.w, grid.wide
    taps, p, q, k = sizes
    for plane in range(first, last):
        split(at(x, plane * pixels), (total - plane) * pixels, grid, ramp, planes)
        filter = plane % k
        start = spread(bias, filter) if biased else splat(ZERO)
        for t in range(0, p * wide, 4 * L):
            if p * wide - t > 2 * L:
                s0, s1, s2, s3 = start, start, start, start
                for tap in range(taps):
                    number, line = spread(weight, filter * taps + tap), at(planes, where[tap] + t)
                    s0, s1 = fma(number, load(line, 0), s0), fma(number, load(line, L), s1)
                    s2, s3 = fma(number, load(line, 2 * L), s2), fma(number, load(line, 3 * L), s3)
                store(sums, t + 2 * L, relu16(s2) if relu else s2)
                store(sums, t + 3 * L, relu16(s3) if relu else s3)
            else:
                s0, s1 = start, start
                for tap in range(taps):
                    number, line = spread(weight, filter * taps + tap), at(planes, where[tap] + t)
                    s0, s1 = fma(number, load(line, 0), s0), fma(number, load(line, L), s1)
            store(sums, t, relu16(s0) if relu else s0)
            store(sums, t + L, relu16(s1) if relu else s1)
        rows_out(sums, wide, p, q, at(y, plane * p * q), (last - plane) * p * q)


@loop("i i i f* f* f* i f*", Grid, Grid, Sizes, "i i w* w* w* f* f* f*")
def input_sums(
    first, last, total, dy, weight, mask, masked, dx, grid, out_grid, sizes, high, lead, ends, order, behind, ramp, planes, given
):
    """dx of the planes first … last − 1: a pixel gets what the outputs that have read it give. given: zeros, `lead` of them in front.

    ends: where the taps of each plane of `split` end in `order`; behind (taps): how far an output lies behind a tap's pixel.
    """
    h, w, top, left, sh, sw, wide, room = grid
    taps, p, q, k = sizes
    for plane in range(first, last):
        filter = plane % k
        split(at(dy, plane * p * q), (total - plane) * p * q, out_grid, ramp, at(given, lead))
        begin = 0
        for part in range(sh * sw):
            out, end = at(planes, part * room), ends[part]
            for t in range(0, high * wide, 2 * L):
                s0, s1 = splat(ZERO), splat(ZERO)
                for i in range(begin, end):
                    number, line = spread(weight, filter * taps + order[i]), at(given, lead + t - behind[order[i]])
                    s0, s1 = fma(number, load(line, 0), s0), fma(number, load(line, L), s1)
                store(out, t, s0)
                store(out, t + L, s1)
            begin = end
        part, line = top % sh, top // sh
        even_start, odd_start = left % sw * room + left // sw, (left + 1) % sw * room + (left + 1) // sw
        for i in range(h):
            row = at(planes, part * sw * room + line * wide)
            part += 1
            if part == sh:
                part, line = 0, line + 1
            even, odd = at(row, even_start), at(row, odd_start)
            to, by, rest = at(dx, (plane * h + i) * w), at(mask, (plane * h + i) * w), ((last - plane) * h - i) * w
            for j in range(0, w, 2 * L):
                if sw <= 2 and j + 2 * L <= rest:
                    half = j // 2
                    a = load(even, j) if sw == 1 else low_pairs(load(even, half), load(odd, half))
                    b = load(even, j + L) if sw == 1 else high_pairs(load(even, half), load(odd, half))
                    store(to, j, where_positive(load(by, j), a) if masked else a)
                    store(to, j + L, where_positive(load(by, j + L), b) if masked else b)
                else:
                    for lane in range(j, min(j + 2 * L, w)):
                        number = row[(lane + left) % sw * room + (lane + left) // sw]
                        to[lane] = ZERO if masked and not by[lane] > 0 else number


@loop("i i w* f* f* f* i", Grid, Grid, Sizes, "i w* f* f* f* f*")
def weight_sums(first, last, ends, x, dy, dweight, total, grid, out_grid, sizes, biased, where, ramp, planes, given, sums):
    """Pieces first … last − 1: dweight (taps) of filter piece % k from the images of group piece // k, and behind it the bias's.

    ends: where each group's images begin, and where the last one's end. Sums have 16 lanes each, which are added up at the end.
    """
    pixels, wide = grid.h * grid.w, grid.wide
    taps, p, q, k = sizes
    fours = taps // 4 * 4
    for piece in range(first, last):
        filter, group = piece % k, piece // k
        for tap in range(taps + 1):
            store(sums, tap * L, splat(ZERO))
        for image in range(ends[group], ends[group + 1]):
            plane = image * k + filter
            split(at(x, plane * pixels), (total - plane) * pixels, grid, ramp, planes)
            split(at(dy, plane * p * q), (total - plane) * p * q, out_grid, ramp, given)
            for tap in range(0, fours, 4):
                a, b, c, d = where[tap], where[tap + 1], where[tap + 2], where[tap + 3]
                to = at(sums, tap * L)
                s0, s1, s2, s3 = load(to, 0), load(to, L), load(to, 2 * L), load(to, 3 * L)
                for t in range(0, p * wide, L):
                    g, line = load(given, t), at(planes, t)
                    s0, s1 = fma(g, load(line, a), s0), fma(g, load(line, b), s1)
                    s2, s3 = fma(g, load(line, c), s2), fma(g, load(line, d), s3)
                store(to, 0, s0)
                store(to, L, s1)
                store(to, 2 * L, s2)
                store(to, 3 * L, s3)
            for tap in range(fours, taps):
                s0 = load(sums, tap * L)
                for t in range(0, p * wide, L):
                    s0 = fma(load(given, t), load(planes, where[tap] + t), s0)
                store(sums, tap * L, s0)
            if biased:
                s0 = load(sums, taps * L)
                for t in range(0, p * wide, L):
                    s0 = s0 + load(given, t)
                store(sums, taps * L, s0)
        for tap in range(taps + 1):
            dweight[piece * (taps + 1) + tap] = sum16(load(sums, tap * L))


def fits(window: Window) -> bool:
    """Whether these loops support a convolution with one filter for each channel."""
    return math.prod(window.stride) <= PARTS


class Depthwise:
    """The plan of a convolution with one filter for each channel. x (N, K, H, W), weight (K, 1, R, S), y and dy (N, K, P, Q)."""

    parts = False  # images lie right behind one another

    def __init__(self, k: int, window: Window) -> None:
        self.k, self.window, frame = k, window, framed(1, window)
        (r, s), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
        self.taps, self.splits = r * s, sh * sw
        self.high, self.wide = -(-frame.high // sh), -(-frame.wide // sw)
        self.room = (self.high + 1) * self.wide + 5 * L  # vectors go beyond the last row
        down, along = (np.arange(count) * step for count, step in ((r, dh), (s, dw)))
        part = ((down % sh)[:, None] * sw + along % sw).reshape(-1)
        behind = ((down // sh)[:, None] * self.wide + along // sw).reshape(-1)
        self.lead = int(behind.max())
        self.tables = Tables(
            where=part * self.room + behind,
            behind=behind,
            order=np.argsort(part, kind="stable"),
            ends=np.cumsum(np.bincount(part, minlength=self.splits)),
        )
        self.grid = Grid(*window.input, frame.top, frame.left, sh, sw, self.wide, self.room)
        self.out_grid = Grid(*window.output, 0, 0, 1, 1, self.wide, self.room)
        self.sizes = Sizes(self.taps, *window.output, k)
        self._direct: Direct | None = None

    @property
    def direct(self) -> Direct:
        """The fallback for numbers that are not finite: times the zeros between two rows they would give NaN."""
        if self._direct is None:
            self._direct = Direct(self.k, self.k, self.window, self.k)
        return self._direct

    def _work(self, n: int) -> int:
        return n * self.k * math.prod(self.window.output) * (self.taps + 8)

    def forward(self, x: Array, weight: Array, bias: Array | None, relu: bool, y: Array) -> None:
        """y = convolution of x, plus bias, then ReLU."""
        total = len(x) * self.k
        arrays = address(x), address(weight), address(weight if bias is None else bias), bias is not None, relu, address(y)

        def body(first: int, last: int) -> None:
            scratch = Scratch(self.splits * self.room, self.sizes.p * self.wide + 5 * L)
            fill(*scratch.piece(0), 0)
            forward(first, last, total, *arrays, *self.grid, *self.sizes, self.tables.at.where, address(RAMP), *scratch.addresses())

        share(total, body, self._work(len(x)))

    def input_grad(self, dy: Array, weight: Array, relu: Array | None, dx: Array) -> None:
        """dx from dy; 0 where `relu`, if given, is not positive."""
        if not np.isfinite(weight).all():
            self.direct.input_grad(dy, weight, relu, dx)
            return
        total, t = len(dy) * self.k, self.tables.at
        arrays = address(dy), address(weight), address(dx if relu is None else relu), relu is not None, address(dx)
        numbers = *self.grid, *self.out_grid, *self.sizes, self.high, self.lead

        def body(first: int, last: int) -> None:
            scratch = Scratch(self.splits * self.room, self.lead + self.room)
            fill(*scratch.piece(1), 0)
            input_sums(first, last, total, *arrays, *numbers, t.ends, t.order, t.behind, address(RAMP), *scratch.addresses())

        share(total, body, self._work(len(dy)))

    def weight_grad(self, dy: Array, x: Array, dweight: Array, dbias: Array | None) -> None:
        """dweight (K, 1, R, S), and dbias (K)."""
        n, ends = len(x), edges(len(x), self.k * self.taps)
        groups, each = len(ends) - 1, self.taps + 1
        sums, where = np.empty((groups, self.k, each), np.float32), np.array(ends, np.int64)
        arrays = address(where), address(x), address(dy), address(sums), n * self.k
        numbers = *self.grid, *self.out_grid, *self.sizes, dbias is not None

        def body(first: int, last: int) -> None:
            scratch = Scratch(self.splits * self.room, self.room, each * L)
            for index in range(3):
                fill(*scratch.piece(index), 0)
            weight_sums(first, last, *arrays, *numbers, self.tables.at.where, address(RAMP), *scratch.addresses())

        share(groups * self.k, body, self._work(n))
        total = np.add.reduce(sums, axis=0)
        if not np.isfinite(total[:, : self.taps]).all():
            self.direct.weight_grad(dy, x, dweight, dbias)
            return
        dweight.reshape(self.k, self.taps)[...] = total[:, : self.taps]
        if dbias is not None:
            dbias[...] = total[:, self.taps]

"""Convolution, bias, ReLU, 2×2 pooling and its argmax in one pass; and the gradient of the weight from the pooled gradient.

Forward: the table of outputs lists the four of a pooling window one after the other, so four rows of a tile are a window, and the maximum
is taken lane by lane: the convolution's own output is never written. Backward: of each window only one place has a gradient, so a quarter
of the products is left. There the taps, and a 1 behind them for the bias, are the lanes: each winner adds its gradient times a row of taps.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops import tables
from gpucnn_loops.after import after_sums
from gpucnn_loops.crew import share
from gpucnn_loops.direct import CHUNK
from gpucnn_loops.language import record
from gpucnn_loops.loops import loop
from gpucnn_loops.pool import keep_largest
from gpucnn_loops.sums import add_up, columns_of, zero_or_nan
from gpucnn_loops.tables import Frame, Images, Tables, Window, edges, framed, images, lanes
from gpucnn_loops.threads import Scratch, address, flags
from gpucnn_loops.tile import ROWS, WIDE, product
from gpucnn_loops.turn import fill, in_frame, put_in_frame, to_planes, to_rows
from gpucnn_loops.vector import L, as_floats, at, fma, load, place16, splat, spread, store

Array = NDArray[np.float32]
WINDOWS = 35  # pooling windows of a chunk: 140 rows of 64 channels are 36 KB
WIDEST = 64  # taps of all channels, and one more: with more, rows of taps no longer fit the caches
# Most taps with which a window's sums are computed in registers, without a tile. Measured with AVX2: 9 taps take 0.93 of the time, 27 take
# 0.97, 75 the same. With AVX-512, whose tiles are larger, they take 1.1 to 1.5 times as long; without AVX, there are too few registers.
FEW = 32 if ROWS == 6 and not WIDE else 0
ZERO, ONE = np.float32(0), np.float32(1)


def halves(window: Window, pool: Window) -> bool:
    """Whether a pooling halves the outputs of a convolution: 2×2 windows side by side, no padding."""
    p, q = window.output
    side_by_side = pool.kernel == pool.stride == (2, 2) and pool.dilation == (1, 1) and pool.padding[0][0] == pool.padding[1][0] == 0
    return side_by_side and pool.input == window.output and pool.output == (p // 2, q // 2)


@record("w* w* w* w*")
class Where(NamedTuple):
    """Tables: the four outputs of each pooling window, its corner in the convolution's plane, taps, and where planes of y begin."""

    rows: int
    corners: int
    cols: int
    places: int


@record("f* f* f* f*")
class Room(NamedTuple):
    """Scratch: an image in its frame, the convolution of some pooling windows, all maxima, and their places."""

    framed: int
    sums: int
    best: int
    won: int


@record("w* i i i i w*")
class Taps(NamedTuple):
    """Where `number` outputs lie, and the taps of each: `lines` runs of s, `step` apart, at cols."""

    outputs: int
    number: int
    lines: int
    s: int
    step: int
    cols: int


@loop("i i", Images, "f* f*", Images, "i* i", Frame, "i i i i i", Where, Room)
def forward(first, last, x, weight, bias, y, indices, placed, frame, k, width, count, step, taps, where, room):
    """y (images, k, count): maxima of relu(conv(x) + bias); and, if placed, indices: their places in planes of `step` columns."""
    sums, best, won = room.sums, room.best, room.won
    for image in range(first, last):
        source = in_frame(at(x.first, image * x.step), frame, room.framed)
        for window in range(count if taps <= FEW else 0):  # the sums of a window stay in registers
            row = at(where.rows, 4 * window)
            x0, x1, x2, x3 = at(source, row[0]), at(source, row[1]), at(source, row[2]), at(source, row[3])
            for lane in range(0, width, L):
                s0, s1, s2, s3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
                for tap in range(taps):
                    col, by = where.cols[tap], load(weight, tap * width + lane)
                    s0, s1 = fma(spread(x0, col), by, s0), fma(spread(x1, col), by, s1)
                    s2, s3 = fma(spread(x2, col), by, s2), fma(spread(x3, col), by, s3)
                b = load(bias, lane)
                corner, to = place16(where.corners[window]), window * width + lane
                keep_largest(s0 + b, s1 + b, s2 + b, s3 + b, corner, step, best, won, to, placed)
        for window in range(0, 0 if taps <= FEW else count, WINDOWS):
            windows = min(WINDOWS, count - window)
            for tap in range(0, taps, CHUNK):
                n = min(CHUNK, taps - tap)
                from_rows, by = at(where.rows, 4 * window), at(weight, tap * width)
                product(4 * windows, n, source, from_rows, at(where.cols, tap), by, width, width, sums, width, tap)
            for i in range(windows):
                for lane in range(0, width, L):
                    four, to = at(sums, 4 * i * width + lane), (window + i) * width + lane
                    s0, s1, s2, s3 = load(four, 0), load(four, width), load(four, 2 * width), load(four, 3 * width)
                    b, corner = load(bias, lane), place16(where.corners[window + i])
                    keep_largest(s0 + b, s1 + b, s2 + b, s3 + b, corner, step, best, won, to, placed)
        to_planes(best, count, k, width, at(y.first, image * y.step), where.places)
        if placed:
            to_planes(won, count, k, width, as_floats(at(indices, image * y.step)), where.places)


@loop("f*", Taps, "f*")
def rows_of_taps(framed, taps, rows):
    """rows[output]: the pixels under its taps, then 1."""
    lines, s, count = taps.lines, taps.s, taps.lines * taps.s
    width = (count + L) // L * L
    for output in range(taps.number):
        source, to = at(framed, taps.outputs[output]), output * width
        if taps.step == 1:
            for line in range(lines):
                for j in range(0, s, L):  # the next one overwrites what is too much
                    store(rows, to + line * s + j, load(source, taps.cols[line * s] + j))
        else:
            for tap in range(count):
                rows[to + tap] = source[taps.cols[tap]]
        rows[to + count] = ONE


@loop("i i", Images, Images, "f* i i* f* f*", Frame, "i i", Taps, "f* f* f*")
def weight_sums(first, last, x, dy, y, masked, indices, dweight, broken, frame, k, count, taps, framed, rows, g):
    """dweight (k, width) += dy, where y > 0 if masked, times the winners' rows of taps. broken[0] += 0, or NaN where x is not finite."""
    width = (taps.lines * taps.s + L) // L * L
    for image in range(first, last):
        source = at(x.first, image * x.step)
        broken[0] += zero_or_nan(source, frame.c * frame.h * frame.w)
        put_in_frame(source, frame, framed, ZERO)
        rows_of_taps(framed, taps, rows)
        start = image * dy.step
        given, by, won = at(dy.first, start), at(y, start), at(indices, start)
        if masked:
            for i in range(k * count):
                g[i] = given[i] if by[i] > 0 else ZERO
        else:
            for i in range(k * count):
                g[i] = given[i]
        fours = k // 4 * 4
        for channel in range(0, fours, 4):
            a = channel * count
            b, e, d = a + count, a + 2 * count, a + 3 * count
            for lane in range(0, width, L):
                to = channel * width + lane
                s0, s1, s2, s3 = load(dweight, to), load(dweight, to + width), load(dweight, to + 2 * width), load(dweight, to + 3 * width)
                for i in range(count):
                    s0 = fma(spread(g, a + i), load(rows, won[a + i] * width + lane), s0)
                    s1 = fma(spread(g, b + i), load(rows, won[b + i] * width + lane), s1)
                    s2 = fma(spread(g, e + i), load(rows, won[e + i] * width + lane), s2)
                    s3 = fma(spread(g, d + i), load(rows, won[d + i] * width + lane), s3)
                store(dweight, to, s0)
                store(dweight, to + width, s1)
                store(dweight, to + 2 * width, s2)
                store(dweight, to + 3 * width, s3)
        for channel in range(fours, k):
            a = channel * count
            for lane in range(0, width, L):
                total = load(dweight, channel * width + lane)
                for i in range(count):
                    total = fma(spread(g, a + i), load(rows, won[a + i] * width + lane), total)
                store(dweight, channel * width + lane, total)


class Pooled:
    """The plan of a convolution with ReLU and a pooling that `halves` it. x (N, C, H, W), y, dy and indices (N, K, P // 2, Q // 2)."""

    def __init__(self, c: int, k: int, window: Window) -> None:
        (p, q), self.c, self.k = window.output, c, k
        self.window, self.width, self.count = window, lanes(k), (p // 2) * (q // 2)
        self.frame = framed(c, window)
        self.taps = c * math.prod(window.kernel)
        outputs = tables.outputs(window, self.frame.wide)
        corners = tables.grid(np.arange(p // 2) * 2, np.arange(q // 2) * 2, q)
        self.tables = Tables(
            outputs=outputs,
            rows=outputs[(corners[:, None] + np.array([0, 1, q, q + 1])).reshape(-1)],
            corners=corners,
            cols=tables.taps(c, window, self.frame.high, self.frame.wide),
            places=np.arange(k) * self.count,
            lines=np.arange(self.taps) * self.width,
        )

    def forward(self, x: Array, weight: Array, bias: Array | None, y: Array, indices: NDArray[np.int32] | None) -> None:
        """y: the maxima; indices: their places in the convolution's planes, unless they are not wanted."""
        room = Scratch(self.taps * self.width, shared=True)
        if self.width > self.k:
            fill(*room.piece(0), 0)
        (packed,) = room.addresses()
        to_rows(address(weight), self.taps, self.taps, self.k, packed, self.tables.at.lines)
        _vectors, after = after_sums(self.k, self.width, 1, bias)
        t, frame = self.tables.at, self.frame
        arrays = *images(x), packed, after[0].vectors, *images(y), 0 if indices is None else address(indices), indices is not None
        sizes = self.k, self.width, self.count, self.window.output[1], self.taps
        where = Where(t.rows, t.corners, t.cols, t.places)

        def body(first: int, last: int) -> None:
            scratch = Scratch(frame.size, 4 * WINDOWS * self.width, self.count * self.width, self.count * self.width)
            fill(*scratch.piece(0), 0)
            forward(first, last, *arrays, *frame, *sizes, *where, *scratch.addresses())

        share(len(x), body, len(x) * 4 * self.count * self.width * (self.taps + 8))

    @property
    def sums_winners(self) -> bool:
        """Whether `weight_grad` supports this convolution."""
        return self.taps < WIDEST

    def weight_grad(self, dy: Array, y: Array | None, indices: NDArray[np.int32], x: Array, dweight: Array, dbias: Array | None) -> bool:
        """dweight and dbias from the pooled gradient dy, where y > 0 if y is given. False, with nothing done, where x is not finite."""
        n, frame, t, s = len(x), self.frame, self.tables, self.window.kernel[1]
        width, outputs = lanes(self.taps + 1), len(t.outputs)
        ends = edges(n, self.k * width, self.count)
        groups = len(ends) - 1
        scratch, each, broken = Scratch(groups * self.k * width, shared=True), self.k * width, flags((groups,))
        (sums,) = scratch.addresses()
        fill(*scratch.piece(0), 0)
        size = self.c * frame.high * frame.wide
        arrays = *images(x), *images(dy), address(dy if y is None else y), y is not None, address(indices)
        taps = Taps(t.at.outputs, outputs, self.taps // s, s, self.window.dilation[1], t.at.cols)

        def body(first: int, last: int) -> None:
            scratch = Scratch(size + L, outputs * width + 2 * L, self.k * self.count)
            fill(*scratch.piece(0), 0)
            fill(*scratch.piece(1), 0)
            room = scratch.addresses()
            for group in range(first, last):
                to = sums + 4 * group * each, address(broken) + 4 * group
                fill(to[1], 1, 0)
                weight_sums(ends[group], ends[group + 1], *arrays, *to, *frame, self.k, self.count, *taps, *room)

        share(groups, body, n * self.k * self.count * width)
        if np.isnan(broken).any():
            return False
        add_up(sums, groups, each, each, sums)
        columns_of(sums, self.k, width, 0, self.taps, address(dweight))
        if dbias is not None:
            columns_of(sums, self.k, width, self.taps, 1, address(dbias))
        return True

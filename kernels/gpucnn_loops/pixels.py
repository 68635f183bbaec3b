"""Convolution at a step of 1 whose lanes are neighbouring pixels: for few output channels, which would leave most lanes empty, and for few
taps, where turning the result would take as long as computing it.

A tap is one number of the weight times the pixels that lie its distance away, so the rows of the frame are treated
as one long row. The results between two rows of outputs mean nothing and are dropped in the end; a kernel of one column has none. The last
vector is moved back so that it ends with the outputs, and computes some of them twice.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops import pixel_sums, pointwise, tables
from gpucnn_loops.after import After, Norm, after_sums, with_other
from gpucnn_loops.crew import share
from gpucnn_loops.direct import Direct
from gpucnn_loops.language import cgutils, floats, intrinsic, ir, types, words
from gpucnn_loops.loops import loop
from gpucnn_loops.pixel_sums import TURNING, PixelSums
from gpucnn_loops.pointwise import Pointwise
from gpucnn_loops.tables import Frame, Images, Sliding, Tables, Window, framed, images, lanes
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.tile import ROWS, WIDE
from gpucnn_loops.turn import fill, put_in_frame
from gpucnn_loops.vector import I64, ZERO, L, V, at, fma_of, load, load_at, splat_of, store, store_at

Array = NDArray[np.float32]
TOGETHER = 8  # filters whose rows with gaps are kept before the gaps are left out
BLOCK = 64  # pixels whose rows are copied to where they lie together
STRIP = 1 << 16  # numbers that are copied at a time, 256 KB
AT_ONCE = 30  # filters for which the blocks of a strip are read, one after the other
# Numbers of an image's planes before or behind, channels on either side, and of both, from which copying pays.
LARGE, CHANNELS, BOTH = 1 << 17, 16, 64
PADDING = np.float32(0)
GAPS, NO_GAPS = 13, 4  # what a vector of outputs takes besides its products, as `TURNING` with channels as lanes


@intrinsic(prefer_literal=True)
def pixel_tile(typing, Q, W, n, x, xs, w, cols, y, ys, vectors, width, normed, relu):
    """y[q·ys + 16·v …] = bias[q] + Σ over i < n of x[q·xs + i] · w[cols[i] + 16·v …], for q < Q and v < W, which are literals; then
    (y − mean[q])·scale[q] + shift[q], if normed; then 0 for what is not positive, if relu. vectors (4, width): bias, mean, scale, shift."""
    q_count, w_count = Q.literal_value, W.literal_value

    def code(c, b, s, args):
        _, _, n, x, xs, w, cols, y, ys, vectors, width, normed, relu = args

        def constant(value):
            return ir.Constant(I64, value)

        def number_of(row, q):
            return splat_of(b, b.load(b.gep(vectors, [b.add(b.mul(constant(row), width), constant(q))])))

        row = [b.gep(x, [b.mul(constant(q), xs)]) for q in range(q_count)]
        sums = [[cgutils.alloca_once(b, V) for _ in range(w_count)] for _ in range(q_count)]
        for q, line in enumerate(sums):
            start = number_of(0, q)
            for slot in line:
                b.store(start, slot)
        with cgutils.for_range(b, n, intp=I64) as inner:
            place = b.gep(w, [b.load(b.gep(cols, [inner.index]))])
            pixels = [load_at(b, b.gep(place, [constant(L * v)])) for v in range(w_count)]
            for q, line in enumerate(sums):
                number = splat_of(b, b.load(b.gep(row[q], [inner.index])))
                for lanes, slot in zip(pixels, line, strict=True):
                    b.store(fma_of(b, number, lanes, b.load(slot)), slot)
        with b.if_then(b.icmp_signed("!=", normed, constant(0))):
            for q, line in enumerate(sums):
                mean, scale, shift = (number_of(row, q) for row in (1, 2, 3))
                for slot in line:
                    b.store(b.fadd(b.fmul(b.fsub(b.load(slot), mean), scale), shift), slot)
        asked = b.icmp_signed("!=", relu, constant(0))
        for q, line in enumerate(sums):
            for v, slot in enumerate(line):
                value = b.load(slot)
                rectified = b.select(b.fcmp_ordered("<=", value, ZERO), ZERO, value)
                store_at(b, b.select(asked, rectified, value), b.gep(y, [b.add(b.mul(constant(q), ys), constant(L * v))]))
        return c.get_dummy_value()

    i = types.int64
    return types.void(Q, W, i, floats, i, floats, words, floats, i, floats, i, i, i), code


def _wide(m, n, x, w, cols, total, y, ys, vectors, width, normed, relu):
    # Of two or fewer vectors at the end each is a tile of its own; three or four are computed with some of those before.
    lane = 0
    while lane < total:
        four = total - lane >= 4 * L or (total - lane > 2 * L and total >= 4 * L)
        at_once = 4 * L if four else L
        first, row = min(lane, total - at_once), 0
        for left in range((m + 5) // 6, 0, -1):  # six are not quicker than five, but LeNet's first layer has six
            q = (m - row + left - 1) // left
            by, pixels, to, own = at(x, row * n), at(w, first), at(y, row * ys + first), at(vectors, row)
            if four:
                if q == 6:
                    pixel_tile(6, 4, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
                elif q == 5:
                    pixel_tile(5, 4, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
                elif q == 4:
                    pixel_tile(4, 4, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
                elif q == 3:
                    pixel_tile(3, 4, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
                elif q == 2:
                    pixel_tile(2, 4, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
                else:
                    pixel_tile(1, 4, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
            else:
                if q == 6:
                    pixel_tile(6, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
                elif q == 5:
                    pixel_tile(5, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
                elif q == 4:
                    pixel_tile(4, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
                elif q == 3:
                    pixel_tile(3, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
                elif q == 2:
                    pixel_tile(2, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
                else:
                    pixel_tile(1, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
            row += q
        lane += at_once


def _narrow(m, n, x, w, cols, total, y, ys, vectors, width, normed, relu):
    # One filter alone takes four vectors at a time: the sums of one would wait for themselves.
    alone = total // (4 * L) * (4 * L) if m == 1 else 0
    for lane in range(0, alone, 4 * L):
        pixel_tile(1, 4, n, x, n, at(w, lane), cols, at(y, lane), ys, vectors, width, normed, relu)
    for lane in range(alone, total, L):
        first, row = min(lane, total - L), 0
        for left in range((m + ROWS - 1) // ROWS, 0, -1):
            q = (m - row + left - 1) // left
            by, pixels, to, own = at(x, row * n), at(w, first), at(y, row * ys + first), at(vectors, row)
            if q == 6:
                pixel_tile(6, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
            elif q == 5:
                pixel_tile(5, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
            elif q == 4:
                pixel_tile(4, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
            elif q == 3:
                pixel_tile(3, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
            elif q == 2:
                pixel_tile(2, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
            else:
                pixel_tile(1, 1, n, by, n, pixels, cols, to, ys, own, width, normed, relu)
            row += q


# y (m, total; ys apart) = x (m, n) · w [cols (n) + …], and what follows, as in `pixel_tile`. There are at least 16 of `total`.
product_of_pixels = loop("i i f* f* w* i f* i f* i i i")(_wide if WIDE else _narrow)


@loop("i i i i f* w* f* f* w* f* f* i i i")
def product_by_blocks(m, n, total, strip, x, cols, weight, packed, lines, y, vectors, width, normed, relu):
    """As `product_of_pixels`, for large planes, whose rows are in pages of memory of their own: y (m, total) = weight (m, n) ·
    x [cols (n) + …]. Pixels are copied, `strip` at a time, to where the n rows of each 64 lie together, `lines` apart, and are multiplied
    with some rows of the weight at a time. There are at least 64 pixels."""
    for start in range(0, total, strip):
        end = min(start + strip, total)
        for lane in range(start, end, BLOCK):
            first = min(lane, total - BLOCK)
            for i in range(n):
                line, to = at(x, cols[i] + first), at(packed, (lane - start) * n + i * BLOCK)
                for v in range(0, BLOCK, L):
                    store(to, v, load(line, v))
        for row in range(0, m, AT_ONCE):
            q, by, own = min(AT_ONCE, m - row), at(weight, row * n), at(vectors, row)
            for lane in range(start, end, BLOCK):
                # What is left at the end is a block if it is more than half of one, and otherwise its last vectors.
                left = total - lane
                some = BLOCK if left > BLOCK // 2 else (left + L - 1) // L * L
                first = min(lane, total - some)
                pixels = at(packed, (lane - start) * n + first - min(lane, total - BLOCK))
                product_of_pixels(q, n, by, pixels, lines, some, at(y, row * total + first), total, own, width, normed, relu)


@loop("f* i i i f* i")
def without_gaps(rows, wide, p, q, y, room):
    """y (p, q) of rows of `wide`. Up to 15 numbers are written past a row, which the next one overwrites; y has `room` numbers."""
    for i in range(p):
        for j in range(0, q, L):
            if i * q + j + L <= room:
                store(y, i * q + j, load(rows, i * wide + j))
            else:
                for lane in range(j, min(j + L, q)):
                    y[i * q + lane] = rows[i * wide + lane]


@loop("i i i", Images, "f*", After, Images, Frame, "i i i i i i w* w* f* f*")
def gather(first, last, parts, x, weight, after, y, frame, copied, strip, k, taps, p, q, cols, lines, framed, sums):
    """y (images, k, p, q) from x, of the pieces first … last − 1, which are parts of the filters of an image. The image is copied into its
    frame if `copied`, or by blocks, `strip` pixels at a time, if that is not 0."""
    total, numbers = (p - 1) * frame.wide + q, after.vectors
    wide, normed, relu = after.width, after.normed, after.relu
    for piece in range(first, last):
        image, part = piece // parts, piece % parts
        begin, end = k * part // parts, k * (part + 1) // parts
        source = at(x.first, image * x.step)
        if copied:
            put_in_frame(source, frame, framed, PADDING)
            source = framed
        out = at(y.first, image * y.step + begin * p * q)
        if strip:
            weights, own = at(weight, begin * taps), at(numbers, begin)
            product_by_blocks(end - begin, taps, total, strip, source, cols, weights, framed, lines, out, own, wide, normed, relu)
        elif frame.wide == q and total >= L:
            weights = at(weight, begin * taps)
            product_of_pixels(end - begin, taps, weights, source, cols, total, out, total, at(numbers, begin), wide, normed, relu)
        else:
            ys = max(total, L)
            for filter in range(begin, end, TOGETHER):
                m, weights = min(TOGETHER, end - filter), at(weight, filter * taps)
                product_of_pixels(m, taps, weights, source, cols, ys, sums, ys, at(numbers, filter), wide, normed, relu)
                for i in range(m):
                    done = (filter - begin + i) * p * q
                    without_gaps(at(sums, i * ys), frame.wide, p, q, at(out, done), (end - begin) * p * q - done)
        if after.last:
            other = at(after.other, image * after.step + begin * p * q)
            with_other(out, other, end - begin, p * q, p * q, after.last)


class Road(NamedTuple):
    """From x to y of a pass: x's frame and the distances of the taps, outputs and their channels, and how many pixels are copied by blocks
    at a time, if any are."""

    frame: Frame
    tables: Tables
    output: tuple[int, int]
    k: int
    strip: int


@loop("f* i i i i f*")
def turned_by_input(weight, groups, k, c, taps, packed):
    """packed (groups, c, k, taps): weight (groups, k, c, taps) with its kernels rotated by 180°."""
    for group in range(groups):
        for channel in range(c):
            for filter in range(k):
                source, to = (
                    at(weight, ((group * k + filter) * c + channel) * taps),
                    at(packed, ((group * c + channel) * k + filter) * taps),
                )
                for tap in range(taps):
                    to[tap] = source[taps - 1 - tap]


def gains(c: int, k: int, window: Window) -> bool:
    """Whether a pass from c to k channels takes less time with pixels as lanes, products and copies taken together."""
    if window.stride != (1, 1) or min(before for before, _ in window.padding) < 0:
        return False
    taps, (p, q), wide = c * math.prod(window.kernel), window.output, framed(c, window).wide
    more = GAPS if wide > q else NO_GAPS
    return k * (lanes((p - 1) * wide + q) * taps + lanes(p * q) * more) < lanes(k) * p * q * (taps + TURNING)


def back(window: Window) -> Sliding:
    """The window of the gradient of the input: the turned kernel slides over dy."""
    sides = []
    for kernel, dilation, (before, _), size, count in zip(
        window.kernel, window.dilation, window.padding, window.input, window.output, strict=True
    ):
        reach = (kernel - 1) * dilation
        sides.append((reach - before, size + before - count))
    return Sliding(window.output, window.kernel, (1, 1), (sides[0], sides[1]), window.dilation, window.input)


class Pixels:
    """The plan of a convolution, one of whose passes `gains`; the others go another road. x (N, C, H, W), weight (K, C/groups, R, S), y
    and dy (N, K, P, Q), whose images may lie apart."""

    parts = True

    def __init__(self, c: int, k: int, window: Window, groups: int = 1) -> None:
        self.c, self.k, self.groups, self.taps = c // groups, k // groups, groups, math.prod(window.kernel)
        other = Pointwise if pointwise.fits(window) else Direct
        self.other = other(c, k, window, groups)
        sums = PixelSums(c, k, window, groups) if pixel_sums.gains(self.c, self.k, window) else None
        self.weight_grad = self.other.weight_grad if sums is None else sums.weight_grad
        self.ahead = _road(self.c, self.k, window)
        self.behind = _road(self.k, self.c, back(window)) if window.stride == (1, 1) else None

    def forward(
        self, x: Array, weight: Array, bias: Array | None, relu: bool, y: Array, norm: Norm | None = None, added: Array | None = None
    ) -> None:
        """y = convolution of x, plus bias, then batch normalization, plus `added`, then ReLU."""
        if self.ahead is None:
            self.other.forward(x, weight, bias, relu, y, norm, added)
        else:
            _vectors, after = after_sums(self.k, self.k, self.groups, bias, relu, norm, added)
            self._gather(x, weight, after, y, self.ahead)

    def input_grad(self, dy: Array, weight: Array, relu: Array | None, dx: Array) -> None:
        """dx from dy; 0 where `relu`, if given, is not positive."""
        if self.behind is None:
            self.other.input_grad(dy, weight, relu, dx)
            return
        packed = Scratch(weight.size, shared=True).parts[0]
        turned_by_input(address(weight), self.groups, self.k, self.c, self.taps, address(packed))
        _vectors, after = after_sums(self.c, self.c, self.groups, mask=relu)
        self._gather(dy, packed, after, dx, self.behind)

    def _gather(self, x: Array, weight: Array, after: list[After], y: Array, road: Road) -> None:
        frame, (p, q), k, cols = road.frame, road.output, road.k, road.tables.cols
        n, taps, total = len(x), len(cols), (p - 1) * frame.wide + q
        parts = tables.parts(n, k)
        copied = frame.size > 0 or total < L
        plane, out = frame.c * frame.h * frame.w, k * p * q
        sizes = frame.c * frame.high * frame.wide if copied else road.strip * taps, min(k, TOGETHER) * max(total, L)

        def body(first: int, last: int) -> None:
            scratch = Scratch(*sizes)
            fill(*scratch.piece(0), 0)
            room = scratch.addresses()
            for g in range(self.groups):
                arrays = *images(x, g * plane), address(weight) + 4 * g * k * taps, *after[g]
                numbers = copied, road.strip, k, taps, p, q, road.tables.at.cols, road.tables.at.lines
                gather(first, last, parts, *arrays, *images(y, g * out), *frame, *numbers, *room)

        share(n * parts, body, n * self.groups * k * total * (taps + 8))


def _road(c: int, k: int, window: Window) -> Road | None:
    """The road of a pass from c to k channels that `gains`."""
    if not gains(c, k, window):
        return None
    frame = framed(c, window)
    made = Tables(cols=tables.taps(c, window, frame.high, frame.wide), lines=np.arange(c) * BLOCK)
    return Road(frame, made, window.output, k, _strip(c, k, window, frame))


def _strip(c: int, k: int, window: Window, frame: Frame) -> int:
    """How many pixels are copied by blocks at a time, where the planes of a 1×1 kernel are so large that it pays; otherwise 0."""
    total = math.prod(window.output)
    large = max(c, k) * total >= LARGE and total >= BLOCK and min(c, k) >= CHANNELS and c + k >= BOTH
    if not large or window.kernel != (1, 1) or frame.size:
        return 0
    return max(1, min(-(-total // BLOCK), STRIP // c // BLOCK)) * BLOCK


def fits(c: int, k: int, window: Window, groups: int = 1) -> bool:
    """Whether one of the passes gains."""
    c, k = c // groups, k // groups
    return gains(c, k, window) or pixel_sums.gains(c, k, window) or (window.stride == (1, 1) and gains(k, c, back(window)))

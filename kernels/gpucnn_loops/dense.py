"""Dense layers with the same inner loop, any number of examples, inputs and outputs.

y = x·weightᵀ: lanes are examples, so x is turned, chunk by chunk; or, for a few examples, outputs, and the weight is turned. dx = dy·weight
and dweight = dyᵀ·x: lanes are inputs, in the order in which they lie in memory. The lanes read a strip of columns, which stays in the
first-level cache for all rows.

A large weight comes from memory, and its gradient goes there: the longer the pieces of a row, the better. So chunks of x are then as large
as the second-level cache allows: with 4 KB of a row at a time, y took 0.75 to 1.0 times as long as with the 512 bytes that fit the first.
And the fewer steps a sum has, the longer is a strip: a weight's gradient from 16 examples took half as long with 2 KB as with 256 bytes.

Threads share the examples if there are enough: then each is turned once, and y took 0.87 to 0.96 times as long with two threads. Otherwise
they share the outputs, and all turn all examples. Every sum has the same terms in the same order whichever way it goes, so a row is
bit-identical in every batch.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.loops import loop
from gpucnn_loops.tables import lanes
from gpucnn_loops.threads import Scratch, address, number
from gpucnn_loops.tile import WIDE, product_of_rows
from gpucnn_loops.turn import fill, to_lanes, transpose
from gpucnn_loops.turned import product_of_turned
from gpucnn_loops.vector import L, at, fma, load, relu16, splat, spread, store, where_positive

Array = NDArray[np.float32]
BLOCK = 64  # lanes that the tiles go through one after the other: with 128 steps, 32 KB
STEPS = 128
TURNED = 65536  # numbers of examples that are turned at a time, 256 KB, where the weight
LARGE = 1 << 18  # has so many: 1 MB
MANY = 256  # rows for which strips are wide, whose sums are then those of half as many rows
ROWS = 16  # outputs that a thread takes at a time
TOGETHER = 20 if WIDE else 24  # rows whose sums are computed for all of a long strip before the next ones
APART = 1 << 15  # the most sums of a strip for which threads share examples, where these are enough for all, and not outputs
FEW = 8  # rows for which long strips are better
ALONE = 8  # examples for which the weight is turned
LONG = 512  # columns of a long strip
AT_ONCE = 4  # its rows that are added at a time
ZERO = np.float32(0)


@loop("i i i i f* i i f* i f* i i f* f* f*")
def forward(first, last, strip, steps, x, n, c, weight, k, bias, biased, relu, y, buffer, sums):
    """y[:, first:last] of y (n, k) = x (n, c) · weightᵀ + bias."""
    count = last - first
    for image in range(0, n, strip):
        images = min(strip, n - image)
        width = (images + L - 1) // L * L
        for depth in range(0, c, steps):
            d = min(steps, c - depth)
            to_lanes(at(x, image * c + depth), c, images, d, buffer, strip)
            product_of_rows(count, d, at(weight, first * c + depth), c, buffer, strip, width, sums, strip, depth)
        for row in range(count):
            b = splat(ZERO)
            if biased:
                b = spread(bias, first + row)
            for lane in range(0, width, L):
                v = load(sums, row * strip + lane)
                if biased:  # 0 would not do: −0 + 0 is 0
                    v = v + b
                store(sums, row * strip + lane, relu16(v) if relu else v)
        transpose(sums, strip, count, images, at(y, image * k + first), k)


@loop("i i f* i i f* f* i i i f* f* f*")
def forward_by_output(first, last, x, n, c, weight, bias, biased, relu, k, y, buffer, sums):
    """As `forward`, with outputs as lanes, for at most eight examples. What is left of c is turned beforehand."""
    whole = c // L * L
    for output in range(first, last, L):
        count, rows = min(L, last - output), at(weight, output * c)
        product_of_turned(n, whole, x, rows, c, count, sums)
        if whole < c:
            to_lanes(at(rows, whole), c, count, c - whole, buffer, L)
            product_of_rows(n, c - whole, at(x, whole), c, buffer, L, L, sums, L, whole)
        for image in range(n):
            out, own = at(y, image * k + output), at(sums, image * L)
            if biased:
                for j in range(count):
                    own[j] += bias[output + j]
            for j in range(count):
                out[j] = ZERO if relu and own[j] <= 0 else own[j]


@loop("i i f* i i f* i f* f* i f* f*")
def few_lanes_of(first, last, a, m, depth, b, across, y, mask, masked, buffer, sums):
    """As `lanes_of`, for a few rows of a: rows of b are added to those of y, several at a time."""
    for lane in range(first, last, LONG):
        count = min(LONG, last - lane)
        full = count // L * L
        for i in range(m * LONG):
            sums[i] = ZERO
        for i in range(0, depth, AT_ONCE):
            for j in range(full, count):
                for row in range(min(AT_ONCE, depth - i)):
                    buffer[row * L + j - full] = b[(i + row) * across + lane + j]
            for row in range(m):
                number, total = at(a, row * depth + i), at(sums, row * LONG)
                if depth - i >= AT_ONCE:
                    b0, step = at(b, i * across + lane), across
                    for j in range(0, count, L):
                        if j == full:
                            b0, step = at(buffer, -j), L
                        v = fma(spread(number, 0), load(b0, j), load(total, j))
                        v = fma(spread(number, 1), load(b0, step + j), v)
                        v = fma(spread(number, 2), load(b0, 2 * step + j), v)
                        store(total, j, fma(spread(number, 3), load(b0, 3 * step + j), v))
                else:
                    for each in range(depth - i):
                        for j in range(0, full, L):
                            store(total, j, fma(spread(number, each), load(b, (i + each) * across + lane + j), load(total, j)))
                        if full < count:
                            store(total, full, fma(spread(number, each), load(buffer, each * L), load(total, full)))
        for row in range(m):
            out, by, total = at(y, row * across + lane), at(mask, row * across + lane), at(sums, row * LONG)
            for j in range(count):
                out[j] = ZERO if masked and not by[j] > 0 else total[j]


@loop("i i i i i i f* i i f* i f* f* i f* f*")
def lanes_of(first, last, strip, each, steps, panel, a, m, depth, b, across, y, mask, masked, buffer, sums):
    """y[:, first:last] of y (m, across) = a (m, depth) · b (depth, across), 0 where mask (m, across) is not positive, if masked: strip by
    strip, of which blocks of `each` columns are copied one after the other, and `panel` rows at a time."""
    for lane in range(first, last, strip):
        count = min(strip, last - lane)
        full, width = count // L * L, (count + L - 1) // L * L
        at_once = depth <= steps and full == count and not masked  # then sums go straight to where they belong
        for top in range(0, m, panel):
            high = min(panel, m - top)
            together = high if strip == BLOCK else TOGETHER
            for d0 in range(0, depth, steps):
                d = min(steps, depth - d0)
                for block in range(0, width, each):
                    own, some = min(each, width - block), min(each, count - block)
                    whole, by = some // L * L, at(buffer, block * d)
                    for i in range(d):
                        source, to = at(b, (d0 + i) * across + lane + block), at(by, i * own)
                        for j in range(0, whole, L):
                            store(to, j, load(source, j))
                        for j in range(whole, some):
                            to[j] = source[j]
                for row in range(0, high, together):
                    part, numbers = min(together, high - row), at(a, (top + row) * depth + d0)
                    for block in range(0, width, each):
                        own, by = min(each, width - block), at(buffer, block * d)
                        if at_once:
                            out = at(y, (top + row) * across + lane + block)
                            product_of_rows(part, d, numbers, depth, by, own, own, out, across, 0)
                        else:
                            product_of_rows(part, d, numbers, depth, by, own, own, at(sums, row * width + block), width, d0)
            for row in range(0 if at_once else high):
                place = (top + row) * across + lane
                out, by, total = at(y, place), at(mask, place), at(sums, row * width)
                for j in range(0, full, L):
                    v = load(total, j)
                    store(out, j, where_positive(load(by, j), v) if masked else v)
                for j in range(full, count):
                    out[j] = ZERO if masked and not by[j] > 0 else total[j]


def dense(x: Array, weight: Array, bias: Array | None, relu: bool, y: Array) -> None:
    """y (N, K) = x (N, C) · weight (K, C)ᵀ + bias, then ReLU."""
    (n, c), k = x.shape, weight.shape[0]
    given = address(weight if bias is None else bias)
    if n <= ALONE:
        told = address(x), n, c, address(weight), given, bias is not None, relu, k, address(y)

        def by_output(first: int, last: int) -> None:
            scratch = Scratch(L * L, ALONE * L)
            forward_by_output(first * L, min(last * L, k), *told, *scratch.addresses())

        share(-(-k // L), by_output, n * c * k)
        return
    rows = lanes(n)
    strip = min(BLOCK, rows)
    steps = min(c, (TURNED if k * c >= LARGE else BLOCK * STEPS) // strip)

    def part(first: int, last: int, begin: int, end: int) -> None:
        """The outputs first … last − 1 of the examples begin … end − 1."""
        scratch = Scratch(steps * strip, (last - first) * strip)
        given_x, made = address(x) + 4 * begin * c, address(y) + 4 * begin * k
        arrays = given_x, end - begin, c, address(weight), k, given, bias is not None, relu, made
        forward(first, last, strip, steps, *arrays, *scratch.addresses())

    strips = -(-n // strip)
    if strips % number() == 0 and rows == strips * strip and k * strip <= APART:
        share(strips, lambda first, last: part(0, k, first * strip, min(last * strip, n)), n * c * k)
    else:
        share(-(-k // ROWS), lambda first, last: part(first * ROWS, min(last * ROWS, k), 0, n), n * c * k)


def dense_input_grad(dy: Array, weight: Array, relu: Array | None, dx: Array) -> None:
    """dx (N, C) = dy (N, K) · weight (K, C); 0 where `relu` (N, C), if given, is not positive."""
    _across(dy, weight, dx, relu)


def dense_weight_grad(dy: Array, x: Array, dweight: Array) -> None:
    """dweight (K, C) = dy (N, K)ᵀ · x (N, C)."""
    n, k = dy.shape
    turned = Scratch(n * k, shared=True).parts[0]
    transpose(address(dy), k, n, k, address(turned), n)
    _across(turned.reshape(k, n), x, dweight, None)


def _across(a: Array, b: Array, y: Array, mask: Array | None) -> None:
    (m, depth), across = a.shape, b.shape[1]
    arrays = address(a), m, depth, address(b), across, address(y), address(y if mask is None else mask), mask is not None
    if m <= FEW:

        def long(first: int, last: int) -> None:
            scratch = Scratch(AT_ONCE * L, m * LONG)
            fill(*scratch.piece(0), 0)
            few_lanes_of(first * LONG, min(last * LONG, across), *arrays, *scratch.addresses())

        share(-(-across // LONG), long, m * depth * across)
        return
    steps = 16 if depth <= 16 else 32 if depth <= 32 else STEPS
    strip = each = min(BLOCK * STEPS // steps, lanes(across))
    panel = m
    if depth > STEPS and m >= MANY:
        strip, panel = 4 * BLOCK, MANY // 2
    straight = depth <= steps and across % L == 0 and mask is None  # sums are not put aside

    def body(first: int, last: int) -> None:
        scratch = Scratch(steps * strip, L if straight else panel * strip)
        place, size = scratch.piece(0)
        fill(place, size if across % L else 0, 0)  # lanes of no column, if there are any
        lanes_of(first * BLOCK, min(last * BLOCK, across), strip, each, steps, panel, *arrays, *scratch.addresses())

    share(-(-across // BLOCK), body, m * depth * across)

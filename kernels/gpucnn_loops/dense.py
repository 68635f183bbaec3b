"""Dense layers with the same inner loop, any number of examples, inputs and outputs.

y = x·weightᵀ: lanes are examples, so x is turned, chunk by chunk; or, for a few examples, outputs, and the weight is turned. dx = dy·weight
and dweight = dyᵀ·x: lanes are inputs, in the order in which they lie in memory. The lanes read a strip of 64 columns, which stays in the
first-level cache for all rows; with a few rows, long strips, because a large weight comes from memory, which is read in its order.
Every sum has the same terms in the same order whichever way it goes, so a row is bit-identical in every batch.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.loops import loop
from gpucnn_loops.tables import Tables, lanes
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.tile import as_full, product
from gpucnn_loops.turn import fill, to_planes, to_rows
from gpucnn_loops.vector import L, ahead, at, fma, load, relu16, splat, spread, store, where_positive

Array = NDArray[np.float32]
DEPTH = 128  # steps of a sum per strip: 128 × 64 numbers are 32 KB
STRIP = 64
SLAB = 5
ROWS = 16  # outputs that a thread takes at a time
DEEP = 256  # steps of a sum for 16 outputs as lanes: 16 KB
TURNING = 3  # turning a number takes as long as this many multiply-adds
FEW = 8  # rows for which long strips are better
LONG = 512  # columns of a long strip
AT_ONCE = 4  # its rows that are added at a time
ZERO = np.float32(0)


@loop("i i f* i i f* i f* i i f* w* w* w* w* f* f*")
def forward(first, last, x, n, c, weight, k, bias, biased, relu, y, cols, rows, turns, places, buffer, sums):
    """y[:, first:last] of y (n, k) = x (n, c) · weightᵀ + bias."""
    count = last - first
    for image in range(0, n, STRIP):
        images = min(STRIP, n - image)
        width = (images + L - 1) // L * L
        for depth in range(0, c, DEPTH):
            d = min(DEPTH, c - depth)
            to_rows(at(x, image * c + depth), c, d, images, buffer, turns)
            product(count, d, at(weight, first * c + depth), rows, cols, buffer, STRIP, width, sums, STRIP, depth)
        for row in range(count):
            b = splat(ZERO)
            if biased:
                b = spread(bias, first + row)
            for lane in range(0, width, L):
                v = load(sums, row * STRIP + lane) + b
                store(sums, row * STRIP + lane, relu16(v) if relu else v)
        to_planes(sums, count, images, STRIP, at(y, image * k + first), places)


@loop("i i f* i i f* f* i i i f* w* w* w* f* f*")
def forward_by_output(first, last, x, n, c, weight, bias, biased, relu, k, y, cols, rows, turns, buffer, sums):
    """As `forward`, with outputs as lanes."""
    for output in range(first, last, L):
        count = min(L, last - output)
        for depth in range(0, c, DEEP):
            d = min(DEEP, c - depth)
            to_rows(at(weight, output * c + depth), c, d, count, buffer, turns)
            product(n, d, at(x, depth), rows, cols, buffer, L, L, sums, L, depth)
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


@loop("i i f* i i f* i f* f* i w* w* f* f*")
def lanes_of(first, last, a, m, depth, b, across, y, mask, masked, rows, cols, buffer, sums):
    """y[:, first:last] of y (m, across) = a (m, depth) · b (depth, across), 0 where mask (m, across) is not positive, if masked."""
    for lane in range(first, last, STRIP):
        count = min(STRIP, last - lane)
        full, width = count // L * L, (count + L - 1) // L * L
        at_once = depth <= DEPTH and full == count and not masked  # then sums go straight to where they belong
        for d0 in range(0, depth, DEPTH):
            d = min(DEPTH, depth - d0)
            for i in range(d):
                source = at(b, (d0 + i) * across + lane)
                for j in range(0, full, L):
                    store(buffer, i * STRIP + j, load(source, j))
                for j in range(full, count):
                    buffer[i * STRIP + j] = source[j]
            next, n0 = lane, d0 + DEPTH
            if n0 >= depth:
                next, n0 = lane + STRIP, 0
            each = (min(DEPTH, depth - n0) * SLAB + m - 1) // m if next < last else 0
            for row in range(0, m, SLAB):
                for i in range(n0 + row // SLAB * each, min(depth, n0 + (row // SLAB + 1) * each)):
                    source = at(b, i * across + next)
                    for j in range(0, STRIP, L):
                        ahead(source, j)
                r = min(SLAB, m - row)
                if at_once:
                    product(r, d, at(a, row * depth), rows, cols, buffer, STRIP, width, at(y, row * across + lane), across, 0)
                else:
                    product(r, d, at(a, row * depth + d0), rows, cols, buffer, STRIP, width, at(sums, row * STRIP), STRIP, d0)
        for row in range(0 if at_once else m):
            out, by = at(y, row * across + lane), at(mask, row * across + lane)
            for j in range(0, full, L):
                v = load(sums, row * STRIP + j)
                store(out, j, where_positive(load(by, j), v) if masked else v)
            for j in range(full, count):
                number = sums[row * STRIP + j]
                out[j] = ZERO if masked and not by[j] > 0 else number


@functools.lru_cache(maxsize=256)
def _tables(count: int, step: int) -> Tables:
    """The tables of a product whose rows lie `step` apart."""
    return Tables(rows=np.arange(count) * step, cols=np.arange(DEEP), turns=np.arange(DEPTH) * STRIP, by_output=np.arange(DEEP) * L)


def dense(x: Array, weight: Array, bias: Array | None, relu: bool, y: Array) -> None:
    """y (N, K) = x (N, C) · weight (K, C)ᵀ + bias, then ReLU."""
    (n, c), k = x.shape, weight.shape[0]
    given = address(weight if bias is None else bias)
    if lanes(k) / L * (as_full(L) * n + TURNING * L) < as_full(lanes(n)) * k + TURNING * n:
        t = _tables(n, c)
        told = address(x), n, c, address(weight), given, bias is not None, relu, k, address(y), t.at.cols, t.at.rows, t.at.by_output

        def by_output(first: int, last: int) -> None:
            scratch = Scratch(DEEP * L, n * L)
            fill(*scratch.piece(0), 0)
            forward_by_output(first * L, min(last * L, k), *told, *scratch.addresses())

        share(-(-k // L), by_output, n * c * k)
        return
    t, places = _tables(k, c), _tables(STRIP, k)
    arrays = address(x), n, c, address(weight), k, given, bias is not None, relu, address(y)
    tables = t.at.cols, t.at.rows, t.at.turns, places.at.rows

    def body(first: int, last: int) -> None:
        first, last = first * ROWS, min(last * ROWS, k)
        scratch = Scratch(DEPTH * STRIP, (last - first) * STRIP)
        fill(*scratch.piece(0), 0)
        forward(first, last, *arrays, *tables, *scratch.addresses())

    share(-(-k // ROWS), body, n * c * k)


def dense_input_grad(dy: Array, weight: Array, relu: Array | None, dx: Array) -> None:
    """dx (N, C) = dy (N, K) · weight (K, C); 0 where `relu` (N, C), if given, is not positive."""
    _across(dy, weight, dx, relu)


def dense_weight_grad(dy: Array, x: Array, dweight: Array) -> None:
    """dweight (K, C) = dy (N, K)ᵀ · x (N, C)."""
    n, k = dy.shape
    turned = Scratch(n * k, shared=True).parts[0]
    to_planes(address(dy), n, k, k, address(turned), _tables(k, n).at.rows)
    _across(turned.reshape(k, n), x, dweight, None)


def _across(a: Array, b: Array, y: Array, mask: Array | None) -> None:
    (m, depth), across = a.shape, b.shape[1]
    t, by = _tables(m, depth), address(y if mask is None else mask)
    arrays = address(a), m, depth, address(b), across, address(y), by, mask is not None
    if m <= FEW:

        def long(first: int, last: int) -> None:
            scratch = Scratch(AT_ONCE * L, m * LONG)
            fill(*scratch.piece(0), 0)
            few_lanes_of(first * LONG, min(last * LONG, across), *arrays, *scratch.addresses())

        share(-(-across // LONG), long, m * depth * across)
        return

    def body(first: int, last: int) -> None:
        scratch = Scratch(DEPTH * STRIP, m * STRIP)
        fill(*scratch.piece(0), 0)
        lanes_of(first * STRIP, min(last * STRIP, across), *arrays, t.at.rows, t.at.cols, *scratch.addresses())

    share(-(-across // STRIP), body, m * depth * across)

"""Convolution, bias, ReLU and max pooling with any window in one pass: for poolings whose windows overlap, or are larger than 2×2.

The outputs of an image stay in the second-level cache as they come from the inner loop, channels last, so a maximum is taken lane by lane
whatever the stride. Only what is left, a quarter or a ninth, is turned and written.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops import tables
from gpucnn_loops.after import After, after_sums, finished
from gpucnn_loops.crew import share
from gpucnn_loops.direct import BAND, CHUNK
from gpucnn_loops.language import record
from gpucnn_loops.loops import loop
from gpucnn_loops.pool import Sizes, begins, sizes_of, stops
from gpucnn_loops.tables import Frame, Images, Tables, Window, framed, images, lanes
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.tile import product
from gpucnn_loops.turn import fill, in_frame, to_planes, to_rows
from gpucnn_loops.vector import L, as_floats, at, beats, load, place16, relu_first, store

Array = NDArray[np.float32]
MOST = 1 << 18  # numbers of an image's outputs: with more, they would not stay in the second-level cache


@record("w* w* w*")
class Where(NamedTuple):
    """Tables: the convolution's outputs, its taps, and where planes of y begin."""

    rows: int
    cols: int
    places: int


@record("f* f* f* f*")
class Room(NamedTuple):
    """Scratch: an image in its frame, its outputs, all maxima, and their places."""

    framed: int
    sums: int
    best: int
    won: int


@loop("f* f* f* i", Sizes)
def maxima(rows, best, won, width, sizes):
    """best, won (p·q, width) of rows (h·w, width): the first maximum of each window after ReLU, and its place as int32 bits."""
    h, w, r, s, sh, sw, dh, dw, top, left, p, q = sizes
    for i in range(p):
        row0 = i * sh - top
        a0, a1 = begins(row0, dh), stops(row0, dh, h, r)
        for j in range(q):
            column0 = j * sw - left
            b0, b1 = begins(column0, dw), stops(column0, dw, w, s)
            first = (row0 + a0 * dh) * w + column0 + b0 * dw
            for lane in range(0, width, L):
                v = load(rows, first * width + lane)
                place = place16(first)
                for a in range(a0, a1):
                    for b in range(b0, b1):
                        here = (row0 + a * dh) * w + column0 + b * dw
                        v, place = beats(load(rows, here * width + lane), v, place16(here), place)
                v, place = relu_first(v, place, place16(first))
                store(best, (i * q + j) * width + lane, v)
                store(won, (i * q + j) * width + lane, place)


@loop("i i", Images, "f*", After, Images, "i* i", Frame, "i i i i i", Sizes, Where, Room)
def forward(first, last, x, weight, after, y, indices, placed, frame, k, width, outputs, count, taps, sizes, where, room):
    """y (images, k, count): maxima of relu(conv(x) + bias); and, if placed, indices: their places in its planes."""
    sums = room.sums
    for image in range(first, last):
        source = in_frame(at(x.first, image * x.step), frame, room.framed)
        for begin in range(0, outputs, BAND):
            number, to = min(BAND, outputs - begin), at(sums, begin * width)
            for tap in range(0, taps, CHUNK):
                n = min(CHUNK, taps - tap)
                by = at(weight, tap * width)
                product(number, n, source, at(where.rows, begin), at(where.cols, tap), by, width, width, to, width, tap)
            for lane in range(0, width, L):
                for i in range(lane, number * width, width):
                    store(to, i, finished(load(to, i), lane, after))
        maxima(sums, room.best, room.won, width, sizes)
        to_planes(room.best, count, k, width, at(y.first, image * y.step), where.places)
        if placed:
            to_planes(room.won, count, k, width, as_floats(at(indices, image * y.step)), where.places)


def fits(k: int, window: Window) -> bool:
    """Whether an image's outputs stay in the cache."""
    return math.prod(window.output) * lanes(k) <= MOST


class Windows:
    """The plan of a convolution with ReLU and max pooling. x (N, C, H, W), y and indices (N, K, …)."""

    sums_winners = False  # the gradient of the weight is computed from that of the convolution's outputs

    def __init__(self, c: int, k: int, window: Window, pool: Window) -> None:
        self.k, self.width, self.taps = k, lanes(k), c * math.prod(window.kernel)
        self.outputs, self.count, self.sizes = math.prod(window.output), math.prod(pool.output), sizes_of(pool)
        self.frame = framed(c, window)
        self.tables = Tables(
            rows=tables.outputs(window, self.frame.wide),
            cols=tables.taps(c, window, self.frame.high, self.frame.wide),
            places=np.arange(k) * self.count,
            lines=np.arange(self.taps) * self.width,
        )

    def forward(self, x: Array, weight: Array, bias: Array | None, y: Array, indices: NDArray[np.int32] | None) -> None:
        """y: the maxima; indices: their places in the convolution's planes, unless they are not wanted."""
        taps, width, frame, t = self.taps, self.width, self.frame, self.tables.at
        room = Scratch(taps * width, shared=True)
        if width > self.k:
            fill(*room.piece(0), 0)
        (packed,) = room.addresses()
        to_rows(address(weight), taps, taps, self.k, packed, t.lines)
        _vectors, after = after_sums(self.k, width, 1, bias)
        arrays = *images(x), packed, *after[0], *images(y), 0 if indices is None else address(indices), indices is not None
        numbers = self.k, width, self.outputs, self.count, taps, *self.sizes, t.rows, t.cols, t.places

        def body(first: int, last: int) -> None:
            scratch = Scratch(frame.size, self.outputs * width, self.count * width, self.count * width)
            fill(*scratch.piece(0), 0)
            forward(first, last, *arrays, *frame, *numbers, *scratch.addresses())

        share(len(x), body, len(x) * self.outputs * width * (taps + 8))

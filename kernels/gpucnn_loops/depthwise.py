"""Depthwise convolution, one filter for each plane: lanes are 16 planes, and a tap is 16 numbers times 16 numbers.

Sixteen planes that lie one after another, of one image or of two, are transposed into a frame of zeros, where a pixel is a vector. A tile
keeps some sums in registers while it goes through the taps, or, in the gradient of the weight, some taps while it goes through the outputs.
The tables are those of `direct.py` for one channel, so they support every stride, dilation and padding. A large image is framed a band of
rows at a time, which stays in the second-level cache.

Few planes, as the three of a color image, would leave most lanes empty: there pixels are the lanes (`pixels.py`), but for the gradient of
the weight.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.after import After, Norm, after_sums, finished, with_other
from gpucnn_loops.crew import share
from gpucnn_loops.direct import Direct, add_rows
from gpucnn_loops.language import helper, record
from gpucnn_loops.loops import loop
from gpucnn_loops.pixels import Pixels
from gpucnn_loops.sums import add_up
from gpucnn_loops.tables import Frame, Table, Tables, Window, edges, grid, lanes
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.tile import product_by_lane
from gpucnn_loops.turn import fill, to_planes, to_rows
from gpucnn_loops.vector import L, at, load, store

Array = NDArray[np.float32]
BAND = 1 << 16  # numbers of a band of rows in its frame, 256 KB
COPIES = 20  # the two transpositions of a number take as long as this many multiply-adds
FEW = 4  # planes
MOST = 1 << 26  # numbers of a frame that cannot be cut into bands
ZERO = np.float32(0)


@record("i i i i i w*")
class Bands(NamedTuple):
    """y has `high` rows of `wide` outputs; `rows` of them at a time read `reach` rows of the frame, `step` rows after those before. places:
    where each pixel of an image lies in the whole frame."""

    high: int
    wide: int
    rows: int
    reach: int
    step: int
    places: int


@record("i w* w* w* w* w*")
class Classes(NamedTuple):
    """As in `direct.py`: outputs that meet the same taps. ends (classes, 2): where each one's outputs and taps end in `rows`, `order` and
    `cols`; `order` says where each output belongs. planes: where each of 16 planes of y begins."""

    number: int
    ends: int
    rows: int
    order: int
    cols: int
    planes: int


@helper
def band_in_frame(image, count, row, frame, bands, framed):
    """Copies the rows of `count` planes that a band of outputs from `row` on reads into the frame. Returns where the whole frame would
    begin."""
    pixels, line = frame.h * frame.w, frame.wide * L
    first = row * bands.step  # of the frame
    last = min(first + bands.reach, frame.high)
    begin, end = max(0, min(frame.h, first - frame.top)), max(0, min(frame.h, last - frame.top))
    fill(framed, max(0, min(last, frame.top) - first) * line, ZERO)
    below = max(first, frame.top + frame.h)
    if last > below:
        fill(at(framed, (below - first) * line), (last - below) * line, ZERO)
    whole = at(framed, -first * line)
    if end > begin:
        to_rows(at(image, begin * frame.w), pixels, (end - begin) * frame.w, count, whole, at(bands.places, begin * frame.w))
    return whole


@loop("i i i f* f* i i", After, "f*", Frame, Bands, Classes, "f* f*")
def gather(first, last, total, x, weight, k, wide, after, y, frame, bands, classes, framed, sums):
    """y from x, forward or the gradient of the input, of the pieces first … last − 1, each 16 of `total` planes. Plane n·k + j has the
    filter j; weight (taps, wide) and after.vectors (4, wide) have at least 16 columns more than k, where the filters begin again.

    With several classes there is one band.
    """
    outputs = bands.high * bands.wide
    for piece in range(first, last):
        plane = piece * L
        count, filter = min(L, total - plane), plane % k
        for row in range(0, bands.high, bands.rows):
            source = band_in_frame(at(x, plane * frame.h * frame.w), count, row, frame, bands, framed)
            skipped, number = row * bands.wide, min(bands.rows, bands.high - row) * bands.wide
            begin, tap = 0, 0
            for group in range(classes.number):
                end, taps = classes.ends[2 * group], classes.ends[2 * group + 1]
                rows, by = at(classes.rows, begin + skipped), at(weight, tap * wide + filter)
                m = number if classes.number == 1 else end - begin
                product_by_lane(m, taps - tap, source, rows, at(classes.cols, tap), by, wide, sums, at(classes.order, begin), 0)
                begin, tap = end, taps
            if after.some:
                for i in range(0, number * L, L):
                    store(sums, i, finished(load(sums, i), filter, after))
            out = plane * outputs + skipped
            to_planes(sums, number, count, L, at(y, out), classes.planes)
            if after.last:
                with_other(at(y, out), at(after.other, out), count, outputs, number, after.last)


@loop("i i w* f* f* f* f* i i i", Frame, Bands, "w* w* w* w* f* f*")
def weight_sums(first, last, ends, x, dy, dweight, dbias, biased, k, taps, frame, bands, rows, cols, places, turns, framed, given):
    """Pieces first … last − 1 are groups of images times 16 filters each: dweight (taps, 16) of a piece, and dbias (16).

    ends: where each group's images begin, and where the last one's end. rows: the taps; cols: the outputs; places: those of dweight's rows.
    """
    outputs, blocks = bands.high * bands.wide, (k + L - 1) // L
    for piece in range(first, last):
        filter, group = piece % blocks * L, piece // blocks
        count, mode = min(L, k - filter), 0
        for image in range(ends[group], ends[group + 1]):
            plane = image * k + filter
            for row in range(0, bands.high, bands.rows):
                source = band_in_frame(at(x, plane * frame.h * frame.w), count, row, frame, bands, framed)
                skipped, number = row * bands.wide, min(bands.rows, bands.high - row) * bands.wide
                to_rows(at(dy, plane * outputs + skipped), outputs, number, count, given, turns)
                product_by_lane(taps, number, source, rows, at(cols, skipped), given, L, at(dweight, piece * taps * L), places, mode)
                if biased:
                    add_rows(given, number, L, at(dbias, piece * L))
                mode = 1


@loop("f* i i w* i f*")
def by_tap(weight, k, taps, rows, wide, packed):
    """packed[rows[tap]] (wide) = the tap of each of k filters; behind the last, those of the first once more."""
    for tap in range(taps):
        to, filter = at(packed, rows[tap] * wide), 0
        for lane in range(wide):
            to[lane] = weight[filter * taps + tap]
            filter += 1
            if filter == k:
                filter = 0


class Road(NamedTuple):
    """From x to y of a pass: x's frame, the bands of y, and the tables."""

    frame: Frame
    bands: Bands
    tables: Tables  # tap_rows: the row in the packed weight of each tap; behind the last of them, if no output meets it


def _road(frame: Frame, output: tuple[int, int], step: int, one: Tables, tap_rows: Table, **more: Table) -> Road:
    """one: tables of a convolution of one channel. step: rows of the frame from one row of outputs to the next; 0 if there are classes."""
    high, wide = output
    beyond = frame.high - (high - 1) * step  # rows that a row of outputs reads
    rows = max(1, min(high, (BAND // (frame.wide * L) - beyond) // step + 1)) if step else high
    made = Tables(
        ends=one.ends,
        rows=one.rows * L,
        cols=one.cols * L,
        order=(one.order if len(one.ends) > 2 else np.arange(rows * wide)) * L,
        planes=np.arange(L) * (high * wide),
        places=(grid(np.arange(frame.h) + frame.top, np.arange(frame.w) + frame.left, frame.wide)) * L,
        tap_rows=tap_rows,
        **more,
    )
    return Road(frame, Bands(high, wide, rows, beyond + (rows - 1) * step, step, made.at.places), made)


def fits(window: Window) -> bool:
    """Whether these loops support a convolution with one filter for each channel."""
    return window.stride == (1, 1) or max(math.prod(window.input), 1) * L <= MOST


class Depthwise:
    """The plan of a convolution with one filter for each channel. x (N, K, H, W), weight (K, 1, R, S), y and dy (N, K, P, Q)."""

    parts = False  # images lie right behind one another

    def __init__(self, k: int, window: Window) -> None:
        self.k, self.window, self.taps = k, window, math.prod(window.kernel)
        self.wide = lanes(k) + L
        self.one = Direct(1, 1, window)
        count = math.prod(window.output)
        more = {"turns": np.arange(count) * L, "taps": np.arange(self.taps) * L}
        self.ahead = _road(self.one.frame, window.output, window.stride[0], self.one.ahead, np.arange(self.taps), **more)
        self.by_channel = Tables(planes=np.arange(L) * self.taps)
        self._behind: Road | None = None
        by_pixels = Pixels(k, k, window, k) if k <= FEW else None
        self.by_pixels = by_pixels if by_pixels and by_pixels.ahead and by_pixels.behind else None

    def _packed(self, weight: Array, road: Road) -> int:
        """The address of weights by tap, with the first filters once more behind the last."""
        packed = Scratch((len(road.tables.cols) + 1) * self.wide, shared=True).addresses()[0]
        by_tap(address(weight), self.k, self.taps, road.tables.at.tap_rows, self.wide, packed)
        return packed

    def forward(
        self, x: Array, weight: Array, bias: Array | None, relu: bool, y: Array, norm: Norm | None = None, added: Array | None = None
    ) -> None:
        """y = convolution of x, plus bias, then batch normalization, plus `added`, then ReLU."""
        if self.by_pixels:
            self.by_pixels.forward(x, weight, bias, relu, y, norm, added)
            return
        _vectors, after = after_sums(self.k, self.wide, 1, bias, relu, norm, added)
        self._gather(x, self._packed(weight, self.ahead), after[0], y, self.ahead)

    def input_grad(self, dy: Array, weight: Array, relu: Array | None, dx: Array) -> None:
        """dx from dy; 0 where `relu`, if given, is not positive."""
        if self.by_pixels:
            self.by_pixels.input_grad(dy, weight, relu, dx)
            return
        if self._behind is None:
            frame, made, *_ = self.one.behind()
            several = len(made.ends) > 2
            self._behind = _road(frame, self.window.input, 0 if several else 1, made, made.turns[0, : self.taps] // L)
        _vectors, after = after_sums(self.k, self.wide, 1, mask=relu)
        self._gather(dy, self._packed(weight, self._behind), after[0], dx, self._behind)

    def _gather(self, x: Array, packed: int, after: After, y: Array, road: Road) -> None:
        total, t, frame, bands = len(x) * self.k, road.tables, road.frame, road.bands
        arrays = address(x), packed, self.k, self.wide, *after
        tables = len(t.ends) // 2, t.at.ends, t.at.rows, t.at.order, t.at.cols, t.at.planes
        sizes = bands.reach * frame.wide * L, bands.rows * bands.wide * L

        def body(first: int, last: int) -> None:
            scratch = Scratch(*sizes)
            fill(*scratch.piece(0), 0)
            gather(first, last, total, *arrays, address(y), *frame, *bands, *tables, *scratch.addresses())

        share(-(-total // L), body, total * bands.high * bands.wide * (self.taps + COPIES))

    def weight_grad(self, dy: Array, x: Array, dweight: Array, dbias: Array | None) -> None:
        """dweight (K, 1, R, S), and dbias (K)."""
        road, frame, bands = self.ahead, self.ahead.frame, self.ahead.bands
        n, ends, blocks = len(x), edges(len(x), lanes(self.k) * self.taps, bands.high * bands.wide), -(-self.k // L)
        groups, t, each = len(ends) - 1, road.tables.at, blocks * self.taps * L
        scratch = Scratch(groups * each, groups * blocks * L, shared=True)
        sums, biases = scratch.addresses()
        fill(*scratch.piece(1), 0)
        where = _ends(tuple(ends))
        arrays = where.at.ends, address(x), address(dy), *scratch.addresses(), dbias is not None, self.k, self.taps
        sizes = bands.reach * frame.wide * L, bands.rows * bands.wide * L

        def body(first: int, last: int) -> None:
            own = Scratch(*sizes)
            for index in range(2):
                fill(*own.piece(index), 0)
            weight_sums(first, last, *arrays, *frame, *bands, t.cols, t.rows, t.taps, t.turns, *own.addresses())

        share(groups * blocks, body, n * self.k * bands.high * bands.wide * (self.taps + COPIES))
        add_up(sums, groups, each, each, sums)
        for lane in range(0, self.k, L):
            to = address(dweight) + 4 * lane * self.taps
            to_planes(sums + 4 * lane * self.taps, self.taps, min(L, self.k - lane), L, to, self.by_channel.at.planes)
        if dbias is not None:
            add_up(biases, groups, blocks * L, self.k, address(dbias))


@functools.lru_cache(maxsize=256)
def _ends(ends: tuple[int, ...]) -> Tables:
    """The table of where groups of images begin and end."""
    return Tables(ends=ends)

"""Direct convolution, for every stride, dilation, padding, group count and number of channels: no image is unfolded.

Output channels are the lanes, inputs are read number by number, all sums stay in registers; three passes differ in their tables alone.
Copied are the image into its frame of zeros, and the result from channels last back to planes. Channels that are not a multiple of 16 have
weights of zero beside them. The gradient of the input at stride s is s·s forward passes over dy, one for each class of pixels that meet
the same taps.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops import tables
from gpucnn_loops.after import After, Norm, after_sums, finished, with_other
from gpucnn_loops.crew import share
from gpucnn_loops.language import record
from gpucnn_loops.loops import loop
from gpucnn_loops.sums import add_up, columns_of
from gpucnn_loops.tables import Frame, Images, Table, Tables, Window, edges, framed, grid, images, lanes
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.tile import product
from gpucnn_loops.turn import fill, in_frame, kernels_by_tap, to_planes, to_rows
from gpucnn_loops.vector import L, at, load, store

Array = NDArray[np.float32]
CHUNK = 100  # steps of a sum at a time: the weights of 64 lanes are then 25 KB, and stay in the first-level cache
# And of the gradient of a 1×1 kernel, which reads each pixel once, from memory: the longer the pieces of a plane, the better. For 256
# channels of 56×56 and 64 outputs it took 0.6 times as long.
LONG = 400
BLOCK = 64  # lanes whose weights lie together
BAND = 240  # outputs that are transposed at a time: their sums of 64 channels are 60 KB


@record("i i w* w* w* w* w*")
class Classes(NamedTuple):
    """Outputs that meet the same taps are a class. ends (classes, 2): where each one's outputs and taps end in `rows`, `order` and `cols`;
    with several, `order` says where each output belongs. places: where each channel's plane of y begins. terms: rows of the weight, all
    classes taken together."""

    number: int
    terms: int
    ends: int
    rows: int
    order: int
    cols: int
    places: int


@record("f* f* f*")
class Room(NamedTuple):
    """Scratch: an image in its frame, sums of a band of outputs, and all outputs in their order, where there are several classes."""

    framed: int
    sums: int
    ordered: int


@loop("i i i", Images, "f*", After, Images, Frame, "i i i", Classes, Room)
def gather(first, last, parts, x, weight, after, y, frame, k, width, total, classes, room):
    """y (images, k, total) from x: forward, or the gradient of the input.

    Pieces first … last − 1 are parts of images; with several classes there is one part. weight (width / 64, terms, 64): blocks of lanes,
    the last with as many as are left. Rows of all lanes would be a power of two apart, and fall into the same few sets of the caches.
    """
    sums, rows, cols = room.sums, classes.rows, classes.cols
    for piece in range(first, last):
        image, part = piece // parts, piece % parts
        source = in_frame(at(x.first, image * x.step), frame, room.framed)
        out, other = at(y.first, image * y.step), at(after.other, image * after.step)
        row, tap0 = 0, 0
        for group in range(classes.number):
            row_end, taps = classes.ends[2 * group], classes.ends[2 * group + 1]
            bands = (row_end - row + BAND - 1) // BAND
            for band in range(bands * part // parts, bands * (part + 1) // parts):
                begin = row + band * BAND
                count = min(BAND, row_end - begin)
                for lane in range(0, width, BLOCK):
                    lanes = min(BLOCK, width - lane)
                    for tap in range(tap0, taps, CHUNK):
                        step, by = min(CHUNK, taps - tap), at(weight, lane * classes.terms + tap * lanes)
                        product(count, step, source, at(rows, begin), at(cols, tap), by, lanes, lanes, at(sums, lane), width, tap - tap0)
                if taps == tap0:  # pixels that no tap meets
                    for i in range(count * width):
                        sums[i] = 0
                if after.some:
                    for lane in range(0, width, L):
                        for i in range(lane, count * width, width):
                            store(sums, i, finished(load(sums, i), lane, after))
                if classes.number == 1:
                    to_planes(sums, count, k, width, at(out, begin), classes.places)
                    if after.last:
                        with_other(at(out, begin), at(other, begin), k, total, count, after.last)
                else:
                    for i in range(count):
                        to = classes.order[begin + i] * width
                        for lane in range(0, width, L):
                            store(room.ordered, to + lane, load(sums, i * width + lane))
            row, tap0 = row_end, taps
        if classes.number > 1:
            to_planes(room.ordered, total, k, width, out, classes.places)
            if after.last:
                with_other(out, other, k, total, total, after.last)


@loop("i i", Images, Images, "f* i i f* i", Frame, "i i i i w* i w* w* f* f*")
def weight_sums(
    first, last, x, dy, dweight, terms, term, dbias, biased, frame, k, width, count, steps, rows, row_count, cols, places, framed, turned
):
    """The `row_count` rows from `term` on of dweight (width / 64, terms, 64), blocks of lanes as in `gather`, from images first … last − 1:
    rows are taps, steps of a sum are outputs, `steps` at a time. dbias (width) likewise. A block goes through all images, so that its sums
    stay in the second-level cache.

    places (2, count): of outputs as rows, in a whole block and in the last.
    """
    for lane in range(0, width, BLOCK):
        lanes, own = min(BLOCK, width - lane), at(places, count if lane + BLOCK > width else 0)
        for image in range(first, last):
            source = in_frame(at(x.first, image * x.step), frame, framed)
            to_rows(at(dy.first, image * dy.step + lane * count), count, count, min(lanes, k - lane), turned, own)
            if biased:
                add_rows(turned, count, lanes, at(dbias, lane))
            to = at(dweight, lane * terms + term * lanes)
            for i in range(0, count, steps):
                step, by, mode = min(steps, count - i), at(turned, i * lanes), image - first + i
                product(row_count, step, source, rows, at(cols, i), by, lanes, lanes, to, lanes, mode)


@loop("f* i i f*")
def add_rows(rows, count, width, sums):
    """sums (width) += rows (count, width)."""
    for lane in range(0, width, L):
        total = load(sums, lane)
        for i in range(lane, count * width, width):
            total = total + load(rows, i)
        store(sums, lane, total)


class Way(NamedTuple):
    """From x to y of a pass: x's frame, the tables, channels of y, and lanes."""

    frame: Frame
    tables: Tables
    k: int
    width: int


class Direct:
    """The plan of one convolution: its tables and sizes. x (N, C, H, W), weight (K, C/groups, R, S), y and dy (N, K, P, Q), whose images
    may lie apart."""

    parts = True

    def __init__(self, c: int, k: int, window: Window, groups: int = 1) -> None:
        self.c, self.k, self.window, self.groups = c // groups, k // groups, window, groups
        self.width, self.c_width, self.count = lanes(self.k), lanes(self.c), math.prod(window.output)
        self.frame = framed(self.c, window)
        rows = tables.outputs(window, self.frame.wide)
        cols = tables.taps(self.c, window, self.frame.high, self.frame.wide)
        self.ahead = Tables(
            ends=[self.count, len(cols)],
            rows=rows,
            order=[0],
            cols=cols,
            places=np.arange(self.k) * self.count,
            turns=_in_blocks(np.arange(self.count), self.width),
            lines=_in_blocks(np.arange(len(cols)), self.width),
            planes=np.arange(self.k) * len(cols),
        )
        self._behind: Way | None = None

    def forward(
        self, x: Array, weight: Array, bias: Array | None, relu: bool, y: Array, norm: Norm | None = None, added: Array | None = None
    ) -> None:
        """y = convolution of x, plus bias, then batch normalization, plus `added`, then ReLU."""
        taps, t = len(self.ahead.cols), self.ahead.at
        room = Scratch(self.groups * taps * self.width, shared=True)
        packed = room.parts[0].reshape(self.groups, taps * self.width)
        if self.width > self.k:
            fill(*room.piece(0), 0)
        for g in range(self.groups):
            for lane, channels, whole in _blocks(self.k):
                lines = t.lines if whole else t.lines + 8 * taps
                to_rows(address(weight) + 4 * (g * self.k + lane) * taps, taps, taps, channels, address(packed[g]) + 4 * lane * taps, lines)
        _vectors, after = after_sums(self.k, self.width, self.groups, bias, relu, norm, added)
        self._gather(x, packed, after, y, Way(self.frame, self.ahead, self.k, self.width))

    def input_grad(self, dy: Array, weight: Array, relu: Array | None, dx: Array) -> None:
        """dx from dy; 0 where `relu`, if given, is not positive."""
        behind = self.behind().tables
        rows, taps = len(behind.cols) + 1, math.prod(self.window.kernel)  # the last row is for what `kernels_by_tap` writes in excess
        room = Scratch(self.groups * rows * self.c_width, shared=True)
        packed = room.parts[0].reshape(self.groups, rows * self.c_width)
        if self.c_width > self.c:
            fill(*room.piece(0), 0)
        for g in range(self.groups):
            for lane, channels, whole in _blocks(self.c):
                by, turns = (
                    address(weight) + 4 * (g * self.k * self.c + lane) * taps,
                    behind.at.turns + (0 if whole else 4 * behind.turns.size),
                )
                kernels_by_tap(by, self.k, self.c, channels, taps, address(packed[g]) + 4 * lane * rows, turns)
        _vectors, after = after_sums(self.c, self.c_width, self.groups, mask=relu)
        self._gather(dy, packed, after, dx, self.behind())

    def _gather(self, x: Array, weight: Array, after: list[After], y: Array, way: Way) -> None:
        frame, t, k, width = way
        n, total, classes = len(x), y.shape[2] * y.shape[3], len(t.ends) // 2
        parts = tables.parts(n, -(-total // BAND)) if classes == 1 else 1
        plane, out = frame.c * frame.h * frame.w, k * total
        own = Classes(classes, weight.shape[1] // width, t.at.ends, t.at.rows, t.at.order, t.at.cols, t.at.places)
        sizes = frame.size, BAND * width, total * width if classes > 1 else 0

        def body(first: int, last: int) -> None:
            scratch = Scratch(*sizes)
            fill(*scratch.piece(0), 0)
            room = scratch.addresses()
            for g in range(self.groups):
                source, to = images(x, g * plane), images(y, g * out)
                gather(first, last, parts, *source, address(weight[g]), *after[g], *to, *frame, k, width, total, *own, *room)

        share(n * parts, body, n * total * width * self.groups * (len(t.cols) // classes + 1))

    def weight_grad(self, dy: Array, x: Array, dweight: Array, dbias: Array | None) -> None:
        """dweight (K, C/groups, R, S), and dbias (K)."""
        n, taps, t, frame = len(x), len(self.ahead.cols), self.ahead, self.frame
        ends = edges(n, self.groups * taps * self.width, self.count)
        count = len(ends) - 1
        parts = tables.parts(count, taps)
        tap_ends = [taps * part // parts for part in range(parts + 1)]
        each, wide = self.groups * taps * self.width, self.groups * self.width
        scratch = Scratch(count * each, count * wide, shared=True)
        sums, biases = scratch.addresses()
        fill(*scratch.piece(1), 0)
        plane, out = frame.c * frame.h * frame.w, self.k * self.count

        def body(first: int, last: int) -> None:
            own = Scratch(frame.size, self.count * min(self.width, BLOCK))
            for index in range(2):
                fill(*own.piece(index), 0)
            room = own.addresses()
            for piece in range(first, last):
                group, part = divmod(piece, parts)
                tap, biased = tap_ends[part], part == 0 and dbias is not None
                sizes = self.k, self.width, self.count, LONG if taps == frame.c else CHUNK
                where = t.at.cols + 8 * tap, tap_ends[part + 1] - tap, t.at.rows, t.at.turns
                for g in range(self.groups):
                    source, given = images(x, g * plane), images(dy, g * out)
                    to = sums + 4 * (group * each + g * taps * self.width), taps, tap, biases + 4 * (group * wide + g * self.width)
                    weight_sums(ends[group], ends[group + 1], *source, *given, *to, biased, *frame, *sizes, *where, *room)

        share(count * parts, body, n * self.count * self.width * self.groups * (taps + 1))
        add_up(sums, count, each, each, sums)
        for g in range(self.groups):
            for lane, channels, _ in _blocks(self.k):
                to, lanes_ = address(dweight) + 4 * (g * self.k + lane) * taps, min(BLOCK, self.width - lane)
                to_planes(sums + 4 * (g * self.width + lane) * taps, taps, channels, lanes_, to, t.at.planes)
        if dbias is not None:
            add_up(biases, count, wide, wide, biases)
            columns_of(biases, self.groups, self.width, 0, self.k, address(dbias))

    def behind(self) -> Way:
        """The way of the gradient of the input, made when it is first needed: a network that only predicts does without."""
        if self._behind is None:
            self._behind = self._classes()
        return self._behind

    def _classes(self) -> Way:
        """The classes of the gradient of the input: pixel i gets dy[(i + padding − dilation·tap) / stride], where that is whole."""
        window = self.window
        margins, axes = [], []
        for size, kernel, stride, dilation, out, (before, _) in zip(
            window.input, window.kernel, window.stride, window.dilation, window.output, window.padding, strict=True
        ):
            places = [
                [(tap, (i + before - dilation * tap) // stride) for tap in range(kernel) if (i + before - dilation * tap) % stride == 0]
                for i in range(size)
            ]
            found = [place for of_pixel in places for _, place in of_pixel]
            margins.append((max(0, -min(found, default=0)), max(0, max(found, default=0) - out + 1)))
            axes.append([[(i, places[i]) for i in range(first, size, stride)] for first in range(min(stride, size))])
        (top, bottom), (left, right) = margins
        (p, q), w = window.output, window.input[1]
        high, wide = p + top + bottom, q + left + right
        ends, rows, order, cols = [], [], [], []
        row_count = col_count = 0
        turns = np.full((self.k, lanes(math.prod(window.kernel))), -1)  # the row of each tap among those of all classes
        for down in axes[0]:
            for along in axes[1]:
                taps_down, taps_along = down[0][1], along[0][1]
                starts = [[pixel[1][0][1] + margin if pixel[1] else 0 for pixel in axis] for axis, margin in ((down, top), (along, left))]
                shifts = [[place - axis[0][1] for _, place in axis] if axis else [] for axis in (taps_down, taps_along)]
                rows.append(grid(starts[0], starts[1], wide))
                order.append(grid([i for i, _ in down], [i for i, _ in along], w))
                cols.append(grid(np.arange(self.k) * high, grid(shifts[0], shifts[1], wide), wide))
                met = grid([tap for tap, _ in taps_down], [tap for tap, _ in taps_along], window.kernel[1])
                turns[:, met] = col_count + np.arange(self.k * len(met)).reshape(self.k, -1)
                row_count, col_count = row_count + len(rows[-1]), col_count + len(cols[-1])
                ends += [row_count, col_count]
        made = Tables(
            ends=ends,
            rows=np.concatenate(rows),
            order=np.concatenate(order),
            cols=np.concatenate(cols),
            places=np.arange(self.c) * math.prod(window.input),
            turns=_in_blocks(np.where(turns < 0, col_count, turns).reshape(-1), self.c_width),
        )
        return Way(Frame(self.k, p, q, top, left, high, wide), made, self.c, self.c_width)


def _blocks(channels: int) -> list[tuple[int, int, bool]]:
    """The first channel of each block of lanes, how many it has, and whether it is a whole block."""
    return [(lane, min(BLOCK, channels - lane), lane + BLOCK <= lanes(channels)) for lane in range(0, channels, BLOCK)]


def _in_blocks(rows: Table, width: int) -> Table:
    """Where these rows lie in a whole block of lanes, and in the last of `width` lanes: (2, …)."""
    return np.stack([rows * min(width, BLOCK), rows * (width % BLOCK or BLOCK)])

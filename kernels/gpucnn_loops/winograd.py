"""Winograd's convolution of 3×3 and 5×5 kernels at stride 1: 36 multiplications for a tile's outputs instead of 144 or 100.

A chunk of tiles goes through all its passes while it is in the second-level cache: transform the patches, 36 products, transform back.
The gradient of the input is the forward pass with the turned kernel. That of the weight is dU[f] = V[f]ᵀ·(A·dy·Aᵀ)[f], dg = Gᵀ·dU·G.

Infinity or NaN in one pixel would spread over its tile, and a number too large for a transform would become one. So each image says
whether a result is not finite, and such an image goes the direct road.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.direct import Direct, add_rows, masked
from gpucnn_loops.language import record
from gpucnn_loops.loops import loop
from gpucnn_loops.tables import Images, Sliding, Tables, Window, edges, grid, images, lanes, parts
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.tile import product
from gpucnn_loops.transforms import SKEW, TILES, gradients_in, kernels_in, kernels_out, matrices, patches_in, tiles_out
from gpucnn_loops.turn import fill, to_planes, to_rows, turned_kernels
from gpucnn_loops.vector import L, as_floats, at, beats, fma, load, place16, relu16, relu_first, splat, store, sum16

Array = NDArray[np.float32]
LEAST = 16  # the fewest channels: with fewer, most lanes of the transforms would be empty
GAIN = 1.4  # the transforms' share, and what their rounding must be worth
ZERO = np.float32(0)


def fits(c: int, k: int, window: Window, groups: int = 1) -> bool:
    """Whether Winograd's algorithm supports a convolution in all its passes, and is faster."""
    (r, s), m = window.kernel, 7 - window.kernel[0]
    if groups != 1 or (r, s) not in ((3, 3), (5, 5)) or window.stride != (1, 1) or window.dilation != (1, 1) or min(c, k) < LEAST:
        return False
    if any(side >= r for sides in window.padding for side in sides):
        return False
    tiles = [(math.prod(-(-side // m) for side in image), math.prod(image)) for image in (window.output, window.input)]
    return all(36 * GAIN * count <= r * s * pixels for count, pixels in tiles)


@record("i i i i i i i i i i i i w* w* w* w* w*")
class Tiling(NamedTuple):
    """How images are cut into tiles. `group` images go through together, `each` tiles of an image, m × m outputs of a tile. c input
    channels in c_width lanes, the outputs' in `width` of ws. An image has `plane` pixels; in its frame in_size, in rows of `wide`; and
    out_size outputs of whole tiles, in rows of out_wide.

    ins and outs: the tiles' corners; at_in: places of an image's pixels in its frame; t_rows and c_cols: tiles and channels for `product`.
    """

    group: int
    each: int
    m: int
    c: int
    c_width: int
    width: int
    ws: int
    plane: int
    in_size: int
    wide: int
    out_size: int
    out_wide: int
    ins: int
    outs: int
    at_in: int
    t_rows: int
    c_cols: int


@record("f* f* f* f* f*")
class Room(NamedTuple):
    """Scratch: pixels of a group of images, V, M, outputs of whole tiles or their gradients, and a few vectors."""

    rows: int
    v: int
    mm: int
    sums: int
    few: int


@loop("i i", Images, "f*", Tiling, Room)
def outputs_of(image, images, x, u, t, room):
    """room.sums (images, rows of whole tiles, width): the outputs of some images."""
    for i in range(images):
        to_rows(at(x.first, (image + i) * x.step), t.plane, t.plane, t.c, at(room.rows, i * t.in_size * t.c_width), t.at_in)
    total = images * t.each
    for t0 in range(0, total, TILES):
        tiles = min(TILES, total - t0)
        patches_in(room.rows, t.wide, t.c_width, at(t.ins, t0), tiles, room.v, room.few)
        for f in range(36):
            patches, out = at(room.v, f * (TILES * t.c_width + SKEW)), at(room.mm, f * (TILES * t.width + SKEW))
            product(tiles, t.c, patches, t.t_rows, t.c_cols, at(u, f * t.c * t.ws), t.ws, t.width, out, t.width, 0)
        tiles_out(room.mm, t.width, at(t.outs, t0), tiles, t.out_wide, t.m, room.sums, room.few)


@loop("i i", Images, "f*", Tiling, Room, "f* i f*", Images, "i i w* w* f* f*")
def forward(first, last, x, u, t, room, bias, relu, mask, y, k, total, at_out, places, flat, broken):
    """y (images, k, total) of the images first … last − 1. broken[image] is 0, or NaN where a result is not finite."""
    sums, width = room.sums, t.width
    for begin in range(first, last, t.group):
        images = min(t.group, last - begin)
        outputs_of(begin, images, x, u, t, room)
        for image in range(images):
            bad = splat(ZERO)
            for lane in range(0, width, L):
                b = load(bias, lane)
                for i in range(total):
                    value = load(sums, (image * t.out_size + at_out[i]) * width + lane) + b
                    bad = fma(value, splat(ZERO), bad)
                    store(flat, i * width + lane, relu16(value) if relu == 1 else value)
            broken[begin + image] = sum16(bad)
            out = (begin + image) * y.step
            to_planes(flat, total, k, width, at(y.first, out), places)
            if relu == 2:
                masked(at(y.first, out), at(mask, out), k, total, total)


@loop("i i", Images, "f*", Tiling, Room, "f*", Images, "i* i i i i w* f* f* f*")
def forward_pool(first, last, x, u, t, room, bias, y, indices, k, high, across, conv_wide, places, best, won, broken):
    """As `forward`, then ReLU and 2×2 pooling while the outputs are in the cache: y and indices (images, k, high, across)."""
    sums, width = room.sums, t.width
    for begin in range(first, last, t.group):
        images = min(t.group, last - begin)
        outputs_of(begin, images, x, u, t, room)
        for image in range(images):
            bad = splat(ZERO)
            for i in range(high):
                for j in range(across):
                    corner, to = (image * t.out_size + 2 * i * t.out_wide + 2 * j) * width, (i * across + j) * width
                    place = 2 * i * conv_wide + 2 * j
                    p0, p1, p2, p3 = place16(place), place16(place + 1), place16(place + conv_wide), place16(place + conv_wide + 1)
                    for lane in range(0, width, L):
                        b, here, below = load(bias, lane), corner + lane, corner + t.out_wide * width + lane
                        v0, v1 = load(sums, here) + b, load(sums, here + width) + b
                        v2, v3 = load(sums, below) + b, load(sums, below + width) + b
                        bad = fma(v0, splat(ZERO), fma(v1, splat(ZERO), fma(v2, splat(ZERO), fma(v3, splat(ZERO), bad))))
                        a, place_a = beats(v1, v0, p1, p0)
                        a, place_a = beats(v2, a, p2, place_a)
                        a, place_a = beats(v3, a, p3, place_a)
                        a, place_a = relu_first(a, place_a, p0)
                        store(best, to + lane, a)
                        store(won, to + lane, place_a)
            broken[begin + image] = sum16(bad)
            out = (begin + image) * y.step
            to_planes(best, high * across, k, width, at(y.first, out), places)
            to_planes(won, high * across, k, width, as_floats(at(indices, out)), places)


@loop("i i", Images, Images, "f* f*", Tiling, Room, "i i w*")
def weight_sums(first, last, x, dy, du, dbias, t, room, k, count, at_out):
    """du[f][c][k] from images first … last − 1, and dbias (k). at_out: where an image's gradients lie among those of whole tiles."""
    c, width, grads = t.c, t.width, room.sums
    for begin in range(first, last, t.group):
        images = min(t.group, last - begin)
        for i in range(images):
            to_rows(at(x.first, (begin + i) * x.step), t.plane, t.plane, c, at(room.rows, i * t.in_size * t.c_width), t.at_in)
            to_rows(at(dy.first, (begin + i) * dy.step), count, count, k, at(grads, i * t.out_size * width), at_out)
        add_rows(grads, images * t.out_size, width, dbias)  # rows of zeros past the edge do no harm
        for t0 in range(0, images * t.each, TILES):
            tiles = min(TILES, images * t.each - t0)
            patches_in(room.rows, t.wide, t.c_width, at(t.ins, t0), tiles, room.v, room.few)
            gradients_in(grads, t.out_wide, width, at(t.outs, t0), tiles, t.m, room.mm, room.few)
            for f in range(36):
                patches, by = at(room.v, f * (TILES * t.c_width + SKEW)), at(room.mm, f * (TILES * width + SKEW))
                to = at(du, f * c * t.ws)
                product(c, tiles, patches, t.c_cols, t.t_rows, by, width, width, to, t.ws, begin - first + t0)


class Winograd:
    """The plan of one convolution that `fits`. x (N, C, H, W), weight (K, C, R, R), y and dy (N, K, P, Q), whose images may lie apart."""

    parts = True

    def __init__(self, c: int, k: int, window: Window) -> None:
        self.c, self.k, self.window, self.r = c, k, window, window.kernel[0]
        self.m, (h, w), (p, q) = 7 - self.r, window.input, window.output
        self.c_width, self.width, self.plane, self.count = lanes(c), lanes(k), h * w, p * q
        down, along = -(-p // self.m), -(-q // self.m)
        self.each, self.group = down * along, max(1, TILES // (down * along))
        self.wide, self.out_wide = along * self.m + self.r - 1, along * self.m
        self.in_size, self.out_size = (down * self.m + self.r - 1) * self.wide, down * self.m * self.out_wide
        numbers = np.arange(self.group)
        (top, _), (left, _) = window.padding
        at_out = grid(np.arange(p), np.arange(q), self.out_wide)
        self.tables = Tables(
            ins=grid(numbers, grid(np.arange(down) * self.m, np.arange(along) * self.m, self.wide), self.in_size),
            outs=grid(numbers, grid(np.arange(down) * self.m, np.arange(along) * self.m, self.out_wide), self.out_size),
            at_in=grid(np.arange(h) + top, np.arange(w) + left, self.wide) * self.c_width,
            rows=np.arange(c * self.r**2) * self.width,
            planes=np.arange(k) * c * self.r**2,
            at_out=at_out,
            t_rows=np.arange(TILES) * self.c_width,
            c_cols=np.arange(c),
            places=np.arange(k) * self.count,
        )
        self.g = np.ascontiguousarray(matrices(self.r)[1], np.float32)
        self.direct = Direct(c, k, window)
        self._back: Winograd | None = None
        self._per_width: dict[int, Tables] = {}
        self._pooled: Tables | None = None

    def forward(self, x: Array, weight: Array, bias: Array | None, relu: bool, y: Array) -> None:
        """y = convolution of x, plus bias, then ReLU."""
        for image in self._forward(x, self._u(weight), bias, 1 if relu else 0, None, y):
            self.direct.forward(x[image : image + 1], weight, bias, relu, y[image : image + 1])

    def input_grad(self, dy: Array, weight: Array, relu: Array | None, dx: Array) -> None:
        """dx from dy; 0 where `relu`, if given, is not positive."""
        for image in self.back._forward(dy, self.back._u(weight, turned=True), None, 0 if relu is None else 2, relu, dx):
            one = slice(image, image + 1)
            self.direct.input_grad(dy[one], weight, None if relu is None else relu[one], dx[one])

    @property
    def back(self) -> Winograd:
        """The plan of the gradient of the input."""
        if self._back is None:
            window, r = self.window, self.r
            (top, bottom), (left, right) = window.padding
            padding = (r - 1 - top, r - 1 - bottom), (r - 1 - left, r - 1 - right)
            self._back = Winograd(self.k, self.c, Sliding(window.output, window.kernel, (1, 1), padding, (1, 1), window.input))
        return self._back

    def _u(self, weight: Array, turned: bool = False) -> Array:
        """U[f][c][k] of weight (k, c, r, r), or of the turned kernels of weight (c, k, r, r)."""
        u: Array
        packed, u = Scratch(self.r**2 * self.c * self.width, 36 * self.c * self.width, shared=True).parts
        taps = self.r**2
        if self.width > self.k:
            packed[...] = 0
        if turned:
            turned_kernels(address(weight), self.c, self.k, taps, self.width, address(packed))
        else:
            to_rows(address(weight), self.c * taps, self.c * taps, self.k, address(packed), self.tables.at.rows)

        def body(first: int, last: int) -> None:
            room = Scratch(36 * L).addresses()
            kernels_in(first, last, address(packed), address(self.g), self.r, self.c, self.width, address(u), *room)

        share(self.c, body, 36 * self.c * self.width * self.r)
        return u

    def _parts(self, n: int) -> list[tuple[int, int, int]]:
        """The output channels in parts: first, channels, lanes. One, unless n pieces of work are too few for the threads."""
        count = parts(n, self.width // L)
        ends = [L * (self.width // L * part // count) for part in range(count + 1)]
        return [(first, min(end, self.k) - first, end - first) for first, end in itertools.pairwise(ends)]

    def _tiling(self, width: int) -> Tiling:
        """For so many lanes of the outputs' channels."""
        t, sizes = self.tables.at, (self.plane, self.in_size, self.wide, self.out_size, self.out_wide)
        channels = self.c, self.c_width, width, self.width
        return Tiling(self.group, self.each, self.m, *channels, *sizes, t.ins, t.outs, t.at_in, t.t_rows, t.c_cols)

    def _room(self, width: int) -> tuple[int, ...]:
        """Sizes of a thread's `Room`."""
        planes = 36 * (TILES * self.c_width + SKEW), 36 * (TILES * width + SKEW)
        return self.group * self.in_size * self.c_width, *planes, self.group * self.out_size * width, 42 * L

    def _forward(self, x: Array, u: Array, bias: Array | None, relu: int, mask: Array | None, y: Array) -> list[int]:
        """Computes y, and says which images are not finite."""
        n, own = len(x), self._parts(len(x))
        b = np.zeros(self.width, np.float32)
        if bias is not None:
            b[: self.k] = bias
        broken = np.empty((len(own), n), np.float32)
        t = self.tables.at

        def body(begin: int, end: int) -> None:
            for part, a, z in pieces(begin, end, n):
                first, k, width = own[part]
                scratch = Scratch(*self._room(width), self.count * width)
                fill(*scratch.piece(0), 0)
                *room, flat = scratch.addresses()
                out = first * self.count
                ahead = *images(x), address(u) + 4 * first, *self._tiling(width), *room
                after = address(b) + 4 * first, relu, 0 if mask is None else address(mask) + 4 * out, *images(y, out)
                forward(a, z, *ahead, *after, k, self.count, t.at_out, t.places, flat, address(broken[part]))

        share(n * len(own), body, n * self.work)
        return np.flatnonzero(np.isnan(broken).any(axis=0)).tolist()

    def forward_pool(self, x: Array, weight: Array, bias: Array | None, y: Array, indices: NDArray[np.int32]) -> list[int]:
        """y, indices (N, K, P // 2, Q // 2): the maxima of 2×2 windows of relu(convolution), and their places in its planes.

        Returns the images for which that could not be done, because a number is not finite.
        """
        n, own, u = len(x), self._parts(len(x)), self._u(weight)
        high, across = y.shape[2:]
        b = np.zeros(self.width, np.float32)
        if bias is not None:
            b[: self.k] = bias
        broken = np.empty((len(own), n), np.float32)
        if self._pooled is None:
            self._pooled = Tables(places=np.arange(self.k) * high * across)
        places = self._pooled

        def body(begin: int, end: int) -> None:
            for part, a, z in pieces(begin, end, n):
                first, k, width = own[part]
                scratch = Scratch(*self._room(width), high * across * width, high * across * width)
                fill(*scratch.piece(0), 0)
                *room, best, won = scratch.addresses()
                out = first * high * across
                ahead = *images(x), address(u) + 4 * first, *self._tiling(width), *room
                after = address(b) + 4 * first, *images(y, out), address(indices) + 4 * out
                sizes = k, high, across, self.window.output[1]
                forward_pool(a, z, *ahead, *after, *sizes, places.at.places, best, won, address(broken[part]))

        share(n * len(own), body, n * self.work)
        return np.flatnonzero(np.isnan(broken).any(axis=0)).tolist()

    @property
    def work(self) -> int:
        """Multiply-adds of an image."""
        return 36 * self.each * self.width * (self.c + 8)

    def weight_grad(self, dy: Array, x: Array, dweight: Array, dbias: Array | None) -> None:
        """dweight (K, C, R, R), and dbias (K)."""
        n, c, ends = len(x), self.c, edges(len(x), 36 * self.c * self.width)
        groups = len(ends) - 1
        own = self._parts(groups)
        shared = Scratch(groups * 36 * c * self.width, groups * self.width, self.r**2 * c * self.width, shared=True)
        du, biases, packed = shared.parts
        biases[...] = 0

        def body(begin: int, end: int) -> None:
            for part, a, z in pieces(begin, end, groups):
                first, k, width = own[part]
                scratch = Scratch(*self._room(width))
                fill(*scratch.piece(0), 0)
                fill(*scratch.piece(3), 0)
                given = *images(x), *images(dy, first * self.count)
                tiling = *self._tiling(width), *scratch.addresses()
                for group in range(a, z):
                    to = address(du) + 4 * (group * 36 * c * self.width + first), address(biases) + 4 * (group * self.width + first)
                    weight_sums(ends[group], ends[group + 1], *given, *to, *tiling, k, self.count, self._turns(width).at.places)

        share(groups * len(own), body, n * self.work)

        def back(first: int, last: int) -> None:
            room = Scratch(42 * L).addresses()
            kernels_out(first, last, address(du), groups, address(self.g), self.r, c, self.width, address(packed), *room)

        share(c, back, 36 * groups * c * self.width)
        to_planes(address(packed), c * self.r**2, self.k, self.width, address(dweight), self.tables.at.planes)
        if not np.isfinite(dweight).all():
            self.direct.weight_grad(dy, x, dweight, dbias)
        elif dbias is not None:
            dbias[...] = np.add.reduce(biases.reshape(groups, self.width), axis=0)[: self.k]

    def _turns(self, width: int) -> Tables:
        """Where an image's gradients lie among the rows of whole tiles, so many lanes each."""
        if width not in self._per_width:
            self._per_width[width] = Tables(places=self.tables.at_out * width)
        return self._per_width[width]


def pieces(begin: int, end: int, n: int) -> list[tuple[int, int, int]]:
    """Pieces begin … end − 1, n for each part, as (part, first, last)."""
    found = []
    while begin < end:
        part = begin // n
        last = min(end, (part + 1) * n)
        found.append((part, begin - part * n, last - part * n))
        begin = last
    return found

"""Convolutions by 1×1 kernels: products of the weight, as it lies, and of pixels, which are the lanes. Neither the weight nor the result is
turned, which for one image, or for few, takes as long as the products.

The pixels of all images are one long row, so that small planes leave no lanes empty but the last. Those of some blocks are copied to where
the channels of each block lie together, of every `stride`-th pixel where the step is more than 1, and are multiplied with some rows of the
weight at a time. A sum has the terms of `direct.py` in its order: which of the two roads a batch takes changes no bits.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops import tables
from gpucnn_loops.after import After, Norm, after_sums, with_other
from gpucnn_loops.crew import share
from gpucnn_loops.direct import Direct
from gpucnn_loops.language import helper, record
from gpucnn_loops.loops import loop
from gpucnn_loops.pixel_sums import TURNING
from gpucnn_loops.tables import Images, Tables, Window, images
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.tile import product_of_rows
from gpucnn_loops.turn import fill, transpose
from gpucnn_loops.vector import L, at, load, relu16, splat, spread, store

Array = NDArray[np.float32]
BLOCK = 64  # pixels whose channels lie together
STEPS = 128  # channels whose pixels of a block stay in the first-level cache, 32 KB, for some rows of the weight
STRIP = 1 << 16  # numbers that are copied at a time, 256 KB
# Numbers of the weight from which turning them takes long; and pixels for which that is worth turning the weight for the gradient of the
# input, which the direct road does not.
LARGE, MANY = 1 << 18, 256
ROWS = 30  # of the weight that go through all blocks of a strip
ZERO = np.float32(0)


@record("i i i i i i w* i i")
class Way(NamedTuple):
    """From c planes of x to k of y, of which `each` pixels of an image take part, `pixels` of all: places[i] is where pixel i lies in a
    plane of the larger ones, those of x where `gathered`, those of y where `scattered`; elsewhere it is the i-th."""

    c: int
    k: int
    plane: int
    out: int
    each: int
    pixels: int
    places: int
    gathered: int
    scattered: int


@helper
def copy(source, count, to):
    """to[i] = source[i], for i < count; the last vector is moved back so that it ends with them."""
    whole = count // L * L
    if whole:
        for i in range(0, whole, L):
            store(to, i, load(source, i))
        if whole < count:
            store(to, count - L, load(source, count - L))
    else:
        for i in range(count):
            to[i] = source[i]


@loop("i i", Images, Way, "f*")
def pack(first, last, x, way, packed):
    """packed[block, channel, lane]: the pixels first … last − 1; lanes behind the last are 0, up to whole sixteens."""
    for lane in range(first, last, BLOCK):
        pixel, end = lane, min(lane + BLOCK, last)
        if (end - lane) % L:
            for channel in range(way.c):
                store(packed, (lane - first) * way.c + channel * BLOCK + (end - lane) // L * L, splat(ZERO))
        while pixel < end:
            image, place = pixel // way.each, pixel % way.each
            run = min(end - pixel, way.each - place)
            source, to = at(x.first, image * x.step), at(packed, (lane - first) * way.c + pixel - lane)
            for channel in range(way.c):
                line, own = at(source, channel * way.plane), at(to, channel * BLOCK)
                if way.gathered:
                    for i in range(run):
                        own[i] = line[way.places[place + i]]
                else:
                    copy(at(line, place), run, own)
            pixel += run


@loop("i i i i f*", After, Images, Way)
def unpack(first, last, row, rows, sums, after, y, way):
    """Sums (rows, 64), which are changed, of the pixels first … last − 1 and the channels from `row` on, to where they belong in y."""
    for q in range(rows):
        own, channel = at(sums, q * BLOCK), row + q
        if after.some:
            bias = spread(after.vectors, channel)
            mean, scale, shift = bias, bias, bias
            if after.normed:
                mean, scale = spread(after.vectors, after.width + channel), spread(after.vectors, 2 * after.width + channel)
                shift = spread(after.vectors, 3 * after.width + channel)
            for i in range(0, last - first, L):
                v = load(own, i) + bias
                if after.normed:
                    v = (v - mean) * scale + shift
                store(own, i, relu16(v) if after.relu else v)
        pixel = first
        while pixel < last:
            image, place = pixel // way.each, pixel % way.each
            run, given = min(last - pixel, way.each - place), at(own, pixel - first)
            to, other = at(y.first, image * y.step + channel * way.out), at(after.other, image * after.step + channel * way.out)
            if way.scattered:
                for i in range(run):
                    there = way.places[place + i]
                    to[there] = given[i]
                    if after.last:
                        with_other(at(to, there), at(other, there), 1, 0, 1, after.last)
            else:
                copy(given, run, at(to, place))
                if after.last:
                    with_other(at(to, place), at(other, place), 1, 0, run, after.last)
            pixel += run


@loop("i i i i", Images, "f*", After, Images, Way, "f* f*")
def multiply(first, last, parts, strip, x, weight, after, y, way, packed, sums):
    """y from x, of the pieces first … last − 1, which are parts of the channels of y for `strip` pixels."""
    for piece in range(first, last):
        part, start = piece % parts, piece // parts * strip
        begin, stop, end = way.k * part // parts, way.k * (part + 1) // parts, min(start + strip, way.pixels)
        pack(start, end, x, way, packed)
        for row in range(begin, stop, ROWS):
            rows = min(ROWS, stop - row)
            for lane in range(start, end, BLOCK):
                last_lane = min(lane + BLOCK, end)
                wide = (last_lane - lane + L - 1) // L * L
                for depth in range(0, way.c, STEPS):
                    steps, by = min(STEPS, way.c - depth), at(weight, row * way.c + depth)
                    pixels = at(packed, (lane - start) * way.c + depth * BLOCK)
                    product_of_rows(rows, steps, by, way.c, pixels, BLOCK, wide, sums, BLOCK, depth)
                unpack(lane, last_lane, row, rows, sums, after, y, way)


@loop("i i", Images, "i")
def clear(first, last, y, count):
    """0 for `count` numbers of the images first … last − 1."""
    for image in range(first, last):
        fill(at(y.first, image * y.step), count, ZERO)


def fits(window: Window) -> bool:
    """Whether a convolution is one of these."""
    return window.kernel == (1, 1) and window.padding == ((0, 0), (0, 0))


class Pointwise:
    """The plan of such a convolution, whose passes go the direct road where turning is little of the work. x (N, C, H, W), weight
    (K, C/groups, 1, 1), y and dy (N, K, P, Q), whose images may lie apart."""

    parts = True

    def __init__(self, c: int, k: int, window: Window, groups: int = 1) -> None:
        self.c, self.k, self.groups = c // groups, k // groups, groups
        self.direct = Direct(c, k, window, groups)
        self.weight_grad = self.direct.weight_grad
        self.plane, self.count = math.prod(window.input), math.prod(window.output)
        self.apart = self.plane > self.count
        self.tables = Tables(places=tables.outputs(window, window.input[1]) if self.apart else [0])

    def forward(
        self, x: Array, weight: Array, bias: Array | None, relu: bool, y: Array, norm: Norm | None = None, added: Array | None = None
    ) -> None:
        """y = convolution of x, plus bias, then batch normalization, plus `added`, then ReLU."""
        if self.c * self.k < LARGE and len(x) * self.count > BLOCK:
            self.direct.forward(x, weight, bias, relu, y, norm, added)
            return
        _vectors, after = after_sums(self.k, self.k, self.groups, bias, relu, norm, added)
        pixels = self.count, len(x) * self.count, self.tables.at.places
        self._multiply(x, weight, after, y, Way(self.c, self.k, self.plane, self.count, *pixels, self.apart, False))

    def input_grad(self, dy: Array, weight: Array, relu: Array | None, dx: Array) -> None:
        """dx from dy; 0 where `relu`, if given, is not positive."""
        if self.c * self.k < LARGE or len(dy) * self.count < MANY:
            self.direct.input_grad(dy, weight, relu, dx)
            return
        turned = Scratch(weight.size, shared=True).parts[0]
        for g in range(self.groups):
            place = 4 * g * self.k * self.c
            transpose(address(weight) + place, self.c, self.k, self.c, address(turned) + place, self.k)
        if self.apart:
            of_dx, size = images(dx), self.groups * self.c * self.plane
            share(len(dx), lambda first, last: clear(first, last, *of_dx, size), len(dx) * size)
        _vectors, after = after_sums(self.c, self.c, self.groups, mask=relu)
        pixels = self.count, len(dy) * self.count, self.tables.at.places
        self._multiply(dy, turned, after, dx, Way(self.k, self.c, self.count, self.plane, *pixels, False, self.apart))

    def _multiply(self, x: Array, weight: Array, after: list[After], y: Array, way: Way) -> None:
        strip = max(1, min(-(-way.pixels // BLOCK), STRIP // way.c // BLOCK)) * BLOCK
        strips = -(-way.pixels // strip)
        parts = tables.parts(strips, way.k)

        def body(first: int, last: int) -> None:
            scratch = Scratch(strip * way.c, ROWS * BLOCK)
            for g in range(self.groups):
                arrays = *images(x, g * way.c * way.plane), address(weight) + 4 * g * way.k * way.c, *after[g]
                multiply(first, last, parts, strip, *arrays, *images(y, g * way.k * way.out), *way, *scratch.addresses())

        share(strips * parts, body, way.pixels * self.groups * way.k * (way.c + TURNING))

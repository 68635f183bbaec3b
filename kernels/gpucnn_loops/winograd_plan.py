"""Winograd's convolution of 3×3 and 5×5 kernels at stride 1: which shapes gain, and how images are cut into tiles.

The gradient of the input is the forward pass with the rotated kernel. An image with a result that is not finite is computed by direct
convolution.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.direct import Direct
from gpucnn_loops.tables import Sliding, Tables, Window, edges, grid, images, lanes, parts
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.transforms import SKEW, TILES, kernels_in, kernels_out, matrices
from gpucnn_loops.turn import fill, to_planes, to_rows, turned_kernels
from gpucnn_loops.vector import L
from gpucnn_loops.winograd import Tiling, forward, forward_pool, weight_sums

Array = NDArray[np.float32]
LEAST = 16  # the fewest channels: with fewer, most lanes of the transforms would be empty
GAIN = 1.4  # the transforms' share, and what their rounding must be worth


def fits(c: int, k: int, window: Window, groups: int = 1) -> bool:
    """Whether Winograd's algorithm supports a convolution in all its passes, and is faster."""
    (r, s), m = window.kernel, 7 - window.kernel[0]
    if groups != 1 or (r, s) not in ((3, 3), (5, 5)) or window.stride != (1, 1) or window.dilation != (1, 1) or min(c, k) < LEAST:
        return False
    if any(side >= r for sides in window.padding for side in sides):
        return False
    tiles = [(math.prod(-(-side // m) for side in image), math.prod(image)) for image in (window.output, window.input)]
    return all(36 * GAIN * count <= r * s * pixels for count, pixels in tiles)


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
        """The parts of the output channels: first, channels, lanes. There is one, unless n pieces of work are too few for the threads."""
        count = parts(n, self.width // L)
        ends = [L * (self.width // L * part // count) for part in range(count + 1)]
        return [(first, min(end, self.k) - first, end - first) for first, end in itertools.pairwise(ends)]

    def _tiling(self, width: int) -> Tiling:
        """The `Tiling` for so many lanes of the outputs' channels."""
        t, sizes = self.tables.at, (self.plane, self.in_size, self.wide, self.out_size, self.out_wide)
        channels = self.c, self.c_width, width, self.width
        return Tiling(self.group, self.each, self.m, *channels, *sizes, t.ins, t.outs, t.at_in, t.t_rows, t.c_cols)

    def _room(self, width: int) -> tuple[int, ...]:
        """The sizes of a thread's `Room`."""
        planes = 36 * (TILES * self.c_width + SKEW), 36 * (TILES * width + SKEW)
        return self.group * self.in_size * self.c_width, *planes, self.group * self.out_size * width, 42 * L

    def _forward(self, x: Array, u: Array, bias: Array | None, relu: int, mask: Array | None, y: Array) -> list[int]:
        """Computes y, and returns which images are not finite."""
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

"""Winograd's convolution of 3×3 and 5×5 kernels at stride 1: which shapes gain, and how images are cut into tiles.

The gradient of the input is the forward pass with the rotated kernel. An image with a result that is not finite is computed by direct
convolution.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.after import After, Norm, after_sums
from gpucnn_loops.crew import share
from gpucnn_loops.direct import Direct
from gpucnn_loops.pool import sizes_of
from gpucnn_loops.sums import add_up, not_finite
from gpucnn_loops.tables import Sliding, Tables, Window, edges, grid, images, lanes, parts
from gpucnn_loops.threads import Scratch, address, flags, lasting, number
from gpucnn_loops.transforms import SKEW, TOGETHER, kernels_in, kernels_out, matrices, planes_of
from gpucnn_loops.turn import fill, to_planes, to_rows, turned_kernels
from gpucnn_loops.vector import L
from gpucnn_loops.winograd import BLOCK, FEW, U_PLANE, Kernels, Tiling, forward, forward_pool, weight_sums

Array = NDArray[np.float32]
numbers_of = planes_of.py_func
LEAST = 16  # the fewest channels: with fewer, most lanes of the transforms would be empty
ADDED = 6  # a number of dU takes as long to add up as this many multiply-adds
TILES = 32  # tiles of a chunk, of one image or of several: V and M of 64 channels are 295 KB each, and stay in the second-level cache
# Sums of so many numbers, 8 MB, do not stay there, and each chunk of tiles adds to all of them: with larger chunks, dweight of 512 channels
# took 0.9 times as long.
LARGE, MANY_TILES = 1 << 21, 64
MOST_KEPT = 1 << 19  # numbers of transformed kernels that are kept for few tiles
MOST = 1 << 26  # and for any number of them, 268 MB
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
        self.each = down * along
        self.wide, self.out_wide = along * self.m + self.r - 1, along * self.m
        self.in_size, self.out_size = (down * self.m + self.r - 1) * self.wide, down * self.m * self.out_wide
        numbers, from_right = np.arange(self._group(MANY_TILES)), np.arange(along)[::-1]
        (top, _), (left, _) = window.padding
        at_out = grid(np.arange(p), np.arange(q), self.out_wide)
        self.tables = Tables(
            ins=grid(numbers, grid(np.arange(down) * self.m, np.arange(along) * self.m, self.wide), self.in_size),
            outs=grid(numbers, grid(np.arange(down) * self.m, np.arange(along) * self.m, self.out_wide), self.out_size),
            ins_ahead=grid(numbers, grid(np.arange(down) * self.m, from_right * self.m, self.wide), self.in_size),
            outs_ahead=grid(numbers, grid(np.arange(down) * self.m, from_right * self.m, q), self.count),
            at_in=grid(np.arange(h) + top, np.arange(w) + left, self.wide) * self.c_width,
            planes=np.arange(k) * c * self.r**2,
            kernels=np.arange(c * self.r**2) * BLOCK,
            at_out=at_out,
            turned=np.append(np.arange(self.r**2)[::-1], np.arange(self.r**2, lanes(self.r**2))) * L,
            places=np.arange(k) * self.count,
        )
        self.g = np.ascontiguousarray(matrices(self.r)[1], np.float32)
        lasting(self.g)
        self.direct = Direct(c, k, window)
        self._back: Winograd | None = None
        self._per_width: dict[int, Tables] = {}
        self._per_plane: dict[int, Tables] = {}

    def forward(
        self, x: Array, weight: Array, bias: Array | None, relu: bool, y: Array, norm: Norm | None = None, added: Array | None = None
    ) -> None:
        """y = convolution of x, plus bias, then batch normalization, plus `added`, then ReLU."""
        _vectors, after = after_sums(self.k, self.width, 1, bias, relu, norm, added)
        for image in self._forward(x, weight, False, after[0], y):
            one = slice(image, image + 1)
            self.direct.forward(x[one], weight, bias, relu, y[one], norm, None if added is None else added[one])

    def input_grad(self, dy: Array, weight: Array, relu: Array | None, dx: Array) -> None:
        """dx from dy; 0 where `relu`, if given, is not positive."""
        _vectors, after = after_sums(self.c, self.c_width, 1, mask=relu)
        for image in self.back._forward(dy, weight, True, after[0], dx):
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

    def _parts(self, n: int) -> list[tuple[int, int, int]]:
        """The parts of the output channels: first, channels, lanes. There is one, unless n pieces of work are too few for the threads."""
        return self._cut(parts(n, self.width // L))

    def _cut(self, count: int) -> list[tuple[int, int, int]]:
        ends = [L * (self.width // L * part // count) for part in range(count + 1)]
        return [(first, min(end, self.k) - first, end - first) for first, end in itertools.pairwise(ends)]

    def _shares(self, n: int) -> list[tuple[int, int, int]]:
        """The parts of the output channels. Each piece of work is some images and a part, whose kernels it transforms: where n images have
        few tiles, transforming all kernels takes longer than transforming the patches once for each part."""
        threads, own = number(), self._parts(n)
        if len(own) > 1:
            return own
        least = 3 * self.width + n * self.each / threads
        for count in range(2, min(threads, self.width // (2 * L)) + 1):
            takes = 3 * self.width / count + n * self.each * count / threads
            if threads % count == 0 and self.width % (L * count) == 0 and takes < least:
                least, own = takes, self._cut(count)
        return own

    def _kernels(self, n: int, weight: Array, turned: bool, part: tuple[int, int, int], places: tuple[int, int, int]) -> Kernels:
        """A part of the transformed kernels of weight (k, c, r, r), or of the turned kernels of weight (c, k, r, r), for n images. places:
        room for packed kernels, for U, and for a few vectors."""
        (first, k, width), c, taps, (packed, u, few) = part, self.c, self.r**2, places
        late = self._late(n, width)
        for lane in range(0, width, BLOCK):
            own, begin = min(BLOCK, k - lane), 0 if late else lane // TOGETHER * TOGETHER
            to = packed + 4 * (lane - begin) * c * taps
            if own < BLOCK:
                fill(to, c * taps * BLOCK, 0)
            if turned:
                turned_kernels(address(weight) + 4 * (first + lane) * taps, c, self.k, own, taps, to, self.tables.at.turned)
            else:
                to_rows(address(weight) + 4 * (first + lane) * c * taps, c * taps, c * taps, own, to, self.tables.at.kernels)
            together = lane + BLOCK - begin
            if not late and together == min(TOGETHER, width - begin):
                there = u + 4 * numbers_of(c, begin)
                kernels_in(0, c, together, packed, c * taps * BLOCK, self.r, there, together, c * together + SKEW, few)
        return Kernels(late, u, packed, self.r)

    def _late(self, n: int, width: int) -> bool:
        """Whether kernels are transformed part by part when they are needed: since n images have few tiles, or because all kernels would
        take too much memory, of every thread. The bits are the same."""
        size = 36 * self.c * width
        return size > MOST or (size > MOST_KEPT and n * self.each <= 2 * TILES)

    def _tiling(self, width: int, ahead: bool) -> Tiling:
        """The `Tiling` for so many lanes of the outputs' channels, where outputs are computed (`ahead`) or their gradients read."""
        t, image = self.tables.at, (self.plane, self.in_size, self.wide)
        outputs = (self.count, self.window.output[1], t.ins_ahead, t.outs_ahead) if ahead else (self.out_size, self.out_wide, t.ins, t.outs)
        tiles = self._tiles(width, ahead)
        return Tiling(
            self._group(tiles),
            tiles,
            self.each,
            self.m,
            self.c,
            self.c_width,
            width,
            row_of(self.c_width),
            row_of(width),
            plane_of(tiles, self.c_width),
            plane_of(tiles, width),
            *image,
            *outputs,
            t.at_in,
        )

    def _group(self, tiles: int) -> int:
        """The number of images that go through together, where so many tiles do."""
        return max(1, tiles // self.each)

    def _tiles(self, width: int, ahead: bool) -> int:
        """The number of tiles that go through together."""
        return TILES if ahead or 36 * self.c * width < LARGE else MANY_TILES

    def _room(self, width: int, ahead: bool) -> tuple[int, ...]:
        """The sizes of a thread's `Room`."""
        tiles = self._tiles(width, ahead)
        planes, group = [36 * plane_of(tiles, lanes) for lanes in (self.c_width, width)], self._group(tiles)
        return group * self.in_size * self.c_width, *planes, group * self.out_size * width, FEW + group * L

    def _few_kernels(self, n: int, width: int) -> tuple[int, int]:
        """The sizes of what `_kernels` writes."""
        each = self.r**2 * self.c
        return (each * width, 36 * U_PLANE) if self._late(n, width) else (each * min(TOGETHER, width), numbers_of(self.c, width))

    def _forward(self, x: Array, weight: Array, turned: bool, after: After, y: Array) -> list[int]:
        """Computes y, and returns which images are not finite."""
        n, own = len(x), self._shares(len(x))
        broken = flags((len(own), n))
        places = self.tables.at.places

        def body(begin: int, end: int) -> None:
            for part, a, z in pieces(begin, end, n):
                first, k, width = own[part]
                scratch = Scratch(*self._room(width, True), *self._few_kernels(n, width))
                fill(*scratch.piece(0), 0)
                *room, packed, u = scratch.addresses()
                kernels = self._kernels(n, weight, turned, own[part], (packed, u, room[-1]))
                ahead, out = (*images(x), *kernels, *self._tiling(width, True), *room), first * self.count
                forward(a, z, *ahead, *after.moved(first, out), *images(y, out), k, self.count, places, address(broken[part]))

        share(n * len(own), body, n * self.work)
        return _not_finite(broken)

    def forward_pool(
        self, x: Array, weight: Array, bias: Array | None, y: Array, indices: NDArray[np.int32] | None, pool: Window | None = None
    ) -> list[int]:
        """y, indices (N, K, P // 2, Q // 2): the maxima of 2×2 windows of relu(convolution), and, if wanted, their places in its planes.

        Returns the images for which that could not be done, because a number is not finite. pool: another window of the maxima.
        """
        n, own = len(x), self._shares(len(x))
        high, across = y.shape[2:]
        _vectors, after = after_sums(self.k, self.width, 1, bias)
        broken = flags((len(own), n))
        places = self._of_plane(high * across).at.places
        sizes = high, across, self.window.output[1], pool is None, *sizes_of(self.window if pool is None else pool)

        def body(begin: int, end: int) -> None:
            for part, a, z in pieces(begin, end, n):
                first, k, width = own[part]
                scratch = Scratch(*self._room(width, True), *self._few_kernels(n, width), high * across * width, high * across * width)
                fill(*scratch.piece(0), 0)
                *room, packed, u, best, won = scratch.addresses()
                kernels = self._kernels(n, weight, False, own[part], (packed, u, room[-1]))
                out = first * high * across
                ahead = *images(x), *kernels, *self._tiling(width, True), *room
                to = *after[0].moved(first, 0), *images(y, out), 0 if indices is None else address(indices) + 4 * out
                forward_pool(a, z, *ahead, *to, indices is not None, k, *sizes, places, best, won, address(broken[part]))

        share(n * len(own), body, n * self.work)
        return _not_finite(broken)

    @property
    def work(self) -> int:
        """Multiply-adds of an image."""
        return 36 * self.each * self.width * (self.c + 8)

    def weight_grad(self, dy: Array, x: Array, dweight: Array, dbias: Array | None) -> None:
        """dweight (K, C, R, R), and dbias (K). Where few tiles add to many numbers of dU, which go to memory and back, directly."""
        if len(x) * self.each <= TILES // 2 and 36 * self.c * self.width > MOST_KEPT:
            self.direct.weight_grad(dy, x, dweight, dbias)
            return
        n, c, ends = len(x), self.c, edges(len(x), 36 * self.c * self.width, 2 * self.each)
        groups = len(ends) - 1
        own = self._parts(groups)
        sizes = [numbers_of(c, width) for _, _, width in own]
        shared = Scratch(groups * sum(sizes), groups * self.width, self.r**2 * c * self.width, shared=True)
        du, biases, packed = shared.addresses()
        starts = [du + 4 * groups * before for before in itertools.accumulate(sizes, initial=0)]  # of each part's dU
        fill(*shared.piece(1), 0)

        def body(begin: int, end: int) -> None:
            for part, a, z in pieces(begin, end, groups):
                first, k, width = own[part]
                scratch = Scratch(*self._room(width, False))
                fill(*scratch.piece(0), 0)
                fill(*scratch.piece(3), 0)
                given = *images(x), *images(dy, first * self.count)
                tiling = *self._tiling(width, False), *scratch.addresses()
                for group in range(a, z):
                    to = starts[part] + 4 * group * sizes[part], biases + 4 * (group * self.width + first)
                    weight_sums(ends[group], ends[group + 1], *given, *to, *tiling, k, self.count, self._of_width(width).at.turns)

        share(groups * len(own), body, n * self.work)

        def back(first: int, last: int) -> None:
            room = Scratch(42 * L).addresses()
            for (lane, _, width), start, size in zip(own, starts, sizes, strict=False):
                to = packed + 4 * lane, self.width
                kernels_out(first, last, start, groups, size, address(self.g), self.r, c, width, *to, *room)

        share(c, back, 36 * (groups + 1) * c * self.width * ADDED)
        to_planes(packed, c * self.r**2, self.k, self.width, address(dweight), self.tables.at.planes)
        broken = flags((1,))
        not_finite(address(dweight), dweight.size, address(broken))
        if math.isnan(broken[0]):
            self.direct.weight_grad(dy, x, dweight, dbias)
        elif dbias is not None:
            add_up(biases, groups, self.width, self.k, address(dbias))

    def _of_width(self, width: int) -> Tables:
        """A table for so many lanes: turns: where an image's gradients lie among the rows of whole tiles."""
        if width not in self._per_width:
            self._per_width[width] = Tables(turns=self.tables.at_out * width)
        return self._per_width[width]

    def _of_plane(self, pixels: int) -> Tables:
        """A table for planes of so many pixels: places: where each channel's lies."""
        if pixels not in self._per_plane:
            self._per_plane[pixels] = Tables(places=np.arange(self.k) * pixels)
        return self._per_plane[pixels]


def row_of(lanes: int) -> int:
    """The distance between rows of V or M of so many lanes: not a large power of two."""
    return lanes + SKEW if lanes % 128 == 0 else lanes


def plane_of(tiles: int, lanes: int) -> int:
    """The distance between planes of V or M of so many tiles."""
    return tiles * row_of(lanes) + SKEW


def _not_finite(broken: Array) -> list[int]:
    """The images for which a part (parts, images) is NaN, where the others are 0."""
    return np.flatnonzero(np.isnan(broken).any(axis=0)).tolist() if math.isnan(broken.sum()) else []


def pieces(begin: int, end: int, n: int) -> list[tuple[int, int, int]]:
    """Pieces begin … end − 1, n for each part, as (part, first, last)."""
    found = []
    while begin < end:
        part = begin // n
        last = min(end, (part + 1) * n)
        found.append((part, begin - part * n, last - part * n))
        begin = last
    return found

"""The passes of Winograd's convolution: 36 multiplications for a tile's outputs instead of 144 or 100.

A chunk of tiles goes through all its passes while it is in the second-level cache: transform the patches, 36 products, transform back.
The gradient of the weight is dU[f] = V[f]ᵀ·(A·dy·Aᵀ)[f], dg = Gᵀ·dU·G. winograd_plan.py says which shapes gain.

Infinity or NaN in one pixel would spread over its tile, and a number too large for a transform would overflow. So the loops
report each image that has a result that is not finite.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpucnn_loops.direct import add_rows, masked
from gpucnn_loops.language import record
from gpucnn_loops.loops import loop
from gpucnn_loops.tables import Images
from gpucnn_loops.tile import product
from gpucnn_loops.transforms import SKEW, TILES, gradients_in, patches_in, tiles_out
from gpucnn_loops.turn import to_planes, to_rows
from gpucnn_loops.vector import L, as_floats, at, beats, fma, load, place16, relu16, relu_first, splat, store, sum16

ZERO = np.float32(0)


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

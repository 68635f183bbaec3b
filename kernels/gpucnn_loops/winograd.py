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

from gpucnn_loops.after import After, with_other
from gpucnn_loops.direct import add_rows
from gpucnn_loops.language import record
from gpucnn_loops.loops import loop
from gpucnn_loops.pool import Sizes, keep_largest
from gpucnn_loops.tables import Images
from gpucnn_loops.tile import product_of_columns, product_of_rows
from gpucnn_loops.transforms import SKEW, TOGETHER, gradients_in, kernels_in, patches_in, planes_of, tiles_out
from gpucnn_loops.turn import to_planes, to_rows
from gpucnn_loops.vector import L, as_floats, at, load, place16, splat, store, sum16
from gpucnn_loops.windows import maxima

ZERO = np.float32(0)
BLOCK = L  # filters whose kernels are packed together
# Channels of 64 filters' kernels that are transformed at a time: 150 KB of U, for tiles of full width. With 16 filters and 37 KB, which the
# first-level cache holds, images of 7×7 and 512 channels took 1.2 to 1.7 times as long, a single one most of all.
CHANNELS = 16
U_PLANE = TOGETHER * CHANNELS + SKEW
STEPS = 128  # of a product at a time: its part of U, 32 KB, stays in the first-level cache
FEW = 42 * L  # numbers that the transforms keep in `Room.few`; behind them are 16 for each image


@record("i i i i i i i i i i i i i i i i w* w* w*")
class Tiling(NamedTuple):
    """How images are cut into tiles. `group` images go through together, `tiles` at a time, `each` of an image, m × m outputs of a tile.
    There are c input channels in c_width lanes, and the outputs' in `width`; rows of V and M are v_row and m_row apart, planes v_plane and
    m_plane. An image has `plane` pixels; in its frame in_size, in rows of `wide`; and out_size outputs, in rows of out_wide: its own, or,
    where their gradients are read, those of whole tiles.

    ins and outs: the tiles' corners; at_in: places of an image's pixels in its frame.
    """

    group: int
    tiles: int
    each: int
    m: int
    c: int
    c_width: int
    width: int
    v_row: int
    m_row: int
    v_plane: int
    m_plane: int
    plane: int
    in_size: int
    wide: int
    out_size: int
    out_wide: int
    ins: int
    outs: int
    at_in: int


@record("i f* f* i")
class Kernels(NamedTuple):
    """The transformed kernels u, as `planes_of` says; or, if `late`, room for a part of them, and what they come from: the kernels `packed`
    (k / 16, c, r·r, 16)."""

    late: int
    u: int
    packed: int
    r: int


@record("f* f* f* f* f*")
class Room(NamedTuple):
    """Scratch: pixels of a group of images, V, M, outputs or the gradients of whole tiles, and a few vectors."""

    rows: int
    v: int
    mm: int
    sums: int
    few: int


@loop("i", Kernels, Tiling, Room)
def products(tiles, kernels, t, room):
    """M[f] (tiles, width) = V[f] (tiles, c) · U[f] (c, width). Kernels that are transformed late are used while they are in the cache: U is
    four times as large as they, and for a few tiles its way to memory and back took longer than everything else."""
    u = kernels.u
    if not kernels.late:
        for f in range(36):
            patches, out = at(room.v, f * t.v_plane), at(room.mm, f * t.m_plane)
            for lane in range(0, t.width, TOGETHER):
                own = min(TOGETHER, t.width - lane)
                by = at(u, planes_of(t.c, lane) + f * (t.c * own + SKEW))
                for c in range(0, t.c, STEPS):
                    step = min(STEPS, t.c - c)
                    product_of_rows(tiles, step, at(patches, c), t.v_row, at(by, c * own), own, own, at(out, lane), t.m_row, c)
        return
    apart = t.c * kernels.r * kernels.r
    for lane in range(0, t.width, TOGETHER):
        own, packed = min(TOGETHER, t.width - lane), at(kernels.packed, lane * apart)
        plane = own * CHANNELS + SKEW
        for c in range(0, t.c, CHANNELS):
            last = min(c + CHANNELS, t.c)
            kernels_in(c, last, own, packed, apart * L, kernels.r, u, own, plane, room.few)
            for f in range(36):
                patches, out = at(room.v, f * t.v_plane + c), at(room.mm, f * t.m_plane + lane)
                product_of_rows(tiles, last - c, patches, t.v_row, at(u, f * plane), own, own, out, t.m_row, c)


@loop("i i", Images, Kernels, Tiling, Room, After, "f*")
def outputs_of(begin, images, x, kernels, t, room, after, broken):
    """room.sums (images, pixels, width): the outputs of some images, and what follows them. broken[image] becomes 0, or NaN where a sum of
    the image is not finite.

    Whole tiles reach past the edges of an image. What they write there comes first: the next row, or the next image, overwrites it, since
    tiles go from right to left and images from first to last.
    """
    bad = at(room.few, FEW)
    for i in range(images):
        store(bad, i * L, splat(ZERO))
        to_rows(at(x.first, (begin + i) * x.step), t.plane, t.plane, t.c, at(room.rows, i * t.in_size * t.c_width), t.at_in)
    total = images * t.each
    for t0 in range(0, total, t.tiles):
        tiles = min(t.tiles, total - t0)
        patches_in(room.rows, t.wide, t.c_width, at(t.ins, t0), tiles, room.v, t.v_row, t.v_plane, room.few)
        products(tiles, kernels, t, room)
        corners = at(t.outs, t0)
        tiles_out(room.mm, t.m_row, t.m_plane, t.width, corners, tiles, t.out_wide, t.m, room.sums, room.few, after, t0, t.each, bad)
    for i in range(images):
        broken[begin + i] = sum16(load(bad, i * L))


@loop("i i", Images, Kernels, Tiling, Room, After, Images, "i i w* f*")
def forward(first, last, x, kernels, t, room, after, y, k, total, places, broken):
    """y (images, k, total) of the images first … last − 1. broken[image] is 0, or NaN where a sum is not finite."""
    for begin in range(first, last, t.group):
        images = min(t.group, last - begin)
        outputs_of(begin, images, x, kernels, t, room, after, broken)
        for i in range(images):
            out = at(y.first, (begin + i) * y.step)
            to_planes(at(room.sums, i * total * t.width), total, k, t.width, out, places)
            if after.last:
                with_other(out, at(after.other, (begin + i) * after.step), k, total, total, after.last)


@loop("i i", Images, Kernels, Tiling, Room, After, Images, "i* i i i i i i", Sizes, "w* f* f* f*")
def forward_pool(
    first, last, x, kernels, t, room, after, y, indices, placed, k, high, across, conv_wide, halves, sizes, places, best, won, broken
):
    """As `forward`, then ReLU and pooling while the outputs are in the cache: y and, if placed, indices (images, k, high, across). halves:
    the windows are 2×2, side by side; otherwise they have `sizes`."""
    sums, width = room.sums, t.width
    for begin in range(first, last, t.group):
        images = min(t.group, last - begin)
        outputs_of(begin, images, x, kernels, t, room, after, broken)
        for image in range(images):
            if not halves:
                maxima(at(sums, image * t.out_size * width), best, won, width, sizes)
            for i in range(high if halves else 0):
                for j in range(across):
                    place, to = 2 * i * conv_wide + 2 * j, (i * across + j) * width
                    corner = (image * t.out_size + place) * width
                    for lane in range(0, width, L):
                        here, below = corner + lane, corner + conv_wide * width + lane
                        v0, v1, v2, v3 = load(sums, here), load(sums, here + width), load(sums, below), load(sums, below + width)
                        keep_largest(v0, v1, v2, v3, place16(place), conv_wide, best, won, to + lane, placed)
            out = (begin + image) * y.step
            to_planes(best, high * across, k, width, at(y.first, out), places)
            if placed:
                to_planes(won, high * across, k, width, as_floats(at(indices, out)), places)


@loop("i i", Images, Images, "f* f*", Tiling, Room, "i i w*")
def weight_sums(first, last, x, dy, du, dbias, t, room, k, count, at_out):
    """dU of images first … last − 1, as `kernels_out` reads it, and dbias (k). at_out: where an image's gradients lie among those of whole
    tiles."""
    c, width, grads = t.c, t.width, room.sums
    for begin in range(first, last, t.group):
        images = min(t.group, last - begin)
        for i in range(images):
            to_rows(at(x.first, (begin + i) * x.step), t.plane, t.plane, c, at(room.rows, i * t.in_size * t.c_width), t.at_in)
            to_rows(at(dy.first, (begin + i) * dy.step), count, count, k, at(grads, i * t.out_size * width), at_out)
        add_rows(grads, images * t.out_size, width, dbias)  # rows of zeros past the edge do no harm
        for t0 in range(0, images * t.each, t.tiles):
            tiles = min(t.tiles, images * t.each - t0)
            patches_in(room.rows, t.wide, t.c_width, at(t.ins, t0), tiles, room.v, t.v_row, t.v_plane, room.few)
            gradients_in(grads, t.out_wide, width, at(t.outs, t0), tiles, t.m, room.mm, t.m_row, t.m_plane, room.few)
            for f in range(36):
                patches, by = at(room.v, f * t.v_plane), at(room.mm, f * t.m_plane)
                for lane in range(0, width, TOGETHER):
                    own = min(TOGETHER, width - lane)
                    to = at(du, planes_of(c, lane) + f * (c * own + SKEW))
                    product_of_columns(c, tiles, patches, t.v_row, at(by, lane), t.m_row, own, to, own, begin - first + t0)

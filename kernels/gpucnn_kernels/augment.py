"""Batches of randomly changed images: moved, mirrored, turned and bent, with squares cut out.

A thread computes a pixel of the result in all channels: the random numbers, and the position that the pixel comes from, are the same in
each.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import functools
import math
from typing import Any, Protocol

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32, uint64
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import divide
from gpucnn_kernels.core.philox import philox
from gpucnn_kernels.order import CHANGES, byte_pixel, copy_label, float_pixel, place_of

# The kinds of changes to an image: the third word of Philox's counter.
_WARP, _MOVE, _CUTOUT, _NODES = 0, 1, 2, 4


class Augment(Protocol):
    """Random changes to images; gpucnn.ops.augment says what each number means. Zero leaves a change out."""

    @property
    def shift(self) -> int: ...  # whole pixels
    @property
    def rotate_degrees(self) -> float: ...
    @property
    def scale(self) -> float: ...
    @property
    def translate(self) -> float: ...  # pixels
    @property
    def flip(self) -> bool: ...
    @property
    def cutout(self) -> int: ...  # pixels a side
    @property
    def elastic(self) -> float: ...  # pixels
    @property
    def elastic_grid(self) -> int: ...  # nodes a side, at least 2
    def __hash__(self) -> int: ...  # the numbers of launches are cached by it


@device
def uniform(word):
    """A random word as a number in [−1, 1). Of 24 bits, so that nothing is rounded."""
    return float32(float32(uint32(word >> uint32(8))) * float32(2.0**-23) - float32(1))


@device
def below(word, count):
    """A random word as an integer from 0 to count − 1."""
    return int32(uint64(word) * uint64(count) >> uint64(32))


@device
def cos_sin(quarters):
    """Cosine and sine of a number of quarter turns from −4 to 4, to about 10⁻⁷.

    The polynomials of S. Moshier's Cephes library (cosf and sinf). CUDA's own reduce any angle, however large, and keep an array in
    memory for it; a number of turns is reduced without rounding.
    """
    turns = int32(int32(quarters + float32(4.5)) - int32(4))  # not negative before it is truncated
    r = float32(float32(quarters - float32(turns)) * float32(math.pi / 2))
    z = float32(r * r)
    s = float32(float32(-1.9515295891e-4) * z + float32(8.3321608736e-3))
    s = float32(float32(s * z - float32(1.6666654611e-1)) * z * r + r)
    c = float32(float32(2.443315711809948e-5) * z - float32(1.388731625493765e-3))
    c = float32(float32(c * z + float32(4.166664568298827e-2)) * z * z - float32(0.5) * z + float32(1))
    if turns & 1:
        c, s = float32(-s), c
    if turns & 2:
        c, s = float32(-c), float32(-s)
    return c, s


@device
def node(place, epoch, number, seed_low, seed_high):
    """How far the elastic grid's node is displaced, down and to the right, in [−1, 1)."""
    down, right, _, _ = philox(place, epoch, uint32(number + uint32(_NODES)), uint32(CHANGES), seed_low, seed_high)
    return uniform(down), uniform(right)


@device
def between(a, b, part):
    return float32(a + part * float32(b - a))


@device
def displacement(place, epoch, row, column, grid, ratio_h, ratio_w, seed_low, seed_high):
    """The displacement of a pixel by the elastic grid, down and to the right, in [−1, 1): its cell's four nodes, interpolated."""
    y = float32(float32(row) * ratio_h)
    x = float32(float32(column) * ratio_w)
    top = min(uint32(y), uint32(grid - uint32(2)))  # the last row of pixels is in the last row of cells
    left = min(uint32(x), uint32(grid - uint32(2)))
    fy = float32(y - float32(top))
    fx = float32(x - float32(left))
    first = uint32(top * grid + left)
    down0, right0 = node(place, epoch, first, seed_low, seed_high)
    down1, right1 = node(place, epoch, uint32(first + uint32(1)), seed_low, seed_high)
    down2, right2 = node(place, epoch, uint32(first + grid), seed_low, seed_high)
    down3, right3 = node(place, epoch, uint32(first + grid + uint32(1)), seed_low, seed_high)
    down = between(between(down0, down1, fx), between(down2, down3, fx), fy)
    right = between(between(right0, right1, fx), between(right2, right3, fx), fy)
    return down, right


@functools.cache
def changing(of_bytes: bool, moves: bool, warps: bool, bends: bool, cuts: bool) -> Any:
    """The kernel that changes images at random: whole pixels moved, pixels interpolated, with an elastic grid or without, squares cut out.

    It goes backwards, from a pixel of the result to where it comes from: out of the square, to before the flip, to before the shift, and
    through the warp.
    """
    pixel: Any = byte_pixel if of_bytes else float_pixel

    @kernel
    def gather_batch(images, labels, order, position, x, targets, rows, sizes, changes):
        batch_size, ahead, _, _, _ = rows
        channels, H, W, plane_magic, plane_shift, width_magic, width_shift, count = sizes
        seed_low, seed_high, shift, flip, quarters, scale, translate, elastic, grid, ratio_h, ratio_w, side = changes
        t = uint32(cuda.grid(1))
        if t < targets.size:
            copy_label(t, labels, order, position, targets, rows)
        if t >= count:
            return
        plane = uint32(H * W)
        i = divide(t, plane_magic, plane_shift)
        at = uint32(t - i * plane)
        row = int32(divide(at, width_magic, width_shift))
        column = int32(at - uint32(row) * uint32(W))
        target = uint32(i * channels * plane + at)
        place = place_of(i, order, position, batch_size, ahead)
        source = uint32(uint32(order[place]) * channels * plane)
        epoch = uint32(position[1])
        inside = True
        if cuts:
            word0, word1, _, _ = philox(place, epoch, uint32(_CUTOUT), uint32(CHANGES), seed_low, seed_high)
            top = int32(below(word0, H) - side // 2)
            left = int32(below(word1, W) - side // 2)
            inside = not (row >= top and row < top + side and column >= left and column < left + side)
        if moves:
            word0, word1, word2, _ = philox(place, epoch, uint32(_MOVE), uint32(CHANGES), seed_low, seed_high)
            if flip and word2 >= uint32(0x80000000):
                column = int32(W - 1 - column)
            row = int32(row + below(word0, 2 * shift + 1) - shift)
            column = int32(column + below(word1, 2 * shift + 1) - shift)
            inside = inside and row >= 0 and row < H and column >= 0 and column < W
        if not inside:
            for _ in range(channels):
                x[target] = float32(0)
                target = uint32(target + plane)
            return
        if warps:
            word0, word1, word2, word3 = philox(place, epoch, uint32(_WARP), uint32(CHANGES), seed_low, seed_high)
            cos, sin = cos_sin(float32(quarters * uniform(word0)))
            back = float32(float32(1) / float32(float32(1) + scale * uniform(word1)))
            cos = float32(cos * back)
            sin = float32(sin * back)
            middle = float32(float32(H - 1) * float32(0.5))
            centre = float32(float32(W - 1) * float32(0.5))
            down = float32(float32(row) - middle - translate * uniform(word2))
            right = float32(float32(column) - centre - translate * uniform(word3))
            from_h = float32(cos * down - sin * right + middle)
            from_w = float32(sin * down + cos * right + centre)
            if bends:
                bend_h, bend_w = displacement(place, epoch, row, column, grid, ratio_h, ratio_w, seed_low, seed_high)
                from_h = float32(from_h + elastic * bend_h)
                from_w = float32(from_w + elastic * bend_w)
            # One pixel beyond the edge all is zero, and farther out too. Then nothing is negative, and truncation rounds down.
            from_h = float32(min(max(from_h, float32(-1)), float32(H)) + float32(1))
            from_w = float32(min(max(from_w, float32(-1)), float32(W)) + float32(1))
            h = int32(from_h)
            w = int32(from_w)
            part_h = float32(from_h - float32(h))
            part_w = float32(from_w - float32(w))
            h = int32(h - 1)
            w = int32(w - 1)
            upper = h >= 0 and h < H
            lower = h + 1 < H
            before = w >= 0 and w < W
            after = w + 1 < W
            corner = int32(int32(source) + h * W + w)  # may be negative where h or w is, and is not read there
            for _ in range(channels):
                v0, v1, v2, v3 = float32(0), float32(0), float32(0), float32(0)
                if upper and before:
                    v0 = pixel(images, uint32(corner))
                if upper and after:
                    v1 = pixel(images, uint32(corner + 1))
                if lower and before:
                    v2 = pixel(images, uint32(corner + W))
                if lower and after:
                    v3 = pixel(images, uint32(corner + W + 1))
                x[target] = between(between(v0, v1, part_w), between(v2, v3, part_w), part_h)
                corner = int32(corner + H * W)
                target = uint32(target + plane)
        else:
            source = uint32(source + uint32(row * W + column))
            for _ in range(channels):
                x[target] = pixel(images, source)
                source = uint32(source + plane)
                target = uint32(target + plane)

    return gather_batch

"""Batches out of a data set that lies on the device: the order of an epoch, and the examples of a step, changed at random.

A training step that is replayed as a CUDA graph is launched with the same arguments every time, so what changes from step to step, the
step itself and the epoch, is read from the device's memory here, and all that is drawn is a function of them: Philox (dropout.py) at a
counter that holds the example's place in the epoch. A thread draws for itself what it needs and shares nothing. That is some hundred
integer instructions a draw, but the pixels have to come from memory and go there, and no random number does.

Without changes a batch is copied four pixels at a time. With them, a thread takes a pixel of the result through all channels: the draws
and the place that it comes from are the same in each.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import functools
import math
from typing import Any, Protocol

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32, uint64
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import divide, magic
from gpucnn_kernels.core.launch import Array, Stream, aligned, flat, floats, ints, run_each
from gpucnn_kernels.core.philox import philox
from gpucnn_kernels.core.vector import load_4, load_bytes, store_4

_WORD = 0xFFFFFFFF
_ROUNDS = 24
# The last word of Philox's counter says what is drawn (dropout has 0), the third which of an image's changes.
_ORDER, _CHANGES = 1, 2
_WARP, _MOVE, _CUTOUT, _NODES = 0, 1, 2, 4


class Augment(Protocol):
    """Random changes to images; gpucnn.ops.augment says what each number means. Zero is none of it."""

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


@device
def mixed(number):
    """The finalizer of A. Appleby's MurmurHash3: each bit of the argument changes each bit of the result with a chance of about ½."""
    number = uint32(number ^ uint32(number >> uint32(16)))
    number = uint32(uint64(number) * uint64(0x85EBCA6B) & uint64(_WORD))
    number = uint32(number ^ uint32(number >> uint32(13)))
    number = uint32(uint64(number) * uint64(0xC2B2AE35) & uint64(_WORD))
    return uint32(number ^ uint32(number >> uint32(16)))


@device
def enciphered(number, half, k0, k1, k2, k3):
    """`number` through a Feistel network on 2·half bits; k0 to k3 are the keys of the first four rounds.

    24 rounds, each of MurmurHash3's finalizer of one half plus a key; the keys are those four in turn, with 2³²/φ added each time round.
    Such rounds exchange an even number of pairs, so that one more key's bit says whether 0 and 1 are exchanged in the end. The NumPy
    operation says why it is made so.
    """
    mask = uint32(uint32(uint32(1) << half) - uint32(1))
    left = uint32(number >> half)
    right = uint32(number & mask)
    for _ in range(_ROUNDS):
        image = mixed(uint32(uint64(right) + uint64(k0) & uint64(_WORD)))
        left, right = right, uint32(left ^ uint32(image & mask))
        k0, k1, k2, k3 = k1, k2, k3, uint32(uint64(k0) + uint64(0x9E3779B9) & uint64(_WORD))
    number = uint32(uint32(left << half) | right)
    if number < uint32(2):  # the rounds are an even permutation
        number = uint32(number ^ uint32(mixed(k0) & uint32(1)))
    return number


@kernel
def permutation_kernel(order, half, seed_low, seed_high, epoch_low, epoch_high):
    i = uint32(cuda.grid(1))
    if i >= order.size:
        return
    k0, k1, k2, k3 = philox(epoch_low, epoch_high, uint32(0), uint32(_ORDER), seed_low, seed_high)
    number = i
    beyond = True
    while beyond:
        number = enciphered(number, half, k0, k1, k2, k3)
        beyond = number >= order.size
    order[i] = int32(number)


@device
def place_of(i, order, position, batch_size, ahead):
    """Where example i of a part of the batch stands in the order of the epoch, `ahead` of the batch being before it; the last place where
    that is past the end."""
    place = uint64(uint64(position[0]) * uint64(batch_size) + uint64(ahead) + uint64(i))
    return uint32(min(place, uint64(order.size - 1)))  # two unsigned numbers: of other pairs Numba makes float64


@device
def copy_label(t, labels, order, position, targets, batch_size, ahead, row, row_magic, row_shift):
    """Number t of the targets, in rows of `row`."""
    i = divide(t, row_magic, row_shift)
    example = uint32(order[place_of(i, order, position, batch_size, ahead)])
    targets[t] = labels[uint32(example * row + t - i * row)]


@device
def byte_pixel(images, index):
    """A pixel from 0 to 255 as one from 0 to 1: divided, for the same bits as on the CPU."""
    return float32(float32(images[index]) / float32(255))


@device
def float_pixel(images, index):
    return images[index]


@device
def byte_four(images, index):
    """Four pixels, read at once."""
    word = load_bytes(images, index)
    return (
        float32(float32(uint32(word & uint32(255))) / float32(255)),
        float32(float32(uint32(word >> uint32(8) & uint32(255))) / float32(255)),
        float32(float32(uint32(word >> uint32(16) & uint32(255))) / float32(255)),
        float32(float32(uint32(word >> uint32(24))) / float32(255)),
    )


@functools.cache
def copying(of_bytes: bool, fours: bool) -> Any:
    """The kernel that leaves the images as they are. `fours`: images have a multiple of four numbers, and begin at 16 bytes."""
    pixel: Any = byte_pixel if of_bytes else float_pixel
    four: Any = byte_four if of_bytes else load_4

    @kernel
    def gather_batch(
        images, labels, order, position, x, targets, batch_size, ahead, row, row_magic, row_shift, size, size_magic, size_shift, count
    ):
        t = uint32(cuda.grid(1))
        if t < targets.size:
            copy_label(t, labels, order, position, targets, batch_size, ahead, row, row_magic, row_shift)
        if t >= count:
            return
        i = divide(t, size_magic, size_shift)
        example = uint32(order[place_of(i, order, position, batch_size, ahead)])
        source = uint32(example * size + t - i * size)
        if fours:
            v0, v1, v2, v3 = four(images, uint32(source * uint32(4)))
            store_4(x, uint32(t * uint32(4)), v0, v1, v2, v3)
        else:
            x[t] = pixel(images, source)

    return gather_batch


@device
def uniform(word):
    """A random word as a number in [−1, 1). Of 24 bits, so that nothing is rounded."""
    return float32(float32(uint32(word >> uint32(8))) * float32(2.0**-23) - float32(1))


@device
def below(word, count):
    """A random word as a whole number from 0 to count − 1."""
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
    down, right, _, _ = philox(place, epoch, uint32(number + uint32(_NODES)), uint32(_CHANGES), seed_low, seed_high)
    return uniform(down), uniform(right)


@device
def between(a, b, part):
    return float32(a + part * float32(b - a))


@device
def displacement(place, epoch, row, column, grid, ratio_h, ratio_w, seed_low, seed_high):
    """What the elastic grid adds to a pixel's row and column, in [−1, 1): its cell's four nodes, interpolated."""
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
    def gather_batch(
        images,
        labels,
        order,
        position,
        x,
        targets,
        batch_size,
        ahead,
        row_size,
        row_magic,
        row_shift,
        channels,
        H,
        W,
        plane_magic,
        plane_shift,
        width_magic,
        width_shift,
        count,
        seed_low,
        seed_high,
        shift,
        flip,
        quarters,
        scale,
        translate,
        elastic,
        grid,
        ratio_h,
        ratio_w,
        side,
    ):
        t = uint32(cuda.grid(1))
        if t < targets.size:
            copy_label(t, labels, order, position, targets, batch_size, ahead, row_size, row_magic, row_shift)
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
            word0, word1, _, _ = philox(place, epoch, uint32(_CUTOUT), uint32(_CHANGES), seed_low, seed_high)
            top = int32(below(word0, H) - side // 2)
            left = int32(below(word1, W) - side // 2)
            inside = not (row >= top and row < top + side and column >= left and column < left + side)
        if moves:
            word0, word1, word2, _ = philox(place, epoch, uint32(_MOVE), uint32(_CHANGES), seed_low, seed_high)
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
            word0, word1, word2, word3 = philox(place, epoch, uint32(_WARP), uint32(_CHANGES), seed_low, seed_high)
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


def permutation(order: Array, seed: int, epoch: int, stream: Stream = 0) -> None:
    """Fills `order`, int32 (M,), with a random permutation of 0 … M − 1: a function of (seed, epoch, M). Both are taken mod 2⁶⁴.

    Place i gets what a Feistel network on the least even number of bits that holds M − 1 makes of i, enciphered again until it is under
    M (cycle walking). NumPy gives the same numbers.
    """
    size = int(order.shape[0])
    words = (np.uint32(number >> bits & _WORD) for number in (seed, epoch) for bits in (0, 32))
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    run_each(permutation_kernel, size, stream, ints(order, "order", (size,)), np.uint32(half), *words)


def gather_batch(
    images: Array,
    labels: Array,
    order: Array,
    position: Array,
    x: Array,
    targets: Array,
    *,
    batch_size: int,
    augment: Augment | None = None,
    seed: int = 0,
    first: int = 0,
    stream: Stream = 0,
) -> None:
    """Writes the examples of a step to x (n, …) and targets: example i is number order[position[0]·batch_size + first + i] of images and
    labels.

    images (M, …), uint8, divided by 255, or float32; labels (M,) int32 or (M, …) float32; order int32; position int32 (2,): step and
    epoch. Changes as `augment` says need images (M, C, H, W). Past the end of the order its last example is repeated; what stands in it
    is trusted.

    Raises TypeError and ValueError as `launch.flat` does, and ValueError for examples past the end of a batch.
    """
    n, size = int(x.shape[0]), math.prod(int(side) for side in images.shape[1:])
    if first + n > batch_size:
        raise ValueError(f"x holds {n} examples{f' from number {first} on' if first else ''}, and a batch {batch_size}")
    of_bytes = str(images.dtype).rpartition(".")[2] == "uint8"
    of_classes = str(labels.dtype).rpartition(".")[2] == "int32"
    row, flat_labels = math.prod(int(side) for side in labels.shape[1:]), ints if of_classes else floats
    arrays = (
        flat(images, "images", "uint8" if of_bytes else "float32"),
        flat_labels(labels, "labels", (int(images.shape[0]), *labels.shape[1:])),
        ints(order, "order", (int(order.shape[0]),)),
        ints(position, "position", (2,)),
        floats(x, "x", (n, *images.shape[1:])),
        flat_labels(targets, "targets", (n, *labels.shape[1:])),
    )
    numbers: tuple[Any, ...] = (np.uint32(batch_size), np.uint32(first), np.uint32(row), *magic(row))
    if augment is None:
        fours = size % 4 == 0 and aligned(arrays[0]) and aligned(arrays[4])
        size = size // 4 if fours else size
        count = n * size
        chosen = copying(of_bytes, fours)
        numbers += (np.uint32(size), *magic(size), np.uint32(count))
    else:
        if len(images.shape) != 4:
            raise ValueError(f"only images (M, C, H, W) can be changed, got the shape {tuple(images.shape)}")
        channels, height, width = (int(side) for side in images.shape[1:])
        count = n * height * width
        bends = bool(augment.elastic)
        warps = bends or bool(augment.rotate_degrees or augment.scale or augment.translate)
        chosen = changing(of_bytes, augment.shift > 0 or augment.flip, warps, bends, augment.cutout > 0)
        numbers += (
            np.uint32(channels),
            np.int32(height),
            np.int32(width),
            *magic(height * width),
            *magic(width),
            np.uint32(count),
            *(np.uint32(seed >> bits & _WORD) for bits in (0, 32)),
            np.int32(augment.shift),
            np.int32(augment.flip),
            np.float32(augment.rotate_degrees / 90),
            np.float32(augment.scale),
            np.float32(augment.translate),
            np.float32(augment.elastic),
            np.uint32(augment.elastic_grid),
            *(np.float32((augment.elastic_grid - 1) / max(side - 1, 1)) for side in (height, width)),
            np.int32(augment.cutout),
        )
    run_each(chosen, max(count, n * row), stream, *arrays, *numbers)

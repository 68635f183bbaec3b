"""Batches from a data set in device memory: the order of an epoch, and the examples of a step, changed at random.

Every random number is a function of the seed, the epoch and an example's position in it. No state is kept between calls, so a resumed run
draws the same numbers as one that was never stopped; and nothing depends on the device.
"""

from __future__ import annotations

import numpy as np

from gpucnn.arrays import quiet
from gpucnn.ops.augment import Augment
from gpucnn.ops.cpu._threads import Array, slabs
from gpucnn.ops.cpu.dropout import philox_block

__all__ = ["gather_batch", "permutation"]

WORD = 0xFFFFFFFF
ROUNDS = 24
# The last word of Philox's counter says what the numbers are for. Dropout uses 0, so one seed serves all three.
ORDER, CHANGES = 1, 2
# The third word says which change to an image; the nodes of the elastic grid follow the others.
WARP, MOVE, CUTOUT, NODES = 0, 1, 2, 4


def permutation(order: Array, seed: int, epoch: int) -> None:
    """Fills `order`, int32 (M,), with a random permutation of 0 … M − 1: a function of (seed, epoch, M). Both are taken mod 2⁶⁴.

    No sort is needed: item i is the number to which a block cipher maps i. The cipher is a Feistel network on the least even number of
    bits that holds M − 1 (so both halves have equally many bits). It permutes the numbers of that many bits, whatever its round function
    is. A result of M or more is enciphered again until it is below M, which leaves a permutation of 0 … M − 1 (J. Black and
    P. Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002: cycle walking). There are fewer than 4·M numbers of that many bits, so
    this takes fewer than four rounds on average.

    R. Mitchell, D. Stokes, E. Frank and G. Holmes ("Bandwidth-Optimal Random Shuffling for GPUs", ACM TOPC 2022) shuffle with such a
    cipher of 24 rounds; as many there are here. Their round function is one multiplication; this one is the finalizer of A. Appleby's
    MurmurHash3, of the number plus a round key, because it changes each bit of the result with a chance of about ½ for each bit of its
    argument, at two multiplications; Philox itself would take twenty. The keys are Philox's four words at the counter (epoch mod 2³²,
    epoch div 2³², 0, 1) under the key `seed`, used in turn, with 2³²/φ added once more each time round, as Philox does with its own keys.

    A round exchanges an even number of pairs (if each half has two bits or more), so rounds alone give only even permutations of the
    numbers of that many bits. With thousands of examples nobody would notice, but all orders of sixteen would be even, and 56 in 100 of
    six. So a bit of one more key says whether 0 and 1 are exchanged at the end.
    """
    size, keys = order.shape[0], round_keys(seed, epoch)
    half = half_bits(size)

    def fill(part: slice) -> None:
        numbers = encipher(np.arange(part.start, part.stop, dtype=np.uint32), half, keys)
        beyond = np.flatnonzero(numbers >= size)
        while beyond.size:
            numbers[beyond] = encipher(numbers[beyond], half, keys)
            beyond = beyond[numbers[beyond] >= size]
        order[part] = numbers

    slabs(fill, size)


def half_bits(size: int) -> int:
    """Half of the least even number of bits that holds size − 1, at least 1."""
    return max(1, ((size - 1).bit_length() + 1) // 2)


def round_keys(seed: int, epoch: int) -> list[int]:
    """The keys of the cipher: 32-bit words, one for each round and one for the end."""
    counter = [np.array([word], np.uint64) for word in (epoch & WORD, epoch >> 32 & WORD, 0, ORDER)]
    words = [int(word[0]) for word in philox_block(counter, seed & WORD, seed >> 32 & WORD)]
    return [(words[number % 4] + number // 4 * 0x9E3779B9) & WORD for number in range(ROUNDS + 1)]


def encipher(numbers: Array, half: int, keys: list[int]) -> Array:
    """Permutes uint32 numbers of 2·half bits."""
    mask = np.uint32((1 << half) - 1)
    left, right = numbers >> np.uint32(half), numbers & mask
    for key in keys[:-1]:
        left, right = right, left ^ (_mixed(right + np.uint32(key)) & mask)
    result: Array = left << np.uint32(half) | right
    result[result < 2] ^= _mixed(np.array([keys[-1]], np.uint32)) & np.uint32(1)
    return result


def _mixed(words: Array) -> Array:
    """MurmurHash3's finalizer, in place. Words wrap around in the products."""
    words ^= words >> np.uint32(16)
    words *= np.uint32(0x85EBCA6B)
    words ^= words >> np.uint32(13)
    words *= np.uint32(0xC2B2AE35)
    words ^= words >> np.uint32(16)
    return words


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
) -> None:
    """Writes the examples of a step to x and targets, changed at random as `augment` says.

    images (M, …), uint8 or floating; labels (M,) int32 or floating rows (M, …); order int32. position int32 (2,): the step s in the epoch
    and the epoch, read on the device, so that a captured graph makes another batch each time. Example i is number
    order[s·batch_size + first + i]: where x is a part of a batch, `first` examples stand before it. x (n, …) and targets (n, …) with
    first + n ≤ batch_size are written; examples past the end of the order repeat its last one.

    uint8 becomes x / 255, divided in the type of `x`. Only images (M, C, H, W) are changed, as a function of the seed, the epoch and the
    position in the order.
    """
    step, epoch = int(position[0]), int(position[1])
    places = np.minimum(step * batch_size + first + np.arange(x.shape[0]), order.shape[0] - 1)
    chosen = order[places]
    targets[...] = labels[chosen]
    if images.dtype == np.uint8:
        np.divide(images[chosen], x.dtype.type(255), out=x, dtype=x.dtype)
    else:
        x[...] = images[chosen]
    if augment is not None:
        x[...] = augmented(x, augment, seed, epoch, places)


def augmented(x: Array, augment: Augment, seed: int, epoch: int, places: Array) -> Array:
    """Images (N, C, H, W) changed as `augment` says, with the random numbers of `places` (N,) in an epoch."""
    height, width = x.shape[2:]
    if augment.warps:
        angle, factor, down, right = ((2 * word * 2.0**-24 - 1)[:, None, None] for word in _draws(seed, epoch, places, WARP, 24))
        bend = None
        if augment.elastic:
            grid = augment.elastic_grid
            nodes = _draws(seed, epoch, places[:, None], NODES + np.arange(grid * grid), 24)
            bend = augment.elastic * (np.stack(nodes[:2]) * 2.0**-23 - 1).reshape(2, len(x), grid, grid)
        x = warp(
            x,
            np.deg2rad(augment.rotate_degrees) * angle,
            1 + augment.scale * factor,
            augment.translate * down,
            augment.translate * right,
            bend,
        )
    if augment.moves:
        top, left, mirrored, _ = _draws(seed, epoch, places, MOVE)
        if augment.shift:
            x = shift(x, below(top, 2 * augment.shift + 1), below(left, 2 * augment.shift + 1), augment.shift)
        if augment.flip:
            x = flip(x, mirrored >> np.uint64(31) == 1)
    if augment.cutout:
        row, column, _, _ = _draws(seed, epoch, places, CUTOUT)
        x = cutout(x, below(row, height), below(column, width), augment.cutout)
    return x


def below(words: Array, count: int) -> Array:
    """Words in 64 bits as integers from 0 to count − 1: word·count / 2³², so that none is more likely by more than count / 2³²."""
    return (words * np.uint64(count) >> np.uint64(32)).astype(np.int64)


def _draws(seed: int, epoch: int, places: Array, what: int | Array, bits: int = 32) -> list[Array]:
    """Four words for each place: Philox at the counter (place, epoch, what, CHANGES) under the key `seed`. The first `bits` of each."""
    shape = np.broadcast_shapes(places.shape, np.shape(what))
    counter = [np.broadcast_to(np.asarray(word, np.uint64), shape) for word in (places, epoch & WORD, what, CHANGES)]
    return [word >> np.uint64(32 - bits) for word in philox_block(counter, seed & WORD, seed >> 32 & WORD)]


@quiet
def shift(x: Array, top: Array, left: Array, pixels: int) -> Array:
    """Moves image i by pixels − top[i] rows and pixels − left[i] columns, zeros outside; top and left are from 0 to 2·pixels."""
    n, _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)))
    # Every position of an H × W window in the padded image is one view; taking one per image copies whole rows.
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    return np.ascontiguousarray(windows[np.arange(n), :, top, left])


@quiet
def flip(x: Array, mirrored: Array) -> Array:
    """Exchanges left and right in the images where `mirrored` (N,) is true."""
    result: Array = np.where(mirrored[:, None, None, None], x[..., ::-1], x)
    return result


@quiet
def cutout(x: Array, row: Array, column: Array, side: int) -> Array:
    """Sets a square of `side` pixels about pixel (row[i], column[i]) of image i to zero. It begins at row[i] − side // 2."""

    def covered(centre: Array, size: int) -> Array:
        distance = np.arange(size) - (centre[:, None] - side // 2)
        inside: Array = (distance >= 0) & (distance < side)
        return inside

    height, width = x.shape[2:]
    square = covered(row, height)[:, :, None] & covered(column, width)[:, None, :]
    result: Array = np.where(square[:, None], x.dtype.type(0), x)
    return result


@quiet
def warp(x: Array, angle: Array, factor: Array, down: Array, right: Array, bend: Array | None = None) -> Array:
    """Rotates image i by angle[i] radians, scales it by factor[i] and moves it by (down[i], right[i]) pixels, bilinear, zeros outside.

    These arrays are (N, 1, 1). bend (2, N, G, G), a grid over the image, is added to the row and the column that a pixel comes from.
    """
    n, channels, height, width = x.shape
    dtype = x.dtype
    # Backwards: where in x does the pixel (row, column) of the result come from?
    cos, sin = (np.cos(angle) / factor).astype(dtype), (np.sin(angle) / factor).astype(dtype)
    middle, centre = (height - 1) / 2, (width - 1) / 2
    row = (np.arange(height)[:, None] - middle - down).astype(dtype)  # (N, H, 1)
    column = (np.arange(width) - centre - right).astype(dtype)  # (N, 1, W)
    y, x0 = cos * row - sin * column + dtype.type(middle), sin * row + cos * column + dtype.type(centre)
    if bend is not None:
        between_rows, between_columns = (_between(size, bend.shape[-1]) for size in (height, width))
        y_bend, x_bend = (between_rows @ bend @ between_columns.T).astype(dtype)
        y, x0 = y + y_bend, x0 + x_bend

    # Two rings of zeros, one to interpolate towards and one for the right-hand neighbour of a clipped coordinate.
    padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (1, 2)))
    y, x0 = np.clip(y, -1, height) + dtype.type(1), np.clip(x0, -1, width) + dtype.type(1)
    top, left = y.astype(np.int32), x0.astype(np.int32)  # not negative, so this rounds down
    fy, fx = (y - top).astype(dtype, copy=False)[:, None], (x0 - left).astype(dtype, copy=False)[:, None]
    stride, plane = width + 3, (height + 3) * (width + 3)
    start = (np.arange(n * channels, dtype=np.intp) * plane).reshape(n, channels, 1, 1)
    at = start + (top * stride + left)[:, None]
    flat = padded.ravel()
    upper: Array = flat[at]
    lower = flat[at + stride]
    upper += fx * (flat[at + 1] - upper)
    lower += fx * (flat[at + (stride + 1)] - lower)
    upper += fy * (lower - upper)
    return upper


def _between(size: int, grid: int) -> Array:
    """(size, grid): the weight of each node of a grid, which reaches from the first pixel to the last, in each pixel."""
    at = np.arange(size) * ((grid - 1) / max(size - 1, 1))
    parts: Array = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(grid)))
    return parts

"""The order of an epoch, and how a thread finds an example in it: its position, its label, its pixels."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32, uint64
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import divide
from gpucnn_kernels.core.launch import Array, Stream, ints, run_each
from gpucnn_kernels.core.philox import philox

WORD = 0xFFFFFFFF
ORDER, CHANGES = 1, 2  # what is drawn: the last word of Philox's counter (dropout has 0)
_ROUNDS = 24


@device
def mixed(number):
    """The finalizer of A. Appleby's MurmurHash3: each bit of the argument changes each bit of the result with a chance of about ½."""
    number = uint32(number ^ uint32(number >> uint32(16)))
    number = uint32(uint64(number) * uint64(0x85EBCA6B) & uint64(WORD))
    number = uint32(number ^ uint32(number >> uint32(13)))
    number = uint32(uint64(number) * uint64(0xC2B2AE35) & uint64(WORD))
    return uint32(number ^ uint32(number >> uint32(16)))


@device
def enciphered(number, half, k0, k1, k2, k3):
    """`number` through a Feistel network on 2·half bits; k0 to k3 are the keys of the first four rounds.

    24 rounds, each of MurmurHash3's finalizer of one half plus a key; the keys are those four in turn, with 2³²/φ added each time round.
    Such rounds exchange an even number of pairs, so that one more key's bit says whether 0 and 1 are exchanged in the end. The NumPy
    operation gives the reasons.
    """
    mask = uint32(uint32(uint32(1) << half) - uint32(1))
    left = uint32(number >> half)
    right = uint32(number & mask)
    for _ in range(_ROUNDS):
        image = mixed(uint32(uint64(right) + uint64(k0) & uint64(WORD)))
        left, right = right, uint32(left ^ uint32(image & mask))
        k0, k1, k2, k3 = k1, k2, k3, uint32(uint64(k0) + uint64(0x9E3779B9) & uint64(WORD))
    number = uint32(uint32(left << half) | right)
    if number < uint32(2):  # the rounds are an even permutation
        number = uint32(number ^ uint32(mixed(k0) & uint32(1)))
    return number


@kernel
def permutation_kernel(order, half, seed_low, seed_high, epoch_low, epoch_high):
    i = uint32(cuda.grid(1))
    if i >= order.size:
        return
    k0, k1, k2, k3 = philox(epoch_low, epoch_high, uint32(0), uint32(ORDER), seed_low, seed_high)
    number = i
    beyond = True
    while beyond:
        number = enciphered(number, half, k0, k1, k2, k3)
        beyond = number >= order.size
    order[i] = int32(number)


@device
def place_of(i, order, position, batch_size, ahead):
    """The position of example i in the order of the epoch, for a part of a batch with `ahead` examples before it. A position past the end
    becomes the last one."""
    place = uint64(uint64(position[0]) * uint64(batch_size) + uint64(ahead) + uint64(i))
    return uint32(min(place, uint64(order.size - 1)))  # two unsigned numbers: of other pairs Numba makes float64


@device
def copy_label(t, labels, order, position, targets, rows):
    """Writes number t of the targets. rows: the batch's size, the examples before this part of it, the numbers in a target and their
    magic."""
    batch_size, ahead, row, row_magic, row_shift = rows
    i = divide(t, row_magic, row_shift)
    example = uint32(order[place_of(i, order, position, batch_size, ahead)])
    targets[t] = labels[uint32(example * row + t - i * row)]


@device
def byte_pixel(images, index):
    """A pixel from 0 to 255 as one from 0 to 1: divided, so that it is bit-identical to the CPU's."""
    return float32(float32(images[index]) / float32(255))


@device
def float_pixel(images, index):
    return images[index]


def permutation(order: Array, seed: int, epoch: int, stream: Stream = 0) -> None:
    """Fills `order`, int32 (M,), with a random permutation of 0 … M − 1: a function of (seed, epoch, M). Both are taken mod 2⁶⁴.

    Place i gets what a Feistel network on the least even number of bits that holds M − 1 makes of i, enciphered again until it is under
    M (cycle walking). NumPy gives the same numbers.
    """
    size = int(order.shape[0])
    words = (np.uint32(number >> bits & WORD) for number in (seed, epoch) for bits in (0, 32))
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    run_each(permutation_kernel, size, stream, ints(order, "order", (size,)), np.uint32(half), *words)

"""Batches from a data set in device memory: the order of an epoch, and the examples of a step, changed at random.

A training step that is replayed as a CUDA graph is launched with the same arguments every time. So the values that change, the step and
the epoch, are read from device memory, and all random numbers are functions of them: Philox (dropout.py) with a counter that holds the
example's position in the epoch. Each thread draws the numbers that it needs and shares nothing. A draw is some hundred integer
instructions, but moving the pixels takes longer.

Without changes a batch is copied four pixels at a time, here; with them it is made by the kernels of augment.py. order.py has the order.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gpucnn_kernels.augment import Augment, changing
from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import divide, magic
from gpucnn_kernels.core.launch import Array, Stream, aligned, flat, floats, ints, run_each
from gpucnn_kernels.core.vector import load_4, load_bytes, store_4
from gpucnn_kernels.order import WORD, byte_pixel, copy_label, float_pixel, place_of


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
    def gather_batch(images, labels, order, position, x, targets, rows, sizes):
        batch_size, ahead, _, _, _ = rows
        size, size_magic, size_shift, count = sizes
        t = uint32(cuda.grid(1))
        if t < targets.size:
            copy_label(t, labels, order, position, targets, rows)
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
    epoch. Changes as `augment` says need images (M, C, H, W). Past the end of the order its last example is repeated; the order's
    numbers are not checked.

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
    numbers: tuple[Any, ...] = (_rows(batch_size, first, row),)
    if augment is None:
        fours = size % 4 == 0 and aligned(arrays[0]) and aligned(arrays[4])
        size = size // 4 if fours else size
        count = n * size
        chosen = copying(of_bytes, fours)
        numbers += (_sizes(size, count),)
    else:
        if len(images.shape) != 4:
            raise ValueError(f"only images (M, C, H, W) can be changed, got the shape {tuple(images.shape)}")
        channels, height, width = (int(side) for side in images.shape[1:])
        count = n * height * width
        bends = bool(augment.elastic)
        warps = bends or bool(augment.rotate_degrees or augment.scale or augment.translate)
        chosen = changing(of_bytes, augment.shift > 0 or augment.flip, warps, bends, augment.cutout > 0)
        numbers += _image_sizes(channels, height, width, count), _changes(augment, seed, height, width)
    run_each(chosen, max(count, n * row), stream, *arrays, *numbers)


# The numbers that a launch takes, kept from step to step.


@functools.lru_cache(maxsize=64)
def _rows(batch_size: int, first: int, row: int) -> tuple[np.uint32, ...]:
    """The sizes for choosing a row, as `copy_label` takes them."""
    return np.uint32(batch_size), np.uint32(first), np.uint32(row), *magic(row)


@functools.lru_cache(maxsize=64)
def _sizes(size: int, count: int) -> tuple[np.uint32, ...]:
    """The numbers of an image and their magic, and the threads with work."""
    return np.uint32(size), *magic(size), np.uint32(count)


@functools.lru_cache(maxsize=64)
def _image_sizes(channels: int, height: int, width: int, count: int) -> tuple[Any, ...]:
    return np.uint32(channels), np.int32(height), np.int32(width), *magic(height * width), *magic(width), np.uint32(count)


@functools.lru_cache(maxsize=64)
def _changes(augment: Augment, seed: int, height: int, width: int) -> tuple[Any, ...]:
    """The seed, and the changes of augment.py."""
    return (
        *(np.uint32(seed >> bits & WORD) for bits in (0, 32)),
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

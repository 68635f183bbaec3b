"""Mini-batches as a pure function of the seed, the epoch and the step."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gpucnn.arrays import finite, numbers, scaled
from gpucnn.checks import COUNT, flag, integer
from gpucnn.data.augment import Augmentation, RandomChange, draws_for_parts
from gpucnn.errors import ArgumentError, DataError
from gpucnn.text import number_of, shown


class Batches:
    """Mini-batches of successive epochs, the same for the same seed, from any position.

    images: (N, C, H, W), or any (N, …). uint8 is divided by 255 batch by batch; floats are used unchanged.
    labels: (N,) class numbers, yielded as int32; or (N, …) floats, one row of probabilities each, yielded as `dtype`.
    batch_size: images in a batch; the last of an epoch may be smaller.
    shuffle: draw a new order for every epoch.
    augment: a callable (x, rng) -> x, see `gpucnn.data.augment`.
    dtype: float32 or float64, of the images that are yielded.

    No state is kept: epoch e takes its order from the generator of (seed, e), and step s its augmentation from that of
    (seed, e, s + 1), so a resumed run sees the same bytes as one that was never stopped.

    DataError if counts differ, if there are no images, or if floats are NaN or infinite; ArgumentError for numbers out of range; TypeError
    for arrays of any other type.
    """

    def __init__(
        self,
        images: ArrayLike,
        labels: ArrayLike,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        augment: Augmentation | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.images: NDArray[Any] = numbers(images, "images", TypeError)
        self.labels: NDArray[Any] = numbers(labels, "labels", TypeError)
        self.batch_size = integer(batch_size, "batch_size", 1, most=COUNT)
        self.shuffle = flag(shuffle, "shuffle")
        self.seed = integer(seed, "seed", 0)
        self.augment = augment
        try:
            self.dtype = np.dtype(dtype)
        except Exception:  # NumPy may raise anything
            raise TypeError(f"dtype must be float32 or float64, got {shown(dtype)}") from None
        if dtype is None or self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):  # NumPy takes None for float64
            raise TypeError(f"dtype must be float32 or float64, got {shown(dtype if dtype is None else self.dtype)}")
        if augment is not None and (not callable(augment) or isinstance(augment, type)):
            made = "call the class, to make one" if isinstance(augment, type) else "gpucnn.data.augmentation builds one from a name"
            raise TypeError(f"augment must be a callable (x, rng) -> x, got {shown(augment)}: {made}")
        self._check_images()
        self._check_labels()

    def __repr__(self) -> str:
        shape, steps = "×".join(map(str, self.images.shape[1:])), number_of(self.steps_per_epoch, "step")
        return f"<Batches of {self.batch_size}: {number_of(len(self.images), 'image')} {shape}, {steps} an epoch>"

    @property
    def fingerprint(self) -> list[int]:
        """A description that distinguishes these data from others: their number and checksums."""
        return [len(self.images), *(zlib.crc32(np.ascontiguousarray(array).data) for array in (self.images, self.labels))]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0, part: Callable[[int], slice] | None = None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """The batches (x, labels) of an epoch from step `start` on. Both are counted from 0.

        part: returns the wanted slice for a batch's size; its examples are those of the whole batch, changed in the same way.
        """
        epoch, start = integer(epoch, "epoch", 0), integer(start, "start", 0)
        if start > self.steps_per_epoch:
            raise ArgumentError(f"start must be at most {self.steps_per_epoch}, the steps of an epoch, got {start}")
        return self._steps(epoch, start, part)  # a generator of its own, so that the checks above happen now

    def _steps(self, epoch: int, start: int, part: Callable[[int], slice] | None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images)) if self.shuffle else None
        for step in range(start, self.steps_per_epoch):
            first = step * self.batch_size
            size = min(self.batch_size, len(self.images) - first)
            own = slice(0, size) if part is None else part(size)
            # Changes that cannot be drawn for a part alone are drawn and made for the whole batch.
            apart = part is None or self.augment is None or draws_for_parts(self.augment)
            drawn = own if apart else slice(0, size)
            chosen: Any = slice(first + drawn.start, first + drawn.stop)
            if order is not None:
                chosen = order[chosen]
            x = self.images[chosen]
            x = scaled(x, self.dtype)
            if self.augment is not None:
                # step + 1, because NumPy seeds (seed, epoch) and (seed, epoch, 0) alike, and the former orders the images.
                rng = np.random.default_rng([self.seed, epoch, step + 1])
                if isinstance(self.augment, RandomChange) and part is not None and apart:
                    augmented = self.augment.of_part(x, rng, size, own)
                else:
                    augmented = self.augment(x, rng)
                if not isinstance(augmented, np.ndarray):
                    raise TypeError(f"augment(x, rng) must return an array like x, got {shown(augmented)}")
                if augmented.shape != x.shape or augmented.dtype != x.dtype:
                    raise DataError(
                        f"augment turned {x.dtype} {x.shape} into {augmented.dtype} {augmented.shape}: it must keep type and shape"
                    )
                x = augmented
            labels = self.labels[chosen]
            yield (x, labels.copy()) if apart else (x[own], labels[own].copy())

    def _check_images(self) -> None:
        images = self.images
        if images.ndim < 2:
            raise DataError(f"images must be (N, C, H, W), or at least (N, values), got the shape {images.shape}")
        if images.size == 0:
            raise DataError(f"there are no images: their shape is {images.shape}")
        if images.dtype.kind == "f":
            finite(images, "images")
        elif images.dtype != np.uint8:
            raise TypeError(f"images must be uint8, or floating and already scaled, got {images.dtype}: convert them first")

    def _check_labels(self) -> None:
        labels = self.labels
        if labels.ndim == 0 or len(labels) != len(self.images):
            given = number_of(len(labels), "label") if labels.ndim else "a single number instead of labels"
            there = "is" if len(self.images) == 1 else "are"
            raise DataError(f"there {there} {number_of(len(self.images), 'image')} and {given}: give one label for each image")
        if labels.dtype.kind in "iu" and labels.ndim == 1:
            if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
                raise DataError(f"labels must be class numbers from 0 on, got values from {labels.min()} to {labels.max()}")
            self.labels = labels.astype(np.int32)
        elif labels.dtype.kind == "f":
            finite(labels, "labels")
            self.labels = labels.astype(self.dtype)
        else:
            raise TypeError(f"labels must be integer class numbers (N,), or floats (N, …), got {labels.dtype} {labels.shape}")

"""Converts arrays from files of any kind to images and class numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.dataset import Dataset, Request, counted
from gpucnn.data.split import of_each_class
from gpucnn.errors import DataError
from gpucnn.text import listed, number_of, plain, reason_of

CHANNELS = (1, 3)
MOST_CLASSES = 10_000


@dataclass(frozen=True)
class Part:
    """Images and labels as files have them; `where` names that of the images in messages, and `labelled` that of the labels if it is
    another."""

    images: Any
    labels: Any
    where: str
    labelled: str = ""

    @property
    def of_labels(self) -> str:
        return self.labelled or self.where


def dataset(
    name: str,
    train: Part,
    test: Part | None,
    origin: Any,
    request: Request,
    *,
    validation: Part | None = None,
    upright: bool = True,
) -> Dataset:
    """A data set of two parts, or of one, of which `test_fraction` of each class is held out for testing.

    Classes are numbered in the order of their names, which are numbers or words. DataError for arrays that are not images or labels.
    """
    parts = [part for part in (train, test, validation) if part is not None]
    images = [pixels(part.images, part.where) for part in parts]
    columns = [column(part.labels, len(part_images), part) for part, part_images in zip(parts, images, strict=True)]
    if not upright:
        images = [np.ascontiguousarray(part.swapaxes(2, 3)) for part in images]
    known = np.unique(columns[0])
    if len(known) < 2:
        raise DataError(f"{train.where} has only the class {plain(known[0])!r} to train on: at least two are needed")
    if len(known) > MOST_CLASSES:
        raise DataError(f"{train.of_labels} has {len(known):,} different labels: are they measurements and not classes?")
    labels = []
    for part, given in zip(parts, columns, strict=True):
        if given.dtype.kind != known.dtype.kind:
            raise DataError(f"{part.of_labels} has other labels than {train.of_labels}: use numbers or names in both")
        numbered = np.minimum(np.searchsorted(known, given), len(known) - 1)
        strange = np.unique(given[known[numbered] != given])
        if strange.size:
            raise DataError(f"{part.where} has the class {plain(strange[0])!r}, which {train.where} does not have: add images of it there")
        labels.append(numbered.astype(np.int32))
    if test is None:
        alone = [name_ for name_, count in zip(known, np.bincount(labels[0]), strict=True) if count < 2]
        if alone:
            which = f"{'class' if len(alone) == 1 else 'the classes'} {listed(alone, 3)}"
            raise DataError(
                f"{train.where} has a single image of {which}, and one of each class must be held out for testing: add images, or give "
                "test images of your own"
            )
        chosen = of_each_class(labels[0], request.test_fraction, request.seed, least=1)
        images[:1] = [images[0][~chosen], images[0][chosen]]
        labels[:1] = [labels[0][~chosen], labels[0][chosen]]
    names = tuple(plain(name) for name in known.tolist())
    return Dataset(
        name=name,
        train_images=images[0],
        train_labels=labels[0],
        test_images=images[1],
        test_labels=labels[1],
        class_names=names,
        source=counted(origin, len(images[0]), len(images[1])),
        validation_images=images[2] if validation is not None else None,
        validation_labels=labels[2] if validation is not None else None,
    )


def pixels(given: Any, where: str) -> NDArray[np.uint8]:
    """Images as uint8 (N, C, H, W), from (N, H, W), channels first or last, or rows of pixels of a square, grey or in planes.

    The values are integers or floats in 0 … 255, or floats in 0 … 1, which are multiplied by 255.
    """
    array = np.asarray(given)
    if array.dtype.kind not in "biuf" or array.size == 0:
        raise DataError(f"{where}: images must be a non-empty array of numbers, got {array.dtype} {array.shape}")
    shape = array.shape
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and shape[3] in CHANNELS and shape[1] not in CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim == 2:
        array = array.reshape(len(array), *_square(shape[1], where))
    if array.ndim != 4 or array.shape[1] not in CHANNELS:
        raise DataError(f"{where}: images must be (N, H, W), or have 1 or 3 channels, first or last, or be rows of pixels, got {shape}")
    if array.dtype != np.uint8:
        array = _bytes(array, where)
    return np.ascontiguousarray(array)


def column(given: Any, count: int, part: Part) -> NDArray[Any]:
    """Labels as one column (N,) of integers or words; one-hot rows become class numbers."""
    labels, where = np.asarray(given), part.of_labels
    if labels.dtype.kind == "S":
        try:
            labels = np.char.decode(labels, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where} has labels that are not UTF-8 ({reason_of(error)}): save them as text") from None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all():
        labels = labels.argmax(axis=1)
    if labels.ndim == 2 and labels.dtype.kind in "biu":
        raise DataError(f"{where} has several labels for an image, {labels.shape}: only one class per image is supported")
    if labels.shape != (count,):
        raise DataError(
            f"{part.where} has {number_of(count, 'image')}, and {f'{part.labelled} has ' if part.labelled else ''}"
            f"labels of shape {labels.shape}: give one per image"
        )
    if labels.dtype.kind == "f":
        whole = labels.astype(np.int64, copy=True) if np.isfinite(labels).all() and abs(labels).max() < 1 << 53 else labels
        if (whole != labels).any() or whole.dtype.kind != "i":
            raise DataError(f"{where} has labels that are not integers: give class numbers or class names")
        labels = whole
    if labels.dtype.kind == "b":
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iuU":
        raise DataError(f"{where} has labels of the type {labels.dtype}: give class numbers or class names")
    return labels.astype(np.int64) if labels.dtype.kind in "iu" else labels


def _bytes(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(f"{where}: images contain NaN or infinity: remove or fix them")
        if low >= 0 and high <= 1:
            return np.rint(array * 255.0).astype(np.uint8)
        if low >= 0 and high <= 255 and (array != np.rint(array)).any():
            raise DataError(f"{where}: images contain fractions up to {high:g}, expected 0 … 1 or integers 0 … 255: scale them")
        if low < 0 or high > 255:
            raise DataError(f"{where}: images contain {low:g} to {high:g}, expected 0 … 1 or integers 0 … 255: scale them")
    elif low < 0 or high > 255:
        raise DataError(f"{where}: images contain {low} to {high}, expected 0 … 255: scale them")
    return array.astype(np.uint8)


def _square(pixels_: int, where: str) -> tuple[int, int, int]:
    for channels in CHANNELS:
        side = math.isqrt(pixels_ // channels)
        if side and side * side * channels == pixels_:
            return channels, side, side
    raise DataError(f"{where}: rows of {pixels_} pixels are not square images, grey or of three planes: store them as (N, H, W)")

"""The form that every source of images is converted to, and the registry of data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.download import Progress
from gpucnn.errors import DataError
from gpucnn.names import Registry
from gpucnn.text import number_of


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images with their class numbers; `image_shape` is (C, H, W), and `classes` the number of classes. Images read from
    folders are sorted by class.

    train_images, test_images, validation_images: uint8 (N, C, H, W). Only sets that come with a part for validation have the last.
    train_labels, test_labels, validation_labels: int32 (N,), from 0 on.
    class_names: a name for each class.
    source, note: where the set comes from, and what to tell the user about it.

    Constructing one checks it: DataError if shapes, types, counts or labels do not fit together.
    """

    name: str
    train_images: NDArray[np.uint8]  # (N, C, H, W)
    train_labels: NDArray[np.int32]  # (N,), 0 … classes − 1
    test_images: NDArray[np.uint8]  # (M, C, H, W)
    test_labels: NDArray[np.int32]  # (M,)
    class_names: tuple[str, ...]
    source: str  # its origin, in words
    note: str | None = None  # a message for the user: which data were used, and why
    validation_images: NDArray[np.uint8] | None = None  # (V, C, H, W), if the set has a part for validation
    validation_labels: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        parts = [("train", self.train_images, self.train_labels), ("test", self.test_images, self.test_labels)]
        if (self.validation_images is None) != (self.validation_labels is None):
            raise DataError("validation_images and validation_labels go together: give both or neither")
        if self.validation_images is not None and self.validation_labels is not None:
            parts.append(("validation", self.validation_images, self.validation_labels))
        for part, images, labels in parts:
            if images.ndim != 4 or images.dtype != np.uint8 or images.size == 0:
                raise DataError(f"{part}_images must be uint8 (N, C, H, W) and not empty, got {images.dtype} {images.shape}")
            if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
                raise DataError(
                    f"{part}_labels must be int32 with one label for each of the {number_of(len(images), 'image')}, "
                    f"got {labels.dtype} {labels.shape}"
                )
            if labels.min() < 0 or labels.max() >= self.classes:
                raise DataError(
                    f"{part}_labels must be 0 to {self.classes - 1} for {self.classes} class names, got {labels.min()} to {labels.max()}"
                )
        for part, images, _ in parts[1:]:
            if self.train_images.shape[1:] != images.shape[1:]:
                raise DataError(
                    f"images of all parts must be of one shape (C, H, W), got {self.train_images.shape[1:]} to train on and "
                    f"{images.shape[1:]} of {part}"
                )

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.image_shape))
        return f"<Dataset {self.name}: {len(self.train_images):,} + {len(self.test_images):,} images {shape}, {self.classes} classes>"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> int:
        return len(self.class_names)


@dataclass(frozen=True)
class Request:
    """The arguments of `load_dataset` besides the name; its docstring explains them."""

    data_dir: Path | None = None
    progress: Progress | None = None
    download: bool = True
    seed: int = 0
    test_fraction: float = 0.2
    image_size: tuple[int, int] | None = None  # (height, width) that images of a folder are resized to
    reading: Progress | None = None  # called as (what, files read, files in all)


Loader: TypeAlias = Callable[[Request], Dataset]
DATASETS: Registry[Loader] = Registry("data set")


def counted(origin: Any, train: int, test: int) -> str:
    """The `source` of a data set: its origin and number of images."""
    return f"{origin}, {train:,} + {test:,} images"

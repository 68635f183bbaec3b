"""The data set of a run."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from gpucnn.data import Dataset, load_dataset
from gpucnn.data.split import of_each_class
from gpucnn.experiment.folder import Say

Pair: TypeAlias = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


class Downloads(Protocol):
    """Shows downloads: a progress callback of `load_dataset` that is also a context manager."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *exception: object) -> None: ...
    def __call__(self, name: str, done: int, total: int | None) -> None: ...
    def reading(self, what: str, done: int, total: int | None) -> None: ...


def load_data(
    name: str,
    data_dir: Path | None,
    seed: int,
    say: Say,
    downloads: Downloads | None = None,
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    """The data set, with a note on which one it is if it was not named."""
    with downloads or contextlib.nullcontext():  # it ends here: what shows training needs the terminal for itself
        reading = None if downloads is None else downloads.reading
        dataset = load_dataset(name, data_dir, seed=seed, progress=downloads, image_size=image_size, reading=reading)
    if dataset.note:
        say(f"note: {dataset.note}")
    return dataset


def held_back(dataset: Dataset, share: float | None, seed: int) -> tuple[Dataset, Pair | None]:
    """The data set with fewer training images, and (images, labels) for validation: None if that would be no image.

    A data set that has a part of its own for that keeps all of its images, unless a share was asked for.
    """
    if share is None and dataset.validation_images is not None and dataset.validation_labels is not None:
        return dataset, (dataset.validation_images, dataset.validation_labels)
    if not share:
        return dataset, None
    chosen = of_each_class(dataset.train_labels, share, seed)
    if not chosen.any():
        return dataset, None
    images, labels = dataset.train_images, dataset.train_labels
    return replace(dataset, train_images=images[~chosen], train_labels=labels[~chosen]), (images[chosen], labels[chosen])

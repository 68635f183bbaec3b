"""Data sets by name, or by the file or folder that holds them."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from gpucnn.checks import flag, integer, proportion
from gpucnn.data import cifar, digits, files_of, mnist, search  # noqa: F401  cifar is known by its names alone
from gpucnn.data.dataset import DATASETS, Dataset, Request
from gpucnn.data.download import Progress, UnavailableError
from gpucnn.data.idx import PathLike
from gpucnn.data.images import size_of
from gpucnn.errors import ArgumentError, MissingExtraError, UnknownNameError
from gpucnn.surroundings import install, user_path
from gpucnn.text import shown


def names() -> tuple[str, ...]:
    """The names that load_dataset accepts, besides folders."""
    return tuple(DATASETS)


def choices_text() -> str:
    """The names and files that load_dataset accepts, for a help text."""
    names = ", ".join(DATASETS)
    kinds = "a folder of images, or a file or folder of idx, npz, npy, csv or parquet"
    return f"{names}, {kinds}; auto is MNIST if available, digits otherwise"


def load_dataset(
    name: PathLike = "auto",
    data_dir: PathLike | None = None,
    *,
    progress: Progress | None = None,
    download: bool = True,
    seed: int = 0,
    test_fraction: float = 0.2,
    image_size: int | tuple[int, int] | str | None = None,
    reading: Progress | None = None,
) -> Dataset:
    """A data set by its name, or a folder of images.

    `name` is one of these:

    - "mnist", "fashion-mnist", "kmnist", "emnist-letters", "emnist-digits", "emnist-balanced", "qmnist", "cifar10", "cifar100". They are
      looked for in `data_dir` alone if it is given (it must exist), otherwise in $GPUCNN_DATA_DIR and the user's cache: in each in a
      subfolder of that name, in torchvision's NAME/raw, and in the folder itself. Missing sets are downloaded to the first of these unless
      `download` is false. EMNIST's images come upright.
    - "digits": scikit-learn's 8×8 digits.
    - "auto": MNIST if it is available, digits otherwise; `note` of the result says which, and why. Damaged files of MNIST are still an
      error, and so is a `data_dir` without it.
    - Anything that exists or contains a path separator: an .npz, .csv or .parquet file; a folder of four idx files, four .npy files,
      train.csv and test.csv, or train-*.parquet and test-*.parquet; or a folder of images by class, FOLDER/CLASS/* or FOLDER/train/CLASS/*
      and FOLDER/test/CLASS/*. A set without a test part is split by `seed` and `test_fraction` (of each class).

    image_size: a number, (height, width) or a string such as "32x48". Images of a folder are scaled until they cover this size and cropped
        about their centre. Without it, all images must have one size. Large sets of resized images are kept in the user's cache.
    progress: called during downloads with a file's name, the bytes that have arrived, and all of them, or None if that is unknown.
    reading: called in the same way while the images of a folder are read, with numbers of images instead of bytes.

    Raises UnknownNameError for an unknown name (`gpucnn.register` adds your own), DataError for unusable data, its subclass
    UnavailableError for data that cannot be found, and MissingExtraError if an optional package is needed and not installed.
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"name must be a data set's name or a folder, got {shown(name)}")
    seed, test_fraction = integer(seed, "seed", -sys.maxsize), proportion(test_fraction, "test_fraction")
    size = None if image_size is None else size_of(image_size)
    request = Request(
        None if data_dir is None else user_path(data_dir), progress, flag(download, "download"), seed, test_fraction, size, reading
    )
    if request.data_dir is not None:
        search.check_given(request.data_dir, download=download)
    text = as_named(os.fspath(name))
    if text in DATASETS:
        if size is not None:
            raise ArgumentError(f"image_size goes with a folder of images, and {text} has a size of its own: leave it out")
        return DATASETS[text](request)
    path = user_path(text) if text else Path()
    is_path = not isinstance(name, str) or os.path.exists(path) or os.sep in text or (os.altsep and os.altsep in text)
    if text and (is_path or text.lower().endswith(tuple(files_of.FILES))):
        return files_of.load(path, request)
    raise _unknown(text)


def as_named(name: str) -> str:
    """The registered name of a data set, however it is spelt; a path or an unknown name is returned unchanged.

    An existing file or folder of that name takes precedence over another spelling of a data set's name.
    """
    meant = DATASETS.meant(name)
    return name if meant is None or (meant != name and os.path.exists(name)) else meant


@DATASETS.add("auto")
def _auto(request: Request) -> Dataset:
    """MNIST if it is available, digits otherwise."""
    try:
        dataset = mnist.load("mnist", request)
    except UnavailableError as error:
        if request.data_dir is not None:  # a folder that was named must contain the set
            raise UnavailableError(f"{error}; --dataset digits needs no files") from None
        try:
            dataset = digits.load()
        except MissingExtraError:
            needed = f"the former need scikit-learn ({install('digits')})"
            raise MissingExtraError(f"neither the digits nor MNIST are available: {needed}; {error}") from error
        note = f"MNIST is not available, so these are scikit-learn's 8×8 digits: {error}"
        return replace(dataset, note=note)
    return replace(dataset, note=f"these are the MNIST files in {dataset.source}")


def _unknown(text: str) -> UnknownNameError:
    from difflib import get_close_matches

    given = text.lower().replace("_", "-")
    close = [name for name in DATASETS if name.startswith(f"{given}-")] or get_close_matches(given, DATASETS, n=1)
    hint = f", did you mean {' or '.join(map(repr, close))}?" if close else ""
    return UnknownNameError(f"there is no data set {shown(text)}{hint} (the names are {DATASETS}, or give the path of a file or folder)")

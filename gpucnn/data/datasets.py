"""Data sets by name, or by the folder that holds them."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpucnn.checks import integer
from gpucnn.data import digits, image_folder, mnist
from gpucnn.data.dataset import Dataset
from gpucnn.data.download import Progress, UnavailableError
from gpucnn.data.idx import PathLike
from gpucnn.errors import DataError, MissingExtraError
from gpucnn.surroundings import user_path
from gpucnn.text import shown

NAMES = ("auto", "mnist", "fashion-mnist", "digits")


def names() -> tuple[str, ...]:
    """The names that load_dataset knows, besides folders."""
    return NAMES


def load_dataset(
    name: PathLike = "auto",
    data_dir: PathLike | None = None,
    *,
    progress: Progress | None = None,
    download: bool = True,
    seed: int = 0,
    test_fraction: float = 0.2,
) -> Dataset:
    """A data set by its name, or a folder of images.

    "mnist", "fashion-mnist": looked for in `data_dir`, $GPUCNN_DATA_DIR and the user's cache, in each as a subfolder of that name
        or in the folder itself, and downloaded to the first of these that is given unless `download` is false.
    "digits": scikit-learn's 8×8 digits.
    "auto": MNIST where it can be had, otherwise digits; `note` of the result says which, and why. Files of MNIST that are there
        but damaged are an error all the same.
    A folder that exists, or anything with a path separator: images by class, FOLDER/CLASS/* or FOLDER/train/CLASS/* and
        FOLDER/test/CLASS/*; `seed` and `test_fraction` (of each class) apply to the first layout only.

    `progress` is called during downloads, as `gpucnn.data.Progress` says.

    DataError for an unknown name and for data that cannot be used, of which UnavailableError for data that is nowhere;
    MissingExtraError if an optional package is needed and not installed.
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"name must be a data set's name or a folder, got {shown(name)}")
    seed = integer(seed, "seed", -sys.maxsize, DataError)
    place = None if data_dir is None else user_path(data_dir)
    if name in mnist.SOURCES:
        return mnist.load(str(name), place, progress=progress, download=download)
    if name == "digits":
        return digits.load()
    if name == "auto":
        return _auto(place, progress, download)
    text = os.fspath(name)
    if not text:
        raise _unknown(text)
    folder = user_path(text)
    if not isinstance(name, str) or os.path.isdir(folder) or os.sep in text or (os.altsep and os.altsep in text):
        return image_folder.load(folder, test_fraction=test_fraction, seed=seed)
    if os.path.exists(folder):
        raise DataError(f"{folder} is a file where a folder of images was expected: unpack it, and name the folder")
    raise _unknown(text)


def _auto(place: Path | None, progress: Any, download: bool) -> Dataset:
    try:
        dataset = mnist.load("mnist", place, progress=progress, download=download)
    except UnavailableError as error:
        try:
            dataset = digits.load()
        except MissingExtraError as missing:
            raise MissingExtraError(f"neither MNIST nor its stand-in can be had: {error}; {missing}") from error
        note = f"MNIST could not be had, so these are scikit-learn's 8×8 digits instead: {error}"
        return replace(dataset, note=note)
    return replace(dataset, note=f"these are the MNIST files in {dataset.source}")


def _unknown(text: str) -> DataError:
    from difflib import get_close_matches

    close = get_close_matches(text.lower().replace("_", "-"), NAMES, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ""
    return DataError(f"there is no data set {shown(text)}{hint} (the names are {', '.join(NAMES)}, or give the path of a folder of images)")

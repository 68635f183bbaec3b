"""A data set in a file, or in a folder of files, of any supported kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.data import image_folder, npz, parquet, tables
from gpucnn.data.dataset import Dataset, Request
from gpucnn.data.files import load_npy
from gpucnn.data.idx import read_idx
from gpucnn.data.tidy import Part, dataset
from gpucnn.errors import ArgumentError, DataError
from gpucnn.files import regular_file
from gpucnn.text import listed, reason_of

FILES: dict[str, Callable[[Path, Request], Dataset]] = {
    ".npz": npz.load,
    ".csv": tables.load,
    ".csv.gz": tables.load,
    ".parquet": parquet.load,
}
"""The function that reads a file with a whole set, by the file's extension."""
IDX = ("ubyte", ".idx", ".idx1", ".idx3", "-idx")
TRAIN, TEST = ("train",), ("t10k", "test")


def load(path: Path, request: Request) -> Dataset:
    """A set in one file (.npz, .csv, .parquet), in four idx or four .npy files, in train.csv and test.csv, in Parquet files, or in a folder
    of images by class.

    DataError for anything else.
    """
    if not os.path.isdir(path):
        reader = next((read for end, read in FILES.items() if path.name.lower().endswith(end)), None)
        if reader is not None:
            read = reader(path, request)
            return read if reader is parquet.load else _of_its_own_size(read, request)
        if os.path.isfile(path):
            raise DataError(f"{path} is a file, expected a folder, or one of {', '.join(FILES)}: unpack it, and name the folder")
        return image_folder.load(path, request)  # which reports what is wrong
    try:
        names = sorted(entry.name for entry in os.scandir(path) if not entry.name.startswith(".") and not entry.is_dir())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({reason_of(error)}): check its permissions") from None
    if (shards := _parquet(path, names)) is not None:
        return parquet.of_parts(path.name or str(path), shards, path, request)
    for found in (_idx, _npy, _tables, _one):
        made = found(path, names, request)
        if made is not None:
            return _of_its_own_size(made, request)
    return image_folder.load(path, request)


def holds_images(path: Path) -> bool:
    """Whether the images of a set can be resized: those of image folders and Parquet files can, arrays of one size cannot."""
    if not os.path.isdir(path):
        return path.name.lower().endswith(".parquet")
    try:
        names = sorted(entry.name for entry in os.scandir(path) if not entry.name.startswith(".") and not entry.is_dir())
    except OSError:
        return False
    if _parquet(path, names) is not None or _subfolders(path):
        return True
    arrays = (*FILES, *IDX, ".npy")
    return not any(name.lower().removesuffix(".gz").endswith(arrays) for name in names)


def _of_its_own_size(made: Dataset, request: Request) -> Dataset:
    if request.image_size is not None:
        raise ArgumentError(f"image_size goes with a folder of images, and {made.name} contains arrays of one size: leave it out")
    return made


def _idx(folder: Path, names: list[str], request: Request) -> Dataset | None:
    """Four idx files under any names that distinguish them."""
    idx = [name for name in names if name.lower().removesuffix(".gz").endswith(IDX)]
    if not idx:
        return None
    four = [_only(folder, idx, words, kind) for words in (TRAIN, TEST) for kind in ("image", "label")]
    arrays = [read_idx(path) for path in four]
    parts = [Part(arrays[at], arrays[at + 1], str(four[at]), str(four[at + 1])) for at in (0, 2)]
    upright = not four[0].name.startswith("emnist-")  # whose images are stored with rows and columns exchanged
    return dataset(folder.name or str(folder), parts[0], parts[1], folder, request, upright=upright)


def _only(folder: Path, names: list[str], words: tuple[str, ...], kind: str) -> Path:
    found = [name for name in names if any(word in name.lower() for word in words) and kind in name.lower()]
    plain_first = sorted(found, key=lambda name: name.endswith(".gz"))
    if len({name.removesuffix(".gz") for name in found}) != 1:
        what = listed(found, 4) if found else "none"
        raise DataError(
            f"{folder} contains idx files, and the {words[-1] if words is TEST else 'train'} {kind}s are {what}: there must be one of each "
            "of train and test, images and labels; put each set into a folder of its own"
        )
    return folder / plain_first[0]


def _parquet(folder: Path, names: list[str]) -> dict[str, list[Path]] | None:
    """The Parquet files of each part, in the folder, in its `data`, or in a subfolder per part, as Hugging Face arranges them."""
    found = [folder / name for name in names if name.lower().endswith(".parquet")] or _parquet_in(folder / "data")
    parts: dict[str, list[Path]] = {}
    if not found:
        parts = {part: shards for part, path in image_folder.parts_of(folder).items() if (shards := _parquet_in(path))}
    for part, spellings in image_folder.SPELLINGS.items():
        of_it = [path for path in found if path.name.lower().replace(".", "-").partition("-")[0] in spellings]
        if of_it:
            parts[part] = of_it
    if "train" in parts:
        return parts
    return {"train": found} if len(found) == 1 and not _subfolders(folder) else None


def _parquet_in(folder: Path) -> list[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith("."))
    except OSError:  # no such folder, or another check reports what is wrong with it
        return []
    return [folder / name for name in names if name.lower().endswith(".parquet")]


def _npy(folder: Path, names: list[str], request: Request) -> Dataset | None:
    """Four .npy files, named like the arrays in an .npz."""
    for four in npz.PAIRS:
        if all(f"{name}.npy" in names for name in four):
            files = [folder / f"{name}.npy" for name in four]
            arrays = [_read_npy(file) for file in files]
            parts = [Part(arrays[at], arrays[at + 1], str(files[at]), str(files[at + 1])) for at in (0, 2)]
            return dataset(folder.name or str(folder), parts[0], parts[1], folder, request)
    four = max(npz.PAIRS, key=lambda four: sum(f"{name}.npy" in names for name in four))
    there = [f"{name}.npy" for name in four if f"{name}.npy" in names]
    if len(there) > 1:
        missing = [f"{name}.npy" for name in four if f"{name}.npy" not in names]
        raise DataError(f"{folder} contains {listed(there)} but no {listed(missing)}: put all four into one folder")
    return None


def _read_npy(path: Path) -> NDArray[Any]:
    path = regular_file(path, "a .npy array", empty=False)
    array = load_npy(path)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an archive, not an array: name it .npz")
    return array


def _tables(folder: Path, names: list[str], request: Request) -> Dataset | None:
    """Two tables, for training and for testing; a test table without labels, as Kaggle's are, is ignored."""
    csv = [name for name in names if name.lower().removesuffix(".gz").endswith(".csv")]
    train = [name for name in csv if "train" in name.lower()]
    if not train or _subfolders(folder):  # beside images, a table only says something about them
        return None
    if len(train) > 1:
        raise DataError(f"{folder} contains several tables to train on ({listed(train, 4)}): name one")
    test = [name for name in csv if "test" in name.lower()]
    labelled = [name for name in test if tables.has_labels(folder / name)]
    return tables.load(folder / train[0], request, folder / labelled[0] if labelled else None)


def _one(folder: Path, names: list[str], request: Request) -> Dataset | None:
    """The only data-set file in a folder that has no class folders."""
    found = [name for name in names if name.lower().endswith(tuple(FILES))]
    return load(folder / found[0], request) if len(found) == 1 and not _subfolders(folder) else None


def _subfolders(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.is_dir() and not entry.name.startswith((".", "__")) for entry in entries)

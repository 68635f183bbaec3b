"""NumPy archives: Keras's mnist.npz, MedMNIST's sets, and your own."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from gpucnn.data.dataset import Dataset, Request
from gpucnn.data.tidy import Part, dataset
from gpucnn.errors import DataError
from gpucnn.files import regular_file
from gpucnn.text import bytes_text, listed, reason_of

PAIRS = (  # (images, labels) to train on, and to test on
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("X_train", "y_train", "X_test", "y_test"),
)
VALIDATION = (("x_val", "y_val"), ("val_images", "val_labels"), ("X_val", "y_val"))  # which some sets also have
WHOLE = (("images", "labels"), ("x", "y"), ("X", "y"), ("data", "target"), ("data", "labels"), ("arr_0", "arr_1"))
LARGEST = 1 << 35  # bytes of an array


def load(path: Path, request: Request) -> Dataset:
    """Images and labels in an .npz file: x_train, y_train, x_test, y_test, or train_images and so on; or images and labels, which are
    split.

    Nothing is unpickled. DataError for anything else, and for a file that unpacks to more than its arrays say.
    """
    path = regular_file(path, "an .npz archive", empty=False)
    try:
        with zipfile.ZipFile(path) as archive:
            names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for train_x, train_y, test_x, test_y in PAIRS:
                if {train_x, train_y, test_x, test_y} <= set(names):
                    train, test = _part(archive, names, path, train_x, train_y), _part(archive, names, path, test_x, test_y)
                    validation = next((_part(archive, names, path, x, y) for x, y in VALIDATION if {x, y} <= set(names)), None)
                    return dataset(path.stem, train, test, path, request, validation=validation)
            for x, y in WHOLE:
                if {x, y} <= set(names):
                    return dataset(path.stem, _part(archive, names, path, x, y), None, path, request)
    except DataError:
        raise
    except Exception as error:  # zipfile and NumPy may raise anything
        raise DataError(f"{path} cannot be read as an .npz archive ({reason_of(error)}): get a new copy or save it again") from None
    raise DataError(
        f"{path} contains {listed(sorted(names), 6) or 'nothing'}, expected {', '.join(PAIRS[0])} or {', '.join(PAIRS[1])}, "
        "or images and labels: name the arrays so"
    )


def _part(archive: zipfile.ZipFile, names: Mapping[str, zipfile.ZipInfo], path: Path, x: str, y: str) -> Part:
    return Part(_array(archive, names[x], path), _array(archive, names[y], path), f"{path}, {x}", f"{path}, {y}")


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Any:
    with archive.open(info) as file:
        shape, order, dtype = _header(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise DataError(f"{path} contains Python objects in {info.filename!r}, which are never unpickled: save numbers")
        if size > LARGEST or size != info.file_size - file.tell():
            raise DataError(
                f"{path}: {info.filename!r} declares {bytes_text(size)}, and has {bytes_text(info.file_size - file.tell())}: "
                "get a new copy or save it again"
            )
        content = file.read(size)
        if len(content) != size:
            raise DataError(f"{path}: {info.filename!r} is cut short: get a new copy or save it again")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if order else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"its format is of version {version[0]}.{version[1]}")
    shape, order, dtype = read(file)
    return shape, order, dtype

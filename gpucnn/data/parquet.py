"""Parquet files of images in the form of Hugging Face's data sets: a column of encoded images, and one of class numbers or names.

Needs pyarrow, and Pillow for the images (extra `parquet`). If the library `datasets` wrote the file, its metadata contain the names of the
classes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.dataset import Dataset, Request
from gpucnn.data.images import fit_channels, read_bytes, resized
from gpucnn.data.tidy import Part, dataset
from gpucnn.errors import DataError, MissingExtraError
from gpucnn.files import regular_file
from gpucnn.surroundings import install
from gpucnn.text import listed, reason_of

IMAGES = ("image", "img", "picture", "pixel_values")
LABELS = ("label", "labels", "fine_label", "class", "target")
ROWS = 256  # that are read at once
LARGEST = 1 << 32  # bytes of a group of rows, unpacked


def load(path: Path, request: Request) -> Dataset:
    """One file, of which `test_fraction` of each class is held out for testing."""
    return of_parts(path.stem, {"train": [path]}, path, request)


def of_parts(name: str, parts: dict[str, list[Path]], origin: Path, request: Request) -> Dataset:
    """A set with files for its parts, "train" and optionally "test" and "validation"; each part may have several.

    If there is a validation part and no test part, it is used for testing. DataError unless there is a column of images and one of labels,
    and for images of several sizes without `image_size`; MissingExtraError without pyarrow or Pillow.
    """
    note = None
    if "test" not in parts and "validation" in parts:
        parts = {"train": parts["train"], "test": parts["validation"]}
        note = f"there is no test part beside {parts['train'][0].name}: the images in {parts['test'][0].name} are used for testing"
    names: list[str] | None = None
    read: dict[str, Part] = {}
    done, all_rows = 0, sum(_rows(path) for files in parts.values() for path in files)
    for part, files in parts.items():
        images: list[NDArray[np.uint8]] = []
        labels: list[Any] = []
        for path in files:
            found, at = _columns(path)
            names = names or found
            for image, label in _read(path, *at, request.image_size):
                if images and image.shape[1:] != images[0].shape[1:]:
                    raise DataError(
                        f"{path}, row {len(images)}: the image is {_size(image)} pixels (height × width), expected {_size(images[0])}, "
                        "as in the first: give --image-size (image_size= in Python)"
                    )
                images.append(image)
                labels.append(label)
                done += 1
                if request.reading is not None:
                    request.reading("images", done, all_rows)
        if not images:
            raise DataError(f"{files[0]} has no rows: get a new copy")
        read[part] = Part(images, np.array(labels), str(files[0]))
    channels = max(image.shape[0] for part in read.values() for image in part.images)
    stacked = {key: replace(part, images=np.stack([fit_channels(image, channels) for image in part.images])) for key, part in read.items()}
    made = dataset(name, stacked["train"], stacked.get("test"), origin, request, validation=stacked.get("validation"))
    if names is not None and all(name.isdigit() and int(name) < len(names) for name in made.class_names):
        made = replace(made, class_names=tuple(names[int(number)] for number in made.class_names))
    return replace(made, note=note)


def _open(path: Path) -> Any:
    path = regular_file(path, "a Parquet file", empty=False)
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(f"reading {path} needs pyarrow, which is not installed: {install('parquet')}") from error
    try:
        file = parquet.ParquetFile(path)
        largest = max((file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups)), default=0)
    except Exception as error:  # pyarrow may raise anything
        raise DataError(f"{path} cannot be read as a Parquet file ({reason_of(error)}): get a new copy") from None
    if largest > LARGEST:
        raise DataError(f"{path} has a group of rows of {largest:,} bytes, over {LARGEST:,}: write it again with smaller ones")
    return file


def _rows(path: Path) -> int:
    return int(_open(path).metadata.num_rows)


def _columns(path: Path) -> tuple[list[str] | None, tuple[str, str]]:
    """The class names, if the file has them, and the columns of images and labels."""
    schema = _open(path).schema_arrow
    features: dict[str, Any] = {}
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):  # of another writer
        features, kinds = {}, {}
    columns = list(schema.names)
    image = _first(columns, [name for name, kind in kinds.items() if kind == "Image"], IMAGES)
    label = _first(columns, [name for name in LABELS if kinds.get(name) == "ClassLabel"], LABELS)
    label = label or _first(columns, [name for name, kind in kinds.items() if kind == "ClassLabel"], ())
    if image is None or label is None:
        missing = f"no column of images ({', '.join(IMAGES[:2])})" if image is None else f"no column of labels ({', '.join(LABELS[:2])})"
        raise DataError(f"{path} has {missing} among {listed(columns, 6)}: it is not a data set of images and their classes")
    names = features.get(label, {}).get("names") if kinds.get(label) == "ClassLabel" else None
    good = isinstance(names, list) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    return names if good else None, (image, label)


def _first(columns: Sequence[str], marked: Sequence[str], usual: Sequence[str]) -> str | None:
    return next((name for name in (*marked, *usual) if name in columns), None)


def _read(path: Path, image: str, label: str, size: tuple[int, int] | None) -> Iterator[tuple[NDArray[np.uint8], Any]]:
    """The images and labels of a file, row by row."""
    row = 0
    batches = iter(_open(path).iter_batches(batch_size=ROWS, columns=[image, label]))
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            rows = list(zip(batch.column(image).to_pylist(), batch.column(label).to_pylist(), strict=True))
        except Exception as error:  # pyarrow may raise anything
            raise DataError(f"{path} is damaged after row {row} ({reason_of(error)}): get a new copy") from None
        for given, answer in rows:
            where = f"{path}, row {row}"
            content = given.get("bytes") if isinstance(given, dict) else given
            if not isinstance(content, bytes):
                raise DataError(f"{where}: the column {image!r} contains no encoded image, but {type(content).__name__}: embed the images")
            if answer is None or isinstance(answer, bool | list | dict | float):
                raise DataError(f"{where}: the column {label!r} contains {answer!r}, expected a class's number or name")
            picture = read_bytes(io.BytesIO(content), where)
            yield (picture if size is None else resized(picture, size)), answer
            row += 1


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]} × {image.shape[2]}"

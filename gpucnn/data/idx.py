"""The idx format, in which MNIST is distributed: a typed array with a short header, often gzip-compressed.

    offset  bytes  content
    0       2      zero
    2       1      type of the elements: 8 u1, 9 i1, 11 i2, 12 i4, 13 f4, 14 f8
    3       1      number of dimensions, n
    4       4n     the dimensions, big-endian, unsigned
    4 + 4n         the elements in C order, big-endian

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import sys
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpucnn.arrays import numbers
from gpucnn.data.files import CHUNK, atomic_file, open_content
from gpucnn.errors import DataError
from gpucnn.surroundings import user_path
from gpucnn.text import number_of

PathLike: TypeAlias = str | os.PathLike[str]

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
CODES = {np.dtype(name): code for code, name in TYPES.items()}
EXTENDED = 8  # columns of QMNIST's labels: the class, and where in NIST's database the digit comes from
MAX_DIMENSIONS = 64  # NumPy's limit; the format has 255


class DigestError(DataError):
    """A file with unexpected content. `found` is its SHA-256."""

    def __init__(self, message: str, found: str) -> None:
        super().__init__(message)
        self.found = found


def read_idx(path: PathLike, *, sha256: str | None = None, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """The array in an idx file, gzip-compressed or not, in the machine's byte order; writable.

    `sha256` is that of the uncompressed bytes, header included. `shape`, if it is known, is compared with the header before
    any data is read. DataError if the file is missing, truncated, too long, corrupt, or not the expected one.
    """
    path = user_path(path)
    digest = hashlib.sha256()
    with open_content(path) as (stream, most):
        header = stream.read(4)
        dtype, dimensions = _magic(path, header)
        sizes = stream.read(4 * dimensions)
        if len(sizes) < 4 * dimensions:
            raise DataError(
                f"{path} is truncated: its header has {4 + len(sizes)} bytes of {4 + 4 * dimensions}: delete it and get a new copy"
            )
        found = struct.unpack(f">{dimensions}I", sizes)
        size = math.prod(found) * dtype.itemsize
        _check_size(path, found, size, most - 4 - 4 * dimensions, shape)
        digest.update(header + sizes)

        # Read in chunks, so that a header that announces too much costs no memory.
        data = bytearray()
        while len(data) < size:
            chunk = stream.read(min(CHUNK, size - len(data)))
            if not chunk:
                raise DataError(
                    f"{path} is truncated: {len(data):,} bytes of data where the header announces {size:,} "
                    f"for {_times(found)}: delete it and get a new copy"
                )
            digest.update(chunk)
            data += chunk
        if stream.read(1):  # in a gzip file this also reaches the check sum
            raise DataError(
                f"{path} continues after the {size:,} bytes of data that its header announces for {_times(found)}: "
                "delete it and get a new copy"
            )

    if sha256 is not None and digest.hexdigest() != sha256.lower():
        raise DigestError(
            f"{path} has the SHA-256 {digest.hexdigest()} (uncompressed), expected {sha256.lower()}: "
            "it is damaged or another file of that name; delete it and get a new copy",
            digest.hexdigest(),
        )
    if not data:
        return np.zeros(found, dtype.newbyteorder("="))
    return np.frombuffer(data, dtype).reshape(found).astype(dtype.newbyteorder("="), copy=False)


def write_idx(path: PathLike, array: NDArray[Any]) -> None:
    """Writes an array as an idx file, compressed if the name ends in .gz: completely or not at all, and bit-identical every time.

    The array is uint8, int8, int16, int32, float32 or float64, of 1 to 64 dimensions. DataError for anything else.
    """
    path, array = user_path(path), numbers(array, "the array")
    code = CODES.get(array.dtype.newbyteorder(">"))
    if code is None:
        known = ", ".join(np.dtype(name).newbyteorder("=").name for name in TYPES.values())
        raise DataError(f"the idx format has no {array.dtype}: convert the array to one of {known}")
    if not 1 <= array.ndim <= MAX_DIMENSIONS or max(array.shape) >= 1 << 32:
        raise DataError(f"the idx format supports 1 to {MAX_DIMENSIONS} dimensions of under 2³² each, got the shape {array.shape}")
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.astype(TYPES[code]).tobytes()
    with atomic_file(path) as file:
        file.write(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def load_pair(
    images_path: PathLike,
    labels_path: PathLike,
    classes: int,
    *,
    images_sha256: str | None = None,
    labels_sha256: str | None = None,
    images_shape: tuple[int, ...] | None = None,
    labels_shape: tuple[int, ...] | None = None,
    first: int = 0,
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Images (N, H, W) uint8 and their labels (N,) int32, each in 0 … classes − 1, from two idx files.

    images_shape, labels_shape: as `shape` of `read_idx`; one label for each image, unless they say otherwise.
    first: the least label in the file, which becomes 0. Of labels (N, 8) of int32, as QMNIST has them, the first column is taken.

    DataError if one of the files cannot be read, if they are not images and labels, if there are none, if their counts differ,
    or if a label is out of range.
    """
    labels_shape = labels_shape or (None if images_shape is None else images_shape[:1])
    labels = read_idx(labels_path, sha256=labels_sha256, shape=labels_shape)
    if labels.dtype == np.int32 and labels.ndim == 2 and labels.shape[1] == EXTENDED:
        labels = labels[:, 0]
    images = read_idx(images_path, sha256=images_sha256, shape=images_shape)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise DataError(
            f"{images_path} contains {images.dtype} of the shape {images.shape}, expected images, uint8 (N, H, W): "
            "are images and labels swapped?"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{labels_path} contains {labels.dtype} of the shape {labels.shape}, expected labels, integers (N,): "
            "are images and labels swapped?"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} contains {number_of(len(images), 'image')} and {labels_path} {number_of(len(labels), 'label')}: "
            "they do not belong together, or one of them is cut; get new copies of both"
        )
    if images.size == 0:
        raise DataError(f"{images_path} contains no pixels (its shape is {images.shape}): give a file with at least one image")
    wrong = (labels < first) | (labels >= first + classes)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(
            f"{labels_path}: label {at} is {int(labels[at])} where {classes} classes allow {first} to {first + classes - 1}: "
            "correct the file or the number of classes"
        )
    return images, labels.astype(np.int32) - np.int32(first)


def _magic(path: Path, header: bytes) -> tuple[np.dtype[Any], int]:
    """Element type and number of dimensions from the first four bytes."""
    if not header:
        raise DataError(f"{path} is empty, expected an idx file: delete it and get a new copy")
    if header[:1] == b"<":
        raise DataError(f"{path} is a web page, not an idx file: a download went wrong; delete it and get a new copy")
    if any(header[:2]) or (len(header) > 2 and header[2] not in TYPES):
        raise DataError(
            f"{path} is not an idx file: it begins with {header.hex(' ')} where 00 00, a type (08, 09, 0b … 0e) and the number of "
            "dimensions were expected; check that it is the right file"
        )
    if len(header) < 4:
        raise DataError(f"{path} is truncated: it has {len(header)} of the header's first 4 bytes: delete it and get a new copy")
    if not 1 <= header[3] <= MAX_DIMENSIONS:
        raise DataError(f"{path} announces {header[3]} dimensions where 1 to {MAX_DIMENSIONS} can be read: check that it is the right file")
    return np.dtype(TYPES[header[2]]), header[3]


def _check_size(path: Path, found: tuple[int, ...], size: int, most: int, shape: tuple[int, ...] | None) -> None:
    """Rejects sizes that differ from the expected ones, or that the file or NumPy could not hold."""
    if shape is not None and found != shape:
        raise DataError(
            f"{path} announces {_times(found)}, expected {_times(shape)}: it is damaged or another file; delete it and get the right one"
        )
    if size > most or math.prod(max(n, 1) for n in found) * 8 > sys.maxsize:
        raise DataError(
            f"{path} is truncated or corrupt: its header announces {_times(found)}, {size:,} bytes, and the file can hold "
            f"{max(most, 0):,} at most: delete it and get a new copy"
        )


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))

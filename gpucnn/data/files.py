"""Reading a file that may be compressed, or a .npy array, and writing one completely or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.format import MAGIC_PREFIX

from gpucnn.errors import DataError
from gpucnn.files import regular_file, writing
from gpucnn.text import bytes_text, reason_of

CHUNK = 1 << 20
DEFLATE_RATIO = 1032  # no deflate stream grows by more than this when it is unpacked


@contextmanager
def open_content(path: Path) -> Iterator[tuple[io.BufferedIOBase, int]]:
    """The uncompressed content of a file as a stream, and the most bytes that it can hold.

    gzip is recognized by the file's first two bytes, whatever its name. Any error while the stream is open and read becomes
    a DataError that names the file.
    """
    try:
        path = regular_file(path, "a file of data")
        with open(path, "rb") as raw:
            status = os.fstat(raw.fileno())
            if raw.peek(2)[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked, status.st_size * DEFLATE_RATIO
            else:
                yield raw, status.st_size
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({reason_of(error)}): delete it and get a new copy") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({reason_of(error)}): check the path and its permissions") from error


def content_of(path: Path, limit: int, advice: str) -> bytes:
    """The uncompressed content, in memory that grows with what is read: read(limit) would ask for the limit at once.

    DataError, with `advice`, if it is longer than `limit` bytes.
    """
    found = io.BytesIO()
    with open_content(path) as (stream, _):
        while chunk := stream.read(CHUNK):
            if found.tell() + len(chunk) > limit:
                raise DataError(f"{path} is over {bytes_text(limit)} long: {advice}")
            found.write(chunk)
    return found.getvalue()


def content_sha256(path: Path, limit: int) -> str:
    """SHA-256 of the uncompressed content, as hex digits. DataError if the content is longer than `limit` bytes."""
    digest, done = hashlib.sha256(), 0
    with open_content(path) as (stream, _):
        while chunk := stream.read(CHUNK):
            done += len(chunk)
            if done > limit:
                raise DataError(f"{path} unpacks to more than {limit:,} bytes: it is not the file that was expected")
            digest.update(chunk)
    return digest.hexdigest()


def file_md5(path: Path) -> str:
    """MD5 of a file's bytes as stored, compressed or not, as hex digits; several data sets publish this sum."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def atomic_file(path: Path, error: type[DataError] = DataError) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` if the block succeeds and is removed if it fails.

    An OSError in the block counts as the disk's, and becomes an `error` that names the path.
    """
    try:
        with writing(path, folders=False) as file:
            yield file
    except OSError as problem:
        raise error(f"{path} cannot be written ({reason_of(problem)}): free some space there, or choose another folder") from problem


def load_npy(path: Path) -> Any:
    """The array in a .npy file, or NumPy's object for an archive of that name. DataError for anything else.

    It is mapped, so that a header that announces more than the file holds is rejected before memory is allocated.
    """
    try:
        with open(path, "rb") as file:
            begin = file.read(len(MAGIC_PREFIX))
        if begin != MAGIC_PREFIX and not begin.startswith(b"PK"):  # NumPy would call it a pickle, and say how to run it
            raise ValueError("it does not begin as one")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy may raise anything for a damaged file
        raise DataError(
            f"{path} cannot be read as a .npy array ({reason_of(error)}): write it again with numpy.save, without objects"
        ) from error

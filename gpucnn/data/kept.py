"""The resized images of a folder, kept in the user's cache: the next run reads one file instead of all of them.

A stored set is identified by the names, sizes and times of the files and by the size that they were resized to: if any of them has changed,
all files are read again. If there is too much, the sets that were unused for longest are deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucnn.data import search
from gpucnn.files import write_atomically

FOLDER = "images"
ENOUGH = 200  # images from which on keeping them is worthwhile
MOST = 4 << 30  # bytes that are kept in all
FORM = "1"  # the version of the files: another one whenever reading or resizing changes


def path_of(paths: Sequence[Path], size: tuple[int, int]) -> Path | None:
    """The path of the images that are kept; None if they are not: too few images, no cache, or an unreadable file."""
    cache = search.cache()
    if cache is None or len(paths) < ENOUGH:
        return None
    digest = hashlib.sha256(f"{FORM} {size}".encode())
    for path in paths:
        try:
            status = os.stat(path)
            digest.update(os.fsencode(os.path.abspath(path)) + f"\0{status.st_size} {status.st_mtime_ns}\0".encode())
        except OSError:
            return None
    return cache / FOLDER / f"{digest.hexdigest()[:40]}.npy"


def kept(path: Path, count: int, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The `count` images (N, C, H, W) kept there; None if there are none, or the file holds something else."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped, so that a false header costs no memory
        if (
            found.dtype != np.uint8
            or found.ndim != 4
            or found.shape[1] not in (1, 3)
            or found.shape[::2] + found.shape[3:] != (count, *size)
        ):
            return None
        os.utime(path)  # it was used now
        return np.array(found)
    except Exception:  # NumPy may raise anything for a damaged file
        return None


def keep(path: Path, images: NDArray[np.uint8]) -> None:
    """Keeps the images if there is room for them; does nothing if the cache cannot be written."""
    if images.nbytes > MOST // 2:
        return
    with contextlib.suppress(OSError):
        write_atomically(path, lambda file: np.save(file, images, allow_pickle=False))
        _clear(path.parent)


def _clear(folder: Path) -> None:
    """Removes the files that were used longest ago, until the rest is within the limit."""
    with os.scandir(folder) as entries:
        files = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in entries if entry.name.endswith(".npy"))
    total = sum(size for _, size, _ in files)
    for _, size, path in files[:-1]:
        if total <= MOST:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size

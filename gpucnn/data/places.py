"""Where the files of a data set by name are looked for, and where they are downloaded to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gpucnn.errors import DataError
from gpucnn.files import exists, why_no_folder
from gpucnn.surroundings import cache_folder, user_path

VARIABLE = "GPUCNN_DATA_DIR"


def roots(data_dir: Path | None) -> list[Path]:
    """The folders to search: `data_dir`, the one in the environment, the user's cache. Downloads go to the first of them.

    DataError where something else than a folder is.
    """
    found = []
    if data_dir is not None:
        _check_folder(data_dir, f"data_dir {data_dir}", "name", ", or give a file of data as the data set itself, --dataset FILE")
        found.append(data_dir)
    if os.environ.get(VARIABLE):
        named = user_path(os.environ[VARIABLE])
        _check_folder(named, f"{VARIABLE} is {named}, which", f"set {VARIABLE} to")
        found.append(named)
    own = cache()
    if own is not None:
        found.append(own)
    return found


def cache() -> Path | None:
    """The user's cache; None if there is none."""
    return cache_folder()


def folders(root: Path, names: Sequence[str]) -> list[Path]:
    """The folders of a set in `root`: those with one of its names, torchvision's NAME/raw among them, and the root itself.

    What `root` is itself called makes no difference, so that torchvision's root, its NAME and its NAME/raw can all be given.
    """
    return [*(root / name for name in names), root / "raw", root]


def check_asked(data_dir: Path | None, root: Path, folder: Path, title: str) -> None:
    """DataError if files were found elsewhere although a folder was named that does not exist."""
    if data_dir is not None and root != data_dir and not exists(data_dir):
        raise DataError(f"data_dir {data_dir} does not exist, and {title} in {folder} was not asked for: check the path, or leave it out")


def advice(what: str) -> str:
    """How to get a set that cannot be downloaded, the end of an error message."""
    return f"put {what} into a folder and pass it with --data-dir (data_dir= in Python), or set {VARIABLE} to it"


def _check_folder(path: Path, what: str, mend: str, otherwise: str = "") -> None:
    if exists(path) and (why := why_no_folder(path)):
        raise DataError(f"{what} {why.removeprefix('it ')} where a folder was expected: {mend} the folder that holds the data{otherwise}")

"""The folders in which the files of a named data set are searched, and the one to which they are downloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gpucnn.data.download import UnavailableError
from gpucnn.errors import DataError
from gpucnn.files import exists, why_no_folder
from gpucnn.surroundings import cache_folder, user_path

VARIABLE = "GPUCNN_DATA_DIR"


def roots(data_dir: Path | None) -> list[Path]:
    """The folders to search: `data_dir` alone if it is given, otherwise the one in the environment and the user's cache. Downloads go to
    the first of them.

    DataError if one of them is not a folder.
    """
    if data_dir is not None:
        check_given(data_dir)
        return [data_dir]
    found = []
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

    The name of `root` itself does not matter, so torchvision's root, its NAME and its NAME/raw can all be given.
    """
    return [*(root / name for name in names), root / "raw", root]


def check_given(data_dir: Path, *, download: bool = True) -> None:
    """DataError unless the folder exists: a mistyped one is neither skipped nor created. Without `download`, as gpucnn view asks, the
    data set is not the caller's to choose, and nothing will be put into a folder."""
    if not exists(data_dir):
        fresh = ", or make the folder first if a data set is to be downloaded to it" if download else ""
        raise DataError(f"data_dir {data_dir} does not exist: check the path, or leave it out{fresh}")
    otherwise = ", or give a file of data as the data set itself, --dataset FILE" if download else ""
    _check_folder(data_dir, f"data_dir {data_dir}", "name", otherwise)


def not_in(data_dir: Path | None, title: str, error: UnavailableError) -> UnavailableError:
    """The error of a download, with the folder that was searched before, if one was named."""
    return error if data_dir is None else UnavailableError(f"{title} is not in {data_dir}, and {error}")


def advice(what: str, data_dir: Path | None = None) -> str:
    """Advice on how to get a set that cannot be downloaded, for the end of an error message."""
    if data_dir is None:
        given = os.environ.get(VARIABLE)
        now = f"; it is {given} now{'' if exists(user_path(given)) else ', which does not exist'}" if given else ""
        return f"put {what} into a folder and pass it with --data-dir (data_dir= in Python), or set {VARIABLE} to it{now}"
    others = f"{VARIABLE} and the user's cache" if os.environ.get(VARIABLE) else "the user's cache"
    return f"put {what} there, or leave --data-dir (data_dir=) out to search {others}"


def _check_folder(path: Path, what: str, mend: str, otherwise: str = "") -> None:
    if exists(path) and (why := why_no_folder(path)):
        raise DataError(f"{what} {why.removeprefix('it ')}, expected a folder: {mend} the folder that contains the data{otherwise}")

"""Machine code kept on disk, so that only the first run on a machine compiles.

One file for each loop, in the user's cache folder. Its name depends on the same things as the machine code: the sources of this package,
the versions of Python and Numba, the processor and its features. A folder that two machines share holds files of both. A file is written
beside its place and then moved there, so nobody reads half of one. Its first line is the hash of the rest: a file that a full disk or a
crash has cut short is compiled again. This package does not import gpucnn, and so has a writer and a way to the cache folder of its own:
gpucnn/files.py and gpucnn/surroundings.py have those of the library.

GPUCNN_LOOP_CACHE names another folder; 0 keeps nothing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

MONTH = 30 * 24 * 3600

announce: Callable[[str], object] | None = None
"""Called with the name of each loop that is about to be compiled, for a program to show."""
complain: Callable[[str], object] | None = None
"""Called once, with the reason in words, when no machine code can be kept, or it takes longer to make."""


def folder() -> Path | None:
    """The folder of the files; None if no files are kept, or no folder is available."""
    given = os.environ.get("GPUCNN_LOOP_CACHE")
    if given is not None:
        return None if given in ("", "0") else Path(given)
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    with contextlib.suppress(RuntimeError, KeyError, OSError):
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "gpucnn" / "loops"
    return None


def path(name: str, made_for: tuple[str, ...], source: str, ending: str = "loop") -> Path | None:
    """A loop's file. made_for: what the machine code depends on, besides the sources: versions, processor and features. source: the file
    that the loop is written in, of this package or of another's. Other files than loops have another ending."""
    base = folder()
    if base is None:
        return None
    mark = hashlib.sha256(repr((name, made_for)).encode() + _sources(source))
    return base / f"{name}-{mark.hexdigest()[:24]}.{ending}"


def read(path: Path | None) -> bytes | None:
    """The contents of a file; None if it does not exist, cannot be read, or is incomplete."""
    if path is not None:
        with contextlib.suppress(OSError):
            mark, _, data = path.read_bytes().partition(b"\n")
            if mark == hashlib.sha256(data).hexdigest().encode():
                return data
    return None


def keep(path: Path | None, name: str, data: bytes, quietly: bool = False) -> None:
    """Stores a compiled loop, or something else, if possible. `quietly`: nothing is said where it is not."""
    if path is None:
        return
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget_old(path.parent, name)
        beside.write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        os.replace(beside, path)
    except OSError as error:  # a full disk, or another user's folder: the loop is then compiled at every start
        with contextlib.suppress(OSError):
            beside.unlink()
        if not quietly:
            why = next((f"{part} is a file" for part in (path.parent, *path.parent.parents) if part.is_file()), error.strerror or error)
            say_once(f"compiled loops cannot be kept in {path.parent}, and are compiled at every start: {why} (GPUCNN_LOOP_CACHE)")


def tell(name: str) -> None:
    """Tells the program that a loop is about to be compiled."""
    if announce is not None:
        announce(name)


def _forget_old(folder: Path, name: str) -> None:
    """Deletes files older than a month: every change to the sources leaves files behind that are never used again."""
    for file in folder.glob(f"{name}-*"):
        with contextlib.suppress(OSError):  # another process was first
            if time.time() - file.stat().st_mtime > MONTH:
                file.unlink()


@functools.cache
def say_once(text: str) -> None:
    """Tells the program what does not work as it should, and what happens instead."""
    if complain is not None:
        complain(text)


def _sources(source: str) -> bytes:
    """A hash of every source file of the package, and of one more if it is from outside it."""
    return _hash("" if Path(source).parent == Path(__file__).parent else source)


@functools.cache
def _hash(more: str) -> bytes:
    """A hash of every source file of the package, and of one more if it is named."""
    digest = hashlib.sha256()
    for path in sorted({*Path(__file__).parent.glob("*.py"), *([Path(more)] if more else [])}):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.digest()

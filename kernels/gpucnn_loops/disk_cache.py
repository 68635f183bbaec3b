"""Machine code kept on disk, so that only the first run on a machine compiles.

One file for each loop, in the user's cache folder, under a name that says for what it is good: the sources of this package, the versions
of Python and Numba, the processor and its features. A folder that two machines share holds files of both. A file is written beside its
place and then moved there, so nobody sees half of one; its first line is the hash of the rest, so what a full disk or a crash has cut
short is compiled again.

GPUCNN_LOOP_CACHE is the folder, or 0 for none.
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
from typing import Any

MONTH = 30 * 24 * 3600

announce: Callable[[str], object] | None = None
"""Told the name of each loop that is about to be compiled, for a program to show."""
complain: Callable[[str], object] | None = None
"""Told once, in words, when nothing can be kept."""


def folder() -> Path | None:
    """Where the files are; None where none are to be kept, or nobody knows where."""
    given = os.environ.get("GPUCNN_LOOP_CACHE")
    if given is not None:
        return None if given in ("", "0") else Path(given)
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    with contextlib.suppress(RuntimeError, KeyError, OSError):
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "gpucnn" / "loops"
    return None


class Kept:
    """One loop's file, in the place that Numba has for a cache of its own.

    made_for: what the machine code depends on, besides the loop and the processor. pack, unpack: compiled code as bytes, and back.
    """

    def __init__(
        self, name: str, made_for: tuple[str, ...], pack: Callable[[Any], bytes], unpack: Callable[[Any, bytes], Any]
    ) -> None:  # fmt: skip
        self.name, self.made_for = name, made_for
        self.pack, self.unpack = pack, unpack
        self.found = False

    def path(self, codegen: Any) -> Path | None:
        """The loop's file for the processor that Numba compiles for."""
        base = folder()
        if base is None:
            return None
        mark = hashlib.sha256(repr((self.name, self.made_for, codegen.magic_tuple())).encode() + _sources())
        return base / f"{self.name}-{mark.hexdigest()[:24]}.loop"

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The compiled loop, or None."""
        context.refresh()
        path = self.path(context.codegen())
        if path is not None:
            with contextlib.suppress(Exception):  # not there, not readable, cut short, or of something else: it is compiled again
                mark, _, data = path.read_bytes().partition(b"\n")
                if mark == hashlib.sha256(data).hexdigest().encode():
                    result = self.unpack(context, data)
                    self.found = True
                    return result
        if announce is not None:
            announce(self.name)
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keeps a compiled loop, if that can be."""
        path = self.path(result.target_context.codegen())
        if path is None:
            return
        beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._forget_old(path)
            data = self.pack(result)
            beside.write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
            os.replace(beside, path)
        except Exception as error:  # a full disk, a folder of another user's: it costs a compilation at every start
            with contextlib.suppress(OSError):
                beside.unlink()
            _say_once(f"compiled loops cannot be kept in {path.parent}, and are compiled at every start ({error})")

    def _forget_old(self, path: Path) -> None:
        """Deletes what has lain there for a month: every change to the sources leaves a file behind that nobody asks for again."""
        for file in path.parent.glob(f"{self.name}-*"):
            with contextlib.suppress(OSError):  # another process was first
                if time.time() - file.stat().st_mtime > MONTH:
                    file.unlink()


@functools.cache
def _say_once(text: str) -> None:
    if complain is not None:
        complain(text)


@functools.cache
def _sources() -> bytes:
    """A hash of every source file of the package."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.digest()

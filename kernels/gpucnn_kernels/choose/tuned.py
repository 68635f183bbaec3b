"""Tables of the fastest variants, one per chip: in the user's cache, where `gpucnn tune` writes them, and beside this file for the chips
that ship with measurements. The user's own measurements take precedence.

A file is JSON: {"version": 1, "chip": …, "entries": {"conv2d n128 c1 …": {"variant": "direct", "slices": 1}, …}}. One that cannot be
read is ignored with a warning: select.py works without it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

VERSION = 1
VARIABLE = "GPUCNN_TUNED"  # environment variable: a folder for the tables in place of the user's cache; empty: no tables at all
BUILT_IN = Path(__file__).parent / "fastest"


def folder() -> Path | None:
    """The folder of the tables; None if there is none.

    It is in gpucnn's cache folder, as gpucnn.surroundings.cache_folder has it: kernels do not import gpucnn. A test compares the two.
    """
    given = os.environ.get(VARIABLE)
    if given is not None:
        return Path(given) if given else None
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    with contextlib.suppress(RuntimeError, KeyError, OSError):  # no home
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "gpucnn" / "tuned"
    return None


def path(chip: str) -> Path | None:
    """The table file for a chip, by the name that the driver gives it."""
    tables = folder()
    return None if tables is None else tables / _file_name(chip)


def _file_name(chip: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", chip).strip("-").lower() + ".json"


def lookup(chip: str, key: str) -> tuple[str, int] | None:
    """(variant, slices) for a problem, or None if it was not measured."""
    if not chip or _passed_over.get():
        return None
    # Called at every launch: building the file name would take longer than a kernel.
    return _table_of(chip, *(os.environ.get(name) for name in (VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"))).get(key)


@contextmanager
def passed_over() -> Iterator[None]:
    """Ignores all tables inside."""
    token = _passed_over.set(True)
    try:
        yield
    finally:
        _passed_over.reset(token)


_passed_over: ContextVar[bool] = ContextVar("passed_over", default=False)


def read(file: Path) -> dict[str, tuple[str, int]]:
    """Reads a table. Raises ValueError for any other file, OSError if it cannot be read."""
    found: Any = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.get("version") != VERSION or not isinstance(found.get("entries"), dict):
        raise ValueError(f"it is not a table of version {VERSION}")
    table = {}
    for key, entry in found["entries"].items():
        variant, slices = (entry.get("variant"), entry.get("slices")) if isinstance(entry, dict) else (None, None)
        if not isinstance(variant, str) or type(slices) is not int or not 1 <= slices < 1 << 16:
            raise ValueError(f"its entry {key!r} is {entry!r}, and no variant with its slices")
        table[key] = (variant, slices)
    return table


def changed(chip: str, entries: Mapping[str, dict[str, Any] | None], about: Mapping[str, Any]) -> tuple[Path, str]:
    """The table of a chip with more entries (and `about`, which describes them), and without those that are None: its path, and the text to
    write there; after that `forget`.

    Raises OSError if there is no folder for it.
    """
    file = path(chip)
    if file is None:
        raise OSError(f"there is no folder for tables: set {VARIABLE} to one")
    try:
        old = json.loads(file.read_text(encoding="utf-8"))["entries"] if read(file) else {}
    except (OSError, ValueError):
        old = {}
    kept = {key: entry for key, entry in {**old, **entries}.items() if entry is not None}
    return file, json.dumps({"version": VERSION, "chip": chip, **about, "entries": kept}, indent=1) + "\n"


def forget() -> None:
    """Drops the cached tables; the next lookup reads them again."""
    _table.cache_clear()
    _table_of.cache_clear()


@functools.lru_cache(maxsize=16)
def _table_of(chip: str, *surroundings: str | None) -> dict[str, tuple[str, int]]:
    """The merged tables of a chip, cached by the environment that determines the user's folder."""
    return {**_table(BUILT_IN / _file_name(chip)), **_table(path(chip))} if surroundings[0] != "" else {}


@functools.cache
def _table(file: Path | None) -> dict[str, tuple[str, int]]:
    if file is None:
        return {}
    try:
        return read(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.warn(f"{file} is passed over ({error}): delete it, or run gpucnn tune again", stacklevel=2)
        return {}

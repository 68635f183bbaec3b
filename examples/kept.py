"""Results in kernels/predicted that stay while all that they are made of stays: predict.py's files."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import gpucnn as gc
from gpucnn.files import write_atomically
from gpucnn.profiling.chip.compiled import versions

ROOT = Path(__file__).parents[1]
PREDICTED = ROOT / "kernels" / "predicted"
SOURCES = ("kernels/gpucnn_kernels", "gpucnn/profiling/chip")
AGAIN = 3
"""The exit status of a run that has left something."""
Prepare: TypeAlias = Callable[[], tuple[str | None, Callable[[], dict[str, Any]]]]
"""Gives the mark of an entry, a hash of all that it depends on, and a function that makes it."""


@functools.cache
def about() -> dict[str, Any]:
    """The commit of the kernels and the predictor, the date, and the compilers."""
    git = "git", "-C", str(ROOT)
    changed = subprocess.run([*git, "status", "--porcelain", "--", *SOURCES], capture_output=True, text=True, check=False)
    commit = subprocess.run([*git, "log", "-1", "--format=%h", "--", *SOURCES], capture_output=True, text=True, check=False)
    if commit.returncode or changed.returncode:
        raise gc.DataError("the commit is not known: predict.py needs git, and a checkout")
    words = commit.stdout.strip() + (", with changes" if changed.stdout else "")
    return {"commit": words, "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "compilers": versions()}


@functools.cache
def of_sources() -> str:
    """A hash of the sources, and of the compilers' versions."""
    digest = hashlib.sha256(versions().encode())
    for name in SOURCES:
        for file in sorted((ROOT / name).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


class Results:
    """One of the files. An entry stays while its mark is the same; it says the last commit at which that was so."""

    def __init__(self, path: Path, until: float, *, stale: bool) -> None:
        self.path, self.until, self.stale = path, until, stale
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            found = {}
        except ValueError as error:
            raise gc.DataError(f"{self.path} cannot be read: {error}; delete it to start again") from None
        self.before: dict[str, Any] = found.get("entries", {})
        self.entries: dict[str, Any] = {}
        self.sources, self.about = of_sources(), about()
        # Where no source has changed since the file was written, only what it had not come to has to be looked at.
        last = found.get("commit") if found.get("sources") == self.sources else None
        self.sure = {key for key, entry in self.before.items() if entry["commit"] == last}
        for key in self.before.keys() - self.sure:
            if self.before[key]["commit"] == self.about["commit"]:  # with other changes in the working tree
                self.before[key]["commit"] = f"before {self.about['commit']}"
        self.left = self.made = 0
        self.done = False  # whether every entry has been asked for

    def keep(self, key: str, prepare: Prepare) -> None:
        """Adds an entry: the old one, or a new one if that is out of date."""
        old = self.before.get(key)
        commit = self.about["commit"]
        if old is not None and key in self.sure:
            self.entries[key] = {**old, "commit": commit}
            return
        if time.monotonic() > self.until:
            self.left += 1
            return
        mark, make = prepare()
        if old is not None and mark is not None and old["mark"] == mark:
            self.entries[key] = {**old, "commit": commit}
        elif self.stale:
            self.left += 1
            print(f"{self.path.name}: {key}")
        else:
            self.entries[key] = {**make(), "mark": mark, "commit": commit}
            self.made += 1
            print(f"{self.path.name}: {key}: {str(next(iter(self.entries[key].values())))[:20]}", flush=True)
            if self.made % 8 == 0:
                self.write()

    def write(self) -> None:
        """Writes the entries. Those that were not reached stay until all are made."""
        entries = self.entries if self.done and not self.left else {**self.before, **self.entries}
        found = {**self.about, "sources": self.sources, "entries": {}}
        head = json.dumps(found, indent=1, ensure_ascii=False).removesuffix("{}\n}")
        text = functools.partial(json.dumps, ensure_ascii=False)
        lines = ",\n".join(f"  {text(key)}: {text(entry)}" for key, entry in entries.items())
        self.path.parent.mkdir(exist_ok=True)
        write_atomically(self.path, lambda file: file.write(f"{head}{{\n{lines}\n }}\n}}\n".encode()))

    def close(self) -> int:
        """Writes the file, and says how much is up to date. The program's status."""
        if not self.stale:
            self.write()
        print(f"{self.path.name}: {len(self.entries)} are up to date, {self.made} of them made now, {self.left} left", flush=True)
        return AGAIN if self.left else 0

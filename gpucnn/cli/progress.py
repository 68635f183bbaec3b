"""Progress of a command: the current step, and downloads."""

from __future__ import annotations

import sys
import time
from typing import Any

from gpucnn.surroundings import is_terminal, say
from gpucnn.text import plain


class Status:
    """Shows the current step in one line on stderr, which is overwritten; shows nothing if stderr is not a terminal."""

    def __enter__(self) -> Status:
        return self

    def __exit__(self, *exception: object) -> None:
        self("")

    def __call__(self, text: str) -> None:
        if is_terminal(sys.stderr):
            sys.stderr.write(f"\r\x1b[K{plain(text)}")
            sys.stderr.flush()


class Downloads:
    """Progress bars for downloads and for reading many images, which appear when they are needed; one line per download if the output is
    not a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._begun: float | None = None

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, name: str, done: int, total: int | None) -> None:
        if not is_terminal(sys.stdout):
            if name not in self._tasks:
                say(f"downloading {name}")
                self._tasks[name] = True
            return
        from rich import progress

        self._show(name, done, total, progress.DownloadColumn())

    def reading(self, what: str, done: int, total: int | None) -> None:
        """Shows how many of the images have been read, once reading has taken a second, on a terminal."""
        self._begun = time.monotonic() if self._begun is None else self._begun
        if not is_terminal(sys.stdout) or (what not in self._tasks and time.monotonic() - self._begun < 1):
            return
        from rich import progress

        self._show(what, done, total, progress.MofNCompleteColumn())

    def _show(self, name: str, done: int, total: int | None, last: Any) -> None:
        from rich import progress

        if self._bar is None:
            self._bar = progress.Progress(*progress.Progress.get_default_columns(), last)
            self._bar.start()
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total)
        self._bar.update(self._tasks[name], completed=done, total=total)

"""Ctrl-C, SIGTERM and SIGHUP: they end a command after cleaning up."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from gpucnn import starting
from gpucnn.surroundings import say

STOPPED = (130, 143, 129)  # exit status after Ctrl-C, SIGTERM, SIGHUP

_ended: list[int] = []  # the signals that asked the program to end


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP end the program as Ctrl-C does, with cleanup. Ignored signals stay ignored."""
    starting.done()
    _ended.clear()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: Any) -> None:
    _ended.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def say_unless_ended(line: str) -> None:
    """`say`, or the end of the program if a signal arrived; needed because some packages catch all exceptions while they are imported."""
    if _ended:
        _end(_ended[0], None)
    say(line)

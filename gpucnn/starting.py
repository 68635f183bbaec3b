"""The first thing that the command line imports: Ctrl-C while the rest is being imported, a tenth of a second, ends without a traceback."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

COMMANDS = ("gpucnn", "gpucnn.exe", "gpucnn-script.py")


def _stopped(number: int, frame: Any) -> None:
    os.write(2, b"gpucnn: stopped\n")
    os._exit(130)


def _is_command() -> bool:
    """Whether this process is the command line, and not a program that imports gpucnn."""
    words = sys.orig_argv
    if "-m" in words[1:-1]:
        return words[words.index("-m") + 1] in ("gpucnn", "gpucnn.cli")
    return os.path.basename(sys.argv[0] if sys.argv else "") in COMMANDS


def done() -> None:
    """Everything is there: from now on Ctrl-C raises KeyboardInterrupt, as it does in any program."""
    if signal.getsignal(signal.SIGINT) is _stopped:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if _is_command():
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # who has it ignored wants that
            signal.signal(signal.SIGINT, _stopped)
    except ValueError:  # not in the main thread
        pass

"""The first import of the command line: Ctrl-C during the other imports, a tenth of a second, ends without a traceback."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what the module signal is made of: it takes no time to import
import os
import sys

COMMANDS = ("gpucnn", "gpucnn.exe", "gpucnn-script.py")


def _stopped(number: int, frame: object) -> None:
    os.write(2, b"gpucnn: stopped\n")
    os._exit(130)


def _is_command() -> bool:
    """Whether this process is the command line and not a program that imports gpucnn."""
    words = sys.orig_argv
    if words[1:3] == ["-m", "mpi4py"]:  # a rank
        words = words[2:]
    if "-m" in words[1:-1]:
        return words[words.index("-m") + 1] == "gpucnn"
    return os.path.basename(sys.argv[0] if sys.argv else "") in COMMANDS


def done() -> None:
    """Called once everything is imported: from now on Ctrl-C raises KeyboardInterrupt, as in any program."""
    if _signal.getsignal(_signal.SIGINT) is _stopped:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


if _is_command():
    try:
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # an ignored signal stays ignored
            _signal.signal(_signal.SIGINT, _stopped)
    except ValueError:  # not in the main thread
        pass

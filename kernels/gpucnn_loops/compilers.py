"""Other processes that compile loops beside this one, and leave them on the disk.

Numba compiles one loop at a time in a process, and a network needs up to thirty, of which some take half a second. A process that helps
(`main`) imports this package and nothing else, is told one symbol at a time, and answers when the loop's file is there, from where it is
read here. Machine code does not depend on who compiles it. If anything goes wrong in another process, the loop is compiled in this one.
(gpucnn_kernels/core/crew.py does the same for kernels, whose functions it sends along; this package does not import that one.)
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from gpucnn_loops import disk_cache
from gpucnn_loops.loops import Loop, every, without_collection

READY, DONE, FAILED = b"r", b"d", b"f"  # a process's answers
LONGEST = 60.0  # seconds: a process that takes longer for a loop is given up


def prepare(loops: Sequence[Loop], processes: int) -> None:
    """Makes loops ready to run, compiling with up to `processes` processes, this one included. Raises what compiling raises here;
    KeyboardInterrupt ends the other processes."""
    own = Path(__file__).parent
    elsewhere = [loop for loop in loops if loop.waits and loop.path is not None and Path(loop.source).parent == own]
    helpers = _Helpers(elsewhere)
    try:
        helpers.start(min(processes, len(elsewhere) // 2) - 1)
        with without_collection():  # not between two loops either
            while (loop := helpers.take()) is not None:
                loop.compile()
    finally:
        helpers.end()
    for loop in loops:
        loop.prepare()


class _Helpers:
    """The other processes, and a thread for each, which hands out loops: the longest first, so that none is left for the end."""

    def __init__(self, loops: Sequence[Loop]) -> None:
        self._lock = threading.Lock()  # guards the attributes below
        self._left = deque(sorted(loops, key=lambda loop: len(loop.function.__code__.co_code), reverse=True))
        self._ended = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        program = _python()
        if count < 1 or program is None or not _can_keep():
            return
        for _ in range(count):
            thread = threading.Thread(target=self._serve, args=(program,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def take(self) -> Loop | None:
        """The next loop; None if there is none, after the others have finished theirs."""
        with self._lock:
            if self._left:
                return self._left.popleft()
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.2)  # not for ever, so that Ctrl-C gets through
        return None

    def end(self) -> None:
        with self._lock:
            self._ended = True
            running = list(self._processes)
        for process in running:
            process.kill()
        for thread in self._threads:
            thread.join()

    def _serve(self, program: list[str]) -> None:
        process = None
        with contextlib.suppress(OSError):  # it cannot be started, or has ended
            process = self._started(program)
        if process is None or process.stdin is None or process.stdout is None:
            return
        try:
            if self._answer(process) != READY:
                return
            while (loop := self._handed_out()) is not None:
                process.stdin.write(f"{loop.function.__module__} {loop.symbol}\n".encode())
                process.stdin.flush()
                if self._answer(process) not in (DONE, FAILED):
                    return
        except OSError:
            return
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # unsent data
                    stream.close()

    @staticmethod
    def _answer(process: subprocess.Popen[bytes]) -> bytes:
        """Its next answer; nothing if it has ended, or takes too long."""
        stopped = threading.Timer(LONGEST, process.kill)
        stopped.daemon = True
        stopped.start()
        try:
            return process.stdout.read(1) if process.stdout is not None else b""
        finally:
            stopped.cancel()

    def _handed_out(self) -> Loop | None:
        with self._lock:
            return None if self._ended or not self._left else self._left.popleft()

    def _started(self, program: list[str]) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._ended:
                return None
            try:
                process = _early.pop()
            except IndexError:
                process = _start(program)
            self._processes.append(process)
            return process


_early: list[subprocess.Popen[bytes]] = []  # started by `expect`


def expect(processes: int) -> None:
    """Starts up to `processes` − 1 processes now, for a `prepare` that will follow: they take a second to start. What nobody has asked for
    after a minute ends."""
    program = _python()
    if program is None or processes < 2 or _early or not _can_keep():
        return
    with contextlib.suppress(OSError):
        while len(_early) < processes - 1:
            _early.append(_start(program))
    late = threading.Timer(LONGEST, _dismiss)
    late.daemon = True
    late.start()


def _dismiss() -> None:
    while _early:
        process = _early.pop()
        process.kill()
        process.wait()
        for stream in filter(None, (process.stdin, process.stdout)):
            with contextlib.suppress(OSError):
                stream.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_early.clear)  # they are the parent's
atexit.register(_dismiss)


def _start(program: list[str]) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)  # where the process finds its packages
    return subprocess.Popen(
        [*program, "-c", "from gpucnn_loops.compilers import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _can_keep() -> bool:
    """Whether files can be left in the folder of the loops: without them, another process compiles for nothing."""
    folder = disk_cache.folder()
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        return folder is not None and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False


def _python() -> list[str] | None:
    """The command that starts Python; None in a program with an embedded Python, which would start itself again."""
    program = sys.executable
    if not program or getattr(sys, "frozen", False) or not Path(program).name.lower().startswith(("python", "pypy")):
        return None
    return [program, "-P", "-W", "ignore"]


def main() -> None:
    """What another process does: compiles until there is nothing more to read."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # anything that is printed must not be mistaken for an answer
    importlib.import_module("gpucnn_loops._numba")
    answers.write(READY)
    with without_collection():
        for line in sys.stdin.buffer:
            answers.write(DONE if _compiled(*line.decode().split()) else FAILED)


def _compiled(module: str, symbol: str) -> bool:
    """Whether a loop's file is there now."""
    try:
        importlib.import_module(module)
        loop = next(each for each in every() if each.symbol == symbol)
        if loop.waits:
            loop.compile()
        return not loop.waits
    except Exception:  # the first process tries again, and reports the error
        return False

"""Compiles many kernels at once, before they are launched: in this process and in others beside it.

Numba compiles one kernel at a time in a process, and a network's step has a dozen, some of which take seconds. So other processes
(worker.py) compile as well and leave the kernels on the disk (disk_cache.py), from where the first launch takes them. This process compiles
too. All take kernels from one list, the largest first, so that no one waits for a large one at the end.

A process receives a kernel's function with everything that it calls, and imports nothing but this package: the program that is running
here is not run again. It has no CUDA context and asks no driver. If anything goes wrong there, the kernel is compiled here.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpucnn_kernels.core._numba import dumps, target
from gpucnn_kernels.core.disk_cache import KernelCache
from gpucnn_kernels.core.launch import Launch

READY, DONE, FAILED = b"r", b"d", b"f"  # a process's answers
LONGEST = 120.0  # seconds: a process that takes longer for a kernel is given up
PACKAGE = "gpucnn_kernels"


@dataclass(frozen=True)
class Job:
    """A kernel to be compiled for arguments of certain types."""

    kernel: Any
    signature: tuple[Any, ...]

    @property
    def cache(self) -> KernelCache | None:
        """Its cache on disk; None if it has none."""
        found = self.kernel._cache
        return found if isinstance(found, KernelCache) else None

    @property
    def compiled(self) -> bool:
        """Whether it is ready here, or on the disk."""
        if self.signature in self.kernel.overloads:
            return True
        return self.cache is not None and self.cache.holds(self.signature, self.kernel.targetctx.codegen())

    @property
    def ours(self) -> bool:
        """Whether it belongs to this package: to import another one may have effects of its own."""
        return str(self.kernel.py_func.__module__).partition(".")[0] == PACKAGE


def waiting(launches: Iterable[Launch]) -> list[Job]:
    """The kernels that must be compiled before these launches, each once."""
    jobs = dict.fromkeys(Job(launch.kernel, launch.signature) for launch in launches)
    return [job for job in jobs if not job.compiled]


def compile_all(jobs: Iterable[Job], processes: int = 1, told: Callable[[int], object] | None = None) -> None:
    """Compiles, with up to `processes` processes, this one included. `told` is called with the number of kernels that are done.

    A kernel that cannot be compiled is skipped: its launch reports the error. KeyboardInterrupt ends all processes.
    """
    crew = _Crew(jobs, told)
    try:
        crew.start(processes - 1)
        crew.work()
    finally:
        crew.end()


class _Crew:
    def __init__(self, jobs: Iterable[Job], told: Callable[[int], object] | None) -> None:
        self._told = told
        self._change = threading.Condition()  # guards the attributes below
        self._away: deque[tuple[Job, bytes]] = deque()  # to be taken by any process, the largest first
        self._here: deque[Job] = deque()  # to be compiled by this one
        self._under_way = 0
        self._done = 0
        self._ended = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._target: Any = None
        packed = []
        for job in jobs:
            text = _packed(job)
            if text is None:
                self._here.append(job)
            else:
                packed.append((job, text))
        # A longer description means a longer compilation.
        self._away.extend(sorted(packed, key=lambda each: len(each[1]), reverse=True))

    def start(self, most: int) -> None:
        """Starts up to `most` processes, none if that cannot help."""
        most = min(most, len(self._away) - 1)
        program = _python()
        if most < 1 or program is None:
            return
        try:
            cache = self._away[0][0].cache
            assert cache is not None
            cache.check_folder()
            self._target = target()
        except OSError:  # a kernel compiled elsewhere could not be read here
            return
        for _ in range(most):
            thread = threading.Thread(target=self._serve, args=(program,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def work(self) -> None:
        """Compiles in this process until all is done everywhere."""
        while True:
            with self._change:
                if self._away:
                    job = self._away.popleft()[0]
                elif self._here:
                    job = self._here.popleft()
                elif self._under_way:
                    self._change.wait(0.2)  # not for ever, so that Ctrl-C gets through
                    continue
                else:
                    return
            with contextlib.suppress(Exception):  # its launch reports the error
                job.kernel.compile(job.signature)
            self._count()

    def end(self) -> None:
        """Ends all processes."""
        with self._change:
            self._ended = True
            running = list(self._processes)
        for process in running:
            process.kill()
        for thread in self._threads:
            thread.join()

    def _count(self) -> None:
        with self._change:
            self._done += 1
            number = self._done
        if self._told is not None:
            self._told(number)

    def _serve(self, program: list[str]) -> None:
        """Hands out kernels to one process, in a thread of its own."""
        try:
            process = self._started(program)
        except OSError:
            return
        if process is None:
            return
        stopped = threading.Timer(LONGEST, process.kill)
        stopped.daemon = True
        try:
            assert process.stdin is not None and process.stdout is not None
            stopped.start()
            process.stdin.write(pickle.dumps(self._target))
            process.stdin.flush()
            if process.stdout.read(1) != READY:
                return
            stopped.cancel()
            while (job := self._taken()) is not None:
                self._hand(process, *job)
        except OSError:  # it has ended
            return
        finally:
            stopped.cancel()
            process.kill()
            process.wait()
            for stream in filter(None, (process.stdin, process.stdout)):
                with contextlib.suppress(OSError):  # unsent data
                    stream.close()

    def _hand(self, process: subprocess.Popen[bytes], job: Job, text: bytes) -> None:
        """Has a process compile a kernel; if it does not, the kernel is left to this one."""
        assert process.stdin is not None and process.stdout is not None
        stopped = threading.Timer(LONGEST, process.kill)
        stopped.daemon = True
        answer = b""
        try:
            stopped.start()
            process.stdin.write(text)
            process.stdin.flush()
            answer = process.stdout.read(1)
        finally:
            stopped.cancel()
            with self._change:
                self._under_way -= 1
                if answer != DONE:
                    self._here.append(job)
                self._change.notify()
        if answer == DONE:
            self._count()
        elif answer != FAILED:
            raise BrokenPipeError

    def _taken(self) -> tuple[Job, bytes] | None:
        with self._change:
            if self._ended or not self._away:
                return None
            self._under_way += 1
            return self._away.popleft()

    def _started(self, program: list[str]) -> subprocess.Popen[bytes] | None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path),  # where this process finds its packages
            "CUDA_VISIBLE_DEVICES": "-1",  # so that no context is made by accident
        }
        with self._change:
            if self._ended:
                return None
            process = subprocess.Popen(
                [*program, "-m", f"{__package__}.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
            self._processes.append(process)
            return process


def _packed(job: Job) -> bytes | None:
    """A job as it is sent to another process; None if it has to be done here."""
    if job.cache is None or not job.ours:
        return None
    try:
        return pickle.dumps((job.cache.mark, bytes(dumps((job.kernel, job.signature)))))
    except Exception:  # something in it belongs to this process
        return None


def _python() -> list[str] | None:
    """The command that starts Python; None in a program with an embedded Python, which would start itself again."""
    program = sys.executable
    if not program or getattr(sys, "frozen", False) or not Path(program).name.lower().startswith(("python", "pypy")):
        return None
    return [program, "-P", "-W", "ignore"]

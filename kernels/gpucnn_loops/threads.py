"""One pool of threads, the caller among them, and each thread's own scratch memory.

Work is cut by its size alone, never by the number of threads; what a thread gets are whole pieces. So the bits of a result do not depend
on how many there are.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _no() -> bool:
    return False


rehearsing: Callable[[], bool] = _no
"""Whether nothing is to be done but to find out what would be; set by `_numba`, which this module does without."""

MOST_CUTS = 1000  # ways in which a thread's block is cut into pieces
WORTH_A_THREAD = 1 << 20  # multiply-adds; below it, waking another thread costs more than it saves


CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def cores() -> int:
    """Cores that this process may use: those that it may run on, or, in a container, as many as its share of time fills, rounded up."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(found, share_of_time())


def share_of_time() -> int:
    """The cores that a container's share of time fills, rounded up; many where there is no limit, or nobody says."""
    share = float(1 << 20)
    try:
        lines = OWN_CGROUP.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:  # 0::/a/b of the second version; 4:cpu,cpuacct:/a/b of the first
        _, kinds, path = [*line.split(":", 2), "", ""][:3]
        if kinds and "cpu" not in kinds.split(","):
            continue
        folder = CGROUPS / kinds if kinds else CGROUPS
        for group in (path, *map(str, PurePosixPath(path).parents)):  # each limits those within
            share = min(share, _limit(folder / group.strip("/"), kinds != ""))
    return math.ceil(share)


def _limit(group: Path, first_version: bool) -> float:
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if first_version else ("cpu.max",)
    try:
        numbers = " ".join((group / name).read_text(encoding="ascii") for name in names).split()
        quota, period = int(numbers[0]), int(numbers[1])  # "max" is not a number, and none is negative
    except (OSError, ValueError, IndexError):
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


count: Callable[[], int] = cores
"""How many threads there are to be, asked for once in a process."""

_pool: ThreadPoolExecutor | None = None
_number = 0
_idle: list[_Worker] = []  # threads that wait for work
_made = 0  # threads that there are
_lock = threading.Lock()
_own = threading.local()


def number() -> int:
    """Threads that share the work, the caller's included."""
    global _number
    if not _number:
        _number = count()
    return _number


def pool() -> ThreadPoolExecutor:
    """A pool for work of any kind. `share` does without: its threads are handed work in a third of the time."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(number(), thread_name_prefix="gpucnn")
        return _pool


def _after_fork() -> None:
    """Threads do not survive a fork, and another one may have held the lock."""
    global _pool, _lock, _made
    _pool, _lock, _made = None, threading.Lock(), 0
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

core: Callable[[], int] = lambda: -1  # noqa: E731
"""On which core the calling thread is; −1 where nobody says."""
if sys.platform == "linux":
    with contextlib.suppress(OSError, AttributeError):
        core = ctypes.PyDLL(None).sched_getcpu


class _Worker:
    """A thread that does what it is given, time after time, as long as the process lives."""

    def __init__(self) -> None:
        self._given: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._done: SimpleQueue[None] = SimpleQueue()
        self._over = True
        self._problem: BaseException | None = None
        self.core = -1  # where it was when it began
        self._thread = threading.Thread(target=self._run, name="gpucnn", daemon=True)
        self._thread.start()

    def begin(self, work: Callable[[], object]) -> None:
        """Does `work`, while the caller does something else."""
        self._over = False
        self._given.put(work)

    def end(self) -> BaseException | None:
        """Waits until the work, if there is any, is done; what went wrong there. Once interrupted, it can be called again."""
        while not self._over:
            self._done.get()
        problem, self._problem = self._problem, None
        return problem

    def keep_off(self, cores: set[int]) -> None:
        """Has it run on other cores than these from now on, where the caller may run on any others."""
        others = os.sched_getaffinity(0) - cores
        if others and self._thread.native_id is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._thread.native_id, others)

    def _run(self) -> None:
        while True:
            work = self._given.get()
            self.core = core()
            try:
                work()
            except BaseException as error:
                self._problem = error
            del work  # with all that it knows of
            self._over = True
            self._done.put(None)


def _worker() -> _Worker | None:
    """A thread that has nothing to do; None where all have, because others share work as well."""
    global _made
    with _lock:
        if _idle:
            return _idle.pop()
        if _made >= number() - 1:
            return None
        _made += 1
    return _Worker()


def share(pieces: int, body: Callable[[int, int], object], work: int) -> None:
    """Calls body(first, last) on each thread with its part of range(pieces). work: multiply-adds of all of them.

    Returns, or raises, when all threads are done: nobody writes to an array any more.
    """
    threads = min(number(), pieces) if work >= WORTH_A_THREAD and not rehearsing() else 1
    if threads <= 1:
        body(0, pieces)
        return
    edges = [pieces * thread // threads for thread in range(threads + 1)]
    others: list[_Worker] = []
    problem: BaseException | None = None
    taken: set[int] = set()
    try:
        for thread in range(1, threads):
            other = _worker()
            if other is None:
                break
            others.append(other)
            other.begin(functools.partial(body, edges[thread], edges[thread + 1]))
        taken.add(core())
        body(edges[0], edges[1])
        for thread in range(len(others) + 1, threads):
            body(edges[thread], edges[thread + 1])
    except BaseException as error:
        problem = error
    while others:
        try:
            problem = others[-1].end() or problem
            _apart(others[-1], taken)
            _idle.append(others.pop())
        except BaseException as error:  # Ctrl-C: heard when the pass is over
            problem = error
    if problem is not None:
        raise problem


def _apart(other: _Worker, taken: set[int]) -> None:
    """Sees to it that a thread does its next work on a core of its own. taken: cores of those that have been asked before.

    Linux wakes a thread on the waker's core, where it has to wait, if it takes all others for busy; in a virtual machine it takes cores
    that sleep for busy. And two threads that share a core stay together for milliseconds, which is many passes.
    """
    if other.core in taken and other.core >= 0:
        other.keep_off(taken)
    taken.add(other.core)


class Scratch:
    """Memory of the calling thread: pieces of one block that is kept from call to call, each at a multiple of 64 bytes.

    A first touch of new memory costs as much as a thousand multiply-adds for every 4 KB. What a `body` uses is free when it returns;
    `shared` is another block, for what the caller of `share` hands to all threads.
    """

    def __init__(self, *sizes: int, shared: bool = False) -> None:
        own: dict[Any, Any] = _own.__dict__
        block, cut = own.get(shared, _NOTHING)
        found = cut.get(sizes)
        if found is None:
            starts, total = [], 0
            for size in sizes:
                starts.append(total)
                total += -(-size // 16) * 16 + 16  # a vector more: what is read or written past an end stays within the thread's own
            if block is None or block.size < total + 16 or len(cut) >= MOST_CUTS:
                block, cut = np.empty(max(total + 16, 0 if block is None else block.size), np.float32), {}
                own[shared] = block, cut
            first = -(address(block) // 4) % 16
            parts = [block[first + start : first + start + size] for start, size in zip(starts, sizes, strict=True)]
            found = cut[sizes] = parts, [address(block) + 4 * (first + start) for start in starts]
        self.parts, self._addresses = found

    def addresses(self) -> list[int]:
        """Where each piece is."""
        return list(self._addresses)


_NOTHING: tuple[Any, dict[Any, Any]] = None, {}
_address_of: Any = ctypes.addressof
_byte_of: Any = ctypes.c_char.from_buffer


def address(array: NDArray[Any]) -> int:
    """Where an array's numbers are."""
    try:
        return int(_address_of(_byte_of(array)))  # four times as quick as the other way, which is good for everything
    except (TypeError, ValueError):  # it may only be read, or is empty
        return int(array.ctypes.data)


def step_of(images: NDArray[Any]) -> int:
    """Numbers from an image to the next."""
    return int(images.strides[0]) // images.itemsize

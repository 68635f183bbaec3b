"""One pool of threads, the caller among them, and each thread's own scratch memory.

Work is cut by its size alone, never by the number of threads; what a thread gets are whole pieces. So the bits of a result do not depend
on how many there are.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
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
        quota, period = int(numbers[0]), int(numbers[1])  # "max" is no number, and none is negative
    except (OSError, ValueError, IndexError):
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


count: Callable[[], int] = cores
"""How many threads there are to be, asked for once in a process."""

_pool: ThreadPoolExecutor | None = None
_number = 0
_lock = threading.Lock()
_own = threading.local()


def number() -> int:
    """Threads that share the work, the caller's included."""
    if _pool is None:
        pool()
    return _number


def pool() -> ThreadPoolExecutor:
    """The pool of this process."""
    global _pool, _number
    with _lock:
        if _pool is None:
            _number = count()
            _pool = ThreadPoolExecutor(_number, thread_name_prefix="gpucnn")
        return _pool


def _after_fork() -> None:
    """Threads do not survive a fork, and another one may have held the lock."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def share(pieces: int, body: Callable[[int, int], object], work: int) -> None:
    """Calls body(first, last) on each thread with its part of range(pieces). work: multiply-adds of all of them.

    Returns, or raises, when all threads are done: nobody writes to an array any more.
    """
    threads = min(number(), pieces) if work >= WORTH_A_THREAD and not rehearsing() else 1
    if threads <= 1:
        body(0, pieces)
        return
    edges = [pieces * thread // threads for thread in range(threads + 1)]
    others: list[Future[object]] = []
    problem: BaseException | None = None
    try:
        for thread in range(1, threads):
            others.append(pool().submit(body, edges[thread], edges[thread + 1]))
        body(edges[0], edges[1])
    except BaseException as error:
        problem = error
    for other in others:
        problem = _end_of(other) or problem
    if problem is not None:
        raise problem


def _end_of(other: Future[object]) -> BaseException | None:
    """Waits until a thread is done, whatever interrupts the waiting; what went wrong, there or here."""
    interrupted: BaseException | None = None
    while True:
        try:
            return other.exception() or interrupted
        except BaseException as error:  # Ctrl-C: heard when the pass is over
            interrupted = error


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

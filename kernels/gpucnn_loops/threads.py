"""The number of threads, and each thread's own scratch memory. `crew.py` shares work out among them."""

from __future__ import annotations

import ctypes
import math
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_CUTS = 1000  # ways in which a thread's block is cut into pieces

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def cores() -> int:
    """The number of cores for this process: those that it may run on, or, in a container, what its share of time fills, rounded up."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(found, share_of_time())


def share_of_time() -> int:
    """The number of cores that a container's share of time fills, rounded up; a large number where there is no limit, or none is known."""
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
_lock = threading.Lock()


def number() -> int:
    """The number of threads that share the work, the caller's included."""
    global _number
    if not _number:
        _number = count()
    return _number


def pool() -> ThreadPoolExecutor:
    """A pool for work of any kind. The loops have threads of their own, which take up work in a tenth of the time."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(number(), thread_name_prefix="gpucnn")
        return _pool


def _after_fork() -> None:
    """Threads do not survive a fork, and another one may have held the lock."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Blocks:
    """A thread's scratch memory: a block for each of two uses, with the pieces it has been cut into."""

    def __init__(self) -> None:
        self.of: dict[bool, tuple[Any, dict[Any, Any]]] = {}
        self.held: list[Any] | None = None  # blocks that had to make room for larger ones, where loops are noted that still use them
        self.least = {False: 0, True: 0}  # how large blocks are at first, at least
        self.most = {False: 0, True: 0}  # the largest that was needed


class _Own(threading.local):
    lender: Any = None  # whose memory `empty` and `flags` take, where a pass is recorded (replay.py)

    def __init__(self) -> None:
        self.blocks = Blocks()


_own = _Own()


def acting(blocks: Blocks) -> Blocks:
    """Sets the calling thread's scratch memory, and returns the previous one."""
    before, _own.blocks = _own.blocks, blocks
    return before


def lending(lender: Any) -> Any:
    """Sets what `empty` and `flags` ask for memory in the calling thread, None for nothing, and returns what it was."""
    before, _own.lender = _own.lender, lender
    return before


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
    """New memory for what loops write, and nothing else does: a recorded pass uses it again."""
    return np.empty(shape, dtype) if _own.lender is None else _own.lender.empty(shape, dtype)


def flags(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """New memory for numbers that are NaN where loops could not do what they were to do."""
    return np.empty(shape, np.float32) if _own.lender is None else _own.lender.flags(shape)


class Scratch:
    """Memory of the calling thread: pieces of one block that is kept from call to call, each at a multiple of 64 bytes.

    A first touch of new memory costs as much as a thousand multiply-adds for every 4 KB. The memory of a `body` is free when its loops have
    run, so it must be filled by loops, too. `shared` is another block, for what the caller of `share` hands to all threads.
    """

    def __init__(self, *sizes: int, shared: bool = False) -> None:
        own = _own.blocks
        block, cut = own.of.get(shared, _NOTHING)
        found = cut.get(sizes)
        if found is None:
            starts, total = [], 0
            for size in sizes:
                starts.append(total)
                total += -(-size // 16) * 16 + 16  # a vector more: what is read or written past an end stays within the thread's own
            if block is None or block.size < total + 16 or len(cut) >= MOST_CUTS:
                if own.held is not None:
                    own.held.append(block)
                least = own.least[shared] if block is None else block.size
                block, cut = np.empty(max(total + 16, least), np.float32), {}
                own.of[shared] = block, cut
            first = -(address(block) // 4) % 16
            parts = [block[first + start : first + start + size] for start, size in zip(starts, sizes, strict=True)]
            found = cut[sizes] = parts, [address(block) + 4 * (first + start) for start in starts], total + 16
        if found[2] > own.most[shared]:
            own.most[shared] = found[2]
        self.parts: list[NDArray[np.float32]] = found[0]
        self._addresses: list[int] = found[1]

    def piece(self, index: int) -> tuple[int, int]:
        """The address and the size of a piece, as `turn.fill` takes them."""
        return self._addresses[index], self.parts[index].size

    def addresses(self) -> list[int]:
        """The addresses of all pieces."""
        return list(self._addresses)


_NOTHING: tuple[Any, dict[Any, Any]] = None, {}
_address_of: Any = ctypes.addressof
_byte_of: Any = ctypes.c_char.from_buffer


def address(array: NDArray[Any]) -> int:
    """The address of an array's numbers."""
    try:
        return int(_address_of(_byte_of(array)))  # four times as quick as the other way, which is good for everything
    except (TypeError, ValueError):  # it may only be read, or is empty
        return int(array.ctypes.data)


_lasting: weakref.WeakValueDictionary[tuple[int, int], Any] = weakref.WeakValueDictionary()  # by the addresses of begin and end


def lasting(array: NDArray[Any], owner: Any = None) -> int:
    """The address of numbers that never change, which live as long as `owner`, or as the array itself: a recorded pass may keep it."""
    place = address(array)
    _lasting[place, place + array.nbytes] = array if owner is None else owner
    return place


def owner_of(place: int) -> Any:
    """What must live for the numbers at an address to last; None if they are not `lasting`."""
    return next((owner for (begin, end), owner in list(_lasting.items()) if begin <= place < end), None)


def step_of(images: NDArray[Any]) -> int:
    """The distance from one image to the next, in numbers."""
    return int(images.strides[0]) // images.itemsize

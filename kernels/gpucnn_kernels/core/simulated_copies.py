"""What the copies of asynchronous.py mean, in Python: for Numba's simulator, which has a Python thread for each thread.

They arrive as late as the PTX ISA allows: what is being copied is NaN in shared memory until it has been waited for. Addresses that belong
to no array are errors.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from gpucnn_kernels.core.simulated_memory import memory

_NOT_YET = np.uint32(0xFFFFFFFF)  # a NaN

PAST_REGISTERS = [False]
"""What `asynchronous` says: kernels that have both ways go by registers in the simulator, unless a test sets it."""


class _Own(threading.local):
    """What a thread has begun. Each thread of the simulator is a new one of Python's."""

    def __init__(self) -> None:
        self.copies: list[Callable[[], None]] = []  # since the last group of them
        self.groups: list[list[Callable[[], None]]] = []


_own = _Own()


def asynchronous():
    return PAST_REGISTERS[0]


def shared_address(array):
    return np.uint32(memory().shared_address(array))


def global_address(array):
    return np.uint64(memory().global_address(array))


def _begin_copy(to, source, count, size: int) -> None:
    if count not in (0, size):
        raise ValueError(f"a copy of {size} bytes, of which {count} are read: all or none")
    target = memory().shared(to, size)
    if int(to) % size or (count and int(source) % size):
        raise ValueError(f"a copy of {size} bytes from {int(source):#x} to {int(to):#x}: both must be multiples of {size}")
    words = memory().global_words(source, size).copy() if count else np.uint32(0)
    target[:] = _NOT_YET

    def arrive_there() -> None:
        target[:] = words

    _own.copies.append(arrive_there)


def copy_word(to, source, count):
    _begin_copy(to, source, count, 4)


def copy_four(to, source, count):
    _begin_copy(to, source, count, 16)


def copies_commit():
    _own.groups.append(_own.copies)
    _own.copies = []


def copies_wait(groups: int):
    while len(_own.groups) > groups:
        for copy in _own.groups.pop(0):
            copy()


def fixed(word):
    return word

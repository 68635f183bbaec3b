"""Memory by addresses in Numba's simulator, whose arrays have none: those that copies and the instructions of tensor/simulated.py go by."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from gpucnn_kernels.core.simulated import current_block

_SHARED_FROM = 1152  # where the first shared array lies: at a multiple of 128, and not at one of 256


class Memory:
    """The arrays of a block, by their addresses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: dict[int, tuple[int, Any]] = {}  # by where NumPy has it: the address, and the words
        self._global: dict[int, Any] = {}
        self._free = _SHARED_FROM
        self.barriers: dict[int, Any] = {}

    def shared_address(self, array: Any) -> int:
        words, host = _words(array)
        with self._lock:
            if host not in self._shared:
                self._shared[host] = self._free, words
                self._free += -(-4 * len(words) // 128) * 128
            return self._shared[host][0]

    def global_address(self, array: Any) -> int:
        words, host = _words(array)
        with self._lock:
            self._global[host] = words
        return host

    def shared(self, address: int, size: int) -> Any:
        """The words of so many bytes."""
        return self._found(list(self._shared.values()), int(address), size, "shared")

    def global_words(self, address: int, size: int) -> Any:
        return self._found(list(self._global.items()), int(address), size, "global")

    @staticmethod
    def _found(arrays: list[tuple[int, Any]], address: int, size: int, kind: str) -> Any:
        if address % 4:
            raise ValueError(f"{size} bytes of {kind} memory at {address:#x}: it must be a multiple of 4")
        for begin, words in arrays:
            if begin <= address and address + size <= begin + 4 * len(words):
                first = (address - begin) // 4
                return words[first : first + size // 4]
        known = ", ".join(f"{begin:#x} … {begin + 4 * len(words):#x}" for begin, words in arrays)
        raise IndexError(f"{size} bytes of {kind} memory at {address:#x}, outside of every array: {known or 'there is none'}")


def _words(array: Any) -> tuple[Any, int]:
    """An array as words of 32 bits, and where NumPy has it."""
    words = np.frombuffer(array.data, np.uint32)
    return words, int(words.ctypes.data)


def memory() -> Memory:
    kept = current_block().kept
    own: Memory = kept.get("memory") or kept.setdefault("memory", Memory())  # one for all, by Python's word
    return own

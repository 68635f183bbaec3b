"""What every operation needs before it launches: new arrays beside the ones given, and the stream to launch on."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, TypeAlias

from gpucnn.surroundings import complain, is_terminal
from gpucnn_kernels.core._numba import SIMULATED
from gpucnn_kernels.core.launch import external_stream

Array: TypeAlias = Any  # CuPy's, or NumPy's under the simulator


def library(array: Array) -> ModuleType:
    """The array library that `array` is of."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def empty(like: Array, shape: tuple[int, ...], dtype: str = "float32") -> Array:
    """A new array, not set to anything, where `like` lives."""
    return library(like).empty(shape, dtype)


def stream(array: Array) -> Any:
    """The stream that the array's library is working on. On another one the kernels would not wait for its work, nor it for theirs."""
    xp = library(array)
    return 0 if xp.__name__ == "numpy" else external_stream(xp.cuda.get_current_stream().ptr)


def whole(array: Array) -> bool:
    """Whether an array lies in one piece: a branch's part of all channels does not."""
    return bool(array.flags.c_contiguous)


def workspace(like: Array, elements: int) -> Array | None:
    """Room for intermediate results of one operation, `elements` float32 where `like` lives, not set to anything; None for none.

    It comes from whatever gives out arrays at the time. Where a step is recorded as a graph that is the graph's own pool, so that the
    workspaces belong to the graph, serve one operation of it after the other, and go when it goes.
    """
    return library(like).empty((elements,), "float32") if elements else None


class _Announcement:
    """Says that kernels are being compiled, so that nobody takes the first minute for a standstill: each by name on a terminal, elsewhere
    a line for all of them."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, name: str) -> None:
        if is_terminal(sys.stderr):
            complain(f"compiling {name}, this first time")
        elif not self._said:
            complain("gpucnn is compiling kernels for this GPU, which takes seconds for each, the first time")
        self._said = True


if not SIMULATED:  # which compiles nothing
    from gpucnn_kernels.core import disk_cache

    if disk_cache.announce is None:
        disk_cache.announce = _Announcement()

"""Allocates the arrays that an operation needs, and finds the stream to launch on."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, TypeAlias

from gpucnn.surroundings import complain, is_terminal
from gpucnn_kernels.core._numba import SIMULATED
from gpucnn_kernels.core.launch import external_stream

Array: TypeAlias = Any  # CuPy's, or NumPy's under the simulator


def library(array: Array) -> ModuleType:
    """The array library of `array`."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def empty(like: Array, shape: tuple[int, ...], dtype: str = "float32") -> Array:
    """A new uninitialized array on the device of `like`."""
    return library(like).empty(shape, dtype)


def stream(array: Array) -> Any:
    """The current stream of the array's library. On another one, the kernels and the library would not wait for each other."""
    xp = library(array)
    return 0 if xp.__name__ == "numpy" else external_stream(xp.cuda.get_current_stream().ptr)


def whole(array: Array) -> bool:
    """Whether an array is contiguous: a branch's part of all channels is not."""
    return bool(array.flags.c_contiguous)


def workspace(like: Array, elements: int) -> Array | None:
    """Memory for intermediate results of one operation: `elements` uninitialized float32 on the device of `like`; None for none.

    The current allocator provides it. While a step is recorded as a graph, that is the graph's own pool: the workspaces then belong to the
    graph, are reused from operation to operation, and are freed with it.
    """
    return library(like).empty((elements,), "float32") if elements else None


class Announcement:
    """Says that kernels are being compiled, so that the first minute does not look like a hang: each by name on a terminal, otherwise
    one line for all of them."""

    quiet = False  # whether another message covers it
    said = False

    def __call__(self, name: str) -> None:
        if self.quiet:
            return
        if is_terminal(sys.stderr):
            complain(f"compiling {name}, this first time")
            self.said = True
        else:
            self.once("gpucnn is compiling kernels for this GPU, which takes seconds for each, the first time")

    def once(self, text: str) -> None:
        """Says this, unless something was said before."""
        if not self.said:
            complain(text)
        self.said = True


announcement = Announcement()
if not SIMULATED:  # which compiles nothing
    from gpucnn_kernels.core import disk_cache

    if disk_cache.announce is None:
        disk_cache.announce = announcement

"""What every operation needs before it launches: new arrays beside the ones given, and the stream to launch on."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, TypeAlias

from gpucnn_kernels.launch import external_stream

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


def workspace(like: Array, elements: int) -> Array:
    """Room for intermediate results of one operation, `elements` float32 where `like` lives, not set to anything.

    The next operation on the same stream gets the same memory: they run one after the other there. It is kept for good, so that a
    captured graph, which knows it by its address, may use it at every replay; one that is outgrown is kept too.
    """
    xp = library(like)
    place = (0, 0) if xp.__name__ == "numpy" else (like.device.id, xp.cuda.get_current_stream().ptr)
    kept = _workspaces.setdefault((xp.__name__, *place), [])
    if not kept or kept[-1].shape[0] < elements:
        kept.append(xp.empty((max(elements, 2 * kept[-1].shape[0] if kept else 0),), "float32"))
    return kept[-1][:elements]


_workspaces: dict[tuple[str, int, int], list[Array]] = {}

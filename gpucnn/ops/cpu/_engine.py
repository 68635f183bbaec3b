"""Whether the compiled loops can be had, and loading them: Numba is imported when the first operation needs it, never with gpucnn."""

from __future__ import annotations

import functools
import os
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpucnn.errors import DeviceError
from gpucnn.ops.cpu._threads import Array
from gpucnn.surroundings import complain
from gpucnn.text import first_line, shown

VARIABLE = "GPUCNN_CPU"
FLOAT32 = np.dtype(np.float32)
_lock = threading.Lock()


def loops(*arrays: Array | None) -> bool:
    """Whether the loops take these arrays."""
    for array in arrays:
        if array is not None and (array.dtype != FLOAT32 or not array.flags.c_contiguous or not array.flags.aligned or not array.size):
            return False
    return modules() is not None


def modules() -> Any:
    """The modules of gpucnn_loops, by their names; None where NumPy is to do everything."""
    with _lock:
        return _modules()


@functools.cache
def _modules() -> Any:
    wanted = os.environ.get(VARIABLE, "").strip().lower()
    if wanted not in ("", "auto", "loops", "numpy"):
        raise DeviceError(f"{VARIABLE} must be loops or numpy, got {shown(wanted)}")
    if wanted == "numpy":
        return None
    try:
        return _load()
    except (KeyboardInterrupt, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a broken installation may raise anything
        reason = f"Numba cannot compile the CPU's loops ({type(error).__name__}: {first_line(error)})"
        if wanted == "loops":
            raise DeviceError(f"{reason}: install numba again, or unset {VARIABLE}") from error
        complain(f"{reason}: NumPy computes instead, some three times as slow ({VARIABLE}=numpy says that this is meant)")
        return None


def _load() -> Any:
    from gpucnn_loops import dense, depthwise, direct, disk_cache, elementwise, loss, pool, pooled, tile, update, winograd

    if disk_cache.announce is None:
        disk_cache.announce = _Announcement()
        disk_cache.complain = complain
    tile.product.prepare()  # where this can be compiled, everything can
    return SimpleNamespace(
        dense=dense, depthwise=depthwise, direct=direct, elementwise=elementwise, loss=loss, pool=pool, pooled=pooled, update=update,
        winograd=winograd,
    )  # fmt: skip


class _Announcement:
    """Says that loops are being compiled, so that nobody takes the first seconds for a standstill."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, name: str) -> None:
        if not self._said:
            complain("gpucnn is compiling loops for this processor, which takes a few seconds, the first time")
        self._said = True

"""Loads the compiled loops if they are available. Numba is imported when the first operation needs it, never with gpucnn."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpucnn.errors import DeviceError
from gpucnn.ops.cpu._threads import Array
from gpucnn.ops.processes import compilers
from gpucnn.surroundings import complain, is_terminal
from gpucnn.text import first_line, shown

VARIABLE = "GPUCNN_CPU"
ENDED = (128 + 15, 128 + 1)  # how SIGTERM and SIGHUP end a program: these come from outside
FLOAT32 = np.dtype(np.float32)
MOST_COPIED = 1 << 26  # bytes of a model that may be copied to find out which loops it needs
_lock = threading.Lock()
_rehearsed: weakref.WeakKeyDictionary[Any, set[Hashable]] = weakref.WeakKeyDictionary()  # the keys of each object


def loops(*arrays: Array | None) -> bool:
    """Whether the loops support these arrays."""
    for array in arrays:
        if array is not None and (array.dtype != FLOAT32 or not array.flags.c_contiguous or not array.flags.aligned or not array.size):
            return False
    return modules() is not None


def images(*arrays: Array | None) -> bool:
    """Whether these arrays suit the loops that support gaps between images, as in a branch's part of all channels."""
    for array in arrays:
        if array is not None and not array.flags.c_contiguous and not array[:1].flags.c_contiguous:
            return False
    return loops(*(None if array is None else array[:1] for array in arrays))


def modules() -> Any:
    """The modules of gpucnn_loops by name; None if NumPy does everything."""
    if not _found:
        with _lock:
            if not _found:
                _found.append(_modules())
    return _found[0]


_found: list[Any] = []


def _wanted() -> str:
    """The choice in the environment: loops, numpy, or none."""
    wanted = os.environ.get(VARIABLE, "").strip().lower()
    if wanted not in ("", "auto", "loops", "numpy"):
        raise DeviceError(f"{VARIABLE} must be loops or numpy, got {shown(wanted)}")
    return wanted


def expected() -> bool:
    """Whether loops are likely to compute float32, for estimates that are not worth loading a compiler."""
    return _wanted() != "numpy"


def _modules() -> Any:
    wanted = _wanted()
    if wanted == "numpy":
        return None
    try:
        return _load()
    except (KeyboardInterrupt, GeneratorExit, MemoryError, DeviceError):  # the last for a setting that cannot be read
        raise
    except BaseException as error:  # a broken installation may raise anything
        if isinstance(error, SystemExit) and error.code in ENDED:
            raise
        _without(error)
        return None


def _without(error: BaseException) -> None:
    """Warns that NumPy computes, and why. Raises DeviceError if the loops were asked for."""
    reason = f"Numba cannot compile the CPU's loops ({type(error).__name__}: {first_line(error)})"
    if _wanted() == "loops":
        raise DeviceError(f"{reason}: install numba again, or unset {VARIABLE}") from error
    complain(f"{reason}: NumPy computes instead, about three times as slow ({VARIABLE}=numpy confirms that this is intended)")


def _load() -> Any:
    from gpucnn_loops import (
        after,
        average,
        chunks,
        dense,
        depthwise,
        direct,
        disk_cache,
        elementwise,
        first,
        loss,
        norm,
        pixel_sums,
        pixels,
        pointwise,
        pool,
        pooled,
        replay,
        softmax,
        sums,
        tanh,
        tile,
        units,
        update,
        whole,
        windows,
        winograd_plan,
    )
    from gpucnn_loops.compilers import expect

    disk_cache.announce, disk_cache.complain = _Announcement(), complain
    keep_memory()
    if tile.product.waits:  # and so will ten other loops, or more
        expect(compilers(10))
    if not _Announcement.quiet:  # else `compile_for` compiles it beside the others
        tile.product.prepare()  # if this compiles, everything does
    return SimpleNamespace(
        after=after,
        average=average,
        chunks=chunks,
        dense=dense,
        depthwise=depthwise,
        direct=direct,
        elementwise=elementwise,
        first=first,
        loss=loss,
        norm=norm,
        pixel_sums=pixel_sums,
        pixels=pixels,
        pointwise=pointwise,
        pool=pool,
        pooled=pooled,
        replay=replay,
        softmax=softmax,
        sums=sums,
        tanh=tanh,
        units=units,
        update=update,
        whole=whole,
        windows=windows,
        winograd=winograd_plan,
    )


def keep_memory() -> None:
    """Has the system's allocator keep what a step frees for the next one, up to 64 MB: new memory costs a fault for each 4 KB.

    glibc gives memory back, and asks for it again in the next step, when more is free than twice the largest array that it has ever
    taken back, up to 32 MB. This shows it one of that size, of which nothing is ever touched. Small networks took a third longer.
    """
    np.empty((1 << 25) - (1 << 16), np.uint8)


def compile_for(step: Callable[[], object], size: int = 0, key: tuple[Any, Hashable] | None = None) -> None:
    """Compiles the loops that `step` calls and the disk does not have, and says on the terminal how long it took.

    `step` is rehearsed: NumPy's part of it runs, and loops write nothing. Exceptions during a rehearsal are ignored. Loops that cannot
    be rehearsed, or are needed only later, are compiled when they are called. size: the bytes that a rehearsal copies; if there are many,
    it happens only if this process has already compiled something. key: an object that `step` belongs to, and what else it depends on; for
    the same as in an earlier call, nothing happens. If Numba turns out to be broken, NumPy computes from here on.
    """
    if key is not None and key[1] in _rehearsed.get(key[0], ()):
        return
    _Announcement.quiet = True
    try:
        if modules() is None:
            return
        from gpucnn_loops import threads
        from gpucnn_loops.compilers import prepare
        from gpucnn_loops.handing import HANDING
        from gpucnn_loops.loops import compiled, every, rehearsal
        from gpucnn_loops.tile import product

        if not compiled and not product.waits and (size > MOST_COPIED or not any(loop.waits for loop in every())):
            return
        with rehearsal() as needed, contextlib.suppress(Exception):
            step()
        always = HANDING if threads.number() > 1 else modules().replay.NEEDED
        waiting = [loop for loop in dict.fromkeys([product, *needed, *always]) if loop.waits]
        processes = compilers(len(waiting)) if waiting else 1
        count = len(compiled) - _Announcement.told + len(waiting)
        shown = count > 0 and is_terminal(sys.stderr)
        if shown:
            complain(f"compiling {count} loop{'s' if count > 1 else ''} for this machine, once: ", end="")
        began = time.perf_counter()
        try:
            prepare(waiting, processes)
        except Exception as error:
            if shown:
                complain("not done")
            _without(error)
            _found[:] = [None]
            return
        if shown:
            complain(f"{time.perf_counter() - began:.0f} s")
        _Announcement.told = len(compiled)
        if key is not None:
            _rehearsed.setdefault(key[0], set()).add(key[1])
    finally:
        _Announcement.quiet = False


def road(run: Callable[[], object]) -> tuple[object, str]:
    """(the result of `run`, what computed it): the modules of gpucnn_loops whose loops it called, or numpy."""
    if modules() is None:
        return run(), "numpy"
    from gpucnn_loops.loops import watching

    with watching() as called:
        result = run()
    names = dict.fromkeys(loop.name.partition(".")[0] for loop in called)
    for part in ("after", "sums"):  # of another's pass
        if len(names) > 1:
            names.pop(part, None)
    return result, " + ".join(name for name in names if hasattr(modules(), name)) or "numpy"


def fastest() -> Callable[[], int] | None:
    """A function that does multiply-adds on all threads at full speed, and returns their number; None without loops."""
    if modules() is None:
        return None
    from gpucnn_loops.tile import at_most

    return at_most


class _Announcement:
    """Says on a terminal that loops are being compiled, so that the first seconds do not look like a hang."""

    quiet = False
    told = 0  # loops that were announced

    def __init__(self) -> None:
        self._said = False

    def __call__(self, name: str) -> None:
        if not self._said and not self.quiet and is_terminal(sys.stderr):
            complain("gpucnn is compiling loops for this machine, which takes a few seconds, once")
            self._said = True

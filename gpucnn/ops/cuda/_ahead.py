"""Compiles the kernels of a step before it launches them, those that are not on disk yet, several at a time if there are cores
(gpucnn_kernels/core/crew.py). A line on the terminal shows the progress."""

from __future__ import annotations

import contextlib
import sys
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from gpucnn.ops.cuda._arrays import announcement
from gpucnn.ops.processes import compilers
from gpucnn.surroundings import complain, is_terminal
from gpucnn_kernels.choose.select import batches_of as batches_of
from gpucnn_kernels.core._numba import PLAIN
from gpucnn_kernels.core.launch import recording

_known: weakref.WeakKeyDictionary[Any, set[Hashable]] = weakref.WeakKeyDictionary()


def compile_for(model: Any, key: Hashable, step: Callable[[], object]) -> None:
    """Compiles the kernels that `step` launches. It must do nothing else, and its arrays are CuPy's.

    `step` is rehearsed: it runs, and its launches are recorded but not made. Exceptions are ignored, because the step itself will raise
    them again. Steps of a model with the same key make the same launches, and are rehearsed once.
    """
    known = _known.setdefault(model, set())
    if PLAIN or key in known:
        return
    known.add(key)
    from gpucnn_kernels.core import crew  # not at the top: there is none where kernels are simulated

    jobs = []
    with contextlib.suppress(Exception), recording(launching=False) as launches:
        _on_zeros(step)
        jobs = crew.waiting(launches)
    if not jobs:
        return
    processes = compilers(len(jobs))
    line = _Line(len(jobs), processes)
    announcement.quiet = True
    try:
        crew.compile_all(jobs, processes, line.done)
    finally:
        announcement.quiet = False
        line.end()


def _on_zeros(step: Callable[[], object]) -> None:
    """Runs `step` with every new array filled with zeros: CuPy's own operations do run, and read arrays that no kernel has written."""
    cupy = sys.modules["cupy"]
    real = cupy.cuda.get_allocator()

    def zeros(size: int) -> Any:
        memory = real(size)
        if size:
            memory.memset_async(0, size)
        return memory

    with cupy.cuda.using_allocator(zeros):
        step()


class _Line:
    """The progress line: counts kernels on a terminal, and is printed once elsewhere."""

    def __init__(self, kernels: int, processes: int) -> None:
        several = f" in {processes} processes" if processes > 1 else ""
        text = f"compiling {kernels} kernel{'s' if kernels > 1 else ''} for this GPU{several}"
        self._text, self._kernels = f"{text}, once:", kernels
        self._began = time.perf_counter()
        self._counts = is_terminal(sys.stderr)
        if not self._counts:
            announcement.once(f"gpucnn is {text}, which takes seconds for each, the first time")
        self.done(0)

    def done(self, number: int) -> None:
        """Shows how many kernels are done."""
        if self._counts:
            complain(f"{self._text} {number} of {self._kernels}", end="\r")

    def end(self) -> None:
        """Shows how long it took."""
        if self._counts:
            longest = len(f"{self._kernels} of {self._kernels}")  # the text to overwrite
            complain(f"{self._text} {f'{time.perf_counter() - self._began:.0f} s':<{longest}}")

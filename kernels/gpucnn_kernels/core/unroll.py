"""Unrolled loops, in which the counter is a constant in each iteration."""

from __future__ import annotations

import functools
import inspect
import linecache
from typing import Any

from gpucnn_kernels.core.compile import device, function_of


@functools.cache
def unrolled(body: Any, count: int) -> Any:
    """A device function (i, …) that calls body(i, …), body(i + 1, …), … `count` times, unrolled.

    The compiler unrolls short loops by itself, but not all of them, and not for every chip; an array indexed by the counter of a loop that
    is not unrolled has to be in memory instead of registers.
    """
    if count == 1:
        return body
    half = count // 2
    names = ", ".join(inspect.signature(function_of(body)).parameters)
    return device(_halves(names)(unrolled(body, half), unrolled(body, count - half), half), forceinline=True)


@functools.cache
def _halves(names: str) -> Any:
    """A maker of functions with these parameters, the first of which is the counter. They are spelled out, because not every compiler of
    device functions supports `*args`."""
    counter, _, rest = names.partition(", ")
    source = f"""
def make(_first_half, _second_half, _half):
    def both({names}):
        _first_half({counter}, {rest})
        _second_half({counter} + _half, {rest})
    return both
"""
    found: dict[str, Any] = {}
    file = f"<written out: {names}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file  # for line numbers in the machine code
    exec(compile(source, file, "exec"), found)  # of the names of parameters in this package's own functions
    return found["make"]

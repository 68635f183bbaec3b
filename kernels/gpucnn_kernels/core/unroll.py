"""Loops that are written out, so that their counter is a constant in each round."""

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.core.compile import device


@functools.cache
def unrolled(body: Any, count: int) -> Any:
    """A device function (i, …) that calls body(i, …), body(i + 1, …), … `count` times, written out.

    The compiler unrolls short loops by itself, but not all, nor for every chip; and what the counter of a loop that it leaves indexes has
    to lie in memory instead of registers.
    """
    if count == 1:
        return body
    half = count // 2
    first, second = unrolled(body, half), unrolled(body, count - half)

    @device(forceinline=True)
    def both(i, *args):  # type: ignore[no-untyped-def]
        first(i, *args)
        second(i + half, *args)

    return both

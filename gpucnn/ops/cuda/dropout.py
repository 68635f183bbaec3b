"""Dropout with a counter-based generator, so that the mask is never stored and is the same on every device.

Philox4x32-10 from J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn_kernels import dropout as kernels

__all__ = ["dropout", "next_call"]


def dropout(x: Array, calls: Array, rate: float, seed: int, *, first: int = 0, out: Array | None = None) -> Array:
    """x / (1 − rate), with elements set to zero with probability `rate` < 1 (inverted dropout).

    The same seed and number of calls (2, uint32, on the device: the low word first) drop the same elements, so the gradient is
    `dropout(dy, calls, rate, seed)`. first: the number of elements before these, if x is a part of a batch: a part drops the elements that
    the whole batch would drop there.
    """
    y = empty(x, x.shape) if out is None else out
    kernels.dropout(x, y, calls, rate, seed, stream(x), first)
    return y


def next_call(calls: Array) -> None:
    """Adds one to `calls`, in place."""
    kernels.next_call(calls, stream(calls))

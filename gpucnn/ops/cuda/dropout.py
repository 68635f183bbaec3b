"""Dropout with a counter-based generator, so that the mask is never stored and is the same on every device.

Philox4x32-10 from J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn_kernels import dropout as kernels


def dropout(x: Array, rate: float, seed: int, offset: int, *, out: Array | None = None) -> Array:
    """x / (1 − rate), with elements set to zero with probability `rate` < 1 (inverted dropout).

    The same (seed, offset) drops the same elements, so the gradient is `dropout(dy, rate, seed, offset)`.
    """
    y = empty(x, x.shape) if out is None else out
    kernels.dropout(x, y, rate, seed, offset, stream(x))
    return y

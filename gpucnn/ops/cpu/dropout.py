"""Dropout with a counter-based generator, so that the mask is never stored and is the same on every device.

Philox4x32-10 from J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox(count: int, seed: int, offset: int) -> Array:
    """`count` uniform 32-bit words: word i is lane i % 4 of Philox4x32-10 at counter (i // 4, offset mod 2³², offset div 2³², 0) under
    the key (seed mod 2³², seed div 2³²)."""
    blocks = -(-count // 4)
    # 32-bit words in 64-bit lanes: the high and the low half of a product are then a shift and a mask away.
    c0 = np.arange(blocks, dtype=np.uint64)
    c1 = np.full(blocks, offset & 0xFFFFFFFF, np.uint64)
    c2 = np.full(blocks, offset >> 32 & 0xFFFFFFFF, np.uint64)
    c3 = np.zeros(blocks, np.uint64)
    k0, k1 = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32 & 0xFFFFFFFF)
    for _ in range(10):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (product1 >> _WORD) ^ c1 ^ k0, product1 & _LOW, (product0 >> _WORD) ^ c3 ^ k1, product0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32).reshape(-1)[:count]


def drop_threshold(rate: float) -> int:
    """An element is dropped where its random word is below this: round(rate · 2³²)."""
    return min(round(rate * 2**32), 2**32 - 1)


def dropout(x: Array, rate: float, seed: int, offset: int, *, out: Array | None = None) -> Array:
    """x / (1 − rate), with elements set to zero with probability `rate` < 1 (inverted dropout).

    The same (seed, offset) drops the same elements, so the gradient is `dropout(dy, rate, seed, offset)`.
    """
    keep = philox(x.size, seed, offset).reshape(x.shape) >= np.uint32(drop_threshold(rate))
    y = np.multiply(x, x.dtype.type(1 / (1 - rate)), out=out)
    y *= keep
    return y

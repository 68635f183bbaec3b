"""Dropout with a counter-based generator, so that the mask is never stored and is the same on every device.

Philox4x32-10 from J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpucnn.ops.cpu._threads import Array

__all__ = ["dropout", "next_call"]

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox(count: int, seed: int, offset: int, first: int = 0) -> Array:
    """`count` uniform 32-bit words from number `first` on: word i is lane i % 4 of `philox_block` at counter (i // 4, offset mod 2³²,
    offset div 2³², 0) under the key (seed mod 2³², seed div 2³²)."""
    start, ahead = first // 4, first % 4
    blocks = -(-(count + ahead) // 4)
    counter = [np.arange(start, start + blocks, dtype=np.uint64) & _LOW]
    counter += [np.full(blocks, word, np.uint64) for word in (offset & 0xFFFFFFFF, offset >> 32 & 0xFFFFFFFF, 0)]
    words = philox_block(counter, seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
    return np.stack(words, axis=1).astype(np.uint32).reshape(-1)[ahead : ahead + count]


def philox_block(counter: Sequence[Array], key0: int, key1: int) -> list[Array]:
    """Philox4x32-10 of a counter of four arrays of words: four arrays of random words, each word in a uint64."""
    # 32-bit words in 64-bit lanes: the high and the low half of a product are then a shift and a mask away.
    c0, c1, c2, c3 = counter
    k0, k1 = np.uint64(key0), np.uint64(key1)
    for _ in range(10):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (product1 >> _WORD) ^ c1 ^ k0, product1 & _LOW, (product0 >> _WORD) ^ c3 ^ k1, product0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return [c0, c1, c2, c3]


def drop_threshold(rate: float) -> int:
    """An element is dropped where its random word is below this: round(rate · 2³²)."""
    return min(round(rate * 2**32), 2**32 - 1)


def dropout(x: Array, calls: Array, rate: float, seed: int, *, first: int = 0, out: Array | None = None) -> Array:
    """x / (1 − rate), with elements set to zero with probability `rate` < 1 (inverted dropout).

    The same seed and number of calls (2, uint32, on the device: the low word first) drop the same elements, so the gradient is
    `dropout(dy, calls, rate, seed)`. first: the number of elements before these, if x is a part of a batch: a part drops the elements that
    the whole batch would drop there.
    """
    words = philox(x.size, seed, int(calls[0]) | int(calls[1]) << 32, first)
    keep = words.reshape(x.shape) >= np.uint32(drop_threshold(rate))
    y: Array = np.where(keep, x, x.dtype.type(0))  # not a product, because infinity times zero is NaN
    y *= x.dtype.type(1 / (1 - rate))
    if out is None:
        return y
    out[...] = y
    return out


def next_call(calls: Array) -> None:
    """Adds one to `calls`, in place."""
    count = (int(calls[0]) | int(calls[1]) << 32) + 1
    calls[0], calls[1] = count & 0xFFFFFFFF, count >> 32 & 0xFFFFFFFF

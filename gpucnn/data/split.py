"""Which images are held back for testing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def held_back(keys: Sequence[str], count: int, seed: int) -> frozenset[str]:
    """`count` of the keys, chosen by the seed and by the keys themselves.

    The order in which they are given does not matter, nor does the platform or the version of any random generator, and a key
    that is added later moves at most one other.
    """
    return frozenset(sorted(keys, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogateescape")).digest())[:count])


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """`total` divided among groups in proportion to their sizes, by the largest remainders; the sum is exact."""
    everything = sum(sizes)
    counts = [size * total // everything for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(sizes[i] * total % everything), i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts

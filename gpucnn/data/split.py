"""The choice of images that are held out for testing or validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def held_back(keys: Sequence[str], count: int, seed: int) -> frozenset[str]:
    """`count` of the keys, chosen by the seed and the keys alone.

    The order in which they are given does not matter, nor does the platform or the version of any random generator, and a key
    that is added later moves at most one other.
    """
    return frozenset(sorted(keys, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogateescape")).digest())[:count])


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """`total` divided among groups in proportion to their sizes, by largest remainders; the sum is exact."""
    everything = sum(sizes)
    counts = [size * total // everything for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(sizes[i] * total % everything), i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def of_each_class(labels: NDArray[np.int32], fraction: float, seed: int, *, least: int = 0) -> NDArray[np.bool_]:
    """The examples to hold out: the fraction of each class, at least `least`, and never all of a class."""
    groups = [np.flatnonzero(labels == number) for number in range(int(labels.max()) + 1)]
    counts = shares([len(group) for group in groups], round(len(labels) * fraction))
    chosen = np.zeros(len(labels), np.bool_)
    for group, count in zip(groups, counts, strict=True):
        taken = held_back([str(index) for index in group.tolist()], max(min(max(count, least), len(group) - 1), 0), seed)
        chosen[[int(index) for index in taken]] = True
    return chosen

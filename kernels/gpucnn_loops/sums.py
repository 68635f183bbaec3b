"""Small passes behind the large ones: what groups of images have summed up is added in order, and numbers are copied to their places."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.elementwise import COST, elements
from gpucnn_loops.language import helper
from gpucnn_loops.loops import loop
from gpucnn_loops.tables import Images, images
from gpucnn_loops.threads import address
from gpucnn_loops.vector import L, at, load, store

Array = NDArray[np.float32]


@loop("i i i i f* f*")
def add_groups(first, last, count, step, sums, to):
    """to[i] = Σ over groups of sums[group·step + i], one after the other, for first ≤ i < last. `to` may be `sums`."""
    whole = first + (last - first) // L * L
    for i in range(first, whole, L):
        v = load(sums, i)
        for group in range(1, count):
            v = v + load(sums, group * step + i)
        store(to, i, v)
    for i in range(whole, last):
        total = sums[i]
        for group in range(1, count):
            total += sums[group * step + i]
        to[i] = total


@loop("f* i i i i f*")
def columns_of(rows, count, width, first, k, to):
    """to[row·k + i] = rows[row·width + first + i], for row < count and i < k."""
    for row in range(count):
        source, target = at(rows, row * width + first), at(to, row * k)
        for i in range(k):
            target[i] = source[i]


@loop("i i i", Images, Images)
def copy_images(first, last, size, x, y):
    """The images first … last − 1, of `size` numbers each."""
    for image in range(first, last):
        source, target = at(x.first, image * x.step), at(y.first, image * y.step)
        for i in range(size):
            target[i] = source[i]


@helper
def zero_or_nan(x, size):
    """0 if all of `size` numbers are finite, else NaN."""
    total = np.float32(0)
    for i in range(size):
        total += x[i] * np.float32(0)
    return total


@loop("f* i f*")
def not_finite(x, size, flag):
    """flag[0] = NaN if any of `size` numbers is NaN or infinite, otherwise 0."""
    flag[0] = np.float32(0)
    for block in range(0, size, 1024):
        total = zero_or_nan(at(x, block), min(1024, size - block))
        if total != total:
            flag[0] = total


def add_up(sums: int, count: int, step: int, size: int, to: int) -> None:
    """At the address `to`, the sums of `count` groups, which begin `step` numbers apart at the address `sums`: `size` numbers."""
    if count > 1 or to != sums:
        elements(size, lambda first, last: add_groups(first, last, count, step, sums, to), COST * count)


def column_sums(x: Array, to: Array) -> None:
    """to (K): the sums of the rows of x (N, K), which are added one after the other."""
    add_up(address(x), len(x), x.shape[1], x.shape[1], address(to))


def copy(x: NDArray[Any], y: NDArray[Any]) -> None:
    """y = x, float32 arrays of one shape, whose images may lie apart."""
    size = x.size // len(x)
    share(len(x), lambda first, last: copy_images(first, last, size, *images(x), *images(y)), COST * x.size)

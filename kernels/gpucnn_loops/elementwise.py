"""ReLU, sums of two arrays, and dropout.

Results may overwrite operands. LLVM would compile a plain loop number by number then, because it checks whether arrays overlap. So these
loops are written with vectors.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.loops import Loop, loop
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.turn import fill
from gpucnn_loops.vector import L, load, relu16, store, where_positive

Array = NDArray[np.float32]
BLOCK = 4096  # elements that are handed to a thread together
ZERO = np.float32(0)
COST = 12  # an element that is read from memory and written takes as long as this many multiply-adds


@loop("f* i f*")
def copy_part(x, count, y):
    """y = x, a few numbers."""
    for i in range(count):
        y[i] = x[i]


@loop("i i f* f*")
def relu_part(first, last, x, y):
    """y = max(x, 0), NaN stays NaN."""
    whole = first + (last - first) // L * L
    for i in range(first, whole, L):
        store(y, i, relu16(load(x, i)))
    for i in range(whole, last):
        y[i] = ZERO if x[i] <= 0 else x[i]


@loop("i i f* f* f*")
def relu_grad_part(first, last, dy, y, dx):
    """dx = dy where y > 0, else 0."""
    whole = first + (last - first) // L * L
    for i in range(first, whole, L):
        store(dx, i, where_positive(load(y, i), load(dy, i)))
    for i in range(whole, last):
        dx[i] = dy[i] if y[i] > 0 else ZERO


@loop("i i f* f* f* i f*")
def add_part(first, last, a, b, mask, relu, y):
    """y = a + b; relu: 0, 1 for ReLU after it, 2 for zeros where mask is not positive."""
    whole = first + (last - first) // L * L
    if relu == 1:
        for i in range(first, whole, L):
            store(y, i, relu16(load(a, i) + load(b, i)))
    elif relu == 2:
        for i in range(first, whole, L):
            store(y, i, where_positive(load(mask, i), load(a, i) + load(b, i)))
    else:
        for i in range(first, whole, L):
            store(y, i, load(a, i) + load(b, i))
    for i in range(whole, last):
        total = a[i] + b[i]
        if (relu == 1 and total <= 0) or (relu == 2 and not mask[i] > 0):
            total = ZERO
        y[i] = total


@loop("i i i f* f* i* u u f i")
def dropout_part(first, last, size, x, y, calls, seed, threshold, scale, before):
    """Blocks of four elements, first … last − 1, with `before` more of them before x: one Philox counter each (J. Salmon et al., SC
    2011), ten rounds."""
    low, word = np.uint64(0xFFFFFFFF), np.uint64(32)
    call_low, call_high = np.uint64(calls[0]) & low, np.uint64(calls[1]) & low
    for block in range(first, last):
        c0, c1, c2, c3 = np.uint64(block + before) & low, call_low, call_high, np.uint64(0)
        k0, k1 = seed & low, seed >> word
        for _ in range(10):
            a, b = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
            c0, c1, c2, c3 = (b >> word) ^ c1 ^ k0, b & low, (a >> word) ^ c3 ^ k1, a & low
            k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
        i = 4 * block
        y[i] = x[i] * scale if c0 >= threshold else ZERO
        if i + 1 < size:
            y[i + 1] = x[i + 1] * scale if c1 >= threshold else ZERO
        if i + 2 < size:
            y[i + 2] = x[i + 2] * scale if c2 >= threshold else ZERO
        if i + 3 < size:
            y[i + 3] = x[i + 3] * scale if c3 >= threshold else ZERO


@loop("i*")
def count_call(calls):
    """calls (2): a number of 64 bits, whose low word comes first."""
    calls[0] += 1
    if calls[0] == 0:
        calls[1] += 1


def elements(size: int, body: Callable[[int, int], object], cost: int = COST) -> None:
    """body(first, last) on all threads, over `size` elements."""
    share(-(-size // BLOCK), lambda first, last: body(first * BLOCK, min(last * BLOCK, size)), size * cost)


def through(part: Loop, cost: int, *arrays: Array, numbers: tuple[float, ...] = ()) -> None:
    """Makes the last of the arrays of those before, and of numbers, by a loop that knows whole vectors alone: those behind the last one are
    copied to a vector of their own."""
    size, places = arrays[0].size, [address(array) for array in arrays]

    def body(first: int, last: int) -> None:
        whole = last // L * L
        part(first, whole, *places, *numbers)
        if whole < last:
            rest = Scratch(*[L] * len(places))
            for index, place in enumerate(places[:-1]):
                fill(*rest.piece(index), 0)
                copy_part(place + 4 * whole, last - whole, rest.addresses()[index])
            part(0, L, *rest.addresses(), *numbers)
            copy_part(rest.addresses()[-1], last - whole, places[-1] + 4 * whole)

    elements(size, body, cost)


def next_call(calls: NDArray[np.uint32]) -> None:
    """Adds one to the number `calls` (2): the low word comes first."""
    count_call(address(calls))


def relu(x: Array, y: Array) -> None:
    """y = max(x, 0)."""
    elements(x.size, lambda first, last: relu_part(first, last, address(x), address(y)))


def relu_grad(dy: Array, y: Array, dx: Array) -> None:
    """dx = dy where y > 0, else 0."""
    elements(dy.size, lambda first, last: relu_grad_part(first, last, address(dy), address(y), address(dx)))


def add(a: Array, b: Array, relu: bool, mask: Array | None, y: Array) -> None:
    """y = a + b, after ReLU where `relu`, or 0 where `mask`, if given, is not positive."""
    kind, by = (1 if relu else 0, address(a)) if mask is None else (2, address(mask))
    elements(a.size, lambda first, last: add_part(first, last, address(a), address(b), by, kind, address(y)))


def dropout(x: Array, calls: NDArray[np.uint32], threshold: int, scale: float, seed: int, before: int, y: Array) -> None:
    """y = x·scale, or 0 where the element's random word is below the threshold. Before x stand `before` blocks of four elements."""
    seed &= 2**64 - 1
    elements(
        -(-x.size // 4),
        lambda first, last: dropout_part(first, last, x.size, address(x), address(y), address(calls), seed, threshold, scale, before),
        60,
    )

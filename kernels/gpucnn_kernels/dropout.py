"""Dropout with a counter-based generator: the mask is computed again wherever it is needed, and never stored.

Philox4x32-10 (J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) turns a counter of four 32-bit words and a key of
two into four random words, by ten rounds of multiplying and mixing. Nothing carries over from one counter to the next, so each thread
takes a counter of its own, and decides on four elements with its words.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, uint32, uint64
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.launch import Array, Stream, flat, floats, run, run_each
from gpucnn_kernels.core.philox import philox

_WORD = 0xFFFFFFFF


@device
def keep_or_drop(value, word, threshold, scale):
    """value·scale, or zero where the random word is below the threshold, whatever the value was."""
    if word >= threshold:
        return value * scale
    return float32(0)


@kernel
def dropout_kernel(x, y, calls, threshold, scale, seed_low, seed_high, before, lanes):
    """`before` whole blocks of four and `lanes` more elements stand before x in the batch that it is a part of."""
    block = uint32(cuda.grid(1))
    end = uint32(y.size + lanes)
    first = uint32(block * 4)
    if first >= end:
        return
    w0, w1, w2, w3 = philox(uint32(uint64(block) + uint64(before) & uint64(_WORD)), calls[0], calls[1], uint32(0), seed_low, seed_high)
    if first >= lanes:
        i = uint32(first - lanes)
        y[i] = keep_or_drop(x[i], w0, threshold, scale)
    if first + 1 >= lanes and first + 1 < end:
        i = uint32(first + 1 - lanes)
        y[i] = keep_or_drop(x[i], w1, threshold, scale)
    if first + 2 >= lanes and first + 2 < end:
        i = uint32(first + 2 - lanes)
        y[i] = keep_or_drop(x[i], w2, threshold, scale)
    if first + 3 < end:
        i = uint32(first + 3 - lanes)
        y[i] = keep_or_drop(x[i], w3, threshold, scale)


@kernel
def next_call_kernel(calls):
    low = uint32(uint64(calls[0]) + uint64(1))
    calls[0] = low
    if low == uint32(0):
        calls[1] = uint32(uint64(calls[1]) + uint64(1))


def next_call(calls: Array, stream: Stream = 0) -> None:
    """Adds one to `calls` (2, uint32: the low word first)."""
    run(next_call_kernel, 1, 1, stream, flat(calls, "calls", "uint32", (2,)))


def dropout(x: Array, y: Array, calls: Array, rate: float, seed: int, stream: Stream = 0, first: int = 0) -> None:
    """Writes x / (1 − rate) to y, with zero in place of elements whose random word is below round(rate · 2³²). y may be x.

    Element i takes word j % 4 of counter (j // 4, calls[0], calls[1], 0) under the key (seed mod 2³², seed div 2³²), with j = i + first:
    x may be a part of a batch. `calls` (2, uint32) is in the memory of the device, so that a captured step can be replayed.
    """
    size = 1
    for side in x.shape:
        size *= int(side)
    run_each(
        dropout_kernel,
        -(-(size + first % 4) // 4),
        stream,
        floats(x, "x"),
        floats(y, "y", tuple(x.shape)),
        flat(calls, "calls", "uint32", (2,)),
        np.uint32(min(round(rate * 2**32), _WORD)),
        np.float32(1 / (1 - rate)),
        np.uint32(seed & _WORD),
        np.uint32(seed >> 32 & _WORD),
        np.uint32(first // 4 & _WORD),
        np.uint32(first % 4),
    )

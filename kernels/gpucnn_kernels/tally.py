"""The counters of a training step, in one launch, between the loss and the update.

If the host read each loss, it would wait for each step, longer than a step takes. So losses are added up on the device, and the learning
rate of the step is looked up there; the host reads the sums when it shows them.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.launch import Array, Stream, floats, ints, run
from gpucnn_kernels.core.reduce import tree_sum

_THREADS = 512  # that add up rows: as many as a loss of one block has at the most (cross_entropy.py), for the same sums


@device(forceinline=True)
def count(value, right, table, rates, counters, sums, weight):
    """Counts a step whose mean loss is `value` and which has so many answers `right`."""
    if counters[4] != int32(0):
        return
    if not math.isfinite(value):
        counters[4] = int32(1)
        rates[3] = float32(0)
        sums[0] = value
        return
    row = int32(counters[0] * int32(3))
    rates[0] = table[row]
    rates[1] = table[row + 1]
    rates[2] = table[row + 2]
    rates[3] = float32(1)
    # Two numbers stand for the sum (Knuth's TwoSum, The Art of Computer Programming, vol. 2, 4.2.2): float32 alone would lose the small
    # losses of a long epoch.
    term = float32(value * weight)
    total = float32(sums[0] + term)
    back = float32(total - sums[0])
    lost = float32(float32(sums[0] - float32(total - back)) + float32(term - back))
    rest = float32(sums[1] + lost)
    sums[0] = float32(total + rest)
    sums[1] = float32(rest - float32(sums[0] - total))
    counters[0] += int32(1)
    # Right answers are counted in two words of 32 bits: an epoch may have more than one word can hold.
    before = uint32(counters[2])
    after = uint32(before + uint32(right))
    counters[2] = int32(after)
    if after < before:
        counters[5] += int32(1)
    counters[3] += int32(1)


@kernel
def tally_kernel(loss, correct, table, rates, counters, sums, weight):
    count(loss[0], correct[0], table, rates, counters, sums, weight)


@kernel(launch_bounds=_THREADS)
def tally_rows_kernel(losses, corrects, table, rates, counters, sums, weight, scale):
    """The same for a step of which the loss and the right answers of each row are given, a thread for some rows."""
    totals = cuda.shared.array(_THREADS, float32)
    rights = cuda.shared.array(_THREADS, int32)
    thread = uint32(cuda.threadIdx.x)
    total, right = float32(0), int32(0)
    for row in range(int32(thread), int32(losses.size), int32(_THREADS)):
        total += losses[row]
        right = int32(right + corrects[row])
    totals[thread] = total
    rights[thread] = right
    tree_sum(totals, thread, _THREADS)
    tree_sum(rights, thread, _THREADS)
    if thread == uint32(0):
        count(totals[0] * scale, rights[0], table, rates, counters, sums, weight)


def tally(loss: Array, correct: Array, weight: float, table: Array, rates: Array, counters: Array, sums: Array, stream: Stream = 0) -> None:
    """Counts a step of `weight` examples and makes `rates` (4) those of its update.

    loss and correct: single numbers, float32 and int32, or those of each row (N). table (steps, 3), counters (6, int32), sums (2): see
    gpucnn.ops.
    """
    arrays = (
        floats(loss, "loss"),
        ints(correct, "correct", loss.shape),
        floats(table, "table"),
        floats(rates, "rates", (4,)),
        ints(counters, "counters", (6,)),
        floats(sums, "sums", (2,)),
    )
    if loss.shape:
        run(tally_rows_kernel, 1, _THREADS, stream, *arrays, np.float32(weight), np.float32(1 / loss.shape[0]))
    else:
        run(tally_kernel, 1, 1, stream, *arrays, np.float32(weight))

"""The counters of a training step, kept where the step runs, so that no one has to wait for a step to learn its results."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array

__all__ = ["tally"]


def tally(loss: Array, correct: Array, weight: float, table: Array, rates: Array, counters: Array, sums: Array) -> None:
    """Counts a step of `weight` examples and sets `rates` (4) for its update, between the loss and the update.

    loss and correct: those of the step, or of each of its rows (N). table (steps, 3): the rates of each step of an epoch. counters (6,
    int32): the step in the epoch, the epoch, right answers so far, steps done, whether a loss was NaN or infinite, and the right answers'
    upper 32 bits. sums (2): the loss over all examples, and the rounding error of that sum. After a NaN or infinite loss nothing is
    counted any more, rates[3] is 0, and sums[0] is that loss.
    """
    if counters[4]:
        return
    if loss.ndim:
        loss, correct = loss.mean(dtype=np.float64), correct.sum()
    if not np.isfinite(loss):
        counters[4], rates[3], sums[0] = 1, 0, loss
        return
    rates[:3] = table[counters[0]]
    rates[3] = 1
    sums[0] += sums.dtype.type(loss) * weight
    counters[0] += 1
    right = (int(counters[2]) & 0xFFFFFFFF) + int(correct)
    counters[2] = np.uint32(right & 0xFFFFFFFF).astype(np.int32)
    counters[5] += right >> 32
    counters[3] += 1

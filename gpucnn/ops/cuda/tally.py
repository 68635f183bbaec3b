"""The counters of a training step, kept where the step runs, so that no one has to wait for a step to learn its results."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, stream
from gpucnn_kernels import tally as kernels

__all__ = ["tally"]


def tally(loss: Array, correct: Array, weight: float, table: Array, rates: Array, counters: Array, sums: Array) -> None:
    """Counts a step of `weight` examples and sets `rates` (4) for its update, between the loss and the update.

    loss and correct: those of the step, or of each of its rows (N). table (steps, 3): the rates of each step of an epoch. counters (6,
    int32): the step in the epoch, the epoch, right answers so far, steps done, whether a loss was NaN or infinite, and the right answers'
    upper 32 bits. sums (2): the loss over all examples, and the rounding error of that sum. After a NaN or infinite loss nothing is
    counted any more, rates[3] is 0, and sums[0] is that loss.
    """
    kernels.tally(loss, correct, weight, table, rates, counters, sums, stream(loss))

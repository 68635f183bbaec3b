"""A profile's row for the sum over ranks: measured by MPI on the CPU, for a GPU computed from its bytes and a link's rate."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from gpucnn.profiling.chip.links import Link, sum_seconds
from gpucnn.profiling.measure.statistics import summarize
from gpucnn.profiling.records import Profile, Row, Timing
from gpucnn.text import bytes_text
from gpucnn.training.communicator import Communicator

WARM_UP, SAMPLES = 3, 30


def with_sum(profile: Profile, model: Any, ranks: int, link: Link) -> Profile:
    """A profile of a GPU, with the least time that the sum over this many ranks takes; it is not part of the step."""
    size = int(model.buffers.summed.nbytes)
    row = _row(model, ranks, f"sum over {ranks} ranks by {link.name}", sum_seconds(size, ranks, link))
    note = (
        f"the sum over {ranks} ranks is worked out: {bytes_text(size)} at {link.rate / 1e9:g} GB/s in each direction ({link.source}) and "
        f"{link.message * 1e6:g} µs assumed for a message; part of it may run beside the backward pass, and none of it is in the step"
    )
    return dataclasses.replace(profile, rows=[*profile.rows, row], notes=[*profile.notes, note])


def measured_with_sum(profile: Profile, model: Any, ranks: Communicator, copy_rate: float) -> Profile:
    """A profile of the CPU in a process that is one of `ranks`, with the time that they take to sum a step's gradients."""
    timing = _measured(ranks, np.zeros_like(model.buffers.summed))
    size = int(model.buffers.summed.nbytes)
    # On one machine each rank reads its own gradients and another rank's, and writes the sum.
    row = _row(model, ranks.size, f"sum over {ranks.size} ranks by MPI", 3 * size / copy_rate, timing)
    step = profile.step.time
    share = f", {timing.median / step.median:.1%} of the step's time beside it" if step is not None and step.median else ""
    note = f"the sum over {ranks.size} ranks, of {bytes_text(size)}, was measured by itself, all ranks beginning together{share}"
    return dataclasses.replace(profile, rows=[*profile.rows, row], notes=[*profile.notes, note])


def _measured(ranks: Communicator, array: Any) -> Timing:
    samples = []
    for number in range(WARM_UP + SAMPLES):
        ranks.barrier()
        begun = time.perf_counter()
        ranks.sum(array)
        if number >= WARM_UP:
            samples.append(time.perf_counter() - begun)
    return summarize(samples)


def _row(model: Any, ranks: int, kernel: str, least: float, timing: Timing | None = None) -> Row:
    buffer = model.buffers.summed
    return Row(
        layer="",
        phase="backward",
        op="sum_over_ranks",
        kernel=kernel,
        shape=f"{buffer.size:,} numbers",
        flops=int(buffer.size) * (ranks - 1) // ranks,
        bytes=int(buffer.nbytes) * 2 * (ranks - 1) // ranks,
        roofline=least,
        wall="link",
        time=timing,
    )

"""Ceilings and verdicts: how long a chip must take for a piece of work, and what to look at next.

S. Williams et al., "Roofline: an insightful visual performance model for multicore architectures", CACM 2009.
"""

from __future__ import annotations

from gpucnn.profiling.records import Ceilings, Profile, Row
from gpucnn.profiling.what.work import Work

WORDS = {
    "memory": "memory-bound: moving the bytes takes longer than computing on them",
    "compute": "compute-bound: the arithmetic takes longer than moving the bytes",
    "launch": "launch-bound: starting it takes longer than either",
    "link": "bound by the link between ranks",
}


def seconds(work: Work, ceilings: Ceilings) -> float:
    """The least time: that of the slower of arithmetic and memory."""
    return max(work.flops / ceilings.flops, work.least_bytes / ceilings.bandwidth)


def wall(work: Work, ceilings: Ceilings) -> str:
    """The bound that takes the longest: "compute", "memory", or a "launch" with nothing to do."""
    times = {"launch": ceilings.launch, "compute": work.flops / ceilings.flops, "memory": work.least_bytes / ceilings.bandwidth}
    return max(times, key=lambda name: times[name])


def knee(ceilings: Ceilings) -> float:
    """FLOP per byte at which the two ceilings meet: work with fewer is memory-bound."""
    return ceilings.flops / ceilings.bandwidth


def share(row: Row, profile: Profile) -> float:
    """The part of the step that a row takes."""
    return row.seconds / profile.whole if profile.whole else 0.0


def to_gain(row: Row, ceilings: Ceilings) -> float:
    """Seconds of a step that a perfect kernel in its place would save. A launch is always paid."""
    return max(0.0, row.seconds - max(row.roofline, ceilings.launch))


def advice(profile: Profile, most: int = 3) -> list[str]:
    """Advice on what to look at next, in sentences, the largest gain first."""
    if not profile.measured:
        return _advice_on_bounds(profile, most)
    lines = []
    for row in sorted(profile.rows, key=lambda row: -to_gain(row, profile.ceilings))[:most]:
        gain = to_gain(row, profile.ceilings)
        if profile.whole and gain / profile.whole >= 0.01:
            lines.append(
                f"{_name(row)} takes {100 * share(row, profile):.0f} % of the step at {100 * (row.of_roofline or 0):.0f} % of its roofline "
                f"({row.wall}): at the roofline the step would be {100 * gain / profile.whole:.0f} % shorter"
            )
    gaps = profile.step.gaps
    if gaps is not None and profile.whole and gaps / profile.whole >= 0.1:
        lines.append(f"{100 * gaps / profile.whole:.0f} % of the step no kernel runs: the host does not launch fast enough")
    return lines or ["nothing stands out: no kernel is far from its roofline and takes much of the step"]


def _advice_on_bounds(profile: Profile, most: int) -> list[str]:
    lines = []
    for row in profile.rows:
        if row.spills:
            lines.append(f"{_name(row)} spills {row.spills} bytes of registers to memory")
        if row.stack:
            lines.append(f"{_name(row)} has {row.stack} bytes of arrays in memory for each thread")
        if row.float64:
            lines.append(f"{_name(row)} has {row.float64} instructions in float64")
    if not profile.of_step:
        return lines or ["no kernel spills registers, has a thread's arrays in memory, or computes in float64"]
    if any(row.predicted is not None for row in profile.rows):
        return lines + _advice_on_predictions(profile, most)
    for row in sorted(profile.rows, key=lambda row: -row.seconds)[:most]:
        text = f"{_name(row)} has {100 * share(row, profile):.0f} % of the step's least time ({row.wall})"
        if row.waves is not None and row.waves < 1:
            text += f", and its {row.blocks} blocks fill {100 * row.waves:.0f} % of the chip"
        elif row.loop is not None and row.wall == "compute" and row.loop.fma:
            text += f", and {100 * row.loop.fma_share:.0f} % of its main loop are FMAs"
        lines.append(text)
    return lines


def _advice_on_predictions(profile: Profile, most: int) -> list[str]:
    """The kernels that are predicted to take the longest, and what limits them."""
    rows = sorted((row for row in profile.rows if row.predicted), key=lambda row: -(row.predicted or 0))
    total = sum(row.predicted or 0 for row in rows)
    return [
        f"{_name(row)} is predicted to have {100 * (row.predicted or 0) / total:.0f} % of the time, at "
        f"{(row.predicted or 0) / row.roofline:.1f} times its bound: {row.limit}"
        for row in rows[:most]
        if row.roofline
    ]


def _name(row: Row) -> str:
    return f"{row.kernel} ({', '.join(part for part in (row.layer, row.phase) if part)})"

"""Many times of the same thing as three numbers, and whether two such triples differ."""

from __future__ import annotations

from collections.abc import Sequence

from gpucnn.profiling.records import Timing

LEAST_CHANGE = 0.02
"""What clocks and drivers do from one run to the next, though each by itself be steady: a change below it is none."""


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value below which `part` of the sorted values lie, linearly between neighbours as NumPy has it."""
    position = part * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def summarize(samples: Sequence[float]) -> Timing:
    """Median, 10th and 90th percentile. Times have a long tail upwards: what else the machine did; a mean would be of that."""
    if not samples:
        raise ValueError("there must be at least one sample")
    ordered = sorted(samples)
    return Timing(percentile(ordered, 0.5), percentile(ordered, 0.1), percentile(ordered, 0.9), len(ordered))


def differs(old: Timing, new: Timing) -> bool:
    """Whether the difference is beyond the noise: the intervals from p10 to p90 have nothing in common, and the medians are 2 % apart.

    For even spreads that is to say that the medians differ by more than half of both spreads together. It makes no use of the number of
    samples, which would shrink the error of each median: samples of one run share that run's clock, temperature and neighbours.
    """
    apart = new.p10 > old.p90 or new.p90 < old.p10
    return apart and abs(new.median - old.median) > LEAST_CHANGE * old.median

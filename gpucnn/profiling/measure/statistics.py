"""Summarizes repeated times as three numbers, and compares two such summaries."""

from __future__ import annotations

from collections.abc import Sequence

from gpucnn.errors import ArgumentError
from gpucnn.profiling.records import Timing

LEAST_CHANGE = 0.02
"""The variation from run to run that clocks and drivers cause even if each run is steady: a smaller change is noise."""


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value below which a fraction `part` of the sorted values lies, interpolated linearly as in NumPy."""
    position = part * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def summarize(samples: Sequence[float]) -> Timing:
    """Median, 10th and 90th percentile. Times have a long upper tail, caused by other work on the machine, that would dominate a mean."""
    if not samples:
        raise ArgumentError("there must be at least one sample")
    ordered = sorted(samples)
    return Timing(percentile(ordered, 0.5), percentile(ordered, 0.1), percentile(ordered, 0.9), len(ordered))


def differs(old: Timing, new: Timing) -> bool:
    """Whether two summaries differ beyond noise: their intervals from p10 to p90 do not overlap, and the medians are 2 % apart.

    For symmetric spreads this means that the medians differ by more than half the sum of both spreads. The number of samples is not
    used, although it would shrink the error of each median: samples of one run share its clock, temperature and background load.
    """
    apart = new.p10 > old.p90 or new.p90 < old.p10
    return apart and abs(new.median - old.median) > LEAST_CHANGE * old.median

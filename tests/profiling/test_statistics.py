"""Medians and spreads, and when two of them differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucnn.profiling.measure.statistics import differs, percentile, summarize
from gpucnn.profiling.records import Timing


@settings(deadline=None)  # a busy machine is not a failure
@given(st.lists(st.floats(1e-9, 10, allow_subnormal=False), min_size=1, max_size=40), st.floats(0, 1))
def test_percentiles_are_numpys(values: list[float], part: float) -> None:
    assert percentile(sorted(values), part) == pytest.approx(np.percentile(values, 100 * part), rel=1e-9)


def test_a_summary_is_the_median_and_the_tenths() -> None:
    assert summarize([5.0, 1.0, 3.0, 2.0, 4.0]) == Timing(3.0, pytest.approx(1.4), pytest.approx(4.6), 5)
    assert summarize([2.0]) == Timing(2.0, 2.0, 2.0, 1)
    with pytest.raises(ValueError, match="at least one sample"):
        summarize([])


def test_one_slow_sample_moves_no_median() -> None:
    assert summarize([1.0] * 19 + [1000.0]).median == 1.0


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (Timing(1.0, 0.95, 1.05, 20), Timing(1.2, 1.15, 1.25, 20), True),  # apart
        (Timing(1.2, 1.15, 1.25, 20), Timing(1.0, 0.95, 1.05, 20), True),  # the other way
        (Timing(1.0, 0.90, 1.30, 20), Timing(1.2, 1.15, 1.25, 20), False),  # the old one was as slow at times
        (Timing(1.0, 0.999, 1.001, 20), Timing(1.01, 1.009, 1.011, 20), False),  # apart, and yet nothing: under 2 %
        (Timing(1.0, 0.999, 1.001, 20), Timing(1.03, 1.029, 1.031, 20), True),
        (Timing(1.0, 1.0, 1.0, 1), Timing(1.0, 1.0, 1.0, 1), False),
    ],
)
def test_a_change_is_one_beyond_the_noise(old: Timing, new: Timing, expected: bool) -> None:
    assert differs(old, new) is expected


@settings(deadline=None)  # a busy machine is not a failure
@given(st.integers(0, 2**32 - 1))
def test_two_runs_of_the_same_noise_do_not_differ(seed: int) -> None:
    """Samples of one distribution, taken twice: what a comparison is asked most often."""
    random = np.random.default_rng(seed)
    one, two = (summarize(list(1e-3 * (1 + 0.05 * random.standard_exponential(20)))) for _ in range(2))
    assert not differs(one, two)

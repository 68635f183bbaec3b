"""The timing core, on a clock that plays times back."""

from __future__ import annotations

from typing import Any

import pytest

from gpucnn.profiling.measure import timing
from gpucnn.profiling.measure.timing import HostClock, alternate, buffers_needed, measure


def test_a_short_kernel_is_timed_in_batches(clock: Any) -> None:
    recorded = clock(run=1e-5)
    result = measure(recorded, [lambda: None])
    assert result.median == pytest.approx(1e-5)
    assert recorded.batches == [1, 100]  # a sample lasts a millisecond
    assert recorded.runs[-1] == 100


def test_a_long_kernel_is_timed_by_itself(clock: Any) -> None:
    recorded = clock(run=0.25)
    assert measure(recorded, [lambda: None], budget=0.1) == timing.summarize([0.25] * timing.LEAST_SAMPLES)
    assert recorded.batches == [1]


def test_buffers_take_turns_equally_often(clock: Any) -> None:
    used: list[int] = []
    recorded = clock(run=1e-4)
    buffers = [lambda index=index: used.append(index) for index in range(3)]
    measure(recorded, buffers)
    assert recorded.batches == [3, 9]
    assert {used.count(index) for index in range(3)} == {len(used) // 3}
    assert used[:6] == [0, 1, 2, 0, 1, 2]


def test_warm_up_is_no_sample(clock: Any) -> None:
    """The first two times of the clock are warm-up and a first guess; then comes one more for the batch of the right length."""
    recorded = clock(samples=[9.0, 1e-5, 9.0] + [1e-3] * timing.MOST_SAMPLES)
    result = measure(recorded, [lambda: None])
    assert result == timing.summarize([1e-5] * timing.MOST_SAMPLES)


def test_the_least_number_of_samples_is_taken_however_long_they_last(clock: Any) -> None:
    assert measure(clock(run=100.0), [lambda: None], budget=0.0).samples == timing.LEAST_SAMPLES
    assert measure(clock(run=1e-9), [lambda: None], budget=1e9).samples == timing.MOST_SAMPLES
    assert measure(clock(run=0.0), [lambda: None]).median == 0.0  # a clock too coarse to see it
    with pytest.raises(ValueError, match="at least one buffer"):
        measure(clock(), [])


def test_alternating_puts_the_samples_side_by_side(clock: Any) -> None:
    order: list[str] = []
    recorded = clock(run=1.0)
    own, other = alternate(recorded, [lambda: order.append("own"), lambda: order.append("other")], budget=0)
    assert own == other
    assert order[-2 * timing.LEAST_SAMPLES :] == ["own", "other"] * timing.LEAST_SAMPLES


def test_the_host_clock_counts_seconds() -> None:
    done: list[int] = []
    host = HostClock()
    assert host.time(host.batch([lambda: done.append(1), lambda: done.append(2)])) >= 0
    assert done == [1, 2]


@pytest.mark.parametrize(
    ("size", "cache", "room", "expected"),
    [
        (10, 100, 10**6, 31),  # three caches full, and the one that is used
        (10, 100, 100, 10),  # as far as there is room
        (10**6, 100, 10**9, 2),  # one alone is more than the cache
        (0, 100, 100, 2),
        (1, 10**9, 10**9, timing.MOST_RUNS),
        (100, 1000, 10, 2),  # no room at all
    ],
)
def test_buffers_fill_the_cache_three_times(size: int, cache: int, room: int, expected: int) -> None:
    assert buffers_needed(size, cache, room) == expected

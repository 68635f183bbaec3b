"""The timing core: warm-up, repetition, rotated buffers. It works with any clock, so it is tested on recorded times.

A kernel of some microseconds is shorter than the overhead of timing it. So a sample is a batch of runs, timed as a whole and divided by
their number; consecutive runs use different buffers, so that no run finds its data in a cache because the previous one left it there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from gpucnn.errors import ArgumentError
from gpucnn.profiling.measure.statistics import summarize
from gpucnn.profiling.records import Timing

Run: TypeAlias = Callable[[], object]

LEAST_SAMPLE = 1e-3  # seconds per batch: a thousand times the resolution of CUDA events
MOST_RUNS = 200  # in a batch
LEAST_SAMPLES, MOST_SAMPLES = 10, 50
BUDGET = 0.3  # seconds for the samples of one kernel; at least ten samples are taken


class Clock(Protocol):
    """Measures how long work takes, in seconds."""

    def batch(self, runs: Sequence[Run]) -> Run:
        """Combines `runs` into one piece of work with as little host overhead as possible: on a GPU a graph."""
        ...

    def time(self, work: Run) -> float:
        """Runs the work and returns its time."""
        ...


class HostClock:
    """Python's clock, for work that is finished when it returns."""

    def batch(self, runs: Sequence[Run]) -> Run:
        def all_of_them() -> None:
            for run in runs:
                run()

        return all_of_them

    def time(self, work: Run) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


def measure(clock: Clock, buffers: Sequence[Run], *, budget: float = BUDGET) -> Timing:
    """The time of one run, where each of `buffers` does the same on memory of its own.

    With one, its memory is as warm as it can be; with several that together exceed the cache, each run finds it cold.
    """
    if not buffers:
        raise ArgumentError("there must be at least one buffer")
    for run in buffers:
        run()  # compiles, allocates, sets up; its time says nothing
    once = clock.batch(buffers)
    clock.time(once)
    single = clock.time(once) / len(buffers)
    runs = _runs(single, len(buffers))
    work = once if runs == len(buffers) else clock.batch([buffers[index % len(buffers)] for index in range(runs)])
    if work is not once:
        clock.time(work)
    samples: list[float] = []
    spent = 0.0
    while len(samples) < LEAST_SAMPLES or (len(samples) < MOST_SAMPLES and spent < budget):
        seconds = clock.time(work)
        spent += seconds
        samples.append(seconds / runs)
    return summarize(samples)


def alternate(clock: Clock, works: Sequence[Run], *, budget: float = BUDGET) -> list[Timing]:
    """The times of several things, taken in turn, so that other load on the machine affects all of them alike."""
    for work in works:
        work()
    batches, counts = [], []
    for work in works:
        clock.time(work)
        count = _runs(clock.time(work), 1)
        counts.append(count)
        batches.append(work if count == 1 else clock.batch([work] * count))
    samples: list[list[float]] = [[] for _ in works]
    spent = 0.0
    while len(samples[0]) < LEAST_SAMPLES or (len(samples[0]) < MOST_SAMPLES and spent < budget * len(works)):
        for batch, count, own in zip(batches, counts, samples, strict=True):
            seconds = clock.time(batch)
            spent += seconds
            own.append(seconds / count)
    return [summarize(own) for own in samples]


def buffers_needed(bytes_of_one: int, cache: int, room: int) -> int:
    """The number of buffers to rotate, so that a run finds nothing of its own in a cache of so many bytes: three caches full, if there is
    room; at least two, and no more than a batch has runs."""
    if bytes_of_one <= 0:
        return 2
    wanted = -(-3 * cache // bytes_of_one) + 1
    return max(2, min(wanted, room // bytes_of_one, MOST_RUNS))


def _runs(single: float, multiple: int) -> int:
    """The number of runs that make a sample long enough; a multiple, so that every buffer is used equally often."""
    wanted = min(MOST_RUNS, max(1, round(LEAST_SAMPLE / single) if single > 0 else MOST_RUNS))
    return max(1, wanted // multiple) * multiple

"""A bench for measuring on a GPU: the clock of its stream, and launches repeated on copies of their arrays.

CuPy is the array library. All work is on one stream, not the default one because that cannot be captured. A launch is replayed on enough
copies of its arrays to fill the second-level cache three times, and captured as a graph with others like it, so that the time does not
include the host, for which a launch takes longer than many kernels last.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpucnn.profiling.chip.bounds import Branch
from gpucnn.profiling.chip.chips import ARCHITECTURES, Architecture
from gpucnn.profiling.measure.timing import BUDGET, HostClock, Run, buffers_needed, measure
from gpucnn.profiling.records import Timing
from gpucnn.training.graph import Branches
from gpucnn_kernels.core.launch import Launch, address_of, external_stream, unsynchronized

ROOM = 4  # a quarter of the free memory may go to copies


class EventClock:
    """A clock of CUDA's events on a stream. A batch is a graph; it may hold only launches, on arrays that already exist."""

    def __init__(self, xp: Any, stream: Any) -> None:
        self._stream = stream
        self._begin, self._end = xp.cuda.Event(), xp.cuda.Event()
        self._elapsed = xp.cuda.get_elapsed_time  # milliseconds

    def batch(self, runs: Sequence[Run]) -> Run:
        """The runs as one graph."""
        collecting = gc.isenabled()
        gc.disable()  # collecting a graph or an event now would abort the capture
        self._stream.begin_capture()
        try:
            for run in runs:
                run()
        except BaseException:
            with contextlib.suppress(Exception):  # the stream is unusable while it is being captured
                self._stream.end_capture()
            raise
        finally:
            if collecting:
                gc.enable()
        return functools.partial(self._stream.end_capture().launch, self._stream)

    def time(self, work: Run) -> float:
        """Seconds between an event before the work and one after it."""
        self._begin.record(self._stream)
        work()
        self._end.record(self._stream)
        self._end.synchronize()
        return float(self._elapsed(self._begin, self._end)) * 1e-3


class ReplayClock(EventClock):
    """A clock for work that is a graph already, or belongs to another library: a batch is a loop."""

    def batch(self, runs: Sequence[Run]) -> Run:
        return HostClock().batch(runs)


@dataclass(frozen=True)
class Gpu:
    """The facts about the GPU."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    cache: int  # bytes of the second level
    memory: int
    architecture: Architecture | None


def describe(xp: Any) -> Gpu:
    """The current GPU, as CUDA describes it."""
    properties = xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)
    major, minor = int(properties["major"]), int(properties["minor"])
    return Gpu(
        name=properties["name"].decode(),
        capability=(major, minor),
        multiprocessors=int(properties["multiProcessorCount"]),
        cache=int(properties["l2CacheSize"]),
        memory=int(properties["totalGlobalMem"]),
        architecture=ARCHITECTURES.get(f"sm_{major}{minor}"),
    )


@dataclass(frozen=True)
class Bench:
    """The tools for measuring: the array library, the stream for all work, its clock, and the facts about the GPU."""

    xp: Any
    stream: Any
    clock: EventClock
    gpu: Gpu

    @classmethod
    def on(cls, xp: Any, stream: Any) -> Bench:
        """A bench on a stream of the current GPU."""
        return cls(xp, stream, EventClock(xp, stream), describe(xp))

    def copies(self, size: int) -> int:
        """The number of copies of `size` bytes that together keep data out of the cache, and fit."""
        return buffers_needed(size, self.gpu.cache, int(self.xp.cuda.runtime.memGetInfo()[0]) // ROOM)

    def replays(self, launches: Sequence[Launch], *, copied: bool) -> list[Run]:
        """The launches, ready to be repeated on the stream that is then current, with their own arrays or with copies; arrays that were
        shared stay shared."""
        views: dict[Any, Any] = {}
        for launch in launches:
            for array in launch.arrays:
                if address_of(array) not in views:
                    views[address_of(array)] = unsynchronized(array.copy() if copied else array)
        return [functools.partial(self._again, launch, _with(launch.arguments, views)) for launch in launches]

    def _again(self, launch: Launch, arguments: tuple[Any, ...]) -> None:
        launch.run(external_stream(self.xp.cuda.get_current_stream().ptr), arguments)

    def side_by_side(self, runs: Sequence[Run], of_launches: Sequence[Branch]) -> Run:
        """The launches of a step as one, on branches as in the step's graph; `of_launches` are theirs (bounds.Forks)."""
        branches = Branches(self.xp.cuda, self.stream)

        def run() -> None:
            with contextlib.ExitStack() as last:
                opened: list[tuple[int, Any, contextlib.ExitStack]] = []
                last.callback(lambda: _close(opened, 0))
                for own, each in zip(of_launches, runs, strict=True):
                    same = (number == fork[0] for fork, (number, _, _) in zip(own, opened, strict=False))
                    _close(opened, sum(itertools.takewhile(bool, same)))
                    for number, _ in own[len(opened) :]:
                        stack = contextlib.ExitStack()
                        branch = stack.enter_context(branches.another())
                        stack.callback(branch.join)
                        opened.append((number, branch, stack))
                    with opened[-1][1].apart() if own and own[-1][1] else contextlib.nullcontext():
                        each()

        return run

    def time_together(self, launches: Sequence[Launch], *, budget: float = BUDGET) -> Timing:
        """The time of an operation's launches, one after the other, on data that no cache holds. `budget`: seconds for the samples."""
        count = self.copies(sum(launch.array_bytes for launch in launches))
        runs = [one_after_the_other(self.replays(launches, copied=True)) for _ in range(count)]
        return measure(self.clock, runs, budget=budget)


def _close(opened: list[tuple[int, Any, contextlib.ExitStack]], left: int) -> None:
    """Joins all open forks except the first `left`."""
    while len(opened) > left:
        opened.pop()[2].close()


def one_after_the_other(runs: Sequence[Run]) -> Run:
    """Several pieces of work as one, run one after the other."""

    def run() -> None:
        for each in runs:
            each()

    return run


def _with(arguments: tuple[Any, ...], views: dict[Any, Any]) -> tuple[Any, ...]:
    """The arguments with their arrays replaced."""
    return tuple(views[address_of(argument)] if getattr(argument, "shape", ()) else argument for argument in arguments)

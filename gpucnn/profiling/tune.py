"""`gpucnn tune`: finds the fastest kernel for each operation of a training step on the current GPU.

Every kernel that can do an operation is measured as in `gpucnn profile`, with cold caches, and only after its result was checked. A clear
winner goes into the chip's table (gpucnn_kernels.choose.tuned), where select.py finds it; the default choice needs no entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpucnn
from gpucnn.device import Device
from gpucnn.errors import DataError, GpucnnError
from gpucnn.files import write_atomically
from gpucnn.profiling.records import Timing
from gpucnn.profiling.what import correct
from gpucnn.profiling.what.launches import CUT
from gpucnn.profiling.what.observe import Call, Observer
from gpucnn.profiling.what.operations import OPERATIONS
from gpucnn.profiling.what.workload import Workload, of_model
from gpucnn.text import aligned
from gpucnn_kernels.choose import select, tuned
from gpucnn_kernels.choose.select import Choice
from gpucnn_kernels.core.launch import Launch, recording
from gpucnn_kernels.core.problem import Problem

LEAST_GAIN = 0.03  # of the time: smaller gains may be chance

Say = Callable[[str], None]
Timer = Callable[[Sequence[Launch]], Timing]


@dataclass(frozen=True)
class Result:
    """The candidates for an operation with their times; the first is the default choice."""

    problem: Problem
    times: list[tuple[Choice, Timing]]
    wrong: list[tuple[Choice, str]]  # candidates with a wrong result, or none

    @property
    def best(self) -> tuple[Choice, Timing]:
        """The fastest candidate if it wins beyond noise; otherwise the default choice."""
        rules, fastest = self.times[0], min(self.times, key=lambda item: item[1].median)
        clear = fastest[1].median < (1 - LEAST_GAIN) * rules[1].median and fastest[1].p90 < rules[1].median
        return fastest if clear else rules

    @property
    def gain(self) -> float:
        """The speed relative to the default choice."""
        return self.times[0][1].median / self.best[1].median


def problem_of(call: Call) -> Problem | None:
    """The problem that a call posed; None for operations that have only one kernel."""
    row = OPERATIONS.get(call.op)
    return None if row is None or row.problem is None else row.problem(call.arguments)


def candidates(problem: Problem) -> list[Choice]:
    """The default choice, then all other variants that can do the problem: each tile with about the default number of slices, half and
    twice as many; or, where only some sums can be cut, with and without."""
    with tuned.passed_over():
        rules = select.choose(problem)
        found = [rules]
        for name in select.variants(problem):
            choice = select.choose(problem, name)
            counts = {choice.slices, 1} if choice.variant.slices else {1}
            if problem.cuts and choice.variant.slices:
                counts |= {max(1, choice.slices // 2), 2 * choice.slices}
            found += [select.choice(choice.variant, problem, count) for count in sorted(counts)]
    return list(dict.fromkeys(found))


def tune(workload: Workload, timer: Timer, say: Say, *, done: set[str]) -> list[Result]:
    """Measures the operations of a step one by one. Skips problems whose keys are in `done`, and adds those that it measures."""
    found: list[Result] = []

    def listener(call: Call) -> Any:
        problem = problem_of(call)
        if problem is not None and problem.key not in done:
            done.add(problem.key)
            say(f"measuring {call.op} of {call.layer}")
            found.append(_measured(call, problem, timer))
        return call.run()

    with workload.observer.listening(listener):
        workload.step()
    return found


def _measured(call: Call, problem: Problem, timer: Timer) -> Result:
    known: dict[bool, correct.Expected | None] = {}  # by whether it is for tiles
    times: list[tuple[Choice, Timing]] = []
    wrong: list[tuple[Choice, str]] = []
    for choice in candidates(problem):
        try:
            with select.override({problem.operation: choice}):
                tiles = correct.by_tiles(call)
                if tiles not in known:
                    known[tiles] = correct.expect(call)
                with recording() as launches:
                    result = call.run()
            expected = known[tiles]
            if expected is not None:
                expected.error(result)
            times.append((choice, timer(launches)))
        except GpucnnError as error:
            wrong.append((choice, str(error)))
    if not times:
        raise GpucnnError(f"no kernel gives a right answer for {problem.key}: {wrong[0][1]}")
    return Result(problem, times, wrong)


def store(chip: str, results: Sequence[Result], about: dict[str, str]) -> Path:
    """Stores the winners against the default choice in the chip's table, and removes former winners. Returns the path of the file."""
    entries = {
        result.problem.key: {"variant": choice.name, "slices": choice.slices, "microseconds": round(1e6 * time.median, 3)}
        if choice != result.times[0][0]
        else None
        for result in results
        for choice, time in [result.best]
    }
    return write(chip, entries, about)


def write(chip: str, entries: Mapping[str, dict[str, Any] | None], about: Mapping[str, str]) -> Path:
    """Adds entries to the chip's table, and removes those that are None. Raises OSError if it cannot be written."""
    path, text = tuned.changed(chip, entries, {"gpucnn": gpucnn.__version__, **about})
    write_atomically(path, lambda file: file.write(text.encode()))
    tuned.forget()
    return path


def on_gpu(device: Device, models: Sequence[str], batch: int, say: Say) -> tuple[list[Result], Path]:
    """Tunes for training steps of `models` on the current GPU, and writes the table. Returns (results, file)."""
    from gpucnn.profiling.measure.bench import Bench

    xp = device.xp
    results: list[Result] = []
    done: set[str] = set()
    stream = xp.cuda.Stream(non_blocking=True)
    for name in models:
        work = of_model(name, batch, device, Observer())
        xp.cuda.Device().synchronize()  # the batch and the parameters were put there on another stream
        with stream:
            timer = Bench.on(xp, stream).time_together
            results += tune(work, timer, lambda text, name=name: say(f"{name}: {text}"), done=done)  # type: ignore[misc]
    say("")
    try:
        file = store(select.current_chip().name, results, {"driver": str(xp.cuda.runtime.driverGetVersion())})
    except OSError as error:
        raise DataError(f"the table cannot be written ({error}): name another folder with {tuned.VARIABLE}") from None
    return results, file


def forget() -> Path | None:
    """Deletes the table of the current GPU. Returns the path of the file, or None if there was none."""
    file = tuned.path(select.current_chip().name)
    if file is None or not file.exists():
        return None
    file.unlink()
    tuned.forget()
    return file


def lines(results: Sequence[Result]) -> list[str]:
    """A table of results: operation and shape, default choice, fastest variant, and the gain."""
    rows = [("operation", "rules", "µs", "fastest", "µs", "gain", "shape")]
    for result in results:
        (rules, first), (best, time) = result.times[0], result.best
        gain = f"{result.gain:.2f}×" if best != rules else "–"
        cuts = result.problem.cuts
        numbers = _words(rules, cuts), f"{1e6 * first.median:.1f}", _words(best, cuts), f"{1e6 * time.median:.1f}", gain
        rows.append((result.problem.operation, *numbers, result.problem.shape))
    return aligned(rows, right=(2, 4, 5))


def _words(choice: Choice, cuts: bool) -> str:
    """`cuts`: whether all sums are cut, and not those of some tiles."""
    if choice.slices == 1:
        return choice.name
    return f"{choice.name} in {choice.slices} slices" if cuts else f"{choice.name}{CUT}"

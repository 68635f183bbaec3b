"""Tuning, with recorded times in place of a GPU: which candidates there are, what wins, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn.device import simulated
from gpucnn.ops.shapes import conv_window, pool_window
from gpucnn.profiling import tune
from gpucnn.profiling.chip import bounds, chips
from gpucnn.profiling.measure.statistics import summarize
from gpucnn.profiling.records import Timing
from gpucnn.profiling.what import correct, workload
from gpucnn.profiling.what.observe import Observer
from gpucnn_kernels.choose import problems, select, tuned
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.core.launch import Launch
from gpucnn_kernels.engine.tiles import NARROW, TILES

pytestmark = pytest.mark.skipif(simulated(), reason="the kernels are not run here")

WINDOW = conv_window((28, 28), (5, 5), 1, "same")


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv(tuned.VARIABLE, str(tmp_path))
    monkeypatch.delenv(select.VARIABLE, raising=False)
    tuned.forget()
    with select.for_chip(132, "Chip"):
        yield tmp_path
    tuned.forget()


def timing(microseconds: float, spread: float = 0.01) -> Timing:
    return summarize([microseconds * 1e-6 * (1 + spread * part / 10) for part in range(-10, 11)])


def test_candidates_are_what_can_do_it_the_rules_choice_first() -> None:
    found = tune.candidates(problems.conv2d(128, 1, 32, WINDOW))
    assert found[0].name == "direct"
    assert {choice.name for choice in found} == {"direct", "plain", *TILES, *NARROW} and len(set(found)) == len(found)
    dense = tune.candidates(problems.dense(128, 5408, 256))
    slices = {choice.slices for choice in dense if choice.name == dense[0].name}
    assert slices == {1, dense[0].slices // 2, dense[0].slices, 2 * dense[0].slices}
    assert {choice.slices for choice in tune.candidates(problems.conv2d(256, 64, 128, WINDOW))} == {1}
    chip = select.current_chip().multiprocessors
    cut = tune.candidates(problems.conv2d(8, 64, 64, WINDOW))  # few tiles: with their sums cut so that they fill the chip, and without
    assert {choice.slices for choice in cut if choice.name == "tile128x64"} == {1, chip}
    assert [tune._words(choice, False) for choice in cut if choice.slices == chip and choice.name == "tile128x64"] == ["tile128x64-cut"]


def test_a_table_from_before_is_no_candidate_of_the_rules() -> None:
    problem = problems.conv2d(128, 1, 32, WINDOW)
    tune.write("Chip", {problem.key: {"variant": "plain", "slices": 1}}, {})
    assert select.choose(problem).name == "plain" and tune.candidates(problem)[0].name == "direct"


@pytest.mark.parametrize(
    ("times", "best"),
    [
        ((10.0, 5.0), 1),
        ((10.0, 9.8), 0),  # within the noise
        ((10.0, 11.0), 0),
    ],
)
def test_what_wins_must_win_clearly(times: tuple[float, float], best: int) -> None:
    choices = select.Choice(VARIANTS["conv2d"][0]), select.Choice(VARIANTS["conv2d"][1])
    result = tune.Result(problems.conv2d(128, 1, 32, WINDOW), [(c, timing(t)) for c, t in zip(choices, times, strict=True)], [])
    assert result.best[0] == choices[best]
    assert result.gain == pytest.approx(times[0] / times[best])


def test_a_faster_but_unsteady_candidate_does_not_win() -> None:
    slow, fast = (select.Choice(VARIANTS["conv2d"][0]), timing(10)), (select.Choice(VARIANTS["conv2d"][1]), timing(9, spread=0.5))
    assert tune.Result(problems.conv2d(128, 1, 32, WINDOW), [slow, fast], []).best == slow


def run(monkeypatch: pytest.MonkeyPatch, timer: Callable[[Sequence[Launch]], Timing], errors: Any = None) -> list[tune.Result]:
    """Tunes a training step whose launches are written down and not done; `errors` stands for the check of their results."""

    class Expected:
        def error(self, result: Any) -> float:
            return errors() if errors else 0.0

    monkeypatch.setattr(correct, "expect", lambda call: Expected())
    chip = chips.find("H100")
    observer = Observer()
    with bounds.as_if_there(chip) as _:
        work = workload.of_model("keras", 128, bounds.device_of(chip), observer)
        monkeypatch.setattr(tune, "recording", lambda: bounds.recording(launching=False))
        return tune.tune(work, timer, lambda _: None, done=set())


def test_a_steps_operations_are_measured_once_each_and_written(monkeypatch: pytest.MonkeyPatch, tables: Path) -> None:
    def timer(launches: Sequence[Launch]) -> Timing:
        return timing(3 if any(item.name == "gemm" for item in launches) else 7)

    results = run(monkeypatch, timer)
    operations = [result.problem.operation for result in results]
    assert operations == [
        "conv2d_relu_max_pool2d",
        "dense",  # the first of two: the last is one kernel with its loss
        "dense_weight_grad",
        "dense_weight_grad",
        "dense_input_grad",  # the first of two, for the same reason
        "conv2d_relu_max_pool2d_weight_grad",
    ]
    file = tune.store("Chip", results, {"driver": "580"})
    entries = json.loads(file.read_text())["entries"]
    changed = [result for result in results if result.best[0] != result.times[0][0]]
    assert set(entries) == {result.problem.key for result in changed} and changed
    assert all(entry == {"variant": "plain", "slices": 1, "microseconds": 3.0} for entry in entries.values())
    assert select.choose(problems.dense(128, 5408, 256)).name == "plain"
    text = tune.lines(results)
    assert len(text) == 1 + len(results) and "2.33×" in "\n".join(text)
    # Where the rules are right again, the entry goes.
    tune.store("Chip", [tune.Result(item.problem, item.times[:1], []) for item in results], {})
    assert json.loads(file.read_text())["entries"] == {}


def test_a_wrong_answer_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(1000))

    def errors() -> float:
        if next(calls) % 2:
            raise tune.GpucnnError("a wrong result")
        return 0.0

    results = run(monkeypatch, lambda launches: timing(5), errors)
    assert all(result.wrong and result.times for result in results)


def test_no_right_answer_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def errors() -> float:
        raise tune.GpucnnError("a wrong result")

    with pytest.raises(tune.GpucnnError, match="no kernel gives a right answer for conv2d_relu_max_pool2d n128"):
        run(monkeypatch, lambda launches: timing(5), errors)


def test_problems_are_those_that_the_operations_choose_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = select.choose
    monkeypatch.setattr(select, "choose", lambda problem, variant=None: (asked.append(problem.key), real(problem, variant))[1])
    seen: list[str] = []
    chip, observer = chips.find("H100"), Observer()
    with bounds.as_if_there(chip):
        work = workload.of_model("tf2", 64, bounds.device_of(chip), observer)

        def listener(call: Any) -> Any:
            problem = tune.problem_of(call)
            before = len(asked)
            result = call.run()
            if call.op == "dense_cross_entropy":  # asks how its product would be done by itself, and then does it by no variant
                assert problem is None and asked[before:] == ["dense 64x10x128"]
                return result
            assert asked[before : before + 1] == ([problem.key] if problem else [])
            seen.extend([problem.key] if problem else [])
            return result

        with observer.listening(listener):
            work.step()
    assert len(seen) >= 9 and np.unique(seen).size >= 9
    assert pool_window((26, 26), (2, 2), (2, 2), 0, 1, False)


def test_a_gpus_table_can_be_forgotten(tables: Path) -> None:
    assert tune.forget() is None
    file = tune.write("Chip", {"a": {"variant": "plain", "slices": 1}}, {})
    assert tune.forget() == file and not file.exists() and tuned.lookup("Chip", "a") is None

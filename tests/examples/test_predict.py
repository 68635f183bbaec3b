"""What examples/predict.py keeps, and makes again; and the cells of the tables that it makes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpucnn as gc
from gpucnn.device import simulated

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A file beside the examples that they import."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name: str) -> Any:
        return __import__(name)

    return load


def run(kept: Any, path: Path, entries: dict[str, tuple[str | None, float]], *, until: float = math.inf, stale: bool = False) -> list[str]:
    """One run over entries, each with its mark and its value; returns the keys of those that were made."""
    made: list[str] = []

    def prepare(key: str) -> tuple[str | None, Callable[[], dict[str, Any]]]:
        def make() -> dict[str, Any]:
            made.append(key)
            return {"µs": entries[key][1]}

        return entries[key][0], make

    results = kept.Results(path, until, stale=stale)
    for key in entries:
        results.keep(key, lambda key=key: prepare(key))
    results.done = True
    status = results.close()
    assert status == (kept.AGAIN if results.left else 0)
    return made


def test_only_what_has_changed_is_made_again(
    module: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, path = module("kept"), tmp_path / "times.json"
    assert run(kept, path, {"a": ("1", 1.0), "b": ("1", 2.0), "c": (None, 3.0)}) == ["a", "b", "c"]
    assert run(kept, path, {"a": ("2", 9.0), "b": ("2", 9.0), "c": (None, 3.0)}) == []  # no source has changed
    monkeypatch.setattr(kept, "of_sources", lambda: "others")
    assert run(kept, path, {"a": ("1", 9.0), "b": ("2", 4.0)}, stale=True) == []
    assert "times.json: b\n" in capsys.readouterr().out
    assert run(kept, path, {"a": ("1", 9.0), "b": ("2", 4.0), "c": (None, 5.0)}) == ["b", "c"]  # one without a mark always
    monkeypatch.setattr(kept, "of_sources", lambda: "still others")
    assert run(kept, path, {"a": ("1", 9.0), "d": ("1", 6.0)}) == ["d"]
    found = json.loads(path.read_text())
    assert found["entries"] == {key: {"µs": µs, "mark": "1", "commit": found["commit"]} for key, µs in (("a", 1.0), ("d", 6.0))}


def test_a_run_that_is_ended_goes_on_with_the_next(module: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, path = module("kept"), tmp_path / "times.json"
    assert run(kept, path, {"a": ("1", 1.0), "b": ("1", 2.0)}) == ["a", "b"]
    first = json.loads(path.read_text())
    monkeypatch.setattr(kept, "of_sources", lambda: "others")
    monkeypatch.setattr(kept, "about", lambda: {**first, "commit": "another"})
    assert run(kept, path, {"a": ("2", 3.0), "b": ("2", 4.0)}, until=time.monotonic() - 1) == []
    found = json.loads(path.read_text())
    assert found["commit"] == "another" and found["entries"] == first["entries"]  # which say their own commit
    assert run(kept, path, {"a": ("2", 3.0), "b": ("1", 4.0)}) == ["a"]
    assert {each["commit"] for each in json.loads(path.read_text())["entries"].values()} == {"another"}
    path.write_text("{")
    with pytest.raises(gc.DataError, match=r"times\.json cannot be read: .*delete it"):
        run(kept, path, {})


def test_cells_say_times_gains_and_cuts(module: Callable[[str], Any]) -> None:
    predictions = module("predictions")
    slow, fast, cut, unfit = (predictions.Asked("H100", "conv", "m2", "conv2d", name) for name in ("tile*", "winograd", "", "mma*"))
    times = {
        slow.key: {"µs": 1500.0},
        fast.key: {"µs": 12.34},
        cut.key: {"µs": 100.0, "cut": ["64 of 196 into 2"]},
        unfit.key: {"µs": None},
    }
    best = predictions.Best((cut, fast))
    cells = (
        "m2",
        unfit,
        slow,
        fast,
        best,
        predictions.Gain(slow, best),
        predictions.Gain(slow, cut),
        predictions.Which(cut),
        predictions.Which(fast),
    )
    made = predictions.Table(("shape", *"abcdefgh"), 1, (cells,))
    assert made.text(times).splitlines()[1:] == [
        f"| --- |{' ---: |' * 8}",
        "| m2 | – | 1,500 | 12.3 | 12.3 | 121.56× | 15.00× | 64 of 196 into 2 | none |",
    ]
    assert set(made.asked) == {slow, fast, cut, unfit}


def test_what_is_asked_for_has_a_name_of_its_own(module: Callable[[str], Any]) -> None:
    """Every prediction of the tables: no two share a key, and each row of a table has as many cells as its head."""
    predictions = module("predictions")
    everything = list(predictions.everything())
    assert len({each.key for each in everything}) == len(everything) >= 300
    for name, make in predictions.TABLES.items():
        assert {len(row) for row in make().rows} == {len(make().head)}, name


@pytest.mark.slow
@pytest.mark.skipif(simulated(), reason="the simulator compiles nothing")
def test_a_kernel_and_a_time_are_made(example: Callable[..., Any], tmp_path: Path) -> None:
    result = example("predict", "times", "compiled", "--quick", "--output", tmp_path)
    assert result.status == 0, result.err
    for name, key in (("times", "µs"), ("compiled", "registers")):
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert next(iter(found["entries"].values()))[key] > 0
    again = example("predict", "times", "compiled", "--quick", "--output", tmp_path, "--stale")
    assert again.status == 0 and "times.json: 1 are up to date, 0 of them made now, 0 left" in again.out

"""--precision of train, evaluate and predict: who is told, what is recorded, what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import gpucnn as gc
from gpucnn import experiment
from gpucnn.experiment import options as run_options
from gpucnn.precision import note_of

pytestmark = pytest.mark.usefixtures("no_pictures")
NOTE = "note: precision high changes nothing on a CPU"


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The setting that fit, evaluate and predict ran with."""
    found: list[tuple[str, str]] = []
    for name in ("fit", "evaluate", "predict"):
        real = getattr(gc.Sequential, name)

        def listening(*arguments: Any, _name: str = name, _real: Any = real, **more: Any) -> Any:
            found.append((_name, gc.get_float32_matmul_precision()))
            return _real(*arguments, **more)

        monkeypatch.setattr(gc.Sequential, name, listening)
    return found


def test_a_run_records_it_and_is_resumed_with_it(gpucnn: Any, folder: Path, heard: Any) -> None:
    command = ("train", "--dataset", folder, "--device", "cpu", "--schedule", "constant", "--output", "run")
    begun = gpucnn(*command, "--epochs", 1, "--precision", "HIGH")
    assert begun.status == 0 and begun.out.count(NOTE) == 1, begun.err
    assert experiment.run_notes(Path("run/checkpoint.safetensors"))["options"]["precision"] == "high"
    assert "| precision | high |" in Path("run/README.md").read_text(encoding="utf-8")
    assert gpucnn(*command, "--epochs", 2, "--resume").out.count(NOTE) == 1  # the run's own, as its other options
    assert heard == [("fit", "high"), ("predict", "high")] * 2 and gc.get_float32_matmul_precision() == "highest"
    sentence = gpucnn(*command, "--resume", "--precision", "highest").sentence
    assert "it was started with --precision 'high', and this command has --precision 'highest'" in sentence
    del heard[:]
    for asked, more in (("high", ("--precision", "high")), ("highest", ())):
        for found in (
            gpucnn("evaluate", "run", "--device", "cpu", *more),
            gpucnn("predict", "run", folder / "down", "--device", "cpu", *more),
        ):
            assert found.status == 0 and (NOTE in found.out) == bool(more), found.err
        assert {setting for _, setting in heard} == {asked}
        del heard[:]


@pytest.mark.parametrize("command", [("train",), ("evaluate", "run"), ("predict", "run", "one.png")])
def test_other_words_are_refused_before_anything_is_read(gpucnn: Any, command: tuple[str, ...]) -> None:
    sentence = gpucnn(*command, "--precision", "tf32").sentence
    assert sentence == "gpucnn: precision must be one of highest, high, medium, got 'tf32'"
    assert not list(Path().iterdir())


def test_a_run_from_before_the_option_had_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    """So its other options are still compared, and it is not continued in another precision."""
    begun = experiment.Options(dataset="digits", seed=3)
    noted = {name: value for name, value in begun.noted("digits", begun.recipe).items() if name != "precision"} | {"epochs": 1}
    monkeypatch.setattr(run_options, "run_notes", lambda *_: {"options": noted})
    restored = run_options.as_begun(experiment.Options(dataset="digits"), Path("c"))
    assert (restored.precision, restored.seed) == ("highest", 3)
    with pytest.raises(gc.GpucnnError, match=re.escape("started with --precision 'highest'")):
        run_options.as_begun(experiment.Options(precision="high", given=frozenset({"precision"})), Path("c"))


def test_what_is_said_of_each_device() -> None:
    assert note_of("highest", "cpu") is note_of("highest", "cuda") is None
    assert "gpucnn tune --precision medium" in str(note_of("Medium", "cuda"))

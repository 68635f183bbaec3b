"""A run's history lies in one file, a line an epoch; a checkpoint beside that file does not repeat it, and resuming has all of it."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import files
from gpucnn.errors import CheckpointError
from gpucnn.training import callbacks, checkpoint, rows
from gpucnn.training import history as histories
from gpucnn.training.checkpoint import load_tensors, save_tensors

X, Y = np.random.default_rng(0).random((8, 4), dtype=np.float32), np.arange(8) % 2
STEPS = 2
LOG, RUN = "history.csv", "run.safetensors"


class Stop(Exception):
    """What a callback raises where a run is to be killed."""


class Killer(gc.Callback):
    """Raises after so many steps, before the checkpoint of that step, and after the log's line where an epoch ends."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, run: Any) -> None:
        if run.epoch * STEPS + run.step == self.steps:
            raise Stop

    def on_epoch_end(self, run: Any) -> None:
        if run.epoch * STEPS == self.steps:
            raise Stop


def train(folder: Path, epochs: int, *more: gc.Callback, log: str | None = LOG, resume: bool = False, every: int = 1) -> gc.History:
    model = gc.Sequential(gc.Dense(2)).build((4,), seed=1, device="cpu").compile("adam")
    logs = [] if log is None else [gc.CSVLog(folder / log)]
    return model.fit(
        X,
        Y,
        batch_size=4,
        epochs=epochs,
        verbose=False,
        seed=3,
        validation_data=(X, Y),
        callbacks=[*logs, *more, gc.Checkpoint(folder / RUN, every)],
        resume=folder / RUN if resume else None,
    )


def measured(history: gc.History) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in ("seconds", "images_per_second")} for row in history.rows]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which files a run wrote, or added to, and how many bytes."""
    found: list[tuple[str, int]] = []

    def whole(path: Any, write: Any) -> None:
        files.write_atomically(path, write)
        found.append((os.path.basename(path), os.path.getsize(path)))

    def added(path: Any, content: bytes) -> None:
        files.append(path, content)
        found.append((os.path.basename(path), len(content)))

    monkeypatch.setattr(histories, "write_atomically", whole)
    monkeypatch.setattr(callbacks, "append", added)
    monkeypatch.setattr(checkpoint, "write_atomically", whole)
    return found


def test_what_a_run_writes_grows_as_its_epochs_do(written: list[tuple[str, int]], tmp_path: Path) -> None:
    totals = []
    for epochs in (20, 40, 80):
        written.clear()
        train(tmp_path, epochs)
        totals.append(sum(size for _, size in written))
    first, second = totals[1] - totals[0], totals[2] - totals[1]
    assert second == pytest.approx(2 * first, rel=0.01)  # twice as many epochs more; the numbers have more digits or fewer
    assert len(load_tensors(tmp_path / RUN)[1]["history"]) == 1


def test_without_a_log_as_well(written: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long history goes to a file beside the checkpoint, an epoch at a time; a short one stays in it."""
    monkeypatch.setattr(callbacks, "INSIDE", 10)
    totals = []
    for epochs in (20, 40, 80):
        written.clear()
        shutil.rmtree(tmp_path, ignore_errors=True)
        history = train(tmp_path, epochs, log=None)
        totals.append(sum(size for _, size in written))
    first, second = totals[1] - totals[0], totals[2] - totals[1]
    assert second == pytest.approx(2 * first, rel=0.01)
    description = load_tensors(tmp_path / RUN)[1]
    assert len(description["history"]) == 1 and description["history file"]["rows"] == 80
    assert sorted(os.listdir(tmp_path)) == [RUN, f"{RUN}.history.csv"]
    expected = measured(history)
    again = measured(train(tmp_path, 82, log=None, resume=True))
    assert again[:80] == expected and len(again) == 82
    assert len((tmp_path / f"{RUN}.history.csv").read_text().splitlines()) == 83

    shutil.rmtree(tmp_path)
    train(tmp_path, 10, log=None)
    assert os.listdir(tmp_path) == [RUN] and len(load_tensors(tmp_path / RUN)[1]["history"]) == 10


@pytest.mark.parametrize("killed_after", [4 * STEPS, 5 * STEPS - 1, 5 * STEPS])
@pytest.mark.parametrize("every", [1, 9])
def test_a_run_without_a_log_that_is_killed_has_its_whole_history(
    killed_after: int, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "INSIDE", 2)
    expected = measured(train(tmp_path / "whole", 6, log=None, every=every))
    with pytest.raises(Stop):
        train(tmp_path, 6, Killer(killed_after), log=None, every=every)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measured(train(tmp_path, 6, log=None, resume=True, every=every)) == expected


@pytest.mark.parametrize("name", ["a" * 250, "r.safetensors"])
def test_where_no_file_can_stand_beside_a_checkpoint_it_has_the_history(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "INSIDE", 2)
    if len(name) < 250:
        (tmp_path / f"{name}.history.csv").mkdir()
    model = gc.Sequential(gc.Dense(2)).build((4,), seed=1, device="cpu").compile()
    model.fit(X, Y, batch_size=4, epochs=4, verbose=False, callbacks=[gc.Checkpoint(tmp_path / name)])
    assert len(load_tensors(tmp_path / name)[1]["history"]) == 4
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]


def test_what_others_add_to_a_long_history_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "INSIDE", 2)

    class Late(gc.Callback):
        """Before the checkpoint, and once after it."""

        def on_epoch_end(self, run: Any) -> None:
            run.history.rows[-1]["mine"] = run.epoch
            run.history.rows[0]["mine"] = 10 * run.epoch

    train(tmp_path, 5, Late(), log=None)
    assert train(tmp_path, 5, log=None, resume=True)["mine"] == [50, 2, 3, 4, 5]


def test_a_resumed_run_writes_the_history_once_and_then_adds_to_it(written: list[tuple[str, int]], tmp_path: Path) -> None:
    train(tmp_path, 40)
    largest = max(size for name, size in written if name == RUN)
    written.clear()
    train(tmp_path, 42, resume=True)
    assert max(size for name, size in written if name == RUN) <= largest + 16
    assert sum(size for name, size in written if name == LOG) == os.path.getsize(tmp_path / LOG)


@pytest.mark.parametrize("killed_after", range(1, 5 * STEPS))
@pytest.mark.parametrize("every", [1, 9])
def test_a_run_killed_after_any_step_has_its_whole_history(killed_after: int, every: int, tmp_path: Path) -> None:
    expected = measured(train(tmp_path, 5, every=every))
    whole = (tmp_path / LOG).read_text().splitlines()
    shutil.rmtree(tmp_path)
    with pytest.raises(Stop):
        train(tmp_path, 5, Killer(killed_after), every=every)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = train(tmp_path, 5, resume=True, every=every)
    assert measured(history) == expected
    assert [type(row["epoch"]) for row in history.rows] == [int] * 5
    assert len((tmp_path / LOG).read_text().splitlines()) == len(whole) == 6
    assert sorted(os.listdir(tmp_path)) == [LOG, RUN]


def test_a_folder_is_resumed_wherever_it_was_moved(tmp_path: Path) -> None:
    expected = measured(train(tmp_path / "there", 4))
    train(tmp_path / "one", 2)
    (tmp_path / "one").rename(tmp_path / "two")
    assert measured(train(tmp_path / "two", 4, resume=True)) == expected


@pytest.mark.parametrize("log", [None, "elsewhere/history.csv"])
def test_without_a_log_beside_it_the_checkpoint_has_the_history(log: str | None, tmp_path: Path) -> None:
    expected = measured(train(tmp_path, 4, log=log))
    train(tmp_path, 2, log=log)
    description = load_tensors(tmp_path / RUN)[1]
    assert len(description["history"]) == 2 and "history file" not in description
    shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
    assert measured(train(tmp_path, 4, log=log, resume=True)) == expected
    assert measured(train(tmp_path, 6, resume=True))[:4] == expected  # and a log that comes later


def test_without_a_log_any_more_the_history_is_in_the_checkpoint_again(tmp_path: Path) -> None:
    expected = measured(train(tmp_path, 4))
    train(tmp_path, 2)
    assert measured(train(tmp_path, 4, log=None, resume=True)) == expected
    (tmp_path / LOG).unlink()
    assert measured(train(tmp_path, 4, log=None, resume=True)) == expected


def test_what_others_add_to_the_history_is_kept(tmp_path: Path) -> None:
    class Late(gc.Callback):
        """After the log's line."""

        def __init__(self, value: Any) -> None:
            self.value = value

        def on_epoch_end(self, run: Any) -> None:
            run.history.rows[-1]["mine"] = self.value * run.epoch

    for value in (0.5, "a"):
        train(tmp_path, 2, Late(value))
        assert train(tmp_path, 2, resume=True)["mine"] == [value, 2 * value]


def test_a_checkpoint_of_an_older_version_has_its_history_in_it(tmp_path: Path) -> None:
    expected = measured(train(tmp_path, 4))
    history = train(tmp_path, 2)
    tensors, description = load_tensors(tmp_path / RUN)
    del description["history file"]
    save_tensors(tmp_path / RUN, tensors, description | {"history": history.rows})
    (tmp_path / LOG).unlink()
    assert measured(train(tmp_path, 4, resume=True)) == expected


def spoil(path: Path, how: str) -> None:
    text = path.read_text()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how == "a pipe":
        os.mkfifo(path)
    elif how != "gone":
        header, first, second, *rest = text.splitlines()
        changed = {
            "cut": [header, first],
            "another run": [header, first, second.replace("0.", "1."), *rest],
            "more columns": [header, f"{first},7,8", second, *rest],
            "no numbers": [header, first, second.replace(",", ",x"), *rest],
            "no text": ["\udcff"],
            "empty": [],
        }[how]
        path.write_text("\n".join(changed), errors="surrogateescape")


@pytest.mark.parametrize("how", ["gone", "a folder", "a pipe", "cut", "another run", "more columns", "no numbers", "no text", "empty"])
def test_a_history_that_cannot_be_used_is_said_and_the_run_goes_on(how: str, tmp_path: Path) -> None:
    expected = measured(train(tmp_path, 4))
    train(tmp_path, 3)
    spoil(tmp_path / LOG, how)
    with pytest.warns(UserWarning, match=r"without its first epochs: .*history\.csv, which contains them, cannot be used: "):
        history = train(tmp_path, 4, resume=True, log="other.csv")
    assert measured(history) == expected[2:]
    assert len(history["seconds"]) == 2


@pytest.mark.parametrize(
    "place",
    [
        {"name": "../history.csv", "rows": 2, "checksum": 1},
        {"name": "/etc/passwd", "rows": 2, "checksum": 1},
        {"name": "", "rows": 2, "checksum": 1},
        {"name": "..", "rows": 2, "checksum": 1},
        {"name": 3, "rows": 2, "checksum": 1},
        {"name": LOG, "rows": -1, "checksum": 1},
        {"name": LOG, "rows": 1.5, "checksum": 1},
        {"name": LOG},
        "history.csv",
        [],
    ],
)
def test_a_checkpoint_that_names_no_file_beside_it_is_refused(place: Any, tmp_path: Path) -> None:
    train(tmp_path, 2)
    tensors, description = load_tensors(tmp_path / RUN)
    save_tensors(tmp_path / RUN, tensors, description | {"history file": place})
    with pytest.raises(CheckpointError, match="is not a checkpoint of a run"):
        train(tmp_path, 3, resume=True)


def test_a_row_comes_back_from_its_line_to_the_bit(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 1e-320, -0.0, 1e300, 2**53 + 1.0, math.inf, -math.inf, 5, -3, 0]
    given = [{"epoch": 1, "a": value} for value in values] + [{"epoch": 2, 'b,"': np.float64(0.7)}]
    columns = ["epoch", "a", 'b,"']
    (tmp_path / LOG).write_text(rows.lines(columns, given, header=True))
    place = {"name": LOG, "rows": len(given), "checksum": rows.checksum(given)}
    back = rows.found(tmp_path / RUN, {"history": given[-1:], "history file": place})
    assert [{name: repr(float(value)) for name, value in row.items()} for row in back] == [
        {name: repr(float(value)) for name, value in row.items()} for row in given
    ]
    assert rows.checksum(given[4:], rows.checksum(given[:4])) == place["checksum"]


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "a\u202eb", "=1+1"])
def test_a_name_that_is_no_plain_text_is_written_with_escapes_and_comes_back_from_the_checkpoint(name: str, tmp_path: Path) -> None:
    class Own(gc.Callback):
        def on_epoch_end(self, run: Any) -> None:
            run.history.rows[-1][name] = run.epoch

    def run(epochs: int, resume: bool = False) -> gc.History:
        model = gc.Sequential(gc.Dense(2)).build((4,), seed=1, device="cpu").compile()
        callbacks = [Own(), gc.CSVLog(tmp_path / LOG), gc.Checkpoint(tmp_path / RUN)]
        return model.fit(X, Y, epochs=epochs, verbose=False, callbacks=callbacks, resume=tmp_path / RUN if resume else None)

    history = run(2)
    assert run(3, resume=True)[name] == [1, 2, 3]
    text = (tmp_path / LOG).read_text()
    header = text.splitlines()[0].split(",")
    assert len(text.splitlines()) == 4 and header[-1] == {"a\x1b[2Jb": r"a\x1b[2Jb", "a\nb": r"a\nb", "a\u202eb": r"a\u202eb"}.get(
        name, "'=1+1"
    )
    for shown in (text.replace("\n", ""), repr(history), history._repr_html_().replace("\n", "")):
        assert shown.isprintable()


class Each(gc.Callback):
    """Writes down what each step's batch lost."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.steps: list[int] = []

    def on_step_end(self, run: Any) -> None:
        self.losses.append(run.batch_loss)
        self.steps.append(run.step)


def test_every_step_is_told_with_its_own_loss() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((22, 5), np.float32), rng.integers(0, 3, 22)
    each, model = Each(), gc.Sequential(gc.Dense(3)).build((5,), device="cpu").compile(gc.SGD(0.1))
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, validation_data=(x, y), callbacks=[each], verbose=False)
    assert each.steps == [1, 2, 3] * 2
    other = gc.Sequential(gc.Dense(3)).build((5,), device="cpu").compile(gc.SGD(0.1))
    expected = []
    for start in (0, 8, 16, 0, 8, 16):
        part = slice(start, start + 8)
        loss, doutputs = gc.functional.softmax_cross_entropy(other.forward(x[part], training=True), y[part])
        expected.append(float(loss))
        assert other.optimizer is not None
        other.optimizer.zero_grad()
        other.backward(doutputs)
        other.optimizer.step()
    np.testing.assert_allclose(each.losses, expected, rtol=1e-5)
    weights = np.array([8, 8, 6])
    np.testing.assert_allclose([np.dot(each.losses[:3], weights) / 22, np.dot(each.losses[3:], weights) / 22], history["loss"], rtol=1e-6)

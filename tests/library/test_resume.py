"""A run that was stopped and resumed ends in the same bits as one that never was, and checkpoints of other runs are refused."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import ArgumentError, CheckpointError, TrainingError
from gpucnn.metrics import METRICS
from gpucnn.training.alike import difference
from gpucnn.training.checkpoint import load_tensors, save_tensors

RNG = np.random.default_rng(0)
X, Y = RNG.random((44, 1, 6, 6), dtype=np.float32), RNG.integers(0, 3, 44)
XV, YV = RNG.random((12, 1, 6, 6), dtype=np.float32), RNG.integers(0, 3, 12)
EPOCHS, BATCH, STEPS = 3, 8, 6  # six steps an epoch, the last of them with four examples
TIMING = ("seconds", "images_per_second")

OPTIMIZERS: dict[str, Callable[[], gc.Optimizer]] = {
    "adam": lambda: gc.Adam(gc.OneCycle(0.02, EPOCHS * STEPS)),
    "sgd": lambda: gc.SGD(gc.OneCycle(0.1, EPOCHS * STEPS), momentum=0.9, nesterov=True),
}


class Stop(Exception):
    """What a callback raises where a run is to be killed."""


class Killer(gc.Callback):
    """Raises after `steps` steps in all, or at the end of an epoch that ends with them; before or after the checkpoint is written."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, run: Any) -> None:
        if run.epoch * STEPS + run.step == self.steps:
            raise Stop

    def on_epoch_end(self, run: Any) -> None:
        if run.epoch * STEPS == self.steps:
            raise Stop


def build(optimizer: str = "adam") -> gc.Sequential:
    model = gc.Sequential(
        gc.Conv2D(3, 3, activation="relu"), gc.Dropout(0.2), gc.MaxPool2D(2), gc.Flatten(), gc.Dropout(0.4), gc.Dense(3)
    ).build((1, 6, 6), seed=7, device="cpu")
    return model.compile(OPTIMIZERS[optimizer]())


def train(model: gc.Sequential, callbacks: list[gc.Callback], resume: Path | None = None, epochs: int = EPOCHS, **other: Any) -> gc.History:
    options: dict[str, Any] = {"augment": gc.data.augmentation("shift"), "validation_data": (XV, YV), "seed": 5, "batch_size": BATCH}
    x, y = other.pop("x", X), other.pop("y", Y)
    return model.fit(x, y, epochs=epochs, callbacks=callbacks, resume=resume, verbose=False, **options | other)


def bits(model: gc.Sequential) -> tuple[Any, ...]:
    assert model.optimizer is not None
    state = {name: array.tobytes() for name, array in model.optimizer.state.items()}
    return model.buffers.values.tobytes(), state, model.optimizer.steps, model.state()


def rows(history: gc.History) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMING} for row in history.rows]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What runs that nobody stopped end with."""
    ends = {}
    for name in OPTIMIZERS:
        model = build(name)
        path = tmp_path_factory.mktemp("unbroken") / "run.safetensors"
        history = train(model, [gc.Checkpoint(path, every=1)])
        ends[name] = bits(model), rows(history), path.read_bytes()
    return ends


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("killed_after", range(1, EPOCHS * STEPS + 1))
@pytest.mark.parametrize("every", [1, 4])
def test_a_run_stopped_after_any_step_ends_in_the_same_bits(
    every: int, killed_after: int, optimizer: str, unbroken: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        train(build(optimizer), [Killer(killed_after), gc.Checkpoint(path, every=every)])
    model = build(optimizer)
    history = train(model, [gc.Checkpoint(path, every=every)], resume=path)
    assert bits(model) == unbroken[optimizer][0]
    assert rows(history) == unbroken[optimizer][1]
    assert os.listdir(tmp_path) == ["run.safetensors"]


def test_a_run_stopped_again_and_again_ends_in_the_same_bits(unbroken: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    for steps in range(2, EPOCHS * STEPS, 3):
        with pytest.raises(Stop):
            train(build(), [gc.Checkpoint(path, every=1), Killer(steps)], resume=path)
    model = build()
    history = train(model, [gc.Checkpoint(path, every=1)], resume=path)
    assert bits(model) == unbroken["adam"][0]
    assert rows(history) == unbroken["adam"][1]


def test_checkpoints_are_there_after_every_so_many_steps_and_every_epoch(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    written = []

    class Watch(gc.Checkpoint):
        def on_step_end(self, run: Any) -> None:
            super().on_step_end(run)
            if path.exists():
                counters = load_tensors(path)[1]["run"]
                written.append((counters["epoch"], counters["step"]))

    train(build(), [Watch(path, every=4)], epochs=2)
    assert written == [(0, 4), (0, 4), (1, 0), (1, 0), (1, 0), (1, 4), (1, 4)]
    assert load_tensors(path)[1]["run"]["finished"] is True


def test_resuming_a_finished_run_trains_nothing_and_gives_its_history(unbroken: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    path.write_bytes(unbroken["adam"][2])

    class Never(gc.Callback):
        def on_step_end(self, run: Any) -> None:
            raise AssertionError("a finished run took a step")

        on_epoch_end = on_train_begin = on_step_end

    model = build()
    history = train(model, [Never(), gc.Checkpoint(path)], resume=path)
    assert bits(model) == unbroken["adam"][0]
    assert rows(history) == unbroken["adam"][1]
    assert path.read_bytes() == unbroken["adam"][2]


def test_more_epochs_go_on_where_fewer_ended(unbroken: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    train(build(), [gc.Checkpoint(path)], epochs=1)
    model = build()
    assert rows(train(model, [gc.Checkpoint(path)], resume=path)) == unbroken["adam"][1]
    assert bits(model) == unbroken["adam"][0]


def test_a_checkpoint_that_is_not_there_yet_is_a_fresh_start(unbroken: dict[str, Any], tmp_path: Path) -> None:
    model = build()
    train(model, [gc.Checkpoint(tmp_path / "run.safetensors")], resume=tmp_path / "run.safetensors")
    assert bits(model) == unbroken["adam"][0]


def test_a_resumed_run_ignores_what_the_model_was_trained_for_before(unbroken: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        train(build(), [Killer(7), gc.Checkpoint(path, every=1)])
    model = build()
    train(model, [], epochs=1)
    model.compile(OPTIMIZERS["adam"]())
    train(model, [gc.Checkpoint(path)], resume=path)
    assert bits(model) == unbroken["adam"][0]


# Early stopping.


def stopping(**options: Any) -> gc.EarlyStopping:
    return gc.EarlyStopping(**{"monitor": "val_loss", "patience": 2} | options)


def long_run(callbacks: list[gc.Callback], resume: Path | None = None, epochs: int = 12) -> tuple[gc.Sequential, gc.History]:
    """Random labels and a large learning rate: the validation loss soon rises."""
    model = build().compile(gc.SGD(0.5, momentum=0.8))
    return model, train(model, callbacks, resume=resume, epochs=epochs)


def test_early_stopping_ends_after_its_patience_with_the_best_parameters(tmp_path: Path) -> None:
    model, history = long_run([stopping()])
    losses = history["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 12
    assert model.evaluate(XV, YV)[0] == pytest.approx(losses[best], rel=1e-12)
    kept, same = long_run([stopping(restore_best=False)])
    assert rows(same) == rows(history)
    assert kept.evaluate(XV, YV)[0] == pytest.approx(losses[-1], rel=1e-12)
    assert losses[-1] > losses[best]


@pytest.mark.parametrize("checkpoint_first", [True, False])
def test_early_stopping_resumes_to_the_same_end_after_any_epoch(checkpoint_first: bool, tmp_path: Path) -> None:
    expected, history = long_run([stopping()])
    for epoch in range(1, len(history.rows) + 1):
        path = tmp_path / f"{epoch}.safetensors"

        class Late(gc.Checkpoint):
            """Killed right after the checkpoint of an epoch is written."""

            def on_epoch_end(self, run: Any, epoch: int = epoch) -> None:
                super().on_epoch_end(run)
                if run.epoch == epoch:
                    raise Stop

        with pytest.raises(Stop):
            long_run([Late(path), stopping()] if checkpoint_first else [stopping(), Late(path)])
        model, resumed = long_run([gc.Checkpoint(path), stopping()], resume=path)
        assert bits(model) == bits(expected)
        assert rows(resumed) == rows(history)


def test_a_run_killed_before_its_very_end_is_ended_by_resuming(tmp_path: Path) -> None:
    # All epochs are done and in the checkpoint, but the best parameters were not yet put in place.
    path = tmp_path / "run.safetensors"

    class Early(gc.Callback):
        def on_train_end(self, run: Any) -> None:
            raise Stop

    with pytest.raises(Stop):
        long_run([Early(), stopping(patience=9), gc.Checkpoint(path)], epochs=3)
    expected, history = long_run([stopping(patience=9)], epochs=3)
    model, resumed = long_run([stopping(patience=9), gc.Checkpoint(path)], resume=path, epochs=3)
    assert bits(model) == bits(expected)
    assert rows(resumed) == rows(history)
    assert load_tensors(path)[1]["run"]["finished"] is True


def test_a_longer_run_goes_on_from_the_last_parameters_not_from_the_best(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    expected, history = long_run([stopping(patience=9)], epochs=6)
    _short, _ = long_run([stopping(patience=9), gc.Checkpoint(path)], epochs=4)
    assert int(np.argmin(history["val_loss"][:4])) != 3  # otherwise best and last are the same, and nothing is tested
    model, resumed = long_run([stopping(patience=9), gc.Checkpoint(path)], resume=path, epochs=6)
    assert rows(resumed) == rows(history)
    assert bits(model) == bits(expected)


def test_early_stopping_may_watch_any_measure_but_only_one_that_is_there() -> None:
    _, history = long_run([stopping(monitor="val_accuracy", patience=1)])
    scores = history["val_accuracy"]
    assert len(scores) < 12
    assert scores[-1] <= max(scores[:-1])
    with pytest.raises(ValueError, match=r"unknown quantity to monitor 'val_acuracy'.*did you mean 'val_accuracy'"):
        gc.EarlyStopping("val_acuracy")
    with pytest.raises(ValueError, match="early stopping monitors 'val_loss', which this run does not have"):
        train(build(), [stopping()], validation_data=None)
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        gc.EarlyStopping(patience=0)


@pytest.mark.parametrize(
    ("given", "monitor"),
    [("acc", "accuracy"), ("val_acc", "val_accuracy"), ("val_binary_accuracy", "val_accuracy"), ("val_loss", "val_loss")],
)
def test_a_measure_may_have_its_second_name(given: str, monitor: str) -> None:
    stopping = gc.EarlyStopping(given, patience=1)
    assert stopping.monitor == monitor and stopping.sign == (1 if monitor == "val_loss" else -1)
    model = build()
    assert len(train(model, [stopping], epochs=1)["loss"]) == 1 and stopping.best is not None
    for wrong in ("val_val_loss", "val_", "accc", 3, None):
        with pytest.raises(gc.UnknownNameError, match="unknown quantity to monitor"):
            gc.EarlyStopping(wrong)  # type: ignore[arg-type]


def test_improvements_within_min_delta_do_not_count() -> None:
    _, history = long_run([stopping(min_delta=1e9, patience=3)])
    assert len(history.rows) == 4


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_mode_is_that_of_keras(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if "keras" not in sys.modules:
        monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("torch", reason="Keras has no backend here: PyTorch is not installed")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    monkeypatch.setitem(METRICS, "errors", lambda scores, labels: 0.0)
    model, rng = build(), np.random.default_rng(1)
    for patience, delta, first in itertools.product((1, 2, 3), (0.0, 0.3), (0.0, -5.0, 5.0)):
        theirs = keras.callbacks.EarlyStopping("val_errors", delta, patience, mode=mode)
        theirs.set_model(watched := types.SimpleNamespace(stop_training=False))
        own = stopping(monitor="val_errors", mode=mode, patience=patience, min_delta=delta)
        run = gc.training.callbacks.Run(model, model.optimizer, 1, 99, metrics=["errors"], validated=True)
        theirs.on_train_begin()
        own.on_train_begin(run)
        for epoch, value in enumerate([first, *rng.normal(first, 1, 8).tolist(), float("nan"), *rng.normal(first, 1, 8).tolist()]):
            run.history.rows.append({"val_errors": value})
            theirs.on_epoch_end(epoch, {"val_errors": value})
            own.on_epoch_end(run)
            assert (own.waited, run.stop) == (theirs.wait, watched.stop_training), (epoch, patience, delta)
            if run.stop:
                break
        assert run.stop and own.best is not None and own.best * own.sign == theirs.best


def test_the_mode_decides_which_parameters_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with the fewest errors, where more of a metric is worse; by default more of it is better."""
    monkeypatch.setitem(METRICS, "errors", lambda scores, labels: 1 - gc.metrics.accuracy(scores, labels))
    ends = {}
    for mode in ("min", "max", "auto"):
        model = build().compile(gc.SGD(0.5, momentum=0.8), metrics=["errors"])
        history = train(model, [stopping(monitor="val_errors", mode=mode, patience=99)], epochs=12)
        ends[mode] = model.evaluate(XV, YV)[1]
    errors = history["val_errors"]
    assert min(errors) < max(errors)
    assert (ends["min"], ends["max"], ends["auto"]) == (min(errors), max(errors), max(errors))
    assert stopping(monitor="val_accuracy").sign == stopping(monitor="val_loss", mode="max").sign == -stopping().sign
    for mode in ("MIN", "lowest", None, True, 1):
        with pytest.raises(ValueError, match=r"unknown mode .*: there are auto, min, max"):
            stopping(mode=mode)


@pytest.mark.parametrize("other", [{"monitor": "val_accuracy"}, {"mode": "max"}])
def test_a_run_is_not_resumed_to_look_for_something_else(other: dict[str, Any], tmp_path: Path) -> None:
    """The best value so far would be one of another quantity, which none of this one's may ever be better than."""
    path = tmp_path / "run.safetensors"
    train(build(), [stopping(), gc.Checkpoint(path)], epochs=1)
    model = build()
    before, sought = bits(model), "the highest val_(accuracy|loss)"
    with pytest.raises(CheckpointError, match=f"looked for the lowest val_loss in the run of the checkpoint, and looks for {sought} now"):
        train(model, [stopping(**other), gc.Checkpoint(path)], resume=path)
    assert bits(model) == before
    train(model, [stopping(mode="min", patience=3), gc.Checkpoint(path)], resume=path)  # the same, told otherwise


def test_a_measure_of_nan_is_never_the_best() -> None:
    callback = stopping()
    model = build()
    run = gc.training.callbacks.Run(model, model.optimizer, 1, 9, validated=True)
    callback.on_train_begin(run)
    for loss, waited in ((float("nan"), 1), (2.0, 0), (float("nan"), 1)):
        run.history.rows.append({"val_loss": loss})
        callback.on_epoch_end(run)
        assert callback.waited == waited
    assert callback.best == 2.0


@pytest.mark.parametrize("epoch", [2, 4])
def test_two_of_them_keep_apart_what_they_remember(epoch: int, tmp_path: Path) -> None:
    """In a checkpoint, and at the end of a run that is continued: from the last parameters, not from what the first took for the best."""

    def both() -> list[gc.Callback]:
        return [stopping(patience=9), stopping(monitor="val_accuracy", patience=9)]

    path = tmp_path / "run.safetensors"
    watches, again = both(), both()
    expected, history = long_run(watches, epochs=6)
    long_run([*both(), gc.Checkpoint(path)], epochs=epoch)
    assert int(np.argmin(history["val_loss"][:epoch])) != epoch - 1  # otherwise best and last are the same, and nothing is tested
    model, resumed = long_run([*again, gc.Checkpoint(path)], resume=path, epochs=6)
    assert rows(resumed) == rows(history)
    assert [watch.state() for watch in again] == [watch.state() for watch in watches]
    assert bits(model) == bits(expected)


@pytest.mark.parametrize(
    "names", [["parameters"], ["arrays"], ["optimizer"], ["optimizer.mean"], ["own", "own.mean"], ["own", "own", "own_2"]]
)
def test_a_name_that_mixes_up_a_checkpoint_is_refused_before_the_first_step(names: list[str], tmp_path: Path) -> None:
    """The arrays of a callback called "optimizer" would take the place of the optimizer's."""
    callbacks: list[gc.Callback] = []
    for name in names:
        callbacks.append(gc.Callback())
        callbacks[-1].name = name
    model = build()
    before = model.buffers.values.copy()
    with pytest.raises(
        gc.ArgumentError, match=f"^a Callback cannot have the name '{names[-1]}' beside '[a-z_2]+' in one checkpoint: choose another name$"
    ):
        model.fit(X, Y, callbacks=[*callbacks, gc.Checkpoint(tmp_path / "run.safetensors")], verbose=False)
    np.testing.assert_array_equal(model.buffers.values, before)
    model.fit(X, Y, callbacks=callbacks, verbose=False)  # without a checkpoint a name is only a name


def test_one_early_stopping_can_serve_two_runs_after_each_other() -> None:
    callback = stopping()
    _, first = long_run([callback])
    _, second = long_run([callback])
    assert rows(first) == rows(second)


def test_one_that_resumes_a_run_without_it_remembers_no_other_run(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    train(build(), [gc.Checkpoint(path)], epochs=2)
    content = path.read_bytes()
    fresh, used = stopping(patience=2), stopping(patience=2)
    long_run([used])  # ends with a best value and parameters of its own, and with no patience left
    ends = []
    for callback in (fresh, used):
        path.write_bytes(content)
        model = build()
        history = train(model, [callback], resume=path, epochs=8)
        ends.append((rows(history), callback.state(), bits(model)))
    assert ends[0] == ends[1]


# Checkpoints that are refused.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Killed in the second epoch, with everything that a checkpoint can hold."""
    path = tmp_path_factory.mktemp("checkpoint") / "run.safetensors"
    with pytest.raises(Stop):
        train(build(), [stopping(), Killer(9), gc.Checkpoint(path, every=1)])
    return path.read_bytes()


def refuse(path: Path, match: str = ".", model: gc.Sequential | None = None, **other: Any) -> None:
    """Resuming raises CheckpointError, never another exception, and leaves the model as it was."""
    model = model or build()
    before = bits(model)
    content = path.read_bytes() if path.is_file() else None
    with pytest.raises(CheckpointError, match=match) as caught:
        train(model, [stopping(), gc.Checkpoint(path)], resume=path, **other)
    assert str(path) in str(caught.value) or "early stopping kept" in str(caught.value)
    assert bits(model) == before
    assert content is None or path.read_bytes() == content


def other_model(**change: Any) -> gc.Sequential:
    layers = [gc.Conv2D(3, 3, activation="relu"), gc.Dropout(0.2), gc.MaxPool2D(2), gc.Flatten(), gc.Dropout(0.4), gc.Dense(3)]
    layers[1] = gc.Dropout(change.get("rate", 0.2))
    model = gc.Sequential(layers).build((1, 6, 6), seed=change.get("seed", 7), device="cpu", dtype=change.get("dtype", "float32"))
    return model.compile(change.get("optimizer") or OPTIMIZERS["adam"](), change.get("loss", "categorical_crossentropy"))


@pytest.mark.parametrize(
    ("field", "model", "other"),
    [
        (r"layers differ \(layer \d\.rate is 0\.\d+ there and 0\.3 here\)", lambda: other_model(rate=0.3), {}),
        (r"seed differs \(the model's is \d+ there and 8 here\)", lambda: other_model(seed=8), {}),
        (r"seed differs \(the one given to fit is \d+ there and 6 here\)", build, {"seed": 6}),
        ("dtype differs", lambda: other_model(dtype="float64"), {}),
        ("loss differs", lambda: other_model(loss="mean_squared_error"), {}),
        ("optimizer differs", lambda: build("sgd"), {}),
        ("optimizer differs", lambda: other_model(optimizer=gc.Adam(gc.OneCycle(0.02, 99))), {}),
        ("batch size differs", build, {"batch_size": 9}),
        ("shuffling differs", build, {"shuffle": False}),
        ("augmentation differs", build, {"augment": None}),
        ("augmentation differs", build, {"augment": gc.data.Shift(1)}),
        ("augmentation differs", build, {"augment": lambda x, rng: x}),
        (r"training data differs \(the number of examples is \d+ there and \d+ here\)", build, {"x": X[:-1], "y": Y[:-1]}),
        (r"training data differs \(the checksum of the examples is ", build, {"x": X[::-1]}),
        (r"training data differs \(the checksum of the labels is ", build, {"y": Y[::-1]}),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused_and_says_what_differs(
    field: str, model: Any, other: dict[str, Any], checkpoint: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "run.safetensors"
    path.write_bytes(checkpoint)
    refuse(path, f"is a checkpoint of another run: its {field}", model(), **other)


@pytest.mark.parametrize(
    ("name", "there", "here", "words"),
    [
        ("layers", [{"rate": 1, "pads": [1, 2]}], [{"rate": 1, "pads": [1, 3]}], "layer 1.pads[1] is 2 there and 3 here"),
        ("layers", [{"rate": None}], [{}], "layer 1 is {'rate': None} there and {} here"),
        ("optimizer", {"rate": {"first": 1}}, {"rate": {"first": 2}}, "rate.first is 1 there and 2 here"),
        ("training data", [1, 2, 3], ["batches from outside", 2], "which is [1, 2, 3] there and ['batches from outside', 2] here"),
        ("layers", [{}] * 2, [{}] * 3, "which is [{}, {}] there and [{}, {}, {}] here"),
        ("layers", [{"name": "x" * 90}] * 2, [{"name": "x" * 90}] * 3, "which has 2 layers there and 3 here"),
        ("optimizer", {"a": [1] * 99}, {"a": [1] * 98}, "a has 99 parts there and 98 here"),
        ("input shape", [7], [8], "number 1 of them is 7 there and 8 here"),
    ],
)
def test_the_first_difference_is_named(name: str, there: Any, here: Any, words: str) -> None:
    assert difference(name, there, here) == words


def test_a_checkpoint_for_images_of_another_size_is_refused(checkpoint: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    path.write_bytes(checkpoint)
    model = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 5, 5), device="cpu").compile("adam")
    with pytest.raises(CheckpointError, match="its input shape differs"):
        model.fit(X[:, :, 1:, 1:], Y, resume=path, verbose=False)


def test_a_checkpoint_cut_short_anywhere_is_refused(checkpoint: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    for length in range(0, len(checkpoint), 97):
        path.write_bytes(checkpoint[:length])
        refuse(path, "is not a safetensors file, or was cut short")


def test_random_bytes_and_model_files_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    rng = np.random.default_rng(0)
    for length in (1, 8, 100, 5000):
        path.write_bytes(rng.bytes(length))
        refuse(path)
    build().save(path)
    refuse(path, r"is not a checkpoint of a run .*: is it a model file\?")
    refuse(tmp_path, "is a folder")


@pytest.mark.parametrize("folder", [".", "..", "folder"])
def test_a_folder_is_no_place_for_a_checkpoint(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    model = build()
    for callback in (gc.Checkpoint(folder), gc.CSVLog(folder)):
        kind = type(callback).__name__
        with pytest.raises(
            ArgumentError, match=rf"{kind}\('{re.escape(folder)}'\) cannot write its file, it is a folder: name a file in it"
        ):
            train(model, [callback])
    assert model.epochs_begun == 0 and os.listdir() == ["folder"]


def test_where_no_file_can_be_written_is_said_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    closed = tmp_path / "closed"
    closed.mkdir()
    model, access = build(), os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and access(path, mode))  # permissions do not bind root
    for path, why in (
        ("file/a/b", "file is not a folder: name another place"),
        ("x" * 300, "name too long: name another"),
        (closed / "new" / "a", "no file can be made in .*closed: change its permissions"),
    ):
        for kind in (gc.Checkpoint, gc.CSVLog):
            with pytest.raises(ArgumentError, match=f"{kind.__name__}.* cannot write its file, .*{why}"):
                train(model, [kind(path)])
    assert model.epochs_begun == 0 and sorted(os.listdir()) == ["closed", "file"]
    train(model, [gc.Checkpoint("new/folder/run.safetensors")])


@pytest.mark.parametrize(
    ("notes", "words"), [({"a": [object()]}, "notes.a.0. is <object"), ({1: 2}, "notes has the key 1"), (5, "notes must be a dict, got 5")]
)
def test_notes_that_no_file_can_hold_are_refused_before_the_run(notes: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=words):
        gc.Checkpoint(tmp_path / "run", notes=notes)


def test_a_log_has_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for callbacks in ([gc.CSVLog(path), gc.Checkpoint(path)], [gc.CSVLog(path), gc.CSVLog(tmp_path / "." / "run")]):
        with pytest.raises(ArgumentError, match=r"CSVLog and .* both write .*run: name another file for one of them"):
            train(build(), callbacks)
    train(build(), [gc.Checkpoint(path), gc.Checkpoint(path, every=1)])


def test_a_checkpoint_is_no_model_file(checkpoint: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    path.write_bytes(checkpoint)
    with pytest.raises(CheckpointError, match="is a checkpoint of a run, not a model"):
        gc.load(path, device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, text: tensors.pop("parameters.dense_1.bias"),
        lambda tensors, text: tensors.pop("optimizer.variance"),
        lambda tensors, text: tensors.update({"parameters.dense_1.bias": np.zeros(4, np.float32)}),
        lambda tensors, text: tensors.update({"optimizer.mean": np.zeros(3, np.float32)}),
        lambda tensors, text: tensors.update({"optimizer.mean": tensors["optimizer.mean"].astype(np.float64)}),
        lambda tensors, text: text.pop("recipe"),
        lambda tensors, text: text["recipe"].pop("batch size"),
        lambda tensors, text: text.update(recipe=None),
        lambda tensors, text: text.pop("run"),
        lambda tensors, text: text["run"].pop("step"),
        lambda tensors, text: text["run"].update(epoch="one"),
        lambda tensors, text: text["run"].update(epoch=-1),
        lambda tensors, text: text["run"].update(step=1.5),
        lambda tensors, text: text["run"].update(step=1000),
        lambda tensors, text: text["run"].update(loss_sum=None),
        lambda tensors, text: text["run"].update(stop="no"),
        lambda tensors, text: text.pop("optimizer steps"),
        lambda tensors, text: text.update({"optimizer steps": "many"}),
        lambda tensors, text: text.update(history=None),
        lambda tensors, text: text.update(history=[3]),
        lambda tensors, text: text.pop("model state"),
        lambda tensors, text: text["model state"].pop("dropout_1"),
        lambda tensors, text: text["model state"].update(dropout_1={}),
        lambda tensors, text: text["model state"].update(dropout_1={"calls": "x"}),
        lambda tensors, text: text.update({"model state": []}),
        lambda tensors, text: text.pop("callbacks"),
        lambda tensors, text: text["callbacks"].update(early_stopping={}),
        lambda tensors, text: text["callbacks"].update(early_stopping={"best": "x", "waited": 0}),
    ],
)
def test_a_checkpoint_that_lacks_anything_is_refused_and_changes_nothing(change: Any, checkpoint: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    path.write_bytes(checkpoint)
    tensors, description = load_tensors(path)
    change(tensors, description)
    save_tensors(path, tensors, description)
    refuse(path)


def test_kept_parameters_of_another_size_are_refused(checkpoint: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    path.write_bytes(checkpoint)
    tensors, description = load_tensors(path)
    tensors["early_stopping.parameters"] = np.zeros(3, np.float32)
    save_tensors(path, tensors, description)
    with pytest.raises(CheckpointError, match=r"early stopping kept have shape \(3,\)"):
        train(build(), [stopping()], resume=path)


def test_a_function_of_ones_own_may_augment_and_resume(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"

    def noise(x: Any, rng: np.random.Generator) -> Any:
        return x + rng.normal(size=x.shape).astype(x.dtype) / 10

    class Noise:
        def __call__(self, x: Any, rng: np.random.Generator) -> Any:
            return noise(x, rng)

    for augment in (lambda: noise, Noise):
        expected = build()
        train(expected, [], augment=augment())
        path.unlink(missing_ok=True)
        with pytest.raises(Stop):
            train(build(), [Killer(8), gc.Checkpoint(path, every=1)], augment=augment())
        model = build()
        train(model, [], resume=path, augment=augment())  # another instance: its address must not matter
        assert bits(model) == bits(expected)


# Failures on the way.


def test_a_loss_of_nan_keeps_the_last_good_checkpoint_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"

    class Poison(gc.Callback):
        def on_step_end(self, run: Any) -> None:
            if (run.epoch, run.step) == (1, 3):
                run.model.parameters["dense_1.bias"].value[...] = np.nan

    model = build()
    with pytest.raises(TrainingError) as caught:
        train(model, [Poison(), gc.Checkpoint(path, every=2)])
    message = str(caught.value)
    assert message.startswith("the loss became nan at step 10: lower the learning rate")
    assert f"(epoch 2, batch 4); the last good checkpoint is {path}" in message
    assert os.listdir(tmp_path) == ["run.safetensors"]
    resumed = build()
    with contextlib.suppress(Stop):
        train(resumed, [Killer(9)], resume=path)
    assert load_tensors(path)[1]["run"]["step"] == 2
    assert np.isfinite(resumed.buffers.values).all()


def test_a_step_with_a_loss_of_nan_updates_nothing() -> None:
    model = build()
    model.parameters["dense_1.bias"].value[0] = np.nan
    before = bits(model)[:3]
    with pytest.raises(TrainingError, match="the loss became nan at step 1"):
        train(model, [])
    assert bits(model)[:3] == before


def test_parameters_of_nan_are_never_checkpointed(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"

    class Poison(gc.Callback):
        def on_step_end(self, run: Any) -> None:
            if run.step == 4:
                run.model.parameters["dense_1.bias"].value[...] = np.inf

    with pytest.raises(
        TrainingError, match=r"was not written: 'parameters.dense_1.bias' contains NaN or infinity.*last good checkpoint is"
    ):
        train(build(), [Poison(), gc.Checkpoint(path, every=1)])
    assert load_tensors(path)[1]["run"]["step"] == 3
    assert os.listdir(tmp_path) == ["run.safetensors"]


@pytest.mark.parametrize(("where", "number"), [("os.replace", errno.ENOSPC), ("os.fsync", errno.EIO), ("os.open", errno.EROFS)])
def test_a_disk_that_fails_stops_the_run_and_leaves_the_checkpoint_before(
    where: str, number: int, unbroken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.safetensors"
    closed = []

    class Break(gc.Callback):
        def on_step_end(self, run: Any) -> None:
            if (run.epoch, run.step) == (1, 2):

                def fail(*args: Any, **kwargs: Any) -> Any:
                    raise OSError(number, os.strerror(number))

                monkeypatch.setattr(f"gpucnn.files.{where}", fail)

        def close(self) -> None:
            closed.append(True)

    with pytest.raises(OSError, match=os.strerror(number)):
        train(build(), [Break(), gc.Checkpoint(path, every=1)])
    monkeypatch.undo()
    assert closed == [True]
    assert os.listdir(tmp_path) == ["run.safetensors"]
    assert load_tensors(path)[1]["run"]["step"] == 1
    model = build()
    train(model, [], resume=path)
    assert bits(model) == unbroken["adam"][0]


def test_every_callback_is_closed_whatever_happens() -> None:
    closed = []

    class Closing(gc.Callback):
        def close(self) -> None:
            closed.append(self)

    callbacks = [Closing(), Killer(3), Closing()]
    with pytest.raises(Stop):
        train(build(), callbacks)
    assert closed == [callbacks[0], callbacks[2]]


def test_the_csv_log_is_the_history_also_after_resuming(unbroken: dict[str, Any], tmp_path: Path) -> None:
    path, log = tmp_path / "run.safetensors", tmp_path / "log.csv"
    with pytest.raises(Stop):
        train(build(), [gc.CSVLog(log), Killer(9), gc.Checkpoint(path, every=1)])
    history = train(build(), [gc.CSVLog(log), gc.Checkpoint(path)], resume=path)
    header, *lines = log.read_text().splitlines()
    assert header.split(",") == list(history)
    assert len(lines) == EPOCHS
    assert [float(line.split(",")[1]) for line in lines] == history["loss"]


def test_a_checkpoint_every_zero_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        gc.Checkpoint(tmp_path / "run.safetensors", every=0)


class Halved(gc.Callback):
    """Halves the learning rate after each epoch, as a number, a schedule or a function."""

    def __init__(self, kind: Callable[[float], Any] = float) -> None:
        self.kind = kind

    def on_epoch_end(self, run: Any) -> None:
        run.optimizer.learning_rate = self.kind(run.optimizer.learning_rate / 2)


@pytest.mark.parametrize("kind", [float, lambda rate: gc.Cosine(rate, 100)], ids=["a number", "a schedule"])
@pytest.mark.parametrize("steps", [STEPS, STEPS + 2, 2 * STEPS])
def test_an_assigned_learning_rate_is_resumed(steps: int, kind: Any, tmp_path: Path) -> None:
    whole = build()
    expected = train(whole, [Halved(kind)])["learning_rate"]
    assert len(set(expected)) == EPOCHS
    path = tmp_path / "run"
    with pytest.raises(Stop):
        train(build(), [gc.Checkpoint(path, every=1), Halved(kind), Killer(steps)])
    resumed = build()
    assert train(resumed, [gc.Checkpoint(path, every=1), Halved(kind)], resume=path)["learning_rate"] == expected
    np.testing.assert_array_equal(resumed.buffers.values, whole.buffers.values)


def test_a_learning_rate_that_no_file_can_hold(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(build(), [gc.Checkpoint(tmp_path / "run", every=1), Halved(lambda rate: lambda step: rate), Killer(STEPS + 2)])
    with pytest.raises(CheckpointError, match="its learning rate became Computed, which no file can name: assign a number or a registered"):
        train(build(), [], resume=tmp_path / "run")


def test_a_learning_rate_stays_within_an_epoch() -> None:
    class Within(gc.Callback):
        def on_step_end(self, run: Any) -> None:
            if run.step == self.step:
                run.optimizer.learning_rate = 0.5

        step = 2

    with pytest.raises(ArgumentError, match="the learning rate was changed within an epoch: change it in on_epoch_end, or give a function"):
        train(build(), [Within()])
    Within.step = STEPS  # the last: the epoch has ended
    assert train(build(), [Within()])["learning_rate"][1:] == [0.5, 0.5]


def test_a_name_without_a_file_is_refused_unless_this_run_writes_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs" / "first.safetensors"
    train(build(), [gc.Checkpoint(path)], resume=path, epochs=1)
    before = path.read_bytes()
    capfd.readouterr()
    model = build()
    for name, hint in (
        ("frist.safetensors", r" \(did you mean '.*first.safetensors'\?\)"),
        ("other", ""),
        ("../run/first.safetensors", r" \(of its folder: it does not exist\)"),
        ("first.safetensors/one", r" \(of its folder: it is a file\)"),
    ):
        wanted = path.parent / name
        with pytest.raises(CheckpointError, match=f"^there is no checkpoint .* to resume{hint}: correct the name; for a run that begins"):
            train(model, [gc.Checkpoint(path)], resume=wanted)
        assert model.optimizer is not None and model.optimizer.steps == 0 and not wanted.exists()
    assert path.read_bytes() == before and capfd.readouterr() == ("", "")  # train says verbose=False
    monkeypatch.chdir(tmp_path)  # the same file by other names, its folder still to be made
    for number, verbose in enumerate((None, 2)):
        name = f"new/{number}"
        model.fit(X, Y, callbacks=[gc.Checkpoint(tmp_path / "new" / "." / str(number))], resume=name, verbose=verbose)
        assert capfd.readouterr().err == f"note: there is no checkpoint {name} yet: starting from the beginning\n"
        assert Path(name).is_file()

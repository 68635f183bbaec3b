"""gpucnn train: what it writes and says, stopping at any moment, going on, and trouble in the middle of a run."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import experiment, plots
from gpucnn.data import mnist, write_idx
from gpucnn.surroundings import install
from gpucnn.training import callbacks

ACCURACY = re.compile(r"test accuracy \d{1,3}\.\d\d %")
TIMING = ("seconds", "images_per_second")
PICTURES = ("curves", "confusion", "filters", "features", "mistakes")
SHORT = ("--device", "cpu", "--batch-size", 4, "--epochs", 3, "--checkpoint-every", 2)  # of the bars: 5 steps an epoch


class Killed(BaseException):
    """Ends a run in this process as kill −9 would, but for the clean-up of files."""


def history(path: Path) -> list[dict[str, str]]:
    with open(path / "history.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMING} for row in csv.DictReader(file)]


def files(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


def same_run(one: Path, other: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert history(one) == history(other)
    assert not [name for name in files(one) if name.endswith(".partial")]


def at_call(monkeypatch, owner, name: str, number: int, action) -> list[int]:
    """Has `action` done before the `number`-th call of owner.name."""
    original, calls = getattr(owner, name), [0]

    def wrapped(*arguments, **options):
        calls[0] += 1
        if calls[0] == number:
            action(*arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, wrapped)
    return calls


def kill(*_):
    raise Killed


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# What a run leaves behind.


def test_a_run_writes_its_files_and_ends_with_the_accuracy(digits):
    assert digits.result.status == 0 and digits.result.err == ""
    assert files(digits.path) == set(experiment.FILES)
    assert ACCURACY.fullmatch(digits.result.last)
    for name in experiment.FILES:
        assert f"wrote     {digits.path / name}" in digits.result.out
        content = (digits.path / name).read_bytes()
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 5000


def test_output_that_is_no_terminal_gets_plain_lines(digits):
    lines = digits.result.out.splitlines()
    assert "\x1b" not in digits.result.out and "\r" not in digits.result.out
    assert sum(line.startswith("epoch ") for line in lines) == 1
    epoch = r"epoch 1/1  loss \d\.\d{4}  accuracy \d+\.\d\d %  val_loss \d\.\d{4}  val_accuracy \d+\.\d\d %  [\d,]+ images/s"
    assert any(re.fullmatch(epoch, line) for line in lines)
    assert any(line.startswith("recipe    adam, learning rate 0.002 (one-cycle), seed 0") for line in lines)
    assert any(line == "          1 epoch of 41 steps, batch 32, augmentation affine" for line in lines)


def test_the_last_line_is_what_the_model_reaches(digits):
    model, data = gc.load(digits.model, device="cpu"), gc.load_dataset("digits")
    _, accuracy = model.evaluate(data.test_images, data.test_labels)
    assert digits.result.last == f"test accuracy {100 * accuracy:.2f} %"
    assert model.metadata["test_accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("model", ["keras", "tf2", "lenet5x5"])
@pytest.mark.usefixtures("no_pictures")
def test_every_network_trains_and_is_evaluated_alike(gpucnn, folder, model):
    run = gpucnn("train", "--dataset", folder, *SHORT, "--model", model, "--output", "run")
    assert run.status == 0, run.err
    assert gpucnn("evaluate", "run/model.safetensors", "--device", "cpu").last == run.last


@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "sgd", "--schedule", "step"),
        ("--optimizer", "adamw", "--schedule", "cosine"),
        ("--augment", "shift", "--schedule", "constant"),
    ],
)
@pytest.mark.usefixtures("no_pictures")
def test_options_reach_the_run(gpucnn, folder, options):
    run = gpucnn("train", "--dataset", folder, *SHORT, *options, "--output", "run")
    assert run.status == 0, run.err
    config = gc.load("run/model.safetensors", device="cpu").config()["optimizer"]
    named = dict(zip(options[::2], options[1::2], strict=True))
    assert config["optimizer"] == named.get("--optimizer", "adam")
    assert config["learning_rate"]["schedule"] == named["--schedule"]
    assert f"augmentation {named.get('--augment', 'affine')}" in run.out


@pytest.mark.usefixtures("no_pictures")
def test_names_are_taken_in_any_case(gpucnn, folder):
    words = ("--model", "Keras", "--optimizer", "ADAM", "--schedule", "One_Cycle", "--augment", "Crop_Flip", "--precision", "HIGH")
    run = gpucnn("train", "--dataset", folder, "--epochs", 1, *words, "--device", "CPU", "--output", "run")
    assert run.status == 0 and "augmentation crop-flip" in run.out, run.err
    asked = gpucnn("evaluate", "run", "--invert", "AUTO", "--device", "Cpu")
    assert asked.status == 0 and asked.last == run.last, asked.err
    assert gpucnn("view", "run", "--dtype", "Float16", "--no-open").status == 0
    again = ("--epochs", 1, "--augment", "CROP_FLIP", "--device", "cpu", "--resume")
    resumed = gpucnn("train", "--dataset", folder, *again, "--output", "run")
    assert "there is nothing to do" in resumed.out, resumed.err


# Which data set.


def test_auto_without_mnist_takes_the_digits_and_says_why(gpucnn, no_pictures, monkeypatch, tmp_path):
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(tmp_path / "none"))
    run = gpucnn("train", "--dataset", "auto", "--epochs", 1, "--device", "cpu")
    assert run.status == 0, run.err
    notes = [line for line in run.out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and "MNIST is not available" in notes[0] and "8×8 digits" in notes[0] and "could not be downloaded" in notes[0]
    assert Path("runs/latest/model.safetensors").exists()
    # What was taken is what evaluate takes: the day that MNIST can be had, this is still a model of the digits.
    assert gc.load("runs/latest/model.safetensors", device="cpu").metadata["dataset"] == "digits"


def test_auto_takes_mnist_where_it_is_and_says_where(gpucnn, no_pictures, monkeypatch):
    rng = np.random.default_rng(0)
    Path("idx").mkdir()
    hashes = []
    for name, shape in zip(mnist.FILES, ((40, 12, 12), (40,), (10, 12, 12), (10,)), strict=True):
        write_idx(f"idx/{name}", rng.integers(0, 10, shape).astype(np.uint8))
        hashes.append(hashlib.sha256(Path("idx", name).read_bytes()).hexdigest())
    small = replace(mnist.SOURCES["mnist"], sha256=tuple(hashes), train_shape=(40, 12, 12), test_shape=(10, 12, 12))
    monkeypatch.setitem(mnist.SOURCES, "mnist", small)
    run = gpucnn("train", "--data-dir", "idx", "--epochs", 1, "--device", "cpu", "--output", "run")
    assert run.status == 0, run.err
    assert "note: these are the MNIST files in idx" in run.out and "data      mnist: idx, 40 + 10 images" in run.out


def test_a_named_data_set_is_never_replaced(gpucnn):
    """Nor is a folder that is named passed over, for the environment's or for the digits."""
    Path("empty").mkdir()
    for name in ("mnist", "auto"):
        sentence = gpucnn("train", "--dataset", name, "--data-dir", "empty", "--output", "run").sentence
        assert "MNIST is not in empty" in sentence and "could not be downloaded" in sentence and "--data-dir" in sentence
        sentence = gpucnn("train", "--dataset", name, "--data-dir", "none", "--output", "run").sentence
        assert "data_dir none does not exist" in sentence
    assert not Path("run").exists() and not Path("none").exists() and list(Path("empty").iterdir()) == []


# Stopping and going on.


@pytest.fixture(scope="module")
def options(folder):
    """lenet5x5 has dropout, and affine draws numbers of its own. 3 epochs of 5 steps."""
    return ("train", "--dataset", folder, *SHORT, "--model", "lenet5x5", "--optimizer", "sgd", "--augment", "affine", "--seed", 7)


@pytest.fixture(scope="module")
def whole(gpucnn, options, tmp_path_factory):
    """The run that was never stopped."""
    path = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.run, "plots", mock.Mock(**{f"save_{name}.return_value": False for name in PICTURES}))
        result = gpucnn(*options, "--output", path)
    assert result.status == 0, result.err
    return path


def resumed(gpucnn, options, whole) -> str:
    again = gpucnn(*options, "--output", "run", "--resume")
    assert again.status == 0, again.err
    same_run(Path("run"), whole)
    assert "previous-1" not in files(Path("run"))
    return again.out


@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        *((callbacks.Progress, "on_step_end", number) for number in (1, 3, 7, 12)),  # 1: before the first checkpoint
        *((callbacks.Progress, "on_epoch_end", number) for number in (1, 2, 3)),
        *((callbacks.CSVLog, "on_epoch_end", number) for number in (1, 3)),
        (callbacks.Checkpoint, "on_epoch_end", 2),  # the epoch is in the history, and not in the checkpoint
        (callbacks.Checkpoint, "on_train_end", 1),
        (os, "replace", 2),  # written whole, and not yet in its place
        (experiment.run, "confusion_matrix", 1),  # trained, and no model yet
        (gc.Sequential, "save", 1),
    ],
)
@pytest.mark.usefixtures("no_pictures")
def test_a_killed_run_ends_in_the_same_bits(gpucnn, options, whole, monkeypatch, owner, name, number):
    with monkeypatch.context() as patch:
        at_call(patch, owner, name, number, kill)
        with pytest.raises(Killed):
            gpucnn(*options, "--output", "run")
    assert not Path("run/model.safetensors").exists()
    out = resumed(gpucnn, options, whole)
    early = owner is callbacks.Progress and number == 1 and name == "on_step_end"
    assert ("starting from the beginning" in out) == early


@pytest.mark.usefixtures("no_pictures")
def test_killed_again_and_again(gpucnn, options, whole, monkeypatch):
    for number in (3, 4, 5, 3):
        with monkeypatch.context() as patch:
            at_call(patch, callbacks.Progress, "on_step_end", number, kill)
            with pytest.raises(Killed):
                gpucnn(*options, "--output", "run", "--resume")
    out = resumed(gpucnn, options, whole)
    assert re.search(r"^resumed   at epoch \d, step \d$", out, re.M)


@pytest.mark.parametrize("number", [1, 4, 8])
@pytest.mark.usefixtures("no_pictures")
def test_ctrl_c_says_how_to_go_on(gpucnn, options, whole, monkeypatch, number):
    with monkeypatch.context() as patch:
        at_call(patch, callbacks.Progress, "on_step_end", number, lambda *_: signal.raise_signal(signal.SIGINT))
        stopped = gpucnn(*options, "--output", "run")
    assert stopped.status == 130
    assert stopped.err == f"gpucnn: stopped: the same command with --resume continues from {Path('run/checkpoint.safetensors')}\n"
    assert "starting from the beginning" not in resumed(gpucnn, options, whole)


@pytest.mark.parametrize(("owner", "name"), [(experiment.data, "load_dataset"), (experiment.folder.Watch, "check_room")])
def test_ctrl_c_before_anything_was_trained(gpucnn, options, monkeypatch, owner, name):
    """Also where an earlier run has a checkpoint: --resume would go on from another run than the one that was stopped."""
    Path("run").mkdir()
    Path("run/checkpoint.safetensors").write_bytes(b"of an earlier run")
    monkeypatch.setattr(owner, name, lambda *_, **__: signal.raise_signal(signal.SIGINT))
    stopped = gpucnn(*options, "--output", "run")
    assert (stopped.status, stopped.err) == (130, "gpucnn: stopped\n")
    assert files(Path("run")) == {"checkpoint.safetensors"}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_kill_9_of_a_process(options, whole):
    """A real one, twice, at whatever moment it hits."""
    command = [sys.executable, "-m", "gpucnn", *map(str, options), "--output", "run", "--resume"]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
            for line in process.stdout:
                if line.startswith("epoch "):
                    process.kill()
                    break
    last = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert last.returncode == 0, last.stderr
    assert last.stderr == "" and ACCURACY.fullmatch(last.stdout.splitlines()[-1])
    same_run(Path("run"), whole)


@pytest.mark.usefixtures("no_pictures")
def test_half_written_files_of_a_killed_run_go(gpucnn, options):
    Path("run").mkdir()
    for name in (".checkpoint.safetensors.abc.partial", ".curves.png.x1.partial"):
        Path("run", name).write_bytes(b"half")
    Path("run/.mine.partial").write_bytes(b"not of this program")
    assert gpucnn(*options, "--output", "run", "--resume").status == 0
    assert {name for name in files(Path("run")) if name.startswith(".")} == {".mine.partial"}


@pytest.mark.usefixtures("no_pictures")
def test_resume_of_a_finished_run_has_nothing_to_do(gpucnn, options, whole):
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in whole.iterdir()}
    again = gpucnn(*options, "--output", whole, "--resume")
    assert again.status == 0 and again.err == ""
    assert f"note: the run in {whole} is complete (3 epochs): there is nothing to do" in again.out
    noted = gc.load(whole / "model.safetensors", device="cpu").metadata["test_accuracy"]
    assert again.last == f"test accuracy {100 * noted:.2f} %"
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in whole.iterdir()} == before


def test_a_run_that_was_stopped_while_it_drew_gets_its_pictures(gpucnn, options, whole, monkeypatch):
    """With the same model as before, and without training again."""
    drawn = []
    for name in PICTURES:
        monkeypatch.setattr(plots, f"save_{name}", lambda *given, name=name: drawn.append(name) or False)
    with monkeypatch.context() as patch:
        patch.setattr(plots, "save_filters", lambda *_: signal.raise_signal(signal.SIGINT))
        stopped = gpucnn(*options, "--output", "run")
    assert stopped.err == f"gpucnn: stopped: the same command with --resume continues from {Path('run/checkpoint.safetensors')}\n"
    assert drawn == ["curves", "confusion", "mistakes"] and "README.md" not in files(Path("run"))
    out = resumed(gpucnn, options, whole)
    assert drawn[3:] == ["curves", "confusion", "mistakes", "filters", "features"] and "README.md" in files(Path("run"))
    assert "epoch 1/" not in out and "nothing to do" not in out
    assert "nothing to do" in resumed(gpucnn, options, whole)


@pytest.mark.usefixtures("no_pictures")
def test_a_lost_history_is_a_note_and_no_line_of_source(gpucnn, options, whole):
    shutil.copytree(whole, "run")
    Path("run/history.csv").unlink()
    longer = gpucnn(*options, "--output", "run", "--resume", "--epochs", 4)
    assert longer.status == 0 and len(longer.err.splitlines()) == 1, longer.err
    assert longer.err.startswith("note: the history continues without its first epochs: run/history.csv")


@pytest.mark.parametrize("name", ["history.csv", "model.safetensors", "report.csv", "curves.png", "checkpoint.safetensors"])
def test_a_folder_in_the_place_of_a_file_is_said_before_the_run_goes_on(gpucnn, options, whole, name):
    shutil.copytree(whole, "run")
    Path("run", name).unlink(missing_ok=True)
    Path("run", name).mkdir()
    result = gpucnn(*options, "--output", "run", "--resume", "--epochs", 4)
    assert f"{Path('run', name)} is a folder, and the run writes a file of that name: move it elsewhere; or leave out" in result.sentence
    assert result.out == "" and files(Path("run")) == files(whole) | {name}


def test_a_second_run_sets_the_first_aside(gpucnn, folder):
    command = ("train", "--dataset", folder, *SHORT, "--output", "run", "--epochs", 1)
    models = []
    for seed in (1, 2, 3):
        result = gpucnn(*command, "--seed", seed)
        assert result.status == 0, result.err
        models.append(Path("run/model.safetensors").read_bytes())
        if seed > 1:
            aside = Path("run") / f"previous-{seed - 1}"
            assert f"note: the run that was in run is now in {aside}" in result.out
            assert (aside / "model.safetensors").read_bytes() == models[-2]
            assert {"checkpoint.safetensors", "history.csv"} <= files(aside)
    assert Path("run/previous-1/model.safetensors").read_bytes() == models[0]


@pytest.mark.parametrize("again", [(), ("--resume",)])
@pytest.mark.usefixtures("no_pictures")
def test_killed_while_a_run_is_set_aside_nothing_is_lost(gpucnn, folder, monkeypatch, again):
    command = ("train", "--dataset", folder, *SHORT, "--output", "run", "--epochs", 1)
    gpucnn(*command)
    first = {name: Path("run", name).read_bytes() for name in files(Path("run"))}
    for number in (1, 2, 3):
        with monkeypatch.context() as patch:
            at_call(patch, os, "replace", number, kill)
            with pytest.raises(Killed):
                gpucnn(*command, "--seed", 1)
    assert gpucnn(*command, *again).status == 0
    kept = [path.read_bytes() for path in Path("run").rglob("*") if path.is_file()]
    assert all(content in kept for content in first.values())


@pytest.mark.usefixtures("no_pictures")
def test_more_epochs_than_last_time(gpucnn, folder, monkeypatch):
    """Under a constant schedule; until the longer run is complete, the model of the shorter one does not stand for it."""
    command = ("train", "--dataset", folder, *SHORT, "--schedule", "constant", "--output")
    assert gpucnn(*command, "whole").status == 0
    assert gpucnn(*command, "run", "--epochs", 2).status == 0
    short = Path("run/model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        at_call(patch, gc.Sequential, "save", 1, kill)
        with pytest.raises(Killed):
            gpucnn(*command, "run", "--resume")
    assert not Path("run/model.safetensors").exists()
    assert Path("run/previous-1/model.safetensors").read_bytes() == short
    again = gpucnn(*command, "run", "--resume")
    assert again.status == 0 and "nothing to do" not in again.out
    same_run(Path("run"), Path("whole"))


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("complete", [True, False])
def test_more_epochs_lay_the_schedule_out_anew(gpucnn, folder, monkeypatch, complete):
    """From where the run was left, be it at its end or in the middle; and that is said, with both numbers."""
    command = ("train", "--dataset", folder, *SHORT, "--schedule", "cosine", "--optimizer", "sgd", "--lr", 0.01, "--output", "run")
    if complete:
        assert gpucnn(*command).status == 0
    else:
        with monkeypatch.context() as patch:
            at_call(patch, callbacks.Checkpoint, "on_step_end", 8, kill)
            with pytest.raises(Killed):
                gpucnn(*command)
    rates, original = [], gc.SGD.rates
    monkeypatch.setattr(gc.SGD, "rates", lambda self, count: rates.append((self.steps, self.schedule)) or original(self, count))
    result = gpucnn(*command, "--epochs", 6, "--resume")
    assert result.status == 0, result.err
    assert "note: the run was started with 3 epochs and now has 6: the cosine schedule now covers all of them" in result.out
    assert rates[0][0] == (15 if complete else 7) and rates[-1][1].steps == 30 and len(history(Path("run"))) == 6
    assert gpucnn(*command, "--epochs", 6, "--resume").out.count("nothing to do") == 1  # it is a run of 6 epochs now
    assert "--epochs 6, and this command has --epochs 4" in gpucnn(*command, "--epochs", 4, "--resume").sentence


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("rate", "said"), [(10, "lower --lr; it was 10"), (1e-12, "train for more epochs, or with another --lr")])
def test_a_run_that_ends_at_chance_says_so(gpucnn, rate, said):
    command = ("train", "--dataset", "digits", "--device", "cpu", "--epochs", 1, "--batch-size", 128, "--output", "run")
    result = gpucnn(*command, "--lr", rate)
    assert result.status == 0 and "no better than guessing (always " in result.out and said in result.out, result.out


def test_what_chance_is():
    labels = np.arange(1000) % 10
    assert experiment.run.guessing(0.1, labels) and experiment.run.guessing(0.12, labels) and not experiment.run.guessing(0.15, labels)
    assert experiment.run.guessing(0.9, np.arange(1000) < 900) and not experiment.run.guessing(0.1, labels[:90])


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        (("--model", "keras"), "--model 'lenet5x5'"),
        (("--seed", 8), "--seed 7,"),
        (("--batch-size", 5), "--batch-size 4,"),
        (("--augment", "none"), "--augment "),
        (("--epochs", 2), "--epochs 3,"),
        (
            ("--seed", 8, "--model", "keras", "--batch-size", 5),
            "with --model 'lenet5x5', --batch-size 4, --seed 7, and this command has --model",
        ),
        (("--seed", 8, "--model", "keras", "--batch-size", 5), "has --model 'keras', --batch-size 5, --seed 8: leave them out"),
    ],
)
def test_resume_of_another_run_is_refused(gpucnn, options, whole, change, piece):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    sentence = gpucnn(*options, "--output", whole, "--resume", *change).sentence
    assert "is a checkpoint of another run" in sentence and piece in sentence and "leave out --resume" in sentence
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


@pytest.mark.parametrize("damage", ["cut", "no safetensors", "empty", "a model", "other safetensors"])
def test_resume_from_a_broken_checkpoint_is_refused(gpucnn, options, whole, damage):
    Path("run").mkdir()
    target = Path("run/checkpoint.safetensors")
    content = (whole / "checkpoint.safetensors").read_bytes()
    if damage == "other safetensors":
        from safetensors.numpy import save

        content = save({"x": np.zeros(3, np.float32)})
    replaced = {
        "cut": content[:-100],
        "no safetensors": b"hello " * 100,
        "empty": b"",
        "a model": (whole / "model.safetensors").read_bytes(),
    }
    target.write_bytes(replaced.get(damage, content))
    sentence = gpucnn(*options, "--output", "run", "--resume").sentence
    assert str(target) in sentence and "leave out --resume to start a new run" in sentence
    assert files(Path("run")) == {"checkpoint.safetensors"}


# Trouble in the middle of a run.


@pytest.mark.usefixtures("no_pictures")
def test_a_loss_that_becomes_nan_keeps_the_last_good_checkpoint(gpucnn, options, whole, monkeypatch):
    with monkeypatch.context() as patch:
        at_call(patch, callbacks.Progress, "on_step_end", 8, lambda _, run: run.model.buffers.values.fill(np.nan))
        # A checkpoint of such parameters is refused as well; here the step comes first.
        patch.setattr(
            callbacks.Checkpoint, "on_step_end", lambda self, run: self.save(self.path) if run.step == 2 and not run.epoch else None
        )
        sentence = gpucnn(*options, "--output", "run").sentence
    assert "the loss became nan at step 10" in sentence and "lower the learning rate" in sentence
    assert f"the last good checkpoint is {Path('run/checkpoint.safetensors')}" in sentence
    assert not Path("run/model.safetensors").exists()
    resumed(gpucnn, options, whole)


def test_a_learning_rate_beyond_all_reason(gpucnn, folder):
    result = gpucnn("train", "--dataset", folder, *SHORT, "--checkpoint-every", 200, "--lr", "1e30", "--output", "new/run")
    assert "the loss became nan at step " in result.sentence and "learning rate" in result.sentence
    assert not Path("new").exists()


def test_a_test_loss_that_becomes_nan(gpucnn, folder):
    """One step, with a good loss, and nothing but the test to show what it did."""
    result = gpucnn("train", "--dataset", folder, "--device", "cpu", "--epochs", 1, "--batch-size", 50, "--lr", "1e38", "--output", "run")
    assert "the validation loss became nan after step 1: lower the learning rate" in result.sentence
    assert not Path("run").exists()


@pytest.mark.parametrize(("number", "last"), [(1, False), (2, True), (5, True), (9, True)])
@pytest.mark.usefixtures("no_pictures")
def test_a_disk_that_fills_up(gpucnn, options, whole, monkeypatch, number, last):
    with monkeypatch.context() as patch:
        at_call(patch, os, "fsync", number, no_space)
        sentence = gpucnn(*options, "--output", "run").sentence
    assert sentence.startswith("gpucnn: run can no longer be written (No space left on device)")
    assert ("--resume then continues from" in sentence) == last
    assert Path("run").exists() == last
    assert not Path("run/model.safetensors").exists()
    resumed(gpucnn, options, whole)


def test_a_disk_that_is_full_at_the_start(gpucnn, options, monkeypatch):
    class Full:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, content):
            if len(content) > 100:
                no_space()

        flush = kill

    monkeypatch.setattr(Full, "flush", lambda self: None)
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    sentence = gpucnn(*options, "--output", "a/b").sentence
    assert "the output folder a/b cannot be written to (No space left on device) and needs room for " in sentence and "MiB" in sentence
    assert not Path("a").exists()


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of one megabyte, a real one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no tmpfs can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_real_disk_that_is_too_small(gpucnn, options, tiny_disk):
    sentence = gpucnn(*options, "--output", tiny_disk / "run").sentence
    assert "No space left on device" in sentence and "name another with --output" in sentence
    assert files(tiny_disk) == set()


@pytest.mark.usefixtures("no_pictures")
def test_a_real_disk_that_fills_up(gpucnn, folder, tiny_disk, monkeypatch):
    command = ("train", "--dataset", "digits", "--epochs", 1, "--device", "cpu", "--checkpoint-every", 10, "--output", tiny_disk / "run")
    ballast = tiny_disk / "ballast"  # the first checkpoint of 0.9 MB fits, and nothing beside it
    with monkeypatch.context() as patch:
        at_call(patch, callbacks.Progress, "on_step_end", 12, lambda *_: ballast.write_bytes(bytes(50_000)))
        sentence = gpucnn(*command).sentence
    assert "No space left on device" in sentence and "--resume then continues from" in sentence
    assert files(tiny_disk / "run") == {"checkpoint.safetensors"}


# What is optional.


@pytest.mark.parametrize("missing", ["matplotlib", "matplotlib.figure"])
def test_without_matplotlib_there_is_a_model_and_no_picture(gpucnn, folder, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False) if missing == "matplotlib" else None
    run = gpucnn("train", "--dataset", folder, *SHORT, "--output", "run")
    assert run.status == 0 and run.err == "" and ACCURACY.fullmatch(run.last)
    notes = [line for line in run.out.splitlines() if line.startswith("note: ")]
    assert notes == [
        f"note: no pictures were made: pictures need matplotlib, which is not installed: {install('plot')}",
    ]
    assert files(Path("run")) == {"model.safetensors", "checkpoint.safetensors", "history.csv", "report.csv", "README.md"}


def test_a_picture_that_fails_does_not_cost_the_model(gpucnn, folder, monkeypatch, no_pictures):
    def fail(*_):
        raise ZeroDivisionError("drawing went wrong")

    monkeypatch.setattr(plots, "save_confusion", fail)
    run = gpucnn("train", "--dataset", folder, *SHORT, "--output", "run")
    assert run.status == 0 and "note: confusion.png was not made: ZeroDivisionError: drawing went wrong" in run.out
    assert Path("run/model.safetensors").exists()


def test_a_download_bar_is_gone_before_training_shows_its_own(gpucnn, folder, monkeypatch, no_pictures):
    """Rich draws one live display at a time."""
    from gpucnn.cli.progress import Downloads

    order = []
    monkeypatch.setattr(Downloads, "__exit__", lambda *_: order.append("downloads end"))
    monkeypatch.setattr(callbacks.Progress, "on_train_begin", lambda *_: order.append("training begins"))
    assert gpucnn("train", "--dataset", folder, *SHORT, "--output", "run").status == 0
    assert order == ["downloads end", "training begins"]


# What is validated on.


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("given", "held"), [((), 2), (("--validation", 0.5), 11), (("--validation", 0), 0), (("--validation", 0.001), 0)])
def test_validation_images_are_held_back_from_those_to_train_on(gpucnn, options, given, held):
    """And the test images are looked at once, at the end."""
    asked: list[int] = []
    fit, predict = gc.Sequential.fit, gc.Sequential.predict

    def watched_fit(self, x, y, **more):
        asked.extend([len(x), 0 if more["validation_data"] is None else len(more["validation_data"][0])])
        return fit(self, x, y, **more)

    def watched_predict(self, x, *more, **named):
        asked.append(-len(x))
        return predict(self, x, *more, **named)

    with mock.patch.object(gc.Sequential, "fit", watched_fit), mock.patch.object(gc.Sequential, "predict", watched_predict):
        result = gpucnn(*options, *given, "--output", "run")
    assert result.status == 0, result.err
    train, validation, test = asked
    assert validation == held and train + validation == 22 and test < 0
    assert all(("val_accuracy" in row) is (held > 0) for row in history(Path("run")))
    assert (f"{held} of them held out for validation" in result.out) is (held > 0)


@pytest.mark.usefixtures("no_pictures")
def test_a_run_is_resumed_with_the_validation_images_that_it_has(gpucnn, options):
    begun = gpucnn(*options, "--validation", 0.25, "--output", "run", "--resume")  # which is how a script says it every time
    assert begun.status == 0 and begun.out.count("note: there is no checkpoint in run yet: starting from the beginning\n") == 1
    assert gpucnn(*options, "--output", "run", "--resume").status == 0
    sentence = gpucnn(*options, "--validation", 0.5, "--output", "run", "--resume").sentence
    assert "started with --validation 0.25, and this command has --validation 0.5" in sentence


@pytest.mark.parametrize("value", ["1", "-0.1", "nan", "half"])
def test_parts_to_validate_on_that_cannot_be(gpucnn, options, value):
    assert "validation" in gpucnn(*options, "--validation", value, "--output", "run").sentence
    assert not Path("run").exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_set_with_a_part_to_validate_on_has_it_validated_on(gpucnn, folder, tmp_path):
    """And is resumed with it."""
    for part, first, last in (("Training", 0, 8), ("valid", 8, 11), ("TEST", 11, 14)):
        for name in ("across", "down"):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for index in range(first, last):
                (tmp_path / "set" / part / name / f"{index:02}.png").write_bytes((folder / name / f"{index:02}.png").read_bytes())
    command = ("train", "--dataset", tmp_path / "set", "--device", "cpu", "--model", "keras", "--schedule", "constant", "--output", "run")
    result = gpucnn(*command, "--epochs", 2)
    assert result.status == 0, result.err
    assert "16 + 6 images" in result.out and "6 additional images for validation" in result.out
    assert all("val_accuracy" in row for row in history(Path("run")))
    result = gpucnn(*command, "--epochs", 3, "--resume")
    assert result.status == 0 and len(history(Path("run"))) == 3, result.err
    assert "4 of them held out" in gpucnn(*command[:-1], "other", "--epochs", 1, "--validation", 0.25).out


@pytest.mark.usefixtures("no_pictures")
def test_a_size_is_remembered_by_evaluate_predict_and_resume(gpucnn, folder, tmp_path):
    from PIL import Image

    for path in folder.rglob("*.png"):
        (tmp_path / "set" / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((20, 16) if path.stem < "07" else (14, 30)).save(tmp_path / "set" / path.parent.name / path.name)
    command = ("train", "--dataset", tmp_path / "set", "--device", "cpu", "--schedule", "constant", "--output", "run")
    assert "give --image-size" in gpucnn(*command, "--epochs", 1).sentence
    assert gpucnn(*command, "--epochs", 1, "--image-size", "12x10").status == 0
    assert gpucnn(*command, "--epochs", 2, "--resume").status == 0
    assert "started with --image-size '12x10'" in gpucnn(*command, "--image-size", 12, "--resume").sentence
    assert gc.load("run/model.safetensors", device="cpu").input_shape == (1, 12, 10)
    result = gpucnn("evaluate", "run/model.safetensors", "--device", "cpu")
    assert result.status == 0 and "test accuracy" in result.last
    result = gpucnn("predict", "run/model.safetensors", tmp_path / "set" / "down" / "01.png", "--device", "cpu")
    assert result.status == 0 and "16×20, was resized to 12×10" in result.out and result.last.endswith("%")
    assert "image_size must be" in gpucnn(*command, "--image-size", "big").sentence
    assert "image_size 1000000 × 1000000 is over" in gpucnn(*command, "--image-size", "1000000").sentence

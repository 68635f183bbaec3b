"""gpucnn evaluate, predict and info; --help and --version; the ways to start and to end it."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn
from unittest import mock

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import experiment
from gpucnn.cli import info, progress
from gpucnn.cli.progress import Downloads
from gpucnn.surroundings import OUTPUT

COMMANDS = ["train", "evaluate", "predict", "info"]
TRAIN = ("train", "--dataset", "digits", "--output", "run")


def process(*arguments: object, module: str = "gpucnn", **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *map(str, arguments)], capture_output=True, text=True, **options)


# evaluate


def test_evaluate(gpucnn, digits):
    result = gpucnn("evaluate", digits.model, "--device", "cpu")
    assert (result.status, result.err) == (0, "")
    data = gc.load_dataset("digits")
    loss, _ = gc.load(digits.model, device="cpu").evaluate(data.test_images, data.test_labels)
    assert result.out.splitlines() == [f"data      digits: {data.source}", f"test loss {loss:.4f}", digits.result.last]


def test_evaluate_tests_on_the_images_that_were_held_back(gpucnn, bars_run, monkeypatch):
    """With another seed than the training's, the model would be tested on images that it was trained on."""
    seeds = []
    original = experiment.data.load_dataset
    monkeypatch.setattr(experiment.data, "load_dataset", lambda *a, **k: seeds.append(k["seed"]) or original(*a, **k))
    assert gpucnn("evaluate", bars_run.model, "--device", "cpu").last == bars_run.result.last
    assert gpucnn("evaluate", bars_run.model, "--device", "cpu", "--seed", 9).status == 0
    assert seeds == [3, 9]  # 3: the seed that it was trained with


@pytest.mark.parametrize(("outputs", "loss"), [(1, "binary_crossentropy"), (4, "categorical_crossentropy")])
def test_the_classes_of_a_model_with_other_outputs_than_classes(gpucnn, folder, outputs, loss):
    """One output tells two classes apart by what is above one half; of four, two were never trained."""
    model = gc.Sequential(gc.Flatten(), gc.Dense(outputs)).build((1, 12, 12), device="cpu").compile("sgd", loss)
    for parameter in model.parameters.values():
        parameter.value[...] = 0
    model.parameters["dense_1.bias"].value[-1] = 3
    model.save("m.safetensors")
    result = gpucnn("evaluate", "m.safetensors", "--dataset", folder, "--classes", "--device", "cpu")
    across, down = result.out.splitlines()[3:5]
    if outputs == 1:
        assert across.split() == ["across", "3", *("0.0", "%") * 3, "down", "(3)"] and down.split()[:4] == ["down", "3", "100.0", "%"]
        assert result.last == "test accuracy 50.00 %"
    else:
        assert across.endswith("output 3 (3)") and down.endswith("output 3 (3)") and result.last == "test accuracy 0.00 %"


def test_a_model_that_tells_fewer_classes_apart(gpucnn, folder):
    gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 8, 8), device="cpu").save("m.safetensors")
    sentence = gpucnn("evaluate", "m.safetensors", "--dataset", "digits", "--device", "cpu").sentence
    assert "the model tells 3 classes apart, and digits has 10: give the data set that it was trained on" in sentence


def test_evaluate_of_a_model_that_was_never_compiled(gpucnn, folder):
    gc.Sequential(gc.Flatten(), gc.Dense(2)).build((1, 12, 12), device="cpu").save("plain.safetensors")
    result = gpucnn("evaluate", "plain.safetensors", "--dataset", folder, "--device", "cpu")
    assert result.status == 0 and re.fullmatch(r"test accuracy \d+\.\d\d %", result.last)


# predict


def test_predict(gpucnn, digits):
    from PIL import Image

    data = gc.load_dataset("digits")
    paths = []
    for index in range(5):
        image = data.test_images[index, 0]
        paths.append(Path(f"{'long name ' * (index == 2)}{index}.{'npy' if index == 3 else 'png'}"))
        if index == 3:
            np.save(paths[-1], image)
        else:
            Image.fromarray(image).save(paths[-1])
    result = gpucnn("predict", digits.model, *paths, "--device", "cpu")
    assert (result.status, result.err) == (0, "")
    rows = gc.load(digits.model, device="cpu").predict(data.test_images[:5])
    for line, path, row in zip(result.out.splitlines(), paths, rows, strict=True):
        best = [f"{data.class_names[index]}  {100 * row[index]:5.1f} %" for index in np.argsort(-row)[:3]]
        assert line == "  ".join([f"{path!s:<15}", *best])
    result = gpucnn("predict", digits.path, *paths, "--device", "cpu", "--top", 1)  # the folder of the run stands for its model
    assert result.out.splitlines() == [
        f"{path!s:<15}  {data.class_names[row.argmax()]}  {100 * row.max():5.1f} %" for path, row in zip(paths, rows, strict=True)
    ]


@pytest.mark.parametrize("last", [None, "softmax"])
def test_predict_gives_probabilities_of_a_model_that_was_never_compiled(gpucnn, last):
    model = gc.Sequential(gc.Flatten(), gc.Dense(3, activation=last)).build((1, 4, 4), device="cpu")
    model.parameters["dense_1.bias"].value[...] = [0, 3, 0]
    model.parameters["dense_1.weight"].value[...] = 0
    model.save("plain.safetensors")
    np.save("x.npy", np.zeros((4, 4), np.uint8))
    likely, other = (100 * np.exp(k) / (np.exp(3) + 2) for k in (3, 0))
    result = gpucnn("predict", "plain.safetensors", "x.npy", "--device", "cpu")
    assert result.out == f"x.npy  1  {likely:5.1f} %  0  {other:5.1f} %  2  {other:5.1f} %\n"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="this system's file names are Unicode")
@pytest.mark.parametrize(("last", "loss"), [(None, "binary_crossentropy"), ("sigmoid", "binary_crossentropy"), ("sigmoid", None)])
def test_one_output_is_the_probability_of_the_second_class(gpucnn, folder, last, loss):
    model = gc.Sequential(gc.Flatten(), gc.Dense(1, activation=last)).build((1, 12, 12), device="cpu", seed=1)
    if loss is not None:
        model.compile("sgd", loss)
    model.metadata["class_names"] = ["across", "down"]
    model.save("m.safetensors")
    image = sorted((folder / "down").glob("*.png"))[0]
    result = gpucnn("predict", "m.safetensors", image, "--top", 2, "--device", "cpu")
    assert result.status == 0, result.err
    words = result.last.split()
    given = dict(zip(words[1::3], map(float, words[2::3]), strict=True))
    weight, bias = (model.parameters[f"dense_1.{name}"].value for name in ("weight", "bias"))
    score = gc.data.read_image(image).reshape(-1) / 255 @ weight.reshape(-1) + bias[0]
    assert given == {
        "down": pytest.approx(100 / (1 + np.exp(-score)), abs=0.06),
        "across": pytest.approx(100 / (1 + np.exp(score)), abs=0.06),
    }
    evaluated = gpucnn("evaluate", "m.safetensors", "--dataset", folder, "--classes", "--device", "cpu")
    assert evaluated.status == 0 and "across" in evaluated.out, evaluated.err


def test_a_file_name_that_is_no_text(digits, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.npy"
    with open(path, "wb") as file:
        np.save(file, np.zeros((8, 8), np.uint8))
    result = subprocess.run([sys.executable, "-m", "gpucnn", "predict", str(digits.model), path, "--device", "cpu"], capture_output=True)
    assert (result.returncode, result.stderr) == (0, b"") and b"\\udcff.npy" in result.stdout


# info


def test_info_without_a_gpu(gpucnn, monkeypatch):
    monkeypatch.setattr(info, "get_device", lambda name: gc.get_device("cpu"))
    monkeypatch.setattr(info, "why_not_auto", lambda: "no working NVIDIA driver (none)")
    result = gpucnn("info")
    assert (result.status, result.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in result.out.splitlines() if not line.startswith("no GPU"))
    assert rows["gpucnn"] == gc.__version__ and rows["numpy"] == np.__version__ and rows["device"] == "cpu: CPU"
    assert int(rows["threads"]) >= 1
    assert result.out.splitlines()[-1] == "no GPU        no working NVIDIA driver (none)"


def test_info_with_a_gpu(gpucnn, monkeypatch):
    from dataclasses import replace

    monkeypatch.setattr(info, "get_device", lambda name: replace(gc.get_device("cpu"), kind="cuda", name="NVIDIA Something"))
    result = gpucnn("info")
    assert result.out.splitlines()[-1] == "device        cuda: NVIDIA Something" and "no GPU" not in result.out


# Help and version


def test_version(gpucnn):
    result = gpucnn("--version")
    assert (result.status, result.out, result.err) == (0, f"gpucnn {gc.__version__}\n", "")


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda command: command[0] if command else "gpucnn")
def test_help_fits_the_terminal(gpucnn, monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = gpucnn(*command, "--help")
    assert (result.status, result.err) == (0, "")
    assert max(map(len, result.out.splitlines())) <= columns
    assert "..." not in result.out.replace("IMAGE}...", "").replace("IMAGE...", "").replace("[ARGS]...", "")  # nothing cut off
    assert re.search(r"<\w", result.out) is None  # no type of Python
    assert gpucnn(*command, "-h").out == result.out


def test_help_says_what_there_is(gpucnn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    text = " ".join(gpucnn("train", "--help").out.split())
    for piece in (
        "keras, tf2, lenet5x5",
        "sgd (momentum 0.9, nesterov True), adam, adamw",
        "sgd 0.05, adam 0.002",
        "constant, step, cosine, one-cycle",
        "none, shift, crop-flip",
        "auto, cpu, cuda",
        "highest, high, medium",
        "digits, mnist, fashion-mnist",
        "[default: 5; 40 for under 10,000 images]",
        "[default: 128; 32 for under 10,000 images]",
        "[default: runs/latest]",
        "[default: keras]",
        "[default: 200]",
        "--resume",
    ):
        assert piece in text, piece
    assert all(name in gpucnn("--help").out for name in COMMANDS)


def test_without_a_command_there_is_help(gpucnn):
    result = gpucnn()
    assert result.status == 2 and result.out == "" and result.err.startswith("Usage: ")


def test_help_loads_nothing_that_it_does_not_need():
    """Whoever asks for help waits for Python, NumPy and Typer, and for nothing else."""
    result = process("--help", env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.returncode == 0 and result.stdout.startswith("Usage: python -m gpucnn")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert "numpy" in loaded
    assert not loaded & {"matplotlib", "sklearn", "scipy", "PIL", "numba", "cupy", "torch", "safetensors"}


# The process itself


def test_the_reader_of_the_output_goes_away(digits):
    """As head does. No traceback, no complaint at the end of Python either."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gpucnn", "evaluate", str(digits.model), "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1 and complaint == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("word", ["info", "--help"])
def test_output_that_cannot_be_written(digits, word, unbuffered):
    """Told once, whether at the first line or when all is written at the end."""
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "gpucnn", word]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    why = "gpucnn: standard output cannot be written (No space left on device): free some room there, or send it to another file or program"
    assert (result.returncode, result.stderr.splitlines()) == (2, [why])


def no_room() -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Full(io.StringIO):
    """A stream to a full disk, or one that cannot be written for another reason."""

    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, text: str) -> int:
        raise type(self.error)(*self.error.args)


@pytest.mark.parametrize("command", [("--version",), ("--help",), ("evaluate", "MODEL"), TRAIN])
def test_every_command_says_that_its_output_cannot_be_written(gpucnn, digits, command):
    """The output itself, and not the folder of a run."""
    sentence = gpucnn(*(digits.model if word == "MODEL" else word for word in command), out=Full()).sentence
    assert "standard output cannot be written (No space left on device)" in sentence
    assert not Path("run").exists()


def test_a_run_whose_output_ends_in_the_middle_does_not_blame_its_folder(gpucnn, monkeypatch, no_pictures, folder):
    from gpucnn.training import progress as lines

    def full(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), OUTPUT)

    monkeypatch.setattr(lines, "say", full)
    sentence = gpucnn("train", "--dataset", folder, "--epochs", 2, "--device", "cpu", "--output", "run").sentence
    assert "standard output cannot be written" in sentence and Path("run/checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    "command", [("predict", "MODEL", "x.npy", "--csv", "t"), ("profile", "--device", "cpu", "--model", "MODEL", "--json", "t")]
)
def test_a_reader_that_goes_costs_no_file(gpucnn, digits, monkeypatch, command):
    """As head does after its first lines. And where the file cannot be written, what was worked out is printed."""
    np.save("x.npy", np.zeros((8, 8), np.uint8))
    words = [digits.model if word == "MODEL" else word for word in command]
    with mock.patch.object(Full, "error", BrokenPipeError()):
        assert gpucnn(*words, out=Full()).status == 1
    assert Path("t").stat().st_size
    monkeypatch.setattr(os, "replace", lambda *_: no_room())
    result = gpucnn(*words)
    assert result.status == 2 and "No space left on device" in result.err and ("x.npy" in result.out or "memory" in result.out)


@pytest.mark.parametrize(("command", "status"), [(("none",), 2), (("--version",), 0)])
def test_errors_that_cannot_be_written_change_no_status(gpucnn, command, status):
    assert gpucnn(*command, err=Full()).status == status


def test_downloads_are_told_a_line_each_where_there_is_no_terminal(capsys):
    with Downloads() as downloads:
        for done in (10, 20, 30):
            downloads("train-images.gz", done, 30)
        downloads("train-labels.gz", 1, None)
    assert capsys.readouterr().out == "downloading train-images.gz\ndownloading train-labels.gz\n"


def test_images_that_take_long_to_read_have_a_bar(monkeypatch, capsys):
    """On a terminal, and once that has taken a second."""
    with Downloads() as downloads:
        downloads.reading("images", 1, 9)
    assert capsys.readouterr().out == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    now = [0.0]
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Downloads() as downloads:
        downloads.reading("images", 1, 9)
        now[0] = 0.9
        downloads.reading("images", 2, 9)
        assert sys.stdout.getvalue() == ""
        now[0] = 1.1
        downloads.reading("images", 3, 9)
        now[0] = 2.0
        downloads.reading("images", 9, 9)
    assert "images" in sys.stdout.getvalue() and "9/9" in sys.stdout.getvalue()


def test_downloads_on_a_terminal_leave_the_screen_to_training(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    from rich.progress import Progress

    monkeypatch.setattr(sys, "stdout", Terminal())
    with Downloads() as downloads:
        downloads("train-images.gz", 10, 30)
        downloads("train-images.gz", 30, 30)
    assert "train-images.gz" in sys.stdout.getvalue()
    with Progress():  # Rich allows one live display at a time, or warns
        pass


def test_predict_says_that_a_model_gives_no_numbers(gpucnn):
    model = gc.Sequential(gc.Flatten(), gc.Dense(3), gc.Dense(3)).build((1, 4, 4), device="cpu")
    for parameter in model.parameters.values():
        parameter.value[...] = 3e38
    model.save("m.safetensors")
    np.save("x.npy", np.full((4, 4), 255, np.uint8))
    assert (
        "m.safetensors outputs NaN for an image: its weights are too large or broken"
        in gpucnn("predict", "m.safetensors", "x.npy").sentence
    )


@pytest.mark.parametrize(("command", "option"), [("predict", "--csv"), ("view", "--output")])
def test_what_is_written_replaces_no_file_of_the_run(gpucnn, digits, command, option):
    np.save("x.npy", np.zeros((8, 8), np.uint8))
    images = ["x.npy"] if command == "predict" else ["--no-open"]
    for name in ("checkpoint.safetensors", "history.csv", "report.csv"):
        before = (digits.path / name).read_bytes()
        sentence = gpucnn(command, digits.path, *images, option, digits.path / name).sentence
        assert f"{digits.path / name} is a file of the model's run: name another file" in sentence
        assert (digits.path / name).read_bytes() == before


def test_predict_takes_folders_and_writes_a_table(gpucnn, tmp_path):
    names = ["=1+1", "b", "c,d"]
    model = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 4, 4), device="cpu")
    model.parameters["dense_1.bias"].value[...] = [2, 1, 0]
    model.parameters["dense_1.weight"].value[...] = 0
    model.metadata["class_names"] = names
    model.save("m.safetensors")
    for name in ("set/2.npy", "set/a/1.npy", "set/.hidden/3.npy", "set/__MACOSX/4.npy", "-x.npy"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        np.save(name, np.zeros((4, 4), np.uint8))
    Path("set/notes.txt").write_text("no image")
    result = gpucnn("predict", "m.safetensors", "set", "./-x.npy", "--top", 2, "--csv", "out.csv", "--device", "cpu")
    assert result.status == 0, result.err
    first, second = (f"{100 * np.exp(k) / np.exp([2, 1, 0]).sum():5.1f} %" for k in (2, 1))
    assert result.out.splitlines()[:2] == [f"set/2.npy    =1+1  {first}  b  {second}", f"set/a/1.npy  =1+1  {first}  b  {second}"]
    assert result.last == "wrote     out.csv"
    with open("out.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image", "class", "probability", "class_2", "probability_2"] and len(rows) == 4
    assert rows[3][:2] == ["'-x.npy", "'=1+1"] and float(rows[1][2]) == pytest.approx(np.exp(2) / np.exp([2, 1, 0]).sum(), abs=1e-6)
    assert "top must be at least 1" in gpucnn("predict", "m.safetensors", "set", "--top", 0).sentence
    for named, what in (("m.safetensors", "the model itself"), ("./set/a/../a/1.npy", "one of the images")):
        before = Path(named).read_bytes()
        refused = gpucnn("predict", "m.safetensors", "set", "--csv", named, "--device", "cpu")
        assert f"{Path(named)} is {what}: name another file with --csv" in refused.sentence and Path(named).read_bytes() == before
    Path("empty").mkdir()
    assert "empty contains no images" in gpucnn("predict", "m.safetensors", "empty", "--device", "cpu").sentence
    assert gpucnn("predict", "m.safetensors", "set/2.npy", "--top", 9, "--device", "cpu").last.count("%") == 3

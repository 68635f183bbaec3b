"""The command line where its surroundings are broken or hostile: no stream, other encodings, two runs in one folder, signals, names."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import experiment
from gpucnn.cli.stopping import STOPPED
from gpucnn.training import checkpoint

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, pipes and closed descriptors are POSIX's here")
PROGRAM = "import sys; sys.modules['matplotlib'] = None; from gpucnn.cli import main; main()"  # pictures take longer than the training

SCRIPT = "import sys; sys.argv[0] = '/usr/bin/gpucnn'; from gpucnn.cli import main; main()"  # as pip writes it


@pytest.fixture
def train(folder: Path) -> tuple[str, ...]:
    """A run on a few small images, of so many epochs: that of the digits starts with scikit-learn, a second later."""
    return "train", "--dataset", str(folder), "--device", "cpu", "--epochs"


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | more


def heeding(*ignored: int) -> None:
    """In a new process: signals do what they do by default, whatever the tests were started with, but for those that are to be ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN if getattr(signal, name) in ignored else signal.SIG_DFL)


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment()}
    return subprocess.Popen(command, text=True, **piped | {"preexec_fn": heeding if os.name == "posix" else None} | options)


def finish(*arguments: object, **options: Any) -> tuple[int, str, str]:
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out or "", err or ""


def harmless(text: str) -> bool:
    return all(unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for line in text.splitlines() for character in line)


# Streams.


@posix
@pytest.mark.parametrize("closed", [(1,), (2,), (0,), (0, 1, 2)])
def test_without_streams(closed, train):
    shut = " ".join(f"{number}>&-" if number else "<&-" for number in closed)
    words = shlex.join([*train, "1", "--output", "out"])
    done = subprocess.run(
        f'"{sys.executable}" -c "{PROGRAM}" {words} {shut}', shell=True, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and Path("out/model.safetensors").exists()
    assert gc.load("out/model.safetensors", device="cpu").metadata["test_accuracy"] > 0.5
    refused = subprocess.run(
        f'"{sys.executable}" -m gpucnn predict nothing nothing {shut}', shell=True, capture_output=True, env=environment()
    )
    assert refused.returncode == 2


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_in_every_encoding(encoding, folder):
    status, out, err = _encoded(encoding, folder)
    assert status == 0, err
    assert "wrote     out" in out and "input 1\u00d712\u00d712".replace("\u00d7", "x" if encoding == "ascii" else "\u00d7") in out


def _encoded(encoding: str, folder: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-c", PROGRAM, "train", "--dataset", str(folder), "--device", "cpu", "--epochs", "1", "--output", "out"]
    done = subprocess.run(command, capture_output=True, env=environment(PYTHONIOENCODING=encoding), timeout=120)
    return done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)


@pytest.mark.parametrize(("given", "shown"), [("0", False), ("", False), ("no", False), ("1", True)])
def test_debug_is_a_flag(given, shown):
    status, _, err = finish("predict", "nothing", "nothing", env=environment(GPUCNN_DEBUG=given))
    assert ("Traceback" in err) == shown and (status == 2) != shown


@pytest.mark.parametrize("home", [None, "/nonexistent/home", "read-only"])
def test_without_a_usable_home(home, train, tmp_path):
    if home == "read-only":
        (tmp_path / "home").mkdir(mode=0o500)
        home = str(tmp_path / "home")
    given = {name: value for name, value in environment().items() if name not in ("HOME", "XDG_CACHE_HOME")} | (
        {"HOME": home} if home else {}
    )
    status, out, err = finish(*train, 1, "--output", "out", env=given)
    assert status == 0, err
    assert "test accuracy" in out


# Two runs.


@posix
def test_a_second_run_into_one_folder_is_refused_with_the_first_one_s_number(train):
    first = start(*train, 100_000, "--output", "out", "--seed", 1)
    assert first.stdout is not None
    try:
        while not first.stdout.readline().startswith("epoch"):
            pass
        before = time.monotonic()
        for more in ((), ("--resume",)):
            status, _, err = finish(*train, 2, "--output", "out", "--seed", 2, *more)
            assert status == 2 and f"process {first.pid} is writing a run to out" in err, err
        assert time.monotonic() - before < 60
    finally:
        first.kill()
        first.communicate()
    assert (Path("out") / ".lock").exists()  # killed: what is left is not an obstacle
    assert finish(*train, 1, "--output", "out", "--seed", 2)[0] == 0
    assert gc.load("out/model.safetensors", device="cpu").seed == 2 and not (Path("out") / ".lock").exists()


@pytest.mark.parametrize(
    ("name", "command"), [("GPUCNN_NUM_THREADS", "train"), ("GPUCNN_NUM_THREADS", "evaluate"), ("GPUCNN_CPU", "train")]
)
def test_a_wrong_setting_is_refused_before_any_work(name, command, train, bars_run):
    """Nothing is loaded, and no earlier run is moved for one that cannot start."""
    before = sorted(path.name for path in bars_run.path.iterdir())
    words = (*train, 1, "--output", bars_run.path) if command == "train" else (command, bars_run.path)
    status, out, err = finish(*words, env=environment(**{name: "x"}))
    assert (status, out) == (2, "") and re.fullmatch(f"gpucnn: {name} must be .*, got 'x'\n", err), err
    assert sorted(path.name for path in bars_run.path.iterdir()) == before


# Signals.


@posix
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_with_a_checkpoint_and_its_own_status(number, expected, train):
    process = start(*train, 100_000, "--output", "out")
    assert process.stdout is not None
    while not process.stdout.readline().startswith("epoch"):
        pass
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == expected, err
    assert err.splitlines()[-1] == f"gpucnn: stopped: the same command with --resume continues from {Path('out/checkpoint.safetensors')}"
    assert "Traceback" not in err and not (Path("out") / ".lock").exists()
    with checkpoint.TensorFile("out/checkpoint.safetensors") as file:
        assert file.description["run"]["epoch"] >= 1
    process = start("train", "--output", "out", "--resume")  # with the run's own options
    assert process.stdout is not None
    lines = []
    while not lines or not lines[-1].startswith("epoch"):
        lines.append(process.stdout.readline())
    assert any(line.startswith("resumed   at epoch ") for line in lines) and lines[-1].split()[1].endswith("/100000")
    process.kill()
    process.communicate()


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_are_ignored_stay_ignored(number, train):
    process = start(*train, 50, "--output", "out", preexec_fn=lambda: heeding(number))
    assert process.stdout is not None
    while not process.stdout.readline().startswith("epoch"):
        pass
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


GUARD = "from gpucnn import starting as _starting"


def test_what_heeds_ctrl_c_is_imported_first():
    first, *_ = ast.parse(Path(gc.__file__).read_text(encoding="utf-8")).body[1:]
    assert ast.unparse(first) == GUARD


@posix
@pytest.mark.parametrize(
    "command", [["-m", "gpucnn"], ["-c", "import sys; sys.argv[0] = '/usr/bin/gpucnn'; from gpucnn.cli import main; main()"]]
)
def test_ctrl_c_at_the_very_start_leaves_no_traceback(command, train):
    for delay in (0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.8):
        process = subprocess.Popen(
            [sys.executable, "-X", "frozen_modules=on", *command, *train, "100000", "--output", "out"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            preexec_fn=heeding,
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            # Python itself took it before gpucnn was there: site among the .pth files, or a callback of the import system.
            frames = [line for line in err.splitlines() if line.lstrip().startswith("File ")]
            imports = "Exception ignored in" in err and "KeyboardInterrupt" in err and all("<frozen importlib" in line for line in frames)
            assert "Error processing line" in err or imports, (delay, out, err)
            continue
        frames = [line for line in err.splitlines() if "gpucnn/" in line]
        if "Traceback" in err and (not frames or (GUARD in err and len(frames) == 1)):
            continue  # Python itself was not there yet, or looked for the module that heeds Ctrl-C, which is the first to be imported
        assert process.returncode in (130, -signal.SIGINT), (delay, out, err)
        assert "Traceback" not in err, (delay, err)


def test_a_program_that_imports_gpucnn_keeps_its_ctrl_c():
    code = "import signal; before = signal.getsignal(signal.SIGINT); import gpucnn; print(signal.getsignal(signal.SIGINT) is before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout == "True\n"


# Options of a run that is resumed.


def test_resume_names_the_option_that_differs(gpucnn, folder, monkeypatch):
    command = ("train", "--dataset", folder, "--device", "cpu", "--output", "run")
    assert gpucnn(*command, "--epochs", 2, "--batch-size", 4, "--lr", 0.002).status == 0
    for option, value in (
        ("--epochs", 1),
        ("--batch-size", 5),
        ("--lr", 0.001),
        ("--seed", 1),
        ("--augment", "none"),
        ("--optimizer", "sgd"),
        ("--schedule", "cosine"),
        ("--model", "tf2"),
        ("--precision", "high"),
        ("--dataset", "digits"),
    ):
        sentence = gpucnn("train", "--output", "run", "--resume", option, value).sentence
        assert f"it was started with {option} " in sentence and "leave out --resume to start a new run" in sentence, sentence
        assert f"this command has {option} {value!r}" in sentence
    for same in ((), ("--epochs", 2), ("--lr", "2e-3"), ("--dataset", os.path.relpath(folder)), ("--seed", 0)):
        again = gpucnn("train", "--output", "run", "--resume", *same)
        assert again.status == 0 and "nothing to do" in again.out, (same, again.err)


# Where the data of a model are, and what is read on a file's word.


def arrays(folder: Path, colour: bool = False) -> Path:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            np.save(folder / name / f"{number}.npy", np.full((8, 8), 30 * number, np.uint8))
    if colour:
        np.save(folder / "cat/colour.npy", np.zeros((3, 8, 8), np.uint8))
    return folder


@pytest.mark.usefixtures("no_pictures")
def test_evaluate_and_predict_find_the_data_and_fit_channels_from_anywhere(gpucnn, tmp_path, monkeypatch):
    arrays(tmp_path / "photos", colour=True)
    run = gpucnn("train", "--dataset", "photos", "--epochs", 1, "--device", "cpu", "--output", "out")
    assert run.status == 0, run.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert gpucnn("evaluate", tmp_path / "out/model.safetensors").last == run.last
    assert gpucnn("predict", tmp_path / "out/model.safetensors", tmp_path / "photos/cat/0.npy").status == 0
    arrays(tmp_path / "grey")
    assert gpucnn("evaluate", tmp_path / "out/model.safetensors", "--dataset", tmp_path / "grey").status == 0
    assert gpucnn("train", "--output", tmp_path / "out", "--resume").status == 0  # and so does a run that is resumed


@pytest.mark.usefixtures("no_pictures")
def test_a_model_chooses_no_folder_to_read(gpucnn, tmp_path):
    arrays(tmp_path / "photos")
    assert gpucnn("train", "--dataset", "photos", "--epochs", 1, "--device", "cpu", "--output", "out").status == 0
    checkpoint = Path("out/checkpoint.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    sentence = gpucnn("evaluate", "out/model.safetensors").sentence
    assert "the run beside it cannot be read" in sentence and "checkpoint.safetensors" in sentence and "--dataset" in sentence
    Path("alone").mkdir()
    Path("out/model.safetensors").rename("alone/model.safetensors")
    sentence = gpucnn("evaluate", "alone/model.safetensors").sentence
    assert "does not say where 'photos' is, which it was trained on, and there is no run beside it that does: name it with" in sentence
    assert gpucnn("evaluate", "alone/model.safetensors", "--dataset", "photos").status == 0
    model = gc.load("alone/model.safetensors", device="cpu")
    for folder in ("/etc", "../secret", 3, None, ["mnist"], "\x1b[2J"):
        model.metadata["dataset"] = folder
        model.save("alone/model.safetensors")
        assert "name it with --dataset" in gpucnn("evaluate", "alone/model.safetensors").sentence
    del model.metadata["dataset"]  # as in the file of a program that keeps none
    model.save("alone/model.safetensors")
    sentence = gpucnn("evaluate", "alone/model.safetensors").sentence
    assert "does not say which data set it was trained on, and there is no run beside it that does: name one with --dataset" in sentence


# Names.

HARMFUL = "\x1b]0;title\x07\x1b[31mred\u202eback"


@posix
@pytest.mark.usefixtures("no_pictures")
def test_nothing_from_a_name_reaches_the_terminal(gpucnn, tmp_path):
    folder = arrays(tmp_path / f"set{HARMFUL}")
    (folder / "dog").rename(folder / f"dog{HARMFUL}\nx")
    (folder / f"a{HARMFUL}.npy").write_bytes(b"loose")
    (folder / "cat" / f"note.{HARMFUL}").write_bytes(b"x")
    output = f"out{HARMFUL}"
    results = [gpucnn("train", "--dataset", folder, "--epochs", 1, "--device", "cpu", "--output", output)]
    assert results[0].status == 0, results[0].err
    model = Path(output) / "model.safetensors"
    results += [
        gpucnn("evaluate", model),
        gpucnn("predict", model, folder / "cat/0.npy", folder / f"dog{HARMFUL}\nx/1.npy"),
        gpucnn("predict", model, f"none{HARMFUL}"),
        gpucnn("evaluate", model, "--dataset", f"none{HARMFUL}"),
        gpucnn("evaluate", f"none{HARMFUL}"),
        gpucnn("train", "--output", output, "--resume", "--epochs", 2),
        gpucnn("train", "--model", HARMFUL),
        gpucnn("train", "--epochs", HARMFUL),
        gpucnn(f"--{HARMFUL}"),
        gpucnn(HARMFUL),
        gpucnn("train", HARMFUL),
        gpucnn("info", HARMFUL),
        gpucnn("profile", "--model", HARMFUL, "--device", "cpu"),
        gpucnn("train", "--data-dir", HARMFUL, "--dataset", "mnist", "--output", "x"),
    ]
    for result in results:
        assert harmless(result.out) and harmless(result.err), (result.out, result.err)
        assert all(len(line) <= 500 for line in (result.out + result.err).splitlines())
    assert "\\x1b[31mred" in results[0].out


def test_long_words_make_no_long_message(gpucnn):
    for arguments in (
        ("train", "--model", "m" * 5000),
        ("train", "--epochs", "9" * 5000),
        ("train", "--dataset", "d" * 5000),
        ("x" * 5000,),
        ("predict", "p" * 5000, "q" * 5000),
        ("train", "--output", "o" * 5000),
        ("train", "--device", "d" * 5000),
    ):
        result = gpucnn(*arguments)
        assert result.status == 2 and all(len(line) <= 500 for line in result.err.splitlines()), result.err[:2000]


def test_formats_that_start_programs_are_never_opened(gpucnn, digits, tmp_path, monkeypatch):
    from PIL import EpsImagePlugin, Image

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "cat.png").write_bytes((tmp_path / "a.eps").read_bytes())
    sentence = gpucnn("predict", digits.model, tmp_path / "cat.png").sentence
    assert "cannot be read as an image" in sentence
    for name, kind in (("ico", "ICO"), ("pcx", "PCX"), ("tga", "TGA"), ("jp2", "JPEG2000")):
        try:
            Image.new("RGB", (8, 8)).save(tmp_path / f"a.{name}", kind)
        except OSError:  # not in this Pillow
            continue
        (tmp_path / "a.png").write_bytes((tmp_path / f"a.{name}").read_bytes())
        assert "cannot be read as an image" in gpucnn("predict", digits.model, tmp_path / "a.png").sentence


# What a run leaves in which order.


def test_the_model_is_written_before_the_pictures(gpucnn, folder, monkeypatch):
    from gpucnn import plots

    seen = []
    for name in ("save_curves", "save_confusion", "save_filters", "save_features", "save_mistakes"):
        monkeypatch.setattr(plots, name, lambda *_: seen.append(Path("run/model.safetensors").exists()) or False)
    assert gpucnn("train", "--dataset", folder, "--device", "cpu", "--epochs", 1, "--output", "run").status == 0
    assert seen == [True] * 5


@pytest.mark.parametrize("classes", [2, 60, 5000])
def test_pictures_of_many_classes_stay_small(classes, tmp_path):
    from gpucnn import plots

    counts = np.eye(classes, dtype=np.int64) * 3
    counts[0, -1] = 2
    started = time.monotonic()
    plots.save_confusion(counts, [f"class {HARMFUL} {number}" for number in range(classes)], tmp_path / "a.png")
    from PIL import Image

    with Image.open(tmp_path / "a.png") as picture:
        assert max(picture.size) < 2500
    assert (tmp_path / "a.png").stat().st_size < 400_000 and time.monotonic() - started < 30


def test_a_run_notes_its_options_and_nothing_else_of_the_machine(gpucnn, folder):
    assert gpucnn("train", "--dataset", folder, "--device", "cpu", "--epochs", 1, "--output", "run").status == 0
    notes = experiment.run_notes(Path("run/checkpoint.safetensors"))
    assert set(notes) == {"options", "data_dir"} and set(notes["options"]) == set(experiment.OPTIONS) and notes["data_dir"] is None
    assert notes["options"]["dataset"] == str(folder) and json.dumps(notes)
    assert set(STOPPED) == {128 + signal.SIGINT, 128 + 15, 128 + 1}


@pytest.mark.usefixtures("no_pictures")
def test_the_folder_of_a_data_set_s_files_is_found_again(gpucnn, tmp_path, monkeypatch):
    asked = []
    digits = gc.load_dataset("digits")
    monkeypatch.setattr(experiment.data, "load_dataset", lambda name, folder, **_: asked.append(folder) or digits)
    (tmp_path / "files").mkdir()
    command = ("train", "--dataset", "mnist", "--device", "cpu", "--output", tmp_path / "out")
    assert gpucnn(*command, "--data-dir", "files", "--epochs", 1).status == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert gpucnn("evaluate", tmp_path / "out/model.safetensors").status == 0
    assert gpucnn(*command, "--resume").status == 0
    assert gpucnn("evaluate", tmp_path / "out/model.safetensors", "--data-dir", tmp_path).status == 0
    assert asked == [Path("files"), tmp_path / "files", tmp_path / "files", tmp_path]


@posix
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_end_that_some_package_swallows_comes_all_the_same(gpucnn, monkeypatch, number, expected, train):
    """Some catch everything while they are imported."""
    original = experiment.data.load_dataset

    def swallow(*given, **more):
        with contextlib.suppress(BaseException):
            signal.raise_signal(number)
        return original(*given, **more)

    monkeypatch.setattr(experiment.data, "load_dataset", swallow)
    stopped = gpucnn(*train, 1, "--output", "out")
    assert (stopped.status, stopped.out, stopped.err) == (expected, "", "gpucnn: stopped\n")


def test_a_picture_of_many_filters_stays_small(tmp_path):
    from PIL import Image

    from gpucnn import plots

    model = gc.Sequential(gc.Conv2D(3000, 3)).build((1, 5, 5), device="cpu")
    assert plots.save_filters(model, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert max(picture.size) < 6000

"""Words of others (names of files and classes, metadata, settings) in what we print: harmless, on one line, short; whatever the stream."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import surroundings, text
from gpucnn.errors import DataError, GpucnnError

ROOT = Path(gc.__file__).parent
HARMFUL = "\x1b]0;title\x07\x1b[31mred\r\n\t\x00\x7f\x9b2J\u202eback\u2066\u200b\ufeff\u2028\u2029\ud800\U000e0041"


def harmless(line: str) -> bool:
    return all(character in "\u200c\u200d" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in line)


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert harmless(text.plain(HARMFUL)) and text.plain(HARMFUL).startswith(r"\x1b]0;title\x07\x1b[31mred\r\n")
    assert "\\u202eback" in text.plain(HARMFUL) and "\\ud800" in text.plain(HARMFUL)
    for words in ("plain", "Füße, 日本語 → ×", "نامه‌ای", "👩‍👩‍👧"):
        assert text.plain(words) == words


@pytest.mark.parametrize("length", [1, 99, 499, 500, 501, 5000, 10**6])
def test_messages_are_short_and_keep_both_ends(length: int) -> None:
    words = "a" * (length - 1) + "z"
    short = text.message(words)
    assert len(short) <= 500 and short.endswith("z")
    assert short == words if length <= 500 else "…" in short


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("not now")


VALUES = [HARMFUL, "a" * 10**6, [[0] * 10**6] * 10, list(range(10**6)), {n: n for n in range(10**5)}, np.zeros((2000, 2000))]


@pytest.mark.parametrize("value", [*VALUES, Silent(), [10**5000]], ids=lambda value: type(value).__name__)
def test_values_are_shown_without_walking_through_them(value: Any) -> None:
    assert len(text.shown(value)) <= 100 and harmless(text.shown(value))


LARGE = [HARMFUL * 300, ["x" * 10**5] * 50, list(range(10**5)), np.arange(10**5), -(10**5000), 10**5000, {"a" * 10**5: 1}, Silent()]


@pytest.mark.parametrize("index", range(len(LARGE)))
def test_no_argument_makes_a_message_long_or_harmful(index: int, tmp_path: Path) -> None:
    """Every constructor and function with each argument in turn."""
    value = LARGE[index]
    built = gc.Sequential(gc.Flatten(), gc.Dense(4)).build((1, 2, 2), device="cpu").compile()
    x, y = np.zeros((4, 1, 2, 2), np.float32), np.arange(4)
    calls: dict[str, Any] = {
        f"{kind.__name__}.{name}": (lambda kind=kind, need=need, name=name: kind(**{**need, name: value}))
        for kind, need, names in (
            (gc.Conv2D, {"filters": 1, "kernel_size": 1}, "filters kernel_size stride padding dilation groups activation initializer"),
            (gc.MaxPool2D, {}, "pool_size stride padding dilation"),
            (gc.AvgPool2D, {}, "pool_size stride padding"),
            (gc.Dense, {"units": 1}, "units activation initializer"),
            (gc.Dropout, {}, "rate"),
            (gc.SGD, {}, "learning_rate momentum weight_decay"),
            (gc.Adam, {}, "learning_rate beta1 beta2 epsilon weight_decay"),
            (gc.StepDecay, {"learning_rate": 1, "every": 1}, "learning_rate every factor"),
            (gc.Cosine, {"learning_rate": 1, "steps": 1}, "learning_rate steps final"),
            (gc.OneCycle, {"learning_rate": 1, "steps": 1}, "learning_rate steps warmup start_factor end_factor"),
            (gc.EarlyStopping, {}, "monitor patience min_delta mode"),
            (gc.Checkpoint, {"path": "a"}, "every"),
            (gc.data.Shift, {}, "pixels"),
            (gc.data.Affine, {}, "shift rotate_degrees scale"),
            (gc.data.Elastic, {}, "pixels grid"),
            (gc.data.Batches, {"images": x, "labels": y, "batch_size": 1}, "images labels batch_size seed augment dtype"),
        )
        for name in names.split()
    }
    calls |= {
        "device": lambda: gc.get_device(value),
        "network": lambda: gc.network(value),
        "Sequential": lambda: gc.Sequential(value),
        "register": lambda: gc.register(value),
        "augmentation": lambda: gc.data.augmentation(value),
        "augmentation of a config": lambda: gc.data.augmentation({"name": "shift", "pixels": value}),
        "load_dataset": lambda: gc.load_dataset(value),
        "load_dataset seed": lambda: gc.load_dataset("digits", seed=value),
        "load": lambda: gc.load(value),
        "read_image": lambda: gc.data.read_image(value),
        "accuracy": lambda: gc.metrics.accuracy(value, y),
        "build": lambda: gc.Sequential(gc.Flatten()).build(value, device="cpu"),
        "build dtype": lambda: gc.Sequential(gc.Flatten()).build((1, 2, 2), device="cpu", dtype=value),
        "compile": lambda: built.compile(value),
        "compile loss": lambda: built.compile("adam", value),
        "compile metrics": lambda: built.compile("adam", metrics=value),
        "fit": lambda: built.fit(value, y),
        "fit labels": lambda: built.fit(x, value),
        "fit callbacks": lambda: built.fit(x, y, callbacks=value),
        "fit validation": lambda: built.fit(x, y, validation_data=value),
        "fit epochs": lambda: built.fit(x, y, epochs=value if value != 10**5000 else -value),
        "predict": lambda: built.predict(value),
        "assign": lambda: setattr(built.parameters["dense_1.weight"], "value", value),
        "conv2d": lambda: gc.functional.conv2d(x, value),
        "max_pool2d": lambda: gc.functional.max_pool2d(x, value),
        "input_shape": lambda: gc.functional.conv2d_input_grad(x, x, value),
        "padding": lambda: gc.functional.conv2d(x, x, padding=value),
    }
    for name, call in calls.items():
        try:
            call()
        except Exception as error:
            if isinstance(error, MemoryError | OverflowError):
                continue
            assert isinstance(error, GpucnnError | ValueError | TypeError | OSError), (name, error)
            assert len(str(error)) <= 500 and harmless(str(error)), (name, len(str(error)))


def test_nothing_is_printed_but_through_one_function() -> None:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if path.name == "surroundings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "id", "") if isinstance(node, ast.Name) else f".{getattr(node, 'attr', '')}"
            if isinstance(node, ast.Name | ast.Attribute) and name in ("print", ".isatty", ".expanduser", ".home"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
    assert [place for place in found if not place.startswith("profiling")] == []


class Narrow(io.TextIOWrapper):
    """A stream of a small encoding."""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp437", "utf-8", "shift_jis"])
def test_a_line_goes_through_every_encoding(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    surroundings.say("─── 28 × 28 … 日本 → −1", stream)
    line = raw.getvalue().decode(encoding)
    assert line.endswith("\n") and "28" in line
    if encoding == "ascii":
        assert line == "--- 28 x 28 ... \\u65e5\\u672c \\u2192 -1\n"


class NoTerminal:
    """A stream with nothing but what print asks for."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, words: str) -> None:
        self.lines.append(words)


@pytest.mark.parametrize("stream", [None, NoTerminal(), io.StringIO(), "closed"])
def test_streams_of_all_kinds(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    assert not surroundings.is_terminal(stream)
    surroundings.say("a\x1b")
    surroundings.complain("b")
    model = gc.Sequential(gc.Flatten(), gc.Dense(4)).build((1, 2, 2), device="cpu").compile()
    model.summary()
    model.fit(np.zeros((4, 1, 2, 2), np.float32), np.arange(4), callbacks=[gc.Progress()])
    if isinstance(stream, NoTerminal):
        surroundings.say("one\nline")
        assert "one\\nline\n" in stream.lines and any(line.startswith("flatten_1 ") for line in stream.lines)
        assert "a\\x1b\n" in stream.lines and any(line.startswith("epoch 1/1") for line in stream.lines)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-16"])
def test_summary_in_every_encoding(encoding: str) -> None:
    code = "import gpucnn as gc; gc.network('keras').build((1, 12, 12), device='cpu').summary()"
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0 and b"total" in done.stdout.replace(b"\0", b""), done.stderr


@pytest.mark.parametrize(("given", "expected"), [*((no, False) for no in ("", "0", "no", "OFF", "false")), ("1", True), ("yes", True)])
def test_flags_of_the_environment(given: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_A_FLAG", given)
    assert surroundings.flag("GPUCNN_A_FLAG") == surroundings.flag("GPUCNN_A_FLAG", True) == expected
    monkeypatch.delenv("GPUCNN_A_FLAG")
    assert (surroundings.flag("GPUCNN_A_FLAG"), surroundings.flag("GPUCNN_A_FLAG", True)) == (False, True)


def test_a_home_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory.")))
    monkeypatch.setattr(Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError("Could not determine home directory.")))
    assert surroundings.home() is None and surroundings.cache_folder() is None
    with pytest.raises(DataError, match="the home folder that '~/a' refers to is not known"):
        surroundings.user_path("~/a")


def test_names_of_classes_and_files_in_pictures_and_errors(tmp_path: Path) -> None:
    place = tmp_path / ("a\x1b[31m\n" + "b" * 200)
    place.mkdir()
    with pytest.raises(DataError) as caught:
        gc.load_dataset(place)
    assert harmless(str(caught.value)) and len(str(caught.value)) <= 500
    with pytest.raises(gc.CheckpointError) as refused:
        gc.load(place / "\x1b[2J.safetensors")
    assert harmless(str(refused.value)) and "\\x1b[2J" in str(refused.value)


def test_the_library_says_that_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its name on a terminal; elsewhere once."""
    arrays = pytest.importorskip("gpucnn.ops.cuda._arrays", reason="Numba's CUDA target is not installed")
    by_name = ["compiling a, this first time", "compiling b, this first time"]
    for terminal, lines in ((True, by_name), (False, ["gpucnn is compiling kernels"])):
        stream = io.StringIO()
        stream.isatty = lambda terminal=terminal: terminal  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stderr", stream)
        announce = arrays.Announcement()
        announce("a")
        announce("b")
        told = stream.getvalue().splitlines()
        assert len(told) == len(lines) and all(line.startswith(words) for line, words in zip(told, lines, strict=True))

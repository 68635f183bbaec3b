"""The command line, called in this process: a process of its own costs a second each."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from gpucnn import cli
from gpucnn.data import search


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.splitlines()[-1]

    @property
    def sentence(self) -> str:
        """The one line on stderr of a command that was refused."""
        lines = self.err.splitlines()
        assert self.status == 2, (self.status, self.out, self.err)
        assert len(lines) == 1 and lines[0].startswith("gpucnn: "), self.err
        assert "this is a bug" not in lines[0] and "Traceback" not in self.out, lines[0]
        return lines[0]


def call(*arguments: object, out: io.StringIO | None = None, err: io.StringIO | None = None) -> Result:
    out, err = out or io.StringIO(), err or io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["gpucnn", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
    assert isinstance(status, int)
    return Result(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def gpucnn() -> Callable[..., Result]:
    return call


@pytest.fixture(autouse=True)
def secluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No download, no cache of the user's, the CPU, and a current folder that goes away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUCNN_DATA_DIR", raising=False)
    monkeypatch.delenv("GPUCNN_DEBUG", raising=False)
    monkeypatch.setattr(search, "cache_folder", lambda: None)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training on these small sets."""
    from gpucnn import plots

    for name in ("save_curves", "save_confusion", "save_filters", "save_features", "save_mistakes"):
        monkeypatch.setattr(plots, name, lambda *arguments: False)


def write_png(path: Path, image: np.ndarray) -> Path:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def bars(folder: Path, names: tuple[str, ...] = ("across", "down"), count: int = 14, size: int = 12, colour: bool = False) -> Path:
    """Images of a bright bar each, noisy, and of another place and direction for each class."""
    rng = np.random.default_rng(5)
    for number, name in enumerate(names):
        for index in range(count):
            image = rng.integers(0, 60, (size, size, 3) if colour else (size, size)).astype(np.uint8)
            at = (2 * number + 1) % (size - 1)
            part = image[at : at + 2] if number % 2 else image[:, at : at + 2]
            part[...] = 200 + rng.integers(0, 50, part.shape)
            write_png(folder / name / f"{index:02}.png", image)
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 + 4 images of 12×12 in two classes."""
    return bars(tmp_path_factory.mktemp("sets") / "bars")


@dataclass(frozen=True)
class Trained:
    path: Path
    result: Result

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A whole run on the digits, pictures included."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    return Trained(path, call("train", "--dataset", "digits", "--epochs", 1, "--device", "cpu", "--output", path))


@pytest.fixture(scope="session")
def bars_run(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Trained:
    path = tmp_path_factory.mktemp("runs") / "bars"
    with mock.patch.dict(os.environ), mock.patch("gpucnn.experiment.run.plots"):
        result = call("train", "--dataset", folder, "--epochs", 1, "--device", "cpu", "--output", path, "--seed", 3)
    assert result.status == 0, result.err
    return Trained(path, result)

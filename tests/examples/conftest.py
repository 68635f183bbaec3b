"""The examples, run in this process as `python examples/NAME.py` would run them: a process of its own costs a second each."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from gpucnn.data import search
from gpucnn.device import Device, get_device, why_no_cuda

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def load(path: Path) -> Any:
    """The module in a file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_examples = load(ROOT / "docs" / "make_examples.py")
SHOWN = make_examples.shown(make_examples.TARGET.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line on stderr of an example that was refused; before it there is only how it is used."""
        lines = self.err.splitlines()
        assert self.status == 2 and lines, (self.status, self.out, self.err)
        assert "Traceback" not in self.err and all(line.startswith(("usage: ", " ")) for line in lines[:-1]), self.err
        return lines[-1]


def call(name: str, *arguments: object) -> Result:
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with (
        mock.patch.object(sys, "argv", [str(EXAMPLES / f"{name}.py"), *map(str, arguments)]),
        mock.patch.object(sys, "path", [str(EXAMPLES), *sys.path]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        except SystemExit as end:
            status = end.code
    assert isinstance(status, int)
    command = " ".join(map(str, (name, *arguments)))
    if status == 0 and command in SHOWN:  # in docs/examples.md, which is true of it but for the numbers
        assert make_examples.without_numbers(out.getvalue()) == make_examples.without_numbers(SHOWN[command]), "docs/make_examples.py"
    return Result(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def example() -> Callable[..., Result]:
    return call


@pytest.fixture(autouse=True)
def secluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No download, no data and no tables of the user's, and a current folder that goes away."""
    monkeypatch.chdir(tmp_path)
    for name in ("GPUCNN_DATA_DIR", "GPUCNN_DEVICE", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(search, "cache_folder", lambda: None)
    monkeypatch.setenv("GPUCNN_TUNED", str(tmp_path / "tuned"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    yield
    if "vgpu" in sys.modules and "cupy" in sys.modules:  # what CuPy keeps for reuse has no bounds of its own
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()


@pytest.fixture(scope="session")
def gpu() -> Device:
    """The device "cuda", on a GPU only, real or virtual."""
    missing = why_no_cuda()
    if missing:
        pytest.skip(f"needs a GPU: {missing}")
    return get_device("cuda")

"""The examples with real launches; on the virtual GPU the smallest part of each, which must say that it has measured nothing."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gpucnn as gc
from gpucnn.device import Device
from gpucnn_kernels.choose import tuned

pytestmark = pytest.mark.gpu

VIRTUAL = "vgpu" in sys.modules
LONG = pytest.mark.slow if VIRTUAL else ()
Example = Callable[..., Any]


def nothing_measured(gpu: Device, text: str) -> bool:
    if VIRTUAL:
        return f"{gpu.name} is a virtual GPU, which runs on the CPU and has no times: the figures mean nothing" in text
    return "a run with --quick: the figures mean nothing" in text


def test_quickstart(gpu: Device, example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten lines have no options: on the virtual GPU they get a twentieth of the images, and an epoch."""
    pytest.importorskip("sklearn")
    monkeypatch.setenv("GPUCNN_DEVICE", "cuda")
    digits, devices = gc.load_dataset("digits"), []
    if VIRTUAL:
        few = {name: getattr(digits, name)[:64] for name in ("train_images", "train_labels", "test_images", "test_labels")}
        monkeypatch.setattr(gc, "load_dataset", lambda name: replace(digits, **few))
    fit = gc.Sequential.fit

    def watched(model: gc.Sequential, *arguments: Any, **options: Any) -> Any:
        devices.append(model.device.name)
        return fit(model, *arguments, **{**options, **({"epochs": 1} if VIRTUAL else {})})

    monkeypatch.setattr(gc.Sequential, "fit", watched)
    result = example("quickstart")
    assert result.status == 0 and devices == [gpu.name]
    assert float(result.out.split()[-2]) > (20 if VIRTUAL else 95)


@pytest.mark.parametrize("name", [pytest.param("mnist_speedrun", marks=LONG)])  # its network is compiled for it alone
def test_mnist_speedrun(gpu: Device, example: Example, name: str) -> None:
    result = example(name, "--quick", "--device", "cuda", "--seeds", 1)
    assert result.status == 0, result.err
    assert f"{gpu.name}: the first steps" in result.out and nothing_measured(gpu, result.out)
    assert re.search(r"^seed 0: \d+\.\d\d % after \d+\.\d{3} s$", result.out, re.MULTILINE)


@pytest.mark.parametrize("name", [pytest.param("accuracy_against_pytorch", marks=LONG)])
def test_accuracy_against_pytorch(gpu: Device, example: Example, name: str) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    result = example(name, "--quick", "--device", "cuda", "--epochs", 1)
    assert result.status == 0 and re.search(r"^mean +gpucnn +\d+\.\d\d %", result.out, re.MULTILINE), result.err


@pytest.mark.parametrize("name", [pytest.param("profile_kernels", marks=LONG)])
def test_profile_kernels(gpu: Device, example: Example, tmp_path: Path, name: str) -> None:
    result = example(name, "--quick", "--device", "cuda", "--html", tmp_path / "profile.html")
    assert result.status == 0, result.err
    assert gpu.name in result.out and "adam" in result.out and nothing_measured(gpu, result.out)
    assert gpu.name in (tmp_path / "profile.html").read_text(encoding="utf-8")


def test_steps(gpu: Device, example: Example) -> None:
    result = example("steps_on_gpu", "--quick", "--rounds", 1 if VIRTUAL else 2)
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert f"{gpu.name}: keras, batch 4, float32" in lines and nothing_measured(gpu, lines[-1])
    assert all(any(line.startswith(f"gpucnn, {how} ") for line in lines) for how in ("one graph", "kernel by kernel"))


@pytest.mark.parametrize(
    "parts", ["ladder", *(pytest.param(part, marks=LONG) for part in ("shapes speedrun", "tune", "networks", "steps"))]
)
def test_measure_chip(gpu: Device, example: Example, tmp_path: Path, parts: str) -> None:
    file = tmp_path / "figures.json"
    result = example("measure_chip", file, "--quick", "--parts", *parts.split())
    assert result.status == 0, result.out
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert list(figures) == ["about", *parts.split()] and all(figures[part] for part in parts.split())
    assert figures["about"]["chip"] == gpu.name and nothing_measured(gpu, figures["about"]["nothing measured"])
    assert nothing_measured(gpu, result.out)
    table = tuned.path(gpu.name)
    assert table is not None and table.is_relative_to(tmp_path) and not table.exists()


@pytest.mark.skipif(not VIRTUAL, reason="a real GPU is measured")
@pytest.mark.parametrize("command", ["measure_chip figures.json", "steps_on_gpu"])
def test_a_virtual_gpu_is_not_measured(gpu: Device, example: Example, tmp_path: Path, command: str) -> None:
    words = f"there is no GPU to measure: {gpu.name} is a virtual GPU"
    assert words in example(*command.split()).sentence
    assert not (tmp_path / "figures.json").exists()

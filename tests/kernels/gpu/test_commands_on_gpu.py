"""The commands with real launches: a small folder of images through train, evaluate, predict, profile and tune, and what can go wrong."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from kernel_harness import REAL

from gpucnn import cli
from gpucnn.device import Device
from gpucnn.profiling.measure import gpu as profiled
from gpucnn.profiling.measure import timing
from gpucnn_kernels.choose import tuned

pytestmark = pytest.mark.gpu

EPOCHS, BATCH = 2, 8
LONG = () if REAL else (pytest.mark.slow,)
TIMING = ("seconds", "images_per_second")


def call(*arguments: object, status: int = 0) -> str:
    """The command's standard output, or the sentence on standard error where it is refused."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["gpucnn", *map(str, arguments)]),
        mock.patch("gpucnn.experiment.run.plots"),  # drawing takes longer than training here
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        cli.main()
    assert end.value.code == status, (end.value.code, out.getvalue(), err.getvalue())
    return err.getvalue() if status else out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 + 6 images of 12×12 in two classes: a bright bar across, or down."""
    from PIL import Image

    path, rng = tmp_path_factory.mktemp("sets") / "bars", np.random.default_rng(5)
    for number, name in enumerate(("across", "down")):
        (path / name).mkdir(parents=True)
        for index in range(14):
            image = rng.integers(0, 60, (12, 12)).astype(np.uint8)
            (image if number else image.T)[:, 3:5] = 220
            Image.fromarray(image).save(path / name / f"{index:02}.png")
    return path


def train(folder: Path, output: Path, *more: object) -> str:
    return call("train", "--dataset", folder, "--device", "cuda", "--epochs", EPOCHS, "--batch-size", BATCH, "--output", output, *more)


@pytest.fixture(scope="module")
def trained(gpu: Device, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "bars"
    out = train(folder, path)
    assert f"device    {gpu.name}" in out and "test accuracy 100.00 %" in out.splitlines()[-1]
    return path


def same(one: Path, other: Path) -> bool:
    def history(path: Path) -> list[dict[str, str]]:
        with open(path / "history.csv", newline="") as file:
            return [{name: value for name, value in row.items() if name not in TIMING} for row in csv.DictReader(file)]

    return history(one) == history(other) and (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_info(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUCNN_DEVICE", raising=False)
    assert (f"device        cuda: {gpu.name}" if REAL else "device        cpu: CPU") in call("info")
    assert REAL or f"no GPU        {gpu.name} runs on the CPU" in call("info")
    monkeypatch.setenv("GPUCNN_DEVICE", "cuda")
    assert call("info").splitlines()[-1] == f"device        cuda: {gpu.name}"


def test_the_same_seed_gives_the_same_bits(trained: Path, folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "again")
    assert same(tmp_path / "again", trained)
    train(folder, tmp_path / "other", "--seed", 1)
    assert not same(tmp_path / "other", trained)


def test_launches_one_by_one_give_the_bits_of_graphs(trained: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_GRAPHS", "0")
    train(folder, tmp_path / "run")
    assert same(tmp_path / "run", trained)


def test_a_set_too_large_for_the_device_comes_from_the_host(
    trained: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In other batches, because the host draws the random numbers for it; the same ones every time."""
    made: list[Any] = []
    from gpucnn.training import feed

    class Counted(feed.HostFeed):
        def __init__(self, *arguments: Any) -> None:
            made.append(self)
            super().__init__(*arguments)

    monkeypatch.setattr(feed, "HostFeed", Counted)
    monkeypatch.setattr(feed, "on_device", lambda augment: False)
    for name in ("one", "two"):
        train(folder, tmp_path / name)
    assert len(made) == 2 and same(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("model", [pytest.param(model, marks=LONG) for model in ("tf2", "lenet5x5")])
def test_networks(gpu: Device, folder: Path, tmp_path: Path, model: str) -> None:
    assert "test accuracy" in train(folder, tmp_path, "--model", model, "--epochs", 1)


@pytest.mark.parametrize("name", [pytest.param("digits", marks=LONG)])
def test_digits(gpu: Device, tmp_path: Path, name: str) -> None:
    pytest.importorskip("sklearn")
    out = call("train", "--dataset", name, "--device", "cuda", "--epochs", 1, "--batch-size", 128, "--output", tmp_path)
    assert float(out.splitlines()[-1].split()[-2]) > 80


def test_evaluate_and_predict_agree_with_the_cpu(gpu: Device, trained: Path, folder: Path) -> None:
    model, image = trained / "model.safetensors", folder / "down" / "03.png"
    for command in (("evaluate", model, "--dataset", folder), ("predict", model, image)):
        on_gpu, on_cpu = (call(*command, "--device", device).splitlines() for device in ("cuda", "cpu"))
        assert on_gpu[-1] == on_cpu[-1]


def test_kill_9_and_resume(trained: Path, folder: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "gpucnn",
        "train",
        "--dataset",
        folder,
        "--device",
        "cuda",
        "--epochs",
        EPOCHS,
        "--batch-size",
        BATCH,
        "--output",
        tmp_path,
        "--checkpoint-every",
        1,
        "--resume",
    ]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("epoch "):
                process.kill()
                break
    assert process.returncode == -9, "".join(said)
    train(folder, tmp_path, "--checkpoint-every", 1, "--resume")
    assert same(tmp_path, trained)


@pytest.fixture
def few_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The virtual GPU has no time to waste, and nothing that it shows is one."""
    for module, name, value in (
        (timing, "LEAST_SAMPLE", 0),
        (timing, "MOST_RUNS", 2),
        (timing, "LEAST_SAMPLES", 2),
        (timing, "MOST_SAMPLES", 2),
        (profiled, "WARM_UP", 1),
        (profiled, "STEPS", 2),
        (profiled, "TURNS", 2),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.usefixtures("few_repetitions")
def test_profile(gpu: Device, trained: Path, tmp_path: Path) -> None:
    page, numbers = tmp_path / "profile.html", tmp_path / "profile.json"
    out = call(
        "profile", "--model", trained / "model.safetensors", "--batch-size", 4, "--device", "cuda", "--html", page, "--json", numbers
    )
    assert gpu.name in out and all(name in out for name in ("conv2d", "dense", "adam"))
    assert gpu.name in page.read_text() and numbers.stat().st_size > 1000


@pytest.mark.slow  # compiles every variant
@pytest.mark.usefixtures("few_repetitions")
def test_tune(gpu: Device, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_TUNED", str(tmp_path))
    call("tune", "--model", trained / "model.safetensors", "--batch-size", 4)
    assert tuned.path(gpu.name).parent == tmp_path


def alone(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, where the driver begins anew."""
    command = [sys.executable, "-m", "gpucnn", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=300)


@pytest.mark.skipif(REAL, reason="a real GPU has the memory that it has")
def test_out_of_memory_is_one_sentence(gpu: Device, folder: Path, tmp_path: Path) -> None:
    result = alone("train", "--dataset", folder, "--device", "cuda", "--model", "lenet5x5", "--output", tmp_path, VGPU_MEMORY="1")
    assert result.returncode == 2 and "memory" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("gpucnn: "), result.stderr


@pytest.mark.skipif(REAL, reason="a real driver is as old as it is")
def test_an_old_driver_is_one_sentence(gpu: Device, folder: Path, tmp_path: Path) -> None:
    result = alone("train", "--dataset", folder, "--device", "cuda", "--output", tmp_path, VGPU_DRIVER="11000")
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1, result.stderr
    assert 'device "cuda" cannot be used: the NVIDIA driver is too old: it knows CUDA 11.0' in result.stderr
    assert "gpucnn[cuda11]" not in result.stderr  # there is none
    assert "no GPU        the NVIDIA driver is too old: it knows CUDA 12.4" in alone("info", VGPU_DRIVER="12040").stdout


@pytest.fixture
def second_context(gpu: Device) -> Iterator[None]:
    from cuda.bindings import driver

    error, context = driver.cuCtxCreate(None, 0, 0)
    assert error == driver.CUresult.CUDA_SUCCESS
    yield
    driver.cuCtxDestroy(context)


@pytest.mark.usefixtures("second_context")
def test_another_context_that_came_and_went(gpu: Device) -> None:
    """Whoever made a context of their own, and took it back, finds CuPy and Numba in the first one."""
    from cuda.bindings import driver

    driver.cuCtxPopCurrent()
    x = gpu.array(np.arange(-5, 5), "float32")
    np.testing.assert_array_equal(gpu.ops.relu(x).get(), np.maximum(np.arange(-5, 5), 0))

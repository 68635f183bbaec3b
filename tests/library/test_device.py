"""Devices, and the checks of plain arguments that everything else is built on."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import checks, device
from gpucnn.errors import ArgumentError, DeviceError, GpucnnError, ShapeError, UnknownNameError


def test_cpu_is_always_there_and_a_device_is_taken_as_it_is() -> None:
    cpu = gc.get_device("cpu")
    assert (cpu.kind, cpu.name, cpu.xp) == ("cpu", "CPU", np)
    assert gc.get_device(cpu) is cpu
    assert gc.get_device("cpu") is cpu
    cpu.synchronize()


def test_arrays_are_copied_only_where_they_must_be() -> None:
    cpu = gc.get_device("cpu")
    x = np.ones((2, 3), np.float32)
    assert cpu.array(x) is x
    assert cpu.array(x, "float32") is x
    assert cpu.array(x.T).flags.c_contiguous
    assert cpu.array([1, 2], "float64").dtype == np.float64
    assert gc.to_numpy(x) is x


def fake_cupy(
    count: int = 1, capability: str = "90", error: Exception | None = None, driver: int = 13000, needed: int = 13020
) -> types.ModuleType:
    """As much of CuPy as is asked before a GPU is used."""

    def get_device_count() -> int:
        if error:
            raise error
        return count

    module = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(getDeviceCount=get_device_count, driverGetVersion=lambda: driver, runtimeGetVersion=lambda: needed)
    module.cuda = types.SimpleNamespace(  # type: ignore[attr-defined]
        runtime=runtime, Device=lambda: types.SimpleNamespace(compute_capability=capability)
    )
    return module


@pytest.mark.parametrize(
    ("cupy", "reason"),
    [
        (None, r"CuPy is not installed \(pip install -e \".*\[cuda13\]\"; for a driver of CUDA 12, pip install -e \".*\[cuda12\]\"\)"),
        (fake_cupy(error=RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient\nmore")), "insufficient"),
        (fake_cupy(count=0), "the NVIDIA driver sees no GPU"),
        (fake_cupy(capability="61"), r"too old \(compute capability 6.1; 7.5 or newer is needed\)"),
    ],
)
def test_cuda_says_what_is_missing_and_auto_falls_back(cupy: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    device.why_no_cuda.cache_clear()
    try:
        assert gc.get_device("auto").kind == "cpu"
        with pytest.raises(DeviceError, match=f'device "cuda" cannot be used: .*{reason}') as caught:
            gc.get_device("cuda")
        assert '"auto"' in str(caught.value)
        assert "\n" not in str(caught.value)
    finally:
        device.why_no_cuda.cache_clear()


INSUFFICIENT = RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")
NONE = RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")


def why(cupy: Any, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...] = ("cupy-cuda13x",), **environment: str) -> str:
    """The sentence for such surroundings; "auto" is the CPU in all of them."""
    for name in ("NUMBA_ENABLE_CUDASIM", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(device, "cupy_packages", lambda: list(packages))
    device.why_no_cuda.cache_clear()
    try:
        assert gc.get_device("auto").kind == "cpu"
        with pytest.raises(DeviceError) as caught:
            gc.get_device("cuda")
        return str(caught.value)
    finally:
        device.why_no_cuda.cache_clear()


def test_broken_surroundings_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = {
        "there is no working NVIDIA driver": why(fake_cupy(error=INSUFFICIENT, driver=0), monkeypatch),
        "the NVIDIA driver is too old: it knows CUDA 12.4, and this CuPy needs CUDA 13": why(
            fake_cupy(error=INSUFFICIENT, driver=12040), monkeypatch
        ),
        "because CUDA_VISIBLE_DEVICES='' hides them": why(fake_cupy(error=NONE), monkeypatch, CUDA_VISIBLE_DEVICES=""),
        "because CUDA_VISIBLE_DEVICES='7' hides them": why(fake_cupy(count=0), monkeypatch, CUDA_VISIBLE_DEVICES="7"),
        "the NVIDIA driver sees no GPU (cudaErrorNoDevice": why(fake_cupy(error=NONE), monkeypatch),
        "the GPU is too old (compute capability 7.0": why(fake_cupy(capability="70"), monkeypatch),
        "2 packages of CuPy are installed, cupy-cuda12x and cupy-cuda13x": why(fake_cupy(), monkeypatch, ("cupy-cuda12x", "cupy-cuda13x")),
        "CuPy is not installed": why(None, monkeypatch, ()),
    }
    for words, sentence in sentences.items():
        assert words in sentence and 'use device "cpu"' in sentence, sentence
    assert len(set(sentences.values())) == len(sentences)


@pytest.mark.parametrize(
    "line",
    [
        "raise AttributeError('module numpy has no attribute x')",
        "raise OSError('libx.so: cannot open')",
        "raise RuntimeError('x')",
        "raise ImportError('libcudart.so.13: cannot open shared object file')",
        "raise PermissionError(13, 'Permission denied', '/home/me/.cupy')",
        "raise SystemExit(3)",
        "import sys; sys.exit('no')",
        "class Odd(BaseException): pass\nraise Odd",
        "1 / 0",
        "x = ",
        "raise ValueError('a\\nb' * 1000)",
        "",
        "cuda = None",
    ],
)
def test_a_cupy_whose_import_raises_anything_at_all(line: str, tmp_path: Path) -> None:
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy/__init__.py").write_text(line)
    code = (
        "import gpucnn as gc\nprint(gc.get_device('auto').kind)\ntry: gc.get_device('cuda')\nexcept gc.DeviceError as error: print(error)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    kind, sentence = done.stdout.splitlines()
    assert kind == "cpu" and sentence.startswith('device "cuda" cannot be used: ') and len(sentence) <= 500
    assert f"CuPy is installed but does not {'import' if line not in ('', 'cuda = None') else 'work'}" in sentence
    assert ("let CUPY_CACHE_DIR name a folder that can be written to" in sentence) == ("PermissionError" in line)


@pytest.mark.parametrize(
    ("gpu", "wish", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", None, "cuda"),
        ("NVIDIA H100 80GB HBM3", "cpu", "cpu"),
        ("NVIDIA H100 80GB HBM3", "", "cuda"),
        ("virtual H100 (CPU)", None, "cpu"),
        ("virtual H100 (CPU)", "auto", "cpu"),
        ("virtual H100 (CPU)", "cuda", "cuda"),
    ],
)
def test_auto_takes_a_real_gpu_and_a_virtual_one_only_when_told(
    gpu: str, wish: str | None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = gc.get_device("cpu")
    there = dataclasses.replace(cpu, kind="cuda", name=gpu)
    monkeypatch.setattr(device, "why_no_cuda", lambda: None)
    monkeypatch.setattr(device, "_cuda", lambda: there)
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.delenv("GPUCNN_DEVICE", raising=False)
    if wish is not None:
        monkeypatch.setenv("GPUCNN_DEVICE", wish)
    assert gc.get_device("auto").kind == kind
    assert (gc.get_device("cuda"), gc.get_device("cpu")) == (there, cpu)
    assert (device.why_not_auto() is None) == gpu.startswith("NVIDIA")


def test_the_wish_for_a_device_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_DEVICE", "gpu")
    with pytest.raises(DeviceError, match="unknown device 'gpu' in GPUCNN_DEVICE: the devices are auto, cpu, cuda"):
        gc.get_device("auto")
    assert gc.get_device("cpu").kind == "cpu"
    monkeypatch.setenv("GPUCNN_DEVICE", "CPU")
    assert gc.get_device("auto").kind == "cpu"


@pytest.mark.parametrize("name", ["gpu", "CPU", "", "cuda:0", None, 0])
def test_unknown_devices_are_refused(name: Any) -> None:
    with pytest.raises(DeviceError, match=r"unknown device .*: the devices are auto, cpu, cuda"):
        gc.get_device(name)


@pytest.mark.parametrize("array", [[1.0], 1.0, None, "x"])
def test_only_arrays_have_a_device(array: Any) -> None:
    with pytest.raises(TypeError, match=rf"expected a NumPy or CuPy array, got {type(array).__name__}"):
        device.of(array)


def test_every_error_is_gpucnns_and_the_built_in_one_that_people_catch() -> None:
    for kind, builtin in (
        (gc.ArgumentError, ValueError),
        (gc.ShapeError, gc.ArgumentError),
        (gc.DataError, ValueError),
        (gc.CheckpointError, ValueError),
        (gc.UnknownNameError, ValueError),
        (gc.DeviceError, RuntimeError),
        (gc.TrainingError, RuntimeError),
        (gc.MissingExtraError, ImportError),
    ):
        assert issubclass(kind, GpucnnError)
        assert issubclass(kind, builtin)


def test_integer_takes_whole_numbers_of_any_kind() -> None:
    for value in (3, np.int64(3), np.uint8(3)):
        number = checks.integer(value, "n", 3)
        assert number == 3
        assert type(number) is int
    for wrong in (3.0, "3", None, True, np.bool_(True), [3]):
        with pytest.raises(TypeError, match="n must be an integer, got"):
            checks.integer(wrong, "n", 0)
    with pytest.raises(ArgumentError, match="n must be at least 4, got 3"):
        checks.integer(3, "n", 4)
    assert checks.integer(5, "n", 0, most=5) == 5
    with pytest.raises(ArgumentError, match="n must be at most 5,000, got 5001"):
        checks.integer(5001, "n", 0, most=5000)


def test_pair_takes_one_or_two_whole_numbers() -> None:
    assert checks.pair(2, "n", 1) == checks.pair((2, 2), "n", 1) == checks.pair([2, np.int32(2)], "n", 1) == (2, 2)
    for wrong in ((1,), (1, 2, 3), ()):
        with pytest.raises(ShapeError, match="n must be one integer or two"):
            checks.pair(wrong, "n", 1)


def test_positive_and_fraction_know_their_ends() -> None:
    assert checks.positive(np.float32(0.5), "n") == 0.5
    assert checks.positive(0, "n", zero=True) == 0
    assert checks.fraction(0, "n") == 0
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="n must be a finite number above 0, got"):
            checks.positive(wrong, "n")
    for wrong in ("0.5", True, None, [0.5], 1j):
        with pytest.raises(TypeError, match="n must be a number, got"):
            checks.positive(wrong, "n")
    with pytest.raises(ValueError, match=r"n must be at least 0 and below 1, got 1.0"):
        checks.fraction(1.0, "n")


def test_pick_names_the_choices_and_the_nearest() -> None:
    assert checks.pick("adam", {"adam": 1}, "optimizer") == 1
    with pytest.raises(UnknownNameError, match=r"^unknown thing 'alpa': there are alpha, beta; did you mean 'alpha'\?$"):
        checks.pick("alpa", {"alpha": 1, "beta": 2}, "thing")
    with pytest.raises(UnknownNameError, match=r"^unknown thing \[\]: there are alpha$"):
        checks.pick([], {"alpha": 1}, "thing")

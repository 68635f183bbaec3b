"""gpucnn profile: what it prints and writes, and what it refuses."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpucnn as gc
from gpucnn import device
from gpucnn.profiling import records
from gpucnn.profiling.chip import compiled, sass, static
from gpucnn.profiling.measure import cpu
from gpucnn.profiling.records import Ceilings
from gpucnn.surroundings import install

Command = Callable[..., Any]
SMALL = ("profile", "--device", "cpu", "--op", "pool", "--shape", "2,3,8x8,2x2")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps, no GPU, no seconds spent on this machine's ceilings, and nothing in the user's cache."""
    monkeypatch.setattr(compiled, "folder", lambda: None)
    monkeypatch.setattr(cpu, "MOST_STEPS", 3)
    monkeypatch.setattr(cpu, "LEAST_STEPS", 3)
    monkeypatch.setattr(cpu, "measure_ceilings", lambda: Ceilings(1e10, 1e11, 1e-6, "assumed"))
    monkeypatch.setattr(device, "why_no_cuda", lambda: "this test has none")
    monkeypatch.setattr("gpucnn.profiling.run.why_no_cuda", lambda: "this test has none")
    monkeypatch.setenv("GPUCNN_LINEINFO", "")  # what a command puts there goes away again


def needs_compilers() -> None:
    try:
        static.check_compilers()
    except static.ToolchainError as error:
        pytest.skip(str(error))


def test_a_table_with_all_that_was_measured(gpucnn: Command) -> None:
    result = gpucnn("profile", "--device", "cpu", "--batch-size", 4)
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == "model     keras, batch 4"
    assert lines[2].startswith("ceilings  10.0 GB/s, 100 GFLOP/s")
    head = next(line for line in lines if line.startswith("layer"))
    assert all(title in head for title in ("pass", "kernel", "time", "p10–p90", "step", "FLOPs", "bytes", "roofline", "bound by", "shape"))
    assert sum(line.startswith("dense_") for line in lines) >= 4
    assert any(line.startswith("step ") and "images/s" in line for line in lines)
    assert any(line.startswith("memory ") and "parameters" in line for line in lines)
    assert any(line.startswith("look at ") for line in lines)
    assert result.err == ""


def test_all_three_files_are_written(gpucnn: Command, tmp_path: Path) -> None:
    result = gpucnn(*SMALL, "--json", "p.json", "--trace", "t.json", "--html", "p.html")
    assert result.status == 0, result.err
    assert [line for line in result.out.splitlines() if line.startswith("wrote")] == [
        "wrote     p.json",
        "wrote     t.json",
        "wrote     p.html",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html", "p.json", "t.json"]
    assert records.read(Path("p.json")).model == "pool 2,3,8x8,2x2"
    assert json.loads(Path("t.json").read_text(encoding="utf-8"))["traceEvents"]


def test_an_earlier_profile_is_compared_with(gpucnn: Command) -> None:
    assert gpucnn(*SMALL, "--json", "old.json").status == 0
    old = json.loads(Path("old.json").read_text(encoding="utf-8"))
    for row in old["rows"]:
        row["time"] = {"median": 1e-9, "p10": 1e-9, "p90": 1e-9, "samples": 3}
    Path("old.json").write_text(json.dumps(old), encoding="utf-8")
    result = gpucnn(*SMALL, "--against", "old.json")
    assert result.status == 0, result.err
    assert sum(line.startswith("slower ") for line in result.out.splitlines()) >= 2
    other = gpucnn("profile", "--device", "cpu", "--op", "pool", "--shape", "4,3,8x8,2x2", "--against", "old.json")
    assert "of different things" in other.sentence


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "there is no GPU to measure (this test has none): pass --arch H100"),
        (("--device", "cuda"), "--device cpu to measure the operations there"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--arch", "H1000"), "unknown chip 'H1000': the chips are T4, A100"),
        (("--device", "cpu", "--model", "kears"), "did you mean 'keras'"),
        (("--device", "cpu", "--model", "gone.safetensors"), "gone.safetensors"),
        (("--device", "cpu", "--batch-size", "0"), "batch size must be at least 1, got 0"),
        (("--device", "cpu", "--batch-size", "many"), "'many' is not an integer"),
        (("--device", "cpu", "--layer", "9"), "there is no layer '9': the layers are 1 to 5"),
        (("--device", "cpu", "--op", "sums"), "unknown operation 'sums'"),
        (("--device", "cpu", "--op", "conv", "--shape", "1,2"), "has 2 parts and does not fit 'conv'"),
        (("--device", "cpu", "--op", "conv", "--shape", "2,3,4x4,5,9x9"), "the kernel is 9 pixels high"),
        (("--device", "cpu", "--op", "update", "--shape", "2,3"), "--shape goes with --op conv"),
        (("--device", "cpu", "--shape", "2,3"), "--shape needs --op"),
        (("--device", "cpu", "--op", "dense", "--shape", "2,3,4", "--batch-size", "5"), "leave --layer and --batch-size out"),
        (("--device", "cpu", "--arch", "H100"), "give one of them"),
        (("--arch", "H100", "--compare", "torch"), "nothing runs"),
        (("--device", "cpu", "--kernels", "all"), "needs --arch"),
        (("--arch", "H100", "--kernels", "all", "--op", "conv"), "--kernels is in place of a model"),
        (("--arch", "H100", "--kernels", "convolve"), "no kernel has 'convolve' in its name: say all, shapes, or a part of adam"),
        (("--arch", "H100", "--kernels", ""), "'--kernels': it is empty"),
        (("--device", "cpu", "--compare", "jax"), "--compare takes torch, got 'jax'"),
        (("--device", "cpu", "--lineinfo"), "--lineinfo is about the kernels on a GPU"),
        (("--device", "cpu", "--json", "gone/p.json"), "there is no folder gone"),
        (("--device", "cpu", "--html", "."), "is a folder"),
        (("--device", "cpu", "--html", f"{__file__}/p.html"), "test_profile.py is not a folder: name another place"),
        (("--device", "cpu", "--html", "same", "--json", "same"), "two of the files that are to be written are same"),
        (("--arch", "H100", "--op", "relu", "--shape", "100000,100000"), "use a smaller batch"),
        (("--device", "cpu", "--trace", "x" * 300), "too long: name another"),
        (("--device", "cpu", "--against", "gone.json"), "gone.json does not exist"),
    ],
)
def test_whatever_is_refused_is_one_sentence(gpucnn: Command, options: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    result = gpucnn("profile", *options)
    assert reason in result.sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--json", "--trace", "--html"])
def test_the_model_is_not_written_over(gpucnn: Command, option: str) -> None:
    gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 4, 4), device="cpu").compile().save("m.safetensors")
    before = Path("m.safetensors").read_bytes()
    result = gpucnn("profile", "--device", "cpu", "--model", "m.safetensors", "--batch-size", "2", option, "m.safetensors")
    assert f"m.safetensors is the model itself: name another file with {option}" in result.sentence
    assert Path("m.safetensors").read_bytes() == before


def test_a_file_that_is_no_profile(gpucnn: Command) -> None:
    Path("old.json").write_text("{}", encoding="utf-8")
    assert "is not a profile" in gpucnn(*SMALL, "--against", "old.json").sentence


def test_without_the_compilers_there_is_a_sentence(gpucnn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise static.ToolchainError('nvJitLink cannot be used: install the compilers with pip install "numba-cuda[cu13]"')

    monkeypatch.setattr(static, "compile_launch", missing)
    assert 'pip install "numba-cuda[cu13]"' in gpucnn("profile", "--arch", "H100", "--op", "relu", "--shape", "2,3").sentence


@pytest.mark.parametrize("chip", ["T4", "rtx 4090", "sm_90"])
def test_a_chip_that_is_not_here(gpucnn: Command, chip: str) -> None:
    """One small kernel, compiled in earnest."""
    needs_compilers()
    result = gpucnn("profile", "--arch", chip, "--op", "relu", "--shape", "128,64,28x28", "--json", "p.json", "--html", "p.html")
    assert result.status == 0, result.err
    assert result.out.startswith("These are bounds")
    assert all(title in result.out for title in ("regs", "spills", "shared", "occupancy", "waves", "at least", "bound by"))
    profile = records.read(Path("p.json"))
    assert {row.op for row in profile.rows} == {"relu", "relu_grad"} and all(row.wall == "memory" for row in profile.rows)
    if sass.nvdisasm() is not None:
        predicted(result.out, profile, Path("p.html").read_text(encoding="utf-8"))
    assert "Nothing was run, and nothing measured" in Path("p.html").read_text(encoding="utf-8")
    assert gpucnn("profile", "--arch", chip, "--op", "relu", "--shape", "128,64,28x28", "--against", "p.json").last == "nothing got slower"


def predicted(text: str, profile: records.Profile, page: str) -> None:
    """Beside the bound a prediction, above it, with what limits it and what it assumes; on the page the machine code."""
    assert "predicted" in text and "note      predicted, not measured" in text and "assumed: the clock" in text
    for row in profile.rows:
        assert (
            row.predicted is not None
            and row.roofline < row.predicted < 5 * row.roofline
            and row.limit == "moves bytes as fast as memory does"
        )
    assert profile.step.predicted == sum(row.predicted or 0 for row in profile.rows)
    assert "Python and machine code" in page and "LDG.E" in page


def test_line_numbers_are_for_this_command_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that it imports have them; programs that it starts hear nothing of it, and what a person has set stays."""
    command = importlib.import_module("gpucnn.cli.profile")
    monkeypatch.delenv("GPUCNN_LINEINFO", raising=False)
    with command._lines(wanted=True):
        assert os.environ["GPUCNN_LINEINFO"] == "1"
    assert "GPUCNN_LINEINFO" not in os.environ
    monkeypatch.setenv("GPUCNN_LINEINFO", "0")
    with command._lines(wanted=True):
        assert os.environ["GPUCNN_LINEINFO"] == "0"
    assert os.environ["GPUCNN_LINEINFO"] == "0"


def test_without_a_disassembler_bounds_are_all(gpucnn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one sentence says what brings it."""
    needs_compilers()
    monkeypatch.setattr(sass, "nvdisasm", lambda: None)
    result = gpucnn("profile", "--arch", "sm_90", "--op", "relu", "--shape", "128,64,28x28", "--json", "p.json")
    assert result.status == 0, result.err
    assert f"nothing is predicted: there is no nvdisasm: {install('compilers')}" in result.out
    assert all(row.predicted is None for row in records.read(Path("p.json")).rows)


def test_kernels_by_themselves(gpucnn: Command) -> None:
    """What the compiler makes of them, and nothing of a step."""
    needs_compilers()
    result = gpucnn("profile", "--arch", "T4", "--kernels", "sigmoid", "--json", "k.json", "--html", "k.html", "--trace", "k.trace")
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert lines[1] == "kernels   sigmoid" and not any(line.startswith("step ") for line in lines)
    head = next(line for line in lines if line.startswith("kernel "))
    assert head.split() == ["kernel", "grid", "regs", "spills", "stack", "f64", "shared", "occupancy"]
    assert "look at   no kernel spills" in result.out
    profile = records.read(Path("k.json"))
    assert (
        [row.kernel for row in profile.rows] == ["sigmoid", "sigmoid_grad", "hard_sigmoid", "hard_sigmoid_grad"]
        and not profile.measured
        and not profile.of_step
    )
    assert all(row.stack == row.float64 == row.spills == 0 for row in profile.rows)
    page = Path("k.html").read_text(encoding="utf-8")
    assert "Timeline" not in page and "The step" not in page and "sigmoid_grad" in page
    assert gpucnn("profile", "--arch", "T4", "--kernels", "sigmoid", "--against", "k.json").last == "nothing got slower"


def test_under_the_simulator_nothing_is_measured() -> None:
    """In a process of its own: the simulator is on or off for the whole of one."""
    environment = {"NUMBA_ENABLE_CUDASIM": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    for option, reason in (("--device=cuda", "its times say nothing"), ("--arch=H100", "unset NUMBA_ENABLE_CUDASIM")):
        done = subprocess.run(
            [sys.executable, "-m", "gpucnn", "profile", option],
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == 2 and reason in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr

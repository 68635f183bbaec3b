"""What the documents say of measurements is what was measured, and of compiled kernels what the compiler says; the tables of what is
fastest can be read, and come after the user's own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpucnn.device import simulated
from gpucnn.profiling import tune
from gpucnn_kernels.choose import problems, tuned
from gpucnn_kernels.choose.variants import VARIANTS

ROOT = Path(__file__).parents[2]
COMPILED = ROOT / "kernels" / "predicted" / "compiled.json"
QUICK = ("max_pool2d_2x2 c1-2x2", "relu_grad", "adam", "softmax", "batch_sum", "conv2d m2")
"""Kernels that compile in a second or two each, by the names that samples.py gives them: their registers do not differ from run to run."""


def test_tables_in_the_documents_are_those_of_the_figures() -> None:
    script = ROOT / "examples" / "measured_tables.py"
    result = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("file", sorted((ROOT / "kernels" / "measured").glob("*.json")), ids=lambda path: path.stem)
def test_figures_say_where_they_are_from(file: Path) -> None:
    about = json.loads(file.read_text(encoding="utf-8"))["about"]
    assert {"chip", "driver_version", "date", "commit", "gpucnn", "numba-cuda", "torch", "Python"} <= about.keys()
    assert file.stem.startswith(tuned._file_name(about["chip"]).removesuffix(".json"))


def test_tables_that_come_with_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = sorted(tuned.BUILT_IN.glob("*.json"))
    assert files
    for file in files:
        for key, (variant, slices) in tuned.read(file).items():
            assert variant in [each.name for each in VARIANTS[key.partition(" ")[0]]] and slices >= 1
    chip, key = "NVIDIA H100 80GB HBM3", problems.dense(128, 5408, 256).key
    monkeypatch.setenv(tuned.VARIABLE, str(tmp_path))
    tuned.forget()
    assert tuned.lookup(chip, key) == ("tile64x64", 84)
    tune.write(chip, {key: {"variant": "plain", "slices": 1}}, {})
    assert tuned.lookup(chip, key) == ("plain", 1)
    monkeypatch.setenv(tuned.VARIABLE, "")
    assert tuned.lookup(chip, key) is None
    tuned.forget()


def in_compiled(kernel: Any) -> dict[str, Any]:
    """The line of a kernel in the table of all of them. The sample, the name and the grid stand there once for each."""
    found = json.loads(COMPILED.read_text(encoding="utf-8"))["entries"].values()
    launch = kernel.launch
    return next(each for each in found if tuple(each.values())[:4] == (kernel.sample, kernel.part.name, launch.blocks, launch.threads))


@pytest.mark.skipif(simulated(), reason="the simulator compiles nothing")
def test_every_kernel_stands_in_the_table_of_what_the_compiler_says() -> None:
    """A new kernel, or one that is launched with other blocks, is added by `python examples/predict.py compiled`."""
    from gpucnn.profiling.chip import chips, samples

    launched = [(each.sample, each.part.name, each.launch.blocks, each.launch.threads) for each in samples.kernels(chips.find("sm_90"))]
    found = json.loads(COMPILED.read_text(encoding="utf-8"))
    assert [tuple(each.values())[:4] for each in found["entries"].values()] == launched
    assert all(each["spills"] == each["float64"] == 0 for each in found["entries"].values())


@pytest.mark.skipif(simulated(), reason="the simulator compiles nothing")
def test_some_kernels_are_what_the_compiler_says_today() -> None:
    """So the table cannot grow old without being noticed: a change of what all kernels share shows in one of these."""
    static = pytest.importorskip("gpucnn.profiling.chip.static")
    from gpucnn.profiling.chip import chips, samples

    try:
        static.check_compilers()
    except static.ToolchainError as error:
        pytest.skip(str(error))
    kernels = {each.name: each for each in samples.kernels(chips.find("sm_90"))}
    for name in QUICK:
        said, shown = static.compile_launch(kernels[name].launch, "sm_90"), in_compiled(kernels[name])
        now = (said.registers, said.spills, said.stack, said.float64, said.shared, said.occupancy)
        assert now == tuple(shown[key] for key in ("registers", "spills", "stack", "float64", "shared", "occupancy")), (
            f"{name} is out of date: run python examples/predict.py, and then python examples/measured_tables.py"
        )


@pytest.mark.parametrize("name", ["times", "compiled", "steps"])
def test_predictions_say_what_they_were_made_with(name: str) -> None:
    found = json.loads((ROOT / "kernels" / "predicted" / f"{name}.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r"[0-9a-f]{7,}", found["commit"]) and "nvidia-nvjitlink" in found["compilers"]
    assert all(re.fullmatch(r"[0-9a-f]{7,}", each["commit"]) for each in found["entries"].values())

"""What the documents say of measurements is what was measured; the tables of what is fastest can be read, and come after the user's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpucnn.profiling import tune
from gpucnn_kernels.choose import problems, tuned
from gpucnn_kernels.choose.variants import VARIANTS

ROOT = Path(__file__).parents[2]


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

"""What the tests of the CPU's loops share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # loop_cases, tolerances


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


def _program(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    around = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS") and name != "GPUCNN_CPU"}
    around |= {"PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run([sys.executable, "-c", text], env=around, capture_output=True, text=True, timeout=300)


@pytest.fixture
def program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program, with variables of its environment, and gives what became of it."""
    return _program

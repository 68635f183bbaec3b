"""Kernels compiled with line numbers, as `gpucnn profile --arch` compiles them to show Python beside the machine code.

nvJitLink 13 cannot compile some kernels with them ("Symbol name with unsupported characters"): the function that is in its way then has
none (`device(lines=False)`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from compile_harness import kernels, needs_compilers

pytestmark = needs_compilers

QUICK = ["dense-mma128x64 even"]

PROGRAM = """
import json, sys
sys.path[:0] = sys.argv[2].split(":")
from compile_harness import kernels
from gpucnn.profiling.chip import static
failed = {}
for name in json.loads(sys.argv[1]):
    try:
        static.machine_code(kernels()[name].launch, "sm_90")
    except Exception as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""


@pytest.mark.parametrize("wanted", [QUICK, pytest.param(list(kernels()), marks=pytest.mark.slow)], ids=["quick", "all"])
def test_kernels_compile_with_line_numbers(wanted: list[str]) -> None:
    folders = ":".join(str(Path(__file__).parents[depth]) for depth in range(3))
    command = [sys.executable, "-c", PROGRAM, json.dumps(wanted), folders]
    environment = {**os.environ, "GPUCNN_LINEINFO": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=3000)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}

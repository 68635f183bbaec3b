"""What is put at the beginning of every kernel for launches that begin early (core/early.py), in the machine code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from compile_harness import compiled, kernels, needs_compilers

from gpucnn.profiling.chip import sass

pytestmark = needs_compilers

QUICK = ("pack_split m2", "relu")
TENSOR = ("conv2d-tensor128x64 m2", "conv2d_weight_grad-tensor128x128 odd")
SOME = (*QUICK, *TENSOR, "conv2d-tile128x128 m2", "max_pool2d_2x2 c1-2x2", "adam", "gather_batch uint8-28x28")
TOO_EARLY = re.compile(r"(@\S+ )?(LD(?!C\b)|ST|ATOM|RED|UBLK|SYNCS|BAR|BRA|BRX|EXIT|CALL|RET)")
"""Instructions that access memory other than constants, wait for other threads, or go elsewhere."""

# What each kernel is compiled to in a process that has this turned on: instructions before the wait, and registers.
PROGRAM = """
import json, re, sys
sys.path[:0] = sys.argv[2].split(":")
from compile_harness import check, kernels, machine_code
from gpucnn.profiling.chip import sass
def instructions(launch, arch):
    text = sass.disassemble(machine_code(launch, arch))
    return re.findall(r"^\\s+/\\*[0-9a-f]{4,}\\*/\\s+(.*?);", text, re.M)
found = {}
for name in json.loads(sys.argv[1]):
    made = kernels()[name]
    code = instructions(made.launch, "sm_90")
    found[name] = code[:code.index("ACQBULK ")], code.count("PREEXIT "), check(made, "sm_90").registers
older = [line for line in instructions(kernels()["pack_split m2"].launch, "sm_80") if "ACQBULK" in line]
print(json.dumps([found, older]))
"""


@pytest.mark.parametrize("parts", [QUICK, pytest.param(SOME, marks=pytest.mark.slow)], ids=["quick", "some"])
def test_a_kernel_waits_before_it_touches_anything(parts: tuple[str, ...]) -> None:
    """Nothing but constants is read before the wait, and no branch goes around it."""
    if sass.nvdisasm() is None:
        pytest.skip("there is no disassembler")
    folders = ":".join((str(Path(__file__).parents[1]), str(Path(__file__).parents[2]), str(Path(__file__).parent)))
    command = [sys.executable, "-c", PROGRAM, json.dumps(parts), folders]
    environment = {**os.environ, "GPUCNN_DEPENDENT_LAUNCH": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    found, older = json.loads(done.stdout.splitlines()[-1])
    assert older == [] and set(found) == set(parts)
    for name, (before, announced, registers) in found.items():
        assert not [line for line in before if TOO_EARLY.match(line)], (name, before)
        assert announced == 1
        assert registers <= compiled(kernels()[name].launch, "sm_90").registers, name

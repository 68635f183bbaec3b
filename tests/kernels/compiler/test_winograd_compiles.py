"""Winograd's kernel, compiled for each chip: nothing spilled, a loop that is mostly FMAs, and no bank of shared memory touched twice."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from compile_harness import IN_TURN, check, kernels, machine_code, names, needs_compilers

from gpucnn.profiling.chip import machine, sass
from gpucnn.profiling.chip.chips import ARCHITECTURES
from gpucnn.profiling.chip.constants import LaunchConstants
from gpucnn.profiling.chip.warp import Walker

pytestmark = needs_compilers

ALL = names("winograd")
LEAST = {("LDS", 4): 2.0, ("STS", 4): 4.0, ("LDS", 1): 1.0, ("STS", 1): 1.0}
"""Cycles of a warp's access by as many words to each thread, where no bank is touched twice at a time (touched.py)."""


def test_both_kernels_are_there() -> None:
    """The gradient of the input has the same as the forward pass."""
    assert {name.split()[0] for name in ALL} == {"conv2d-winograd", "pack_winograd"}


@pytest.mark.parametrize("arch", IN_TURN)
@pytest.mark.parametrize("name", ALL)
def test_it_fits_the_chip(name: str, arch: str) -> None:
    kernel = kernels()[name]
    check(kernel, arch)
    if name.startswith("pack") or sass.nvdisasm() is None:
        return
    text = sass.disassemble(machine_code(kernel.launch, arch), "-hex", "-g")
    loop = sass.hot_loop(text)
    assert 2 * 4 * 8 * 8 <= loop.ffma <= 2 * 4 * 8 * 8 + 8, loop  # two points, four channels, 8 × 8 results; and signs of pixels
    assert (loop.lds_128, loop.ldg_128, loop.ldg) == (2 * 4 * 4, 4, 12), loop
    assert loop.share >= 0.77, loop
    assert loop.first_load < 0.6, "the next turn is asked for too late"

    program = machine.parse(text)
    walker = Walker(program, LaunchConstants(kernel.launch, ARCHITECTURES[arch].capability))
    found: dict[tuple[str, int], set[float]] = {}
    for warp in (0, 3, 6):
        way = walker.walk(0, warp, kernel.launch.threads)
        assert not way.cut and way.wrote
        for place, access in way.accesses.items():
            code = program.instructions[way.issued[place]]
            if access is not None and code.base in ("LDS", "STS"):
                found.setdefault((code.base, code.words), set()).add(access.cycles)
    assert found == {each: {cycles} for each, cycles in LEAST.items()}


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_75", "sm_90"])
def test_it_compiles_with_line_numbers(arch: str) -> None:
    """As `gpucnn profile` compiles kernels, in a process of its own: whether there are lines is settled when kernels are imported."""
    environment = {**os.environ, "GPUCNN_KERNEL_CACHE": "0"}
    command = [sys.executable, "-m", "gpucnn", "profile", "--arch", arch, "--kernels", "winograd"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0 and "conv2d-winograd" in found.stdout, found.stdout + found.stderr

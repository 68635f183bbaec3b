"""The same source for AVX-512, for AVX2 and for an x86 of 2003: results are right, and no instruction is one that the processor lacks."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Program = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="these are x86 processors")

PROGRAM = """
import re
import numpy as np
from loop_cases import DEPTHWISE, DIRECT, PIXELS, WHOLE, WINOGRAD, arrays, hold, plan_of
from test_dense import hold as hold_dense
from test_pooled import CASES, hold_forward, hold_gradient
from gpucnn.ops.cpu import _engine
from gpucnn_loops import _numba, tile
from gpucnn_loops.loops import Loop
rng = np.random.default_rng(0)
for case in [*DIRECT[:6], *DEPTHWISE[:2], *PIXELS[1:4], *WHOLE[:2], *WINOGRAD[:3]]:
    given = arrays(case, rng)
    hold(plan_of(given), given)
for case in CASES[1:4]:
    given = arrays(case, rng)
    hold_forward(given)
    hold_gradient(given, False, rng)
for size in ((1, 7, 3), (2, 300, 37), (61, 130, 11)):
    hold_dense(*size, rng)
code = ""
for module in (*vars(_engine.modules()).values(), tile):
    for loop in vars(module).values():
        if isinstance(loop, Loop):
            loop.prepare()
            code += loop.library.get_asm_str()
assert len(_numba._targets) == 1, "a loop needs what Numba compiles in Python"
count = lambda pattern: len(re.findall(pattern, code))
print(tile.WIDE, tile.ROWS, count("%zmm"), count("%ymm"), count("vfmadd"), count(r"call\\w*\\s+\\*?fmaf?\\b|fmaf@"), count(r"mulps"))
"""


def compiled(program: Program, folder: Path, **environment: str) -> list[str]:
    done = program(PROGRAM, GPUCNN_LOOP_CACHE=str(folder), GPUCNN_CPU="loops", **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


@pytest.mark.slow
def test_avx2(program: Program, tmp_path: Path) -> None:
    wide, rows, zmm, ymm, fused, calls, _ = compiled(program, tmp_path, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="+avx2,+fma")
    assert (wide, rows, int(zmm), int(calls)) == ("False", "6", 0, 0)
    assert int(ymm) > 1000 and int(fused) > 100


@pytest.mark.slow
def test_a_processor_without_avx(program: Program, tmp_path: Path) -> None:
    wide, rows, zmm, ymm, fused, calls, products = compiled(program, tmp_path, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="+sse2")
    assert (wide, rows, int(zmm), int(ymm), int(fused)) == ("False", "2", 0, 0, 0)
    assert int(calls) == 0 and int(products) > 100  # a multiplication and an addition, never a call for each lane


@pytest.mark.slow
def test_avx512_where_numba_may_use_it(program: Program, tmp_path: Path) -> None:
    features = "+avx512f,+avx512vl,+avx512dq,+avx512bw,+avx2,+fma"
    if "avx512f" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX-512")
    wide, _, zmm, _, fused, calls, _ = compiled(program, tmp_path, NUMBA_CPU_NAME="skylake-avx512", NUMBA_CPU_FEATURES=features)
    assert wide == "True" and int(zmm) > 1000 and int(fused) > 100 and int(calls) == 0


@pytest.mark.slow
def test_two_processors_share_a_folder(program: Program, tmp_path: Path) -> None:
    first = compiled(program, tmp_path, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="+avx2,+fma")[:2]
    files = len(list(tmp_path.glob("*.loop")))
    second = compiled(program, tmp_path, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="+sse2")[:2]
    assert first == ["False", "6"] and second == ["False", "2"]
    assert len(list(tmp_path.glob("*.loop"))) == 2 * files

"""Each barrier of the kernels, taken out: the virtual GPU must find a race, or a result must be wrong.

So a barrier that somebody leaves out tomorrow is seen too. The kernels stay as they are; the virtual GPU lets the threads pass the barrier
of one line of the source, which it knows from the line numbers that are compiled in.
"""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kernel_harness import REAL

import gpucnn_kernels
from gpucnn.device import Device

KERNELS = Path(gpucnn_kernels.__file__).parent
TESTS = Path(__file__).parents[1] / "simulator"
USED_BY = {  # a file with barriers: the tests that notice when one is missing, files without their slow tests or tests by name
    "activations": ["test_kernels_activations.py"],
    "cross_entropy": ["test_kernels_loss.py"],
    "direct": ["test_direct.py"],
    "direct_grad": ["test_direct.py"],
    "direct_input_grad": ["test_direct_input_grad.py"],
    "head": ["test_narrow_dense.py"],
    "loop": ["test_engine_conv.py"],
    "loss": ["test_kernels_loss.py"],
    "matrices": ["../gpu/test_tensor_dense_on_gpu.py"],
    "narrow": ["test_narrow_dense.py"],
    "norm": ["test_kernels_norm.py"],
    "parts": ["test_direct.py", "test_depthwise.py"],
    "plain": ["test_kernels_dense.py"],
    "pooled": ["test_fused.py"],
    "pooled_grad": ["test_fused_grad.py"],
    "reduce": ["test_kernels_activations.py", "test_kernels_loss.py", "test_kernels_update.py"],
    "rows": ["test_narrow_dense.py"],
    "stages": ["../gpu/test_tensor_cores_on_gpu.py"],
    "warps": ["../gpu/test_tensor_warps_on_gpu.py"],
    "warps_grad": ["../gpu/test_tensor_warps_on_gpu.py::test_gradient_of_the_weight[few-channels-mma128x64-bf16-1]"],
    "wide_loop": ["../gpu/test_wide_on_gpu.py"],
    "winograd_ends": ["test_winograd.py"],
    "winograd_loop": ["test_winograd.py"],
}

UNNOTICED = {
    "loss.finish_row-1": "tree_sum ends with a barrier; then thread 0 alone reads the sum, and writes that word next",
}
"""Barriers that nothing misses, as module.function, number within it: why that is so."""


@functools.cache
def barriers() -> list[tuple[str, str, int]]:
    """(name, module, line) of each call of syncthreads."""
    found = []
    for file in sorted(KERNELS.glob("**/*.py")):
        counts: dict[str, int] = {}

        def visit(node: ast.AST, inside: str, file: Path = file, counts: dict[str, int] = counts) -> None:
            for child in ast.iter_child_nodes(node):
                name = child.name if isinstance(child, ast.FunctionDef) else inside
                if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute) and child.func.attr == "syncthreads":
                    counts[inside] = counts.get(inside, 0) + 1
                    found.append((f"{file.stem}.{inside}-{counts[inside]}", file.stem, child.lineno))
                visit(child, name)

        visit(ast.parse(file.read_text()), "")
    return found


def run(tests: list[str], without: str) -> subprocess.CompletedProcess[str]:
    """The tests in a process of their own, where races within a warp count too: many a barrier is for a block of one warp."""
    chosen = [str(TESTS / test) for test in tests]
    if not any("::" in test for test in tests):  # what is named may be slow
        chosen += ["-m", "not slow"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *chosen]
    environment = {**os.environ, "VGPU_WITHOUT": without, "VGPU_STRICT": "2", "GPUCNN_LINEINFO": "1"}
    for ours in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_CURRENT_TEST"):
        environment.pop(ours, None)
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)


def on_the_virtual_gpu(test: Any) -> Any:
    for mark in (pytest.mark.gpu, pytest.mark.slow, pytest.mark.skipif(REAL, reason="a real GPU leaves no barrier out")):
        test = mark(test)
    return test


def test_each_file_with_a_barrier_has_its_tests() -> None:
    assert sorted(USED_BY) == sorted({module for _, module, _ in barriers()})
    assert {name for name, _, _ in barriers()} >= set(UNNOTICED)
    for test in (test for tests in USED_BY.values() for test in tests):
        assert (TESTS / test.split("::")[0]).is_file(), test


@on_the_virtual_gpu
@pytest.mark.parametrize("module", USED_BY)
def test_with_all_barriers_nothing_is_found(gpu: Device, module: str) -> None:
    done = run(USED_BY[module], "none")
    assert done.returncode == 0, done.stdout[-3000:]


@on_the_virtual_gpu
@pytest.mark.parametrize(("name", "module", "line"), [pytest.param(*barrier, id=barrier[0]) for barrier in barriers()])
def test_a_barrier_is_missed(gpu: Device, name: str, module: str, line: int) -> None:
    done = run(USED_BY[module], f"{module}.py:{line}")
    assert done.returncode == (0 if name in UNNOTICED else 1), done.stdout[-3000:]

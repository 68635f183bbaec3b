"""Compiled kernels on disk: the same kernel has the same name in every process, and what was kept is what comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compile_harness import needs_compilers

from gpucnn.device import simulated

if simulated():
    pytest.skip("the simulator compiles nothing", allow_module_level=True)

from gpucnn_kernels.core import disk_cache

MARKS = """
import json
from gpucnn.profiling.chip import chips, samples
from gpucnn_kernels.core import disk_cache
print(json.dumps({each.name: disk_cache.fingerprint(each.launch.kernel) for each in samples.kernels(chips.find("H100"))}))
"""

# A dispatcher compiles for the GPU that is there. Here one is made up, and binding, which needs a driver, is left at the machine code.
COMPILE = """
import hashlib, importlib, json
from gpucnn.profiling.chip import static
from gpucnn.profiling.chip.chips import ARCHITECTURES, find
from gpucnn.profiling.chip.samples import SAMPLES, launched
dispatcher, codegen = (importlib.import_module(f"numba.cuda.{name}") for name in ("dispatcher", "codegen"))
codegen.JITCUDACodegen.magic_tuple = lambda self: ((13, 0), (9, 0))
codegen.CUDACodeLibrary._ensure_cc = lambda self, cc: (9, 0)
dispatcher._Kernel.bind = lambda self: self._codelibrary.get_cubin(cc=(9, 0))
from gpucnn_kernels.core import disk_cache
told = []
disk_cache.announce = told.append
found = {}
wanted = [sample for sample in SAMPLES if any(name.endswith(f" {sample.name}") for name in KERNELS)]
by_name = {each.name: each.launch for sample in wanted for each in launched(sample, find("H100"))}
with static.as_if_present(ARCHITECTURES["sm_90"]):
    for name in KERNELS:
        launch = by_name[name]
        compiled = launch.kernel.compile(launch.signature)
        cubin = compiled._codelibrary.get_cubin(cc=(9, 0))
        code = bytes(getattr(cubin, "code", cubin))
        hits, misses = (sum(getattr(launch.kernel, counts).values()) for counts in ("_cache_hits", "_cache_misses"))
        found[name] = [hits, misses, hashlib.sha256(code).hexdigest()]
print(json.dumps([found, told]))
"""


OF_ONE_FUNCTION = ("max_pool2d_2x2 c1-2x2", "max_pool2d_2x2 odd")  # as all tiles are, which take seconds to compile


def in_a_process(program: str, **environment: str) -> Any:
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


def test_every_kernel_has_a_name_of_its_own_in_every_process() -> None:
    first, _ = in_a_process(MARKS, PYTHONHASHSEED="1")
    second, _ = in_a_process(MARKS, PYTHONHASHSEED="2")
    assert first == second
    assert None not in first.values()
    by_mark: dict[str, set[str]] = {}
    for name, mark in first.items():
        by_mark.setdefault(mark, set()).add(name)
    # Several operations run on the very same kernel: those share a name. Different tiles and plans never do.
    for names in by_mark.values():
        assert len({name.split()[0].rpartition("-")[2] for name in names if "tile" in name}) <= 1, names
    assert len(by_mark) > 40


@needs_compilers
def test_a_second_process_compiles_nothing_and_a_broken_file_costs_a_compilation(tmp_path: Path) -> None:
    program = COMPILE.replace("KERNELS", '["conv2d m2", "sum_slices m2"]')
    (first, compiled), _ = in_a_process(program, NUMBA_CACHE_DIR=str(tmp_path))
    (second, none), said = in_a_process(program, NUMBA_CACHE_DIR=str(tmp_path))
    assert compiled == ["conv2d", "sum_slices"] and none == []
    assert [entry[:2] for entry in first.values()] == [[0, 1]] * 2
    assert [entry[:2] for entry in second.values()] == [[1, 0]] * 2, said
    assert [entry[2] for entry in first.values()] == [entry[2] for entry in second.values()]
    (off, _), _ = in_a_process(program, NUMBA_CACHE_DIR=str(tmp_path), GPUCNN_KERNEL_CACHE="0")
    assert [entry[:2] for entry in off.values()] == [[0, 1]] * 2
    for path in tmp_path.rglob("*.nbc"):
        path.write_bytes(path.read_bytes()[:100])
    (again, _), said = in_a_process(program, NUMBA_CACHE_DIR=str(tmp_path))
    assert [entry[:2] for entry in again.values()] == [[0, 1]] * 2
    assert "a kernel on disk cannot be used, and is compiled again" in said


def test_functions_that_differ_have_other_marks() -> None:
    def made(number: Any) -> Any:
        def inner(x: Any) -> Any:
            return x + number

        return inner

    assert disk_cache.fingerprint(made(1)) == disk_cache.fingerprint(made(1)) != disk_cache.fingerprint(made(2))
    assert disk_cache.fingerprint(made(made(1))) != disk_cache.fingerprint(made(made(2)))
    assert disk_cache.fingerprint(made(1.0)) != disk_cache.fingerprint(made(1))
    assert disk_cache.fingerprint(made(object())) is None


def test_an_edit_of_any_file_makes_other_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever in the package it is: no stale kernel survives it."""
    files = [tmp_path / name for name in ("core/disk_cache.py", "pool.py", "conv/direct.py", "conv/deeper/still.py")]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one = 1\n")
    monkeypatch.setattr(disk_cache, "__file__", str(files[0]))
    sources = disk_cache._sources.__wrapped__
    seen = {sources()}
    for path in files:
        path.write_text("one = 2\n")
        seen.add(sources())
    files[-1].rename(tmp_path / "moved.py")
    seen.add(sources())
    assert len(seen) == len(files) + 2


@pytest.mark.slow
@needs_compilers
def test_kernels_of_one_function_have_files_of_their_own(tmp_path: Path) -> None:
    """Two processes that compile two kernels of one Python function must not give their files one number."""
    program = COMPILE.replace("KERNELS", '["ANOTHER"]')
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program.replace("ANOTHER", name)],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in OF_ONE_FUNCTION
    ]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    for name in OF_ONE_FUNCTION:
        (found, compiled), said = in_a_process(program.replace("ANOTHER", name), NUMBA_CACHE_DIR=str(tmp_path))
        assert compiled == [] and [entry[:2] for entry in found.values()] == [[1, 0]], said
    assert len(list(tmp_path.rglob("*max_pool2d_2x2*.nbi"))) == 2

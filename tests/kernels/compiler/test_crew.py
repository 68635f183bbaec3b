"""Several processes that compile: what they leave on the disk, and what is left to do where one fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from compile_harness import needs_compilers

from gpucnn.device import simulated
from gpucnn.errors import DeviceError

if simulated():
    pytest.skip("the simulator compiles nothing", allow_module_level=True)

from gpucnn.ops import processes as compiling
from gpucnn_kernels.core import crew

TARGET = ((9, 0), (9, 0, "a"), ((13, 0), (9, 0)))  # an H100, whether or not one is there
WAIT = 60  # seconds, after which a test is over for nothing

# Two small kernels, compiled by the process beside this one alone; then by neither, because they are on the disk.
BESIDE = """
import json, time
from gpucnn_kernels.core import crew, disk_cache
from gpucnn_kernels.core._numba import float32, types, uint32, without_driver
from gpucnn_kernels.activations import relu_kernel
from gpucnn_kernels.engine.product import sum_slices_kernel
target = TARGET
told = []
disk_cache.announce = told.append
array = types.Array(float32, 1, "C")
jobs = [crew.Job(relu_kernel, (array, array)), crew.Job(sum_slices_kernel, (array,) * 3 + (uint32,) * 3)]
with without_driver(target):
    before = [job.compiled for job in jobs]
    kernels = crew._Crew(jobs, None)
    kernels.start(1)
    while kernels._done < len(jobs):
        time.sleep(0.01)
    kernels.end()
    after = [job.compiled for job in jobs]
    for job in jobs:
        job.kernel.compile(job.signature)
    hits = [sum(job.kernel._cache_hits.values()) for job in jobs]
print(json.dumps([before, after, kernels._processes[0].returncode is not None, hits, told]))
"""


class Kernel:
    """Stands for a kernel, and knows how often it was compiled here."""

    def __init__(self) -> None:
        self.compiled = 0

    def compile(self, signature: Any) -> None:
        self.compiled += 1


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[crew.Job]:
    """Five kernels, and everything around them that asks a GPU or a disk."""

    class Folder:
        mark = ""

        def check_folder(self) -> None:
            pass

    monkeypatch.setattr(crew.Job, "cache", Folder())
    monkeypatch.setattr(crew, "target", lambda: TARGET)
    monkeypatch.setattr(crew, "_packed", lambda job: b"x" * 100)
    return [crew.Job(Kernel(), ()) for _ in range(5)]


def processes(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str) -> None:
    """Has processes run `program` in place of worker.py."""
    file = folder / "program.py"
    file.write_text(f"import os, sys, time\n{program}")
    monkeypatch.setattr(crew, "_python", lambda: [sys.executable, str(file)])


def until(condition: Any) -> None:
    limit = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


@needs_compilers
def test_what_a_process_beside_compiles_is_taken_from_the_disk(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "GPUCNN_KERNEL_CACHE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BESIDE.replace("TARGET", repr(TARGET))], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    before, after, ended, hits, told = json.loads(done.stdout.splitlines()[-1])
    assert (before, after, hits, told) == ([False] * 2, [True] * 2, [1, 1], []) and ended


def test_every_kernel_is_compiled_once_and_each_is_counted(jobs: list[crew.Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Some here, the others in processes that say that they have."""
    begun = tmp_path / "begun"  # else they might have done everything before this process takes the first
    waiting = f"while not os.path.exists({str(begun)!r}): time.sleep(0.005)\n"
    processes(monkeypatch, tmp_path, waiting + "os.write(1, b'r')\nwhile os.read(0, 100): os.write(1, b'd')")

    def compile_here(self: Kernel, signature: Any) -> None:
        begun.touch()
        time.sleep(0.3)
        self.compiled += 1

    monkeypatch.setattr(Kernel, "compile", compile_here)
    told: list[int] = []
    crew.compile_all(jobs, 3, told.append)
    assert sorted(told) == [1, 2, 3, 4, 5]
    assert max(job.kernel.compiled for job in jobs) == 1


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("sys.exit(1)", id="does not start"),
        pytest.param("os.write(1, b'no'), time.sleep(100)", id="is something else"),
        pytest.param("os.write(1, b'r'), os.read(0, 1), sys.exit(1)", id="dies"),
        pytest.param("os.write(1, b'r'), os.read(0, 1), os.write(1, b'f'), time.sleep(100)", id="fails, and then does nothing"),
        pytest.param("os.write(1, b'r'), time.sleep(100)", id="does nothing"),
        pytest.param("time.sleep(100)", id="does nothing at all"),
    ],
)
def test_what_a_process_leaves_undone_is_compiled_here(
    program: str, jobs: list[crew.Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(crew, "LONGEST", 1.0)
    processes(monkeypatch, tmp_path, program)
    crew.compile_all(jobs, 2)
    assert [job.kernel.compiled for job in jobs] == [1] * 5
    assert threading.active_count() < 20


def test_no_process_is_started_where_it_cannot_help(jobs: list[crew.Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """For one kernel; where nothing can be written; in a program with a Python inside."""
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: pytest.fail("a process was started"))
    crew.compile_all(jobs[:1], 8)
    with monkeypatch.context() as patch:
        patch.setattr(crew.Job.cache, "check_folder", lambda: (_ for _ in ()).throw(PermissionError("read-only")))
        crew.compile_all(jobs, 8)
    monkeypatch.setattr(sys, "executable", "/usr/bin/blender")
    crew.compile_all(jobs, 8)
    assert [job.kernel.compiled for job in jobs] == [3, 2, 2, 2, 2]


def test_where_no_process_can_be_started_all_is_compiled_here(jobs: list[crew.Job], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    crew.compile_all(jobs, 3)
    assert [job.kernel.compiled for job in jobs] == [1] * 5


def test_ctrl_c_ends_all_processes(jobs: list[crew.Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processes(monkeypatch, tmp_path, "os.write(1, b'r'), time.sleep(100)")
    started: list[Any] = []
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **options: started.append(real(*a, **options)) or started[-1])

    def interrupted(self: Kernel, signature: Any) -> None:
        until(lambda: len(started) == 2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(WAIT)

    monkeypatch.setattr(Kernel, "compile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        crew.compile_all(jobs, 3)
    assert [process.poll() is not None for process in started] == [True, True]


def test_a_kernel_of_another_package_is_compiled_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that wanted to have it would have to import that, and whatever that does."""
    from gpucnn_kernels.core.compile import kernel
    from gpucnn_kernels.update import sgd_kernel

    @kernel
    def own(x: Any) -> None:
        x[0] = 1

    assert not crew.Job(own, ()).ours
    assert crew.Job(sgd_kernel, ()).ours


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As many as there are cores, memory and work for; what the environment says goes first."""
    monkeypatch.delenv(compiling.VARIABLE, raising=False)
    monkeypatch.setattr(compiling, "threads", lambda: 16)
    monkeypatch.setattr(compiling, "started_ranks", lambda: 1)
    monkeypatch.setattr(compiling, "free_memory", lambda: 1 << 40)
    assert [compiling.compilers(kernels) for kernels in (1, 2, 3, 14, 100)] == [1, 1, 2, 7, 16]
    monkeypatch.setattr(compiling, "free_memory", lambda: 3 * compiling.MEMORY - 1)
    assert compiling.compilers(14) == 3
    monkeypatch.setattr(compiling, "started_ranks", lambda: 2)
    assert compiling.compilers(14) == 1
    monkeypatch.setenv(compiling.VARIABLE, "5")
    assert (compiling.compilers(14), compiling.compilers(3)) == (5, 3)
    monkeypatch.setenv(compiling.VARIABLE, "many")
    with pytest.raises(DeviceError, match="GPUCNN_COMPILERS must be a number of processes, got 'many'"):
        compiling.compilers(14)
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:  100 kB\nMemAvailable:   50 kB\n")
    monkeypatch.undo()
    assert compiling.free_memory(told) == 50 << 10
    assert compiling.free_memory(tmp_path / "none") > 1 << 50

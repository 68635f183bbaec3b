"""What computes: loops for contiguous float32, NumPy for everything else, wherever loops cannot be had, and where it is asked for."""

from __future__ import annotations

import importlib
import inspect
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import run

from gpucnn.ops import cpu
from gpucnn.ops.cpu import _engine, roads

Program = Callable[..., subprocess.CompletedProcess[str]]

TRAIN = """
import sys, hashlib
import numpy as np, gpucnn as gc
rng = np.random.default_rng(0)
x, y = rng.random((20, 1, 12, 12), dtype="float32"), rng.integers(0, 10, 20)
model = gc.Sequential(gc.Conv2D(16, 3, activation="relu"), gc.MaxPool2D(2), gc.Conv2D(17, 3, padding="same"), gc.Flatten(), gc.Dense(10))
model.build((1, 12, 12), seed=1, device="cpu").compile("adam")
loss = model.fit(x, y, batch_size=8, epochs=2, verbose=False).rows[-1]["loss"]
print("gpucnn_loops.loops" in sys.modules, round(loss, 3), np.isfinite(loss))
"""


def test_roads_lead_to_operations_of_the_same_signatures() -> None:
    """The CPU has two ways for many of them: the loops' and NumPy's."""
    files = [path.stem for path in Path(cpu.__file__).parent.glob("[!_]*.py") if path.stem != "roads"]
    found = {name: value for file in files for name, value in vars(importlib.import_module(f"gpucnn.ops.cpu.{file}")).items()}
    chosen = [getattr(roads, name) for name in roads.__all__]
    assert len(chosen) > 20
    for function in chosen:
        assert inspect.signature(function) == inspect.signature(found[function.__name__]), function.__name__


def test_loops_take_contiguous_float32() -> None:
    x = np.zeros((4, 6), np.float32)
    assert _engine.loops(x) and _engine.loops(x, None, x)
    read_only = x.copy()
    read_only.flags.writeable = False
    assert _engine.loops(read_only)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 6)),
        np.zeros((4, 6), np.float16),
        np.zeros((4, 6), ">f4"),
        np.zeros((4, 6), np.float32).T,
        np.zeros((4, 6), np.float32)[:, ::2],
        np.zeros((0, 6), np.float32),
        np.frombuffer(b"\0" * 25, np.float32, 6, 1),
    ],
    ids=["float64", "float16", "big-endian", "turned", "every second", "empty", "unaligned"],
)
def test_numpy_takes_the_rest(array: Any) -> None:
    assert not _engine.loops(array)
    assert not _engine.loops(np.zeros(3, np.float32), array)


@pytest.fixture(scope="module")
def usual() -> list[str]:
    """What TRAIN prints, with loops; they are kept by then."""
    done = run(TRAIN)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_numpy_can_be_asked_for_and_no_loop_is_loaded_then(program: Program, usual: list[str]) -> None:
    done = program(TRAIN, GPUCNN_CPU="numpy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "False" and usual[0] == "True"
    assert done.stdout.split()[1:] == usual[1:]
    assert done.stderr == ""


def test_another_name_for_a_road_is_refused(program: Program) -> None:
    done = program(TRAIN, GPUCNN_CPU="fast")
    assert done.returncode != 0
    assert "GPUCNN_CPU must be loops or numpy, got 'fast'" in done.stderr


BROKEN = {
    "a compiler that is turned off": "import numba; numba.config.DISABLE_JIT = 1\n",
    "no Numba": "import sys; sys.modules['numba'] = None\n",
    "a Numba that raises": "import sys, types; sys.modules['numba'] = types.ModuleType('numba')\n",
    "a compiler that fails": """
import numba.core.compiler as c
def compile(*arguments): raise RuntimeError("LLVM is out of order")
c.compile_extra = compile
""",
}


@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_without_a_compiler_numpy_computes_and_one_sentence_says_so(broken: str, program: Program, usual: list[str]) -> None:
    done = program(BROKEN[broken] + TRAIN, GPUCNN_LOOP_CACHE="0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == usual[1:]
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Numba cannot compile the CPU's loops (") and "NumPy computes instead" in done.stderr


def test_a_signal_while_loops_are_compiled_ends_the_program(program: Program) -> None:
    """It comes as SystemExit, which a broken package may raise as well: that is no reason to go on without loops."""
    ended = "import gpucnn.ops.cpu._engine as engine\ndef end():\n    raise SystemExit(143)\nengine._load = end\n"
    assert program(ended + TRAIN).returncode == 143
    assert program(ended.replace("143", "'broken'") + TRAIN).returncode == 0


def test_a_compiler_that_is_broken_by_now_is_found_out_before_the_run(program: Program, usual: list[str], tmp_path: Path) -> None:
    some = "import numpy as np, gpucnn.functional as F; F.relu(np.zeros(3, 'float32'))"
    assert program(some, GPUCNN_LOOP_CACHE=str(tmp_path)).returncode == 0
    done = program(BROKEN["a compiler that fails"] + TRAIN, GPUCNN_LOOP_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == usual[1:]
    assert done.stderr.count("\n") == 1 and "LLVM is out of order" in done.stderr
    asked = program(BROKEN["a compiler that fails"] + TRAIN, GPUCNN_LOOP_CACHE=str(tmp_path), GPUCNN_CPU="loops")
    assert asked.returncode != 0 and "install numba again" in asked.stderr


def test_numba_is_imported_to_compile_alone(program: Program, usual: list[str], tmp_path: Path) -> None:
    one = "import sys, numpy as np, gpucnn.functional as F; F.relu(np.zeros(3, 'float32'))"
    first, second = (program(f"{one}; print('numba' in sys.modules)", GPUCNN_LOOP_CACHE=str(tmp_path)) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == "True\n" and second.stdout == "False\n"
    kept = program(TRAIN + "print('numba' in sys.modules)")
    assert kept.stdout.split() == [*usual, "False"], kept.stderr


def test_loops_that_are_asked_for_and_cannot_be_had_are_an_error(program: Program) -> None:
    done = program(BROKEN["a compiler that fails"] + TRAIN, GPUCNN_CPU="loops", GPUCNN_LOOP_CACHE="0")
    assert done.returncode != 0
    assert "LLVM is out of order" in done.stderr and "install numba again, or unset GPUCNN_CPU" in done.stderr


def test_float64_models_go_numpys_road(program: Program) -> None:
    done = program(TRAIN.replace('device="cpu"', 'device="cpu", dtype="float64"'))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "False"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_memory_that_a_step_frees_is_there_for_the_next_one(program: Program) -> None:
    text = """
import resource
import numpy as np
from gpucnn.ops.cpu._engine import keep_memory
keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step = lambda: [np.ones(150_000, np.float32) for _ in range(5)]
step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""
    done = program(text)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 500  # of 7,330 pages

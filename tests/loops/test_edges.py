"""No loop reads or writes outside of what it was given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM, CHECKED = Path(__file__).with_name("edges.py"), Path(__file__).with_name("checked.py")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="memory is protected with mprotect")


def run(*arguments: str, threads: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "GPUCNN_NUM_THREADS": threads, "GPUCNN_CPU": "loops"}
    return subprocess.run([sys.executable, str(PROGRAM), *arguments], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("where", ["begin", "end"])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_every_loop_stays_within_its_arrays(where: str, threads: str) -> None:
    done = run(where, threads=threads)
    assert done.returncode == 0, done.stderr[-2000:] or f"ended by signal {-done.returncode}"
    assert "no edge was crossed" in done.stdout


def test_every_index_is_within_its_own_array() -> None:
    """In plain Python, where an address knows its array."""
    around = {"PYTHONPATH": os.pathsep.join(sys.path), "GPUCNN_NUM_THREADS": "1", "GPUCNN_CPU": "loops"}
    done = subprocess.run([sys.executable, str(CHECKED)], env=os.environ | around, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "no array was left" in done.stdout


@pytest.mark.parametrize(
    ("change", "found"),
    [("", ""), ("elementwise.L = 15", "IndexError: 0 … 15 of 15")],
    ids=["as it is", "vectors that are taken for shorter than they are"],
)
def test_an_index_that_leaves_its_array_is_found(change: str, found: str) -> None:
    text = f"""
import sys; sys.path[:0] = [{str(PROGRAM.parent)!r}]
import numpy as np, checked
from gpucnn.ops import cpu
from gpucnn_loops import elementwise
{change}
checked.prepare()
cpu.relu(np.zeros(15, np.float32))
"""
    around = {"PYTHONPATH": os.pathsep.join(sys.path), "GPUCNN_NUM_THREADS": "1", "GPUCNN_CPU": "loops"}
    done = subprocess.run([sys.executable, "-c", text], env=os.environ | around, capture_output=True, text=True, timeout=100)
    assert (done.returncode != 0) == bool(found) and found in done.stderr, done.stderr


def test_the_guard_is_there() -> None:
    text = f"""
import sys; sys.path[:0] = [{str(PROGRAM.parent)!r}]
import edges, ctypes
array = edges.guarded(5, "float32")
ctypes.c_float.from_address(array.ctypes.data + 16).value
print("inside", flush=True)
ctypes.c_float.from_address(array.ctypes.data + 20).value
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["inside"] and done.returncode < 0

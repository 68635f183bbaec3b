"""Loops that other processes compile are ready here; if these fail in whatever way, they are compiled here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpucnn_loops import compilers

Program = Callable[..., subprocess.CompletedProcess[str]]

BEGINNING = """
import sys, time
from gpucnn_loops import compilers, loops, turn
chosen = [turn.fill, turn.to_rows, turn.to_planes, turn.kernels_by_tap]
started, start = [], compilers._start
def kept(program):
    started.append(start(program))
    return started[-1]
compilers._start = kept
"""
ENDING = """
assert all(loop.ready and not loop.waits for loop in chosen)
assert all(process.poll() is not None for process in started)
print(len(started), len(loops.compiled))
"""


def test_another_process_compiles(program: Program, tmp_path: Path) -> None:
    """Here it compiles everything, because this one waits until nothing is left."""
    waiting = """
take = compilers._Helpers.take
def late(self):
    while self._left:
        time.sleep(0.01)
    return take(self)
compilers._Helpers.take = late
compilers.prepare(chosen, 2)
"""
    done = program(BEGINNING + waiting + ENDING, GPUCNN_LOOP_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "0"] and len(list(tmp_path.glob("turn.*.loop"))) == 4
    again = program(BEGINNING + "compilers.prepare(chosen, 2)" + ENDING, GPUCNN_LOOP_CACHE=str(tmp_path))
    assert again.stdout.split() == ["0", "0"], again.stderr  # all are on the disk


@pytest.mark.parametrize(
    "other",
    [
        "[sys.executable, '-c', 'raise SystemExit(3)']",
        pytest.param("[sys.executable, '-c', 'print(1)']", marks=pytest.mark.slow),
        "[sys.executable, '-c', 'import os, sys; os.write(1, b\"r\"); sys.stdin.readline(); os.write(1, b\"f\"); sys.stdin.readline()']",
        pytest.param("['/no/such/program']", marks=pytest.mark.slow),
        pytest.param("None", marks=pytest.mark.slow),
    ],
)
def test_what_another_process_does_not_do_is_done_here(program: Program, tmp_path: Path, other: str) -> None:
    text = BEGINNING + f"compilers._python = lambda: {other}\ncompilers.prepare(chosen, 2)" + ENDING
    done = program(text, GPUCNN_LOOP_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "4"


def test_without_a_folder_for_the_files_no_process_is_started(program: Program, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("0", str(tmp_path / "file")):
        done = program(
            BEGINNING + "compilers.expect(2)\ncompilers.prepare(chosen, 2)" + ENDING.replace("not loop.waits", "True"),
            GPUCNN_LOOP_CACHE=folder,
        )
        assert done.stdout.split() == ["0", "4"], done.stderr


def test_a_number_of_processes_that_is_none_is_refused(program: Program, tmp_path: Path) -> None:
    """It is no fault of Numba's, for which NumPy would compute."""
    text = "import numpy as np, gpucnn.functional as F; F.relu(np.ones(3, 'float32'))"
    done = program(text, GPUCNN_LOOP_CACHE=str(tmp_path), GPUCNN_COMPILERS="many")
    assert done.returncode == 1 and "NumPy computes instead" not in done.stderr
    assert done.stderr.endswith("DeviceError: GPUCNN_COMPILERS must be a number of processes, got 'many'\n")


def test_an_interrupt_ends_the_other_processes(program: Program, tmp_path: Path) -> None:
    text = """
compilers.expect(3)
def interrupted(loop):
    raise KeyboardInterrupt
loops.Loop.prepare = interrupted
try:
    compilers.prepare(chosen, 2)
except KeyboardInterrupt:
    compilers._dismiss()  # as at the end of the program
    print([process.poll() is not None for process in started])
"""
    assert program(BEGINNING + text, GPUCNN_LOOP_CACHE=str(tmp_path)).stdout == "[True, True]\n"


def test_a_loop_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not compilers._compiled("gpucnn_loops.nothing", "gpucnn_loops.nothing.at_all")
    assert not compilers._compiled("gpucnn_loops.turn", "gpucnn_loops.turn.at_all")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert compilers._python() is None  # that program would run once more

"""`--ranks`: what it starts, and what it says where it cannot."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from gpucnn import surroundings
from gpucnn.cli import together
from gpucnn.cli.together import CROWDED
from gpucnn.errors import ArgumentError, MissingExtraError
from gpucnn.training import parallel


@pytest.fixture(autouse=True)
def by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*surroundings.RANKS, *surroundings.LOCAL):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """mpi4py and mpiexec are there; what is started is noted."""
    started: list[list[str]] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(together, "_starter", lambda: "/usr/bin/mpiexec")
    monkeypatch.setattr(
        together.os, "execve", lambda program, line, env: started.append([*line, *(name for name in CROWDED if name in env)])
    )
    monkeypatch.setattr(together.os, "name", "posix")
    monkeypatch.setattr(sys, "argv", ["gpucnn", "train", "--ranks", "3", "--output", "a b", "--seed=1"])
    return started


def test_the_same_command_is_started_without_the_option(everything: list[list[str]], monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "exit", lambda status: None)
    monkeypatch.setattr(together.subprocess, "call", lambda line, env: 0)
    together.start(3, "--ranks")
    words = ["-n", "3", sys.executable, "-m", "mpi4py", "-m", "gpucnn", "train", "--output", "a b", "--seed=1"]
    assert everything == [["/usr/bin/mpiexec", *words, *CROWDED]]  # Open MPI starts no more ranks than cores otherwise
    assert (
        capsys.readouterr().out == f"starts    /usr/bin/mpiexec -n 3 {sys.executable} -m mpi4py -m gpucnn train --output 'a b' --seed=1\n"
    )


def test_one_rank_is_this_process(everything: list[list[str]]) -> None:
    assert together.start(1, "--ranks") is False and not everything


@pytest.mark.parametrize("count", [0, -2])
def test_a_count_that_is_none_is_refused(count: int, everything: list[list[str]]) -> None:
    with pytest.raises(ArgumentError, match="--ranks must be"):
        together.start(count, "--ranks")


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["train", "--ranks", "2", "--seed", "1"], ["train", "--seed", "1"]),
        (["train", "--ranks=2"], ["train"]),
        (["train", "--output", "--ranks"], ["train", "--output"]),
        (["train"], ["train"]),
    ],
)
def test_the_option_is_taken_out_with_its_value(words: list[str], kept: list[str]) -> None:
    assert together.without("--ranks", words) == kept


def test_what_is_missing_is_named(everything: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_starter", lambda: None)
    with pytest.raises(MissingExtraError, match=r"needs mpiexec, which is not in the PATH .* pip install mpich"):
        together.start(2, "--ranks")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'needs mpi4py: pip install -e ".*\[mpi\]"'):
        together.start(2, "--ranks")
    assert not everything


def test_a_rank_starts_no_ranks(everything: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(ArgumentError, match="one of 2 that were started already"):
        together.start(2, "--ranks")


def test_mpiexec_beside_this_python_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = tmp_path / "env", tmp_path / "bin"
    for folder in (own, other):
        folder.mkdir()
    program = other / "mpirun"
    program.touch(0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    monkeypatch.setenv("PATH", str(other))
    assert together._starter() == str(program)
    (own / "mpiexec").touch(0o755)
    assert together._starter() == str(own / "mpiexec")
    monkeypatch.setenv("PATH", "")
    (own / "mpiexec").unlink()
    assert together._starter() is None


def test_ranks_without_mpi4py_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    parallel._world.cache_clear()
    with pytest.raises(MissingExtraError, match=r"^ranks need mpi4py and an MPI"):
        parallel.join("mpi")
    monkeypatch.setenv("PMI_SIZE", "3")
    with pytest.raises(MissingExtraError, match=r"^this process is one of 3 that were started together, and ranks need mpi4py"):
        parallel.join("auto")


def test_ranks_that_do_not_know_of_one_another_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "3")
    monkeypatch.setattr(parallel, "_world", parallel.Communicator)
    for way in ("auto", "mpi"):
        with pytest.raises(ArgumentError, match="3 processes were started together, and MPI knows of one"):
            parallel.join(way)

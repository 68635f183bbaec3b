"""`--ranks`: what it starts, and what it says where it cannot."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import surroundings
from gpucnn.cli import main, together
from gpucnn.cli.together import CROWDED
from gpucnn.errors import ArgumentError, MissingExtraError
from gpucnn.training import parallel
from gpucnn.training.progress import Progress
from local_ranks import together as run_together


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["0"], "--ranks must be at least 1, got 0"),
        (["-1"], "--ranks must be at least 1, got -1"),
        (["1000000"], "--ranks 1000000 would start as many processes on this machine, which has 8 cores: give at most 64"),
        (["x"], "'x' is not an integer"),
        (["2.0"], "'2.0' is not an integer"),
        ([], "requires an argument"),
    ],
)
def test_a_count_that_is_none_is_refused(
    words: list[str], said: str, everything: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpucnn", "train", "--ranks", *words])
    monkeypatch.setattr(together.os, "cpu_count", lambda: 8)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and said in capsys.readouterr().err and not everything


def test_a_machine_of_many_cores_starts_as_many_ranks(everything: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together.os, "cpu_count", lambda: 96)
    monkeypatch.setattr(sys, "exit", lambda status: None)
    monkeypatch.setattr(together.subprocess, "call", lambda line, env: 0)
    together.start(96, "--ranks")
    assert everything[0][:3] == ["/usr/bin/mpiexec", "-n", "96"]
    with pytest.raises(ArgumentError, match="at most 96"):
        together.start(97, "--ranks")


def test_the_terminal_that_open_mpi_lends_is_one_where_mpiexec_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes as /proc has them: this one, a shell that has the same terminal, and mpiexec."""
    pty = pytest.importorskip("pty")
    ends = pty.openpty()
    lent, mine = os.ttyname(ends[1]), os.getpid()

    def process(number: int, above: int, output: str) -> None:
        (tmp_path / str(number) / "fd").mkdir(parents=True)
        (tmp_path / str(number) / "stat").write_text(f"{number} (a name) 2)) S {above} 1 1")
        (tmp_path / str(number) / "fd" / "1").symlink_to(output)

    process(mine, 71, lent)
    process(71, 72, lent)
    process(72, 1, "/a/log.txt")
    assert not surroundings._seen(lent, 1, tmp_path)
    (tmp_path / "72" / "fd" / "1").unlink()
    (tmp_path / "72" / "fd" / "1").symlink_to("/dev/pts/99")
    assert surroundings._seen(lent, 1, tmp_path)
    with open(ends[1], "w") as stream:
        assert surroundings.is_terminal(stream)
        monkeypatch.setenv(surroundings.OPEN_MPI, "2")
        assert not surroundings.is_terminal(stream)  # no process above this one has that number
    os.close(ends[0])


def test_only_the_first_rank_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpucnn.training.progress.is_terminal", lambda stream: True)
    monkeypatch.setattr(Progress, "on_train_begin", lambda self, run: shown.append(run.rank))
    shown: list[int] = []

    def work(ranks: parallel.Communicator) -> None:
        model = gc.Sequential(gc.Flatten(), gc.Dense(2)).build((1, 2, 2), device="cpu").compile("sgd")
        model.fit(np.zeros((4, 1, 2, 2), np.float32), np.zeros(4, int), batch_size=4, parallel=ranks)

    run_together(3, work)
    assert shown == [0]


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

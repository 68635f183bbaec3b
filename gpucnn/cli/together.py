"""Ranks on the command line: `--ranks`, which starts them through MPI, and what each does. Only the first one prints."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from gpucnn.checks import integer
from gpucnn.errors import ArgumentError, MissingExtraError
from gpucnn.surroundings import say, started_ranks
from gpucnn.text import number_of, shown
from gpucnn.training.parallel import MPI, advice, current, join
from gpucnn.training.team import SIGNALS

STARTERS = ("mpiexec", "mpirun")
MOST = 64  # ranks that are started even on fewer cores, to try them out
CROWDED = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
"""The settings with which Open MPI, up to version 5, starts more ranks than there are cores."""


def start(count: int, option: str) -> bool:
    """Runs this command on `count` ranks and exits with their status. Returns False if one rank is wanted, which is this process.

    MissingExtraError without mpi4py or mpiexec; ArgumentError for an invalid count, for one that no machine can start, and in a process
    that is already a rank.
    """
    if integer(count, option, 1) == 1:
        return False
    cores = os.cpu_count() or 1
    if count > max(MOST, cores):
        raise ArgumentError(
            f"{option} {shown(count)} would start as many processes on this machine, which has {number_of(cores, 'core')}: give at most "
            f"{max(MOST, cores)}, or start gpucnn over several machines with mpiexec or srun"
        )
    if started_ranks() > 1:
        raise ArgumentError(f"{option} starts ranks, and this process is one of {started_ranks()} that were started already: leave it out")
    if importlib.util.find_spec("mpi4py") is None:
        raise MissingExtraError(f"{option} needs mpi4py: {advice()}")
    starter = _starter()
    if starter is None:
        raise MissingExtraError(f"{option} needs mpiexec, which is not in the PATH nor beside {sys.executable}: {advice()}")
    line = [starter, "-n", str(count), sys.executable, "-m", "mpi4py", "-m", "gpucnn", *without(option, sys.argv[1:])]
    say(f"starts    {shlex.join(line)}")
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(starter, line, {**CROWDED, **os.environ})  # signals reach it, and its status is ours
    sys.exit(subprocess.call(line, env={**CROWDED, **os.environ}))


def _starter() -> str | None:
    """The mpiexec of this environment, or else the first in the PATH."""
    beside = (Path(sys.executable).parent / name for name in STARTERS)
    own = next((str(path) for path in beside if os.access(path, os.X_OK)), None)
    return own or next((path for name in STARTERS if (path := shutil.which(name))), None)


def without(option: str, words: list[str]) -> list[str]:
    """The words of a command without an option and its value."""
    kept, skip = [], False
    for word in words:
        if skip or word.startswith(f"{option}="):
            skip = False
        elif word == option:
            skip = True
        else:
            kept.append(word)
    return kept


def listen() -> None:
    """Called in each rank before its command: silences all but the first."""
    if started_ranks() > 1 and join("auto").rank:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
        warnings.simplefilter("ignore")


def end(status: int, tell: Callable[[str], None]) -> None:
    """Called after a command has failed: `tell` prints why, once, even if all ranks fail with the same error."""
    ranks = current()
    if isinstance(ranks, MPI):
        for number in SIGNALS:  # this rank ends: another signal must not leave the others waiting
            signal.signal(number, signal.SIG_IGN)
        ranks.end(status, tell)
    else:
        tell("")

"""Ranks that are processes, started by mpiexec: the same training, one message at the end, and what becomes of the others when one dies."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.training.checkpoint import load_tensors
from process_ranks import LIMIT, PROGRAM, RANK, STARTER, Started, environment

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or STARTER is None, reason="needs mpi4py and mpiexec (pip install mpi4py mpich)"
)


def mpi(count: int, *words: object, module: bool = True) -> list[str]:
    assert STARTER is not None
    return [STARTER, "-n", str(count), sys.executable, *(["-m", "mpi4py"] if module else []), *map(str, words)]


def run(line: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, cwd=folder, env=environment(), capture_output=True, text=True, timeout=LIMIT)


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow), 4])
def test_processes_train_as_one_would(count: int, tmp_path: Path) -> None:
    done = run(mpi(count, "-c", RANK, tmp_path / "values.npy"), tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    space: dict[str, Any] = {}
    exec(PROGRAM, space)
    one, *_ = space["train"](None)
    np.testing.assert_allclose(np.load(tmp_path / "values.npy"), one.buffers.copy(), rtol=1e-5, atol=1e-5)
    assert len({mine["bits"] for mine in found}) == 1
    for rank, mine in enumerate(found):
        assert mine["sizes"] == [rank, count, rank, count]
        assert mine["same again"] and mine["rows"] == 10
        assert mine["sum"] == [count * (count + 1) / 2] * 5 and mine["sent"] == [1.0] * 3
        assert mine["once"] == 0 and mine["raised"] == "only rank 0 looks" and mine["in turn"] == rank
        assert mine["measured"] == mine["alone"]
        assert int(mine["threads"]) >= 1


# The command line.


def command(bars: Path, *more: object) -> list[object]:
    settings = ("--model", "lenet5", "--device", "cpu", "--schedule", "constant", "--checkpoint-every", 2)
    return ["-m", "gpucnn", "train", "--dataset", bars, *settings, *more]


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_signal_to_one_process_ends_all_with_one_message_and_others_go_on(rank: int, bars: Path, tmp_path: Path) -> None:
    started = Started([sys.executable, *map(str, command(bars, "--epochs", 5000, "--output", "out", "--ranks", 2))], tmp_path)
    started.wait_for("epoch 2/")
    os.kill(started.ranks()[rank], signal.SIGTERM)
    status, lines = started.end()
    assert status == 128 + signal.SIGTERM
    line = shlex.join(map(str, ["-n", 2, sys.executable, "-m", "mpi4py", *command(bars, "--epochs", 5000, "--output", "out")]))
    assert lines[0].startswith("starts    ") and lines[0].endswith(line)
    assert [line for line in lines if "stopped" in line] == [
        "gpucnn: stopped: the same command with --resume continues from out/checkpoint.safetensors"
    ]
    _, description = load_tensors(tmp_path / "out" / "checkpoint.safetensors")
    epochs = description["run"]["epoch"]
    assert not [name for name in (*description["recipe"], *description["run"]) if "rank" in name]
    more = command(bars, "--epochs", epochs + 2, "--output", "out", "--resume")
    done = run([sys.executable, *map(str, more)] if rank else mpi(3, *more), tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"epoch {epochs + 2}/{epochs + 2}" in done.stdout and done.stdout.count("test accuracy") == 1
    rows = (tmp_path / "out" / "history.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(1, epochs + 3))


def test_a_process_that_dies_takes_the_others_along(bars: Path, tmp_path: Path) -> None:
    started = Started(mpi(2, *command(bars, "--epochs", 5000, "--output", "out")), tmp_path)
    started.wait_for("epoch 2/")
    begun = time.monotonic()
    os.kill(started.ranks()[1], signal.SIGKILL)
    status, lines = started.end()
    assert status != 0 and time.monotonic() - begun < LIMIT / 4
    # By its own first line, and by MPI, wherever the others' last words stand.
    named = [line for line in lines if str(started.ranks()[1]) in line]
    assert len(named) >= 2, lines
    load_tensors(tmp_path / "out" / "checkpoint.safetensors")  # whole


@pytest.mark.slow
def test_runs_that_are_killed_at_random_come_to_the_end_of_one_that_is_not(bars: Path, tmp_path: Path) -> None:
    """With one rank fewer each time. What is lost is what came after the last checkpoint, and that is computed again."""
    random = np.random.default_rng(int(time.time()))
    epochs, resume = 400, []
    for count in (4, 3, 2):
        more = command(bars, "--epochs", epochs, "--output", "out", *resume)
        started = Started(mpi(count, *more), tmp_path)
        started.wait_for("epoch ")
        time.sleep(random.random())
        with_signal = (signal.SIGKILL, signal.SIGTERM)[random.integers(2)]
        os.kill(started.ranks()[random.integers(count)], with_signal)
        status, lines = started.end()
        assert status != 0, lines
        resume = ["--resume"]
    for name, more in (("out", resume), ("whole", [])):
        done = run([sys.executable, *map(str, command(bars, "--epochs", epochs, "--output", name, *more))], tmp_path)
        assert done.returncode == 0, done.stderr
    (found, _), (expected, _) = (load_tensors(tmp_path / name / "checkpoint.safetensors") for name in ("out", "whole"))
    rows = [(tmp_path / name / "history.csv").read_text().splitlines() for name in ("out", "whole")]
    assert len(rows[0]) == len(rows[1]) == epochs + 1
    for row, other in zip(rows[0][1:6], rows[1][1:6], strict=True):  # later on, roundings have grown
        assert [float(x) for x in row.split(",")[:2]] == pytest.approx([float(x) for x in other.split(",")[:2]], rel=1e-4)
    assert found.keys() == expected.keys()


def test_what_all_ranks_refuse_is_told_once(bars: Path, tmp_path: Path) -> None:
    done = run(mpi(2, *command(bars, "--batch-size", 1, "--output", "out")), tmp_path)
    assert done.returncode == 2
    assert [line for line in done.stderr.partition(50 * "-")[0].splitlines() if line] == [  # Open MPI says below that one ended with 2
        "gpucnn: a batch of 1 is smaller than the number of ranks, 2, and each needs an example of its own: use a larger batch or fewer "
        "ranks"
    ]
    assert not (tmp_path / "out").exists()


def test_a_rank_that_alone_wants_to_resume_is_refused(bars: Path, tmp_path: Path) -> None:
    """And none waits for it."""
    words = [str(word) for word in command(bars, "--output", "out")]
    first = mpi(1, *words)
    done = run([*first, ":", *first[1:], "--resume"], tmp_path)
    told = [line for line in done.stderr.splitlines() if line.startswith("gpucnn: ")]
    assert done.returncode == 2 and len(told) == 1 and not (tmp_path / "out").exists()
    assert told[0].startswith("gpucnn: the ranks do not see the same wish to resume: which is True on rank 1 "), told


def test_what_one_rank_alone_runs_into_is_told_with_its_name(bars: Path, tmp_path: Path) -> None:
    """Its data are not there: as on a machine that has them elsewhere."""
    script = tmp_path / "rank.py"
    script.write_text(
        "import os, sys\nimport gpucnn.cli\nfrom gpucnn.training import parallel\nparallel.GRACE = 1\n"
        "if os.environ.get('PMI_RANK', os.environ.get('OMPI_COMM_WORLD_RANK')) == '1':\n"
        "    from gpucnn.errors import DataError\n    from gpucnn.experiment import run\n\n"
        "    def load_data(*given):\n        raise DataError('the folder is not there')\n\n    run.load_data = load_data\n"
        "sys.argv[0] = 'gpucnn'\ngpucnn.cli.main()\n"
    )
    done = run(mpi(2, script, *command(bars, "--output", "out")[2:], module=False), tmp_path)
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("gpucnn: ")]
    assert len(told) == 1 and re.fullmatch(r"gpucnn: rank 1 of 2 on \S+: the folder is not there", told[0]), done.stderr


def test_evaluate_on_ranks_speaks_once(bars: Path, tmp_path: Path) -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(2)).build((1, 12, 12), device="cpu").compile()
    model.metadata = {"class_names": ["across", "down"]}
    model.save(tmp_path / "model.safetensors")
    done = run(mpi(2, "-m", "gpucnn", "evaluate", "model.safetensors", "--dataset", bars), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == done.stdout.count("test loss") == 1


@pytest.mark.slow
def test_info_names_the_ranks(tmp_path: Path) -> None:
    done = run(mpi(2, "-m", "gpucnn", "info"), tmp_path)
    assert done.stdout.count("mpi4py") == 1
    assert [int(n) for n in re.findall(r"^ranks +rank (\d): CPU, process \d+ on", done.stdout, re.M)] == [0, 1]

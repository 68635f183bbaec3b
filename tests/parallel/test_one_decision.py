"""All ranks end in the same step, for whatever reason, and a run goes on from its checkpoint with any number of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import device, surroundings
from gpucnn.data.batches import Batches
from gpucnn.errors import ArgumentError, CheckpointError, TrainingError
from gpucnn.training import checkpoint, loop, parallel, resuming
from gpucnn.training.callbacks import Callback, Checkpoint, CSVLog, EarlyStopping
from gpucnn.training.communicator import Communicator
from gpucnn.training.progress import Progress
from gpucnn.training.run import Run
from local_ranks import failures, together

RANDOM = np.random.default_rng(8)
IMAGES = RANDOM.normal(size=(30, 1, 6, 6)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, 30)


def model(**options: Any) -> gc.Sequential:
    settings = {"seed": 1, "dtype": "float64", **options}
    layers = (gc.Conv2D(3, 3), gc.BatchNorm2D(), gc.Flatten(), gc.Dropout(0.2), gc.Dense(3))
    return gc.Sequential(*layers).build((1, 6, 6), device="cpu", **settings).compile(gc.SGD(0.02, momentum=0.9))


def fit(ranks: Communicator, callbacks: Any = (), x: Any = IMAGES, **options: Any) -> tuple[gc.Sequential, gc.History]:
    own = options.pop("model", None) or model()
    settings = {"batch_size": 8, "epochs": 4, "verbose": False, "parallel": ranks, **options}
    return own, own.fit(x, LABELS, callbacks=callbacks, **settings)


def values(own: gc.Sequential) -> bytes:
    return np.asarray(own.buffers.copy()).tobytes()


class Seen(Callback):
    def __init__(self, alone: bool = False) -> None:
        self.alone = alone
        self.places: list[tuple[int, int, int]] = []

    def on_step_end(self, run: Run) -> None:
        self.places.append((run.rank, run.ranks, run.epoch * run.steps_per_epoch + run.step))


def test_what_prints_or_writes_is_called_on_the_first_rank_only(tmp_path: Path) -> None:
    assert Checkpoint.alone and CSVLog.alone and Progress.alone and not EarlyStopping.alone and not Callback.alone

    def work(ranks: Communicator) -> tuple[Any, Any]:
        everywhere, first = Seen(), Seen(alone=True)
        folder = tmp_path / str(ranks.rank)
        fit(ranks, [everywhere, first, Checkpoint(folder / "run.safetensors"), CSVLog(folder / "history.csv")], epochs=1)
        return everywhere.places, first.places

    for rank, (everywhere, first) in enumerate(together(3, work)):
        assert everywhere == [(rank, 3, step) for step in (1, 2, 3, 4)]
        assert first == (everywhere if rank == 0 else [])
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_ends_all_in_the_same_step_with_one_checkpoint(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = threading.local()  # a rank is a thread, and signals are for processes

    @contextlib.contextmanager
    def interruptible() -> Iterator[Callable[[], int]]:
        yield lambda: getattr(here, "number", 0)

    monkeypatch.setattr(loop, "_interruptible", interruptible)
    path = tmp_path / "run.safetensors"

    class Told(Callback):
        def on_step_end(self, run: Run) -> None:
            if run.rank == rank and run.step == 2:
                here.number = signal.SIGTERM

    def work(ranks: Communicator) -> tuple[int, bytes]:
        own, seen = model(), Seen()
        with pytest.raises(SystemExit) as end:
            fit(ranks, [Told(), seen, Checkpoint(path)], model=own)
        assert end.value.code == 128 + signal.SIGTERM
        return seen.places[-1][2], values(own)

    (step, found), (other, others) = together(2, work)
    assert step == other == 3 and found == others  # the step after the one in which it came
    resumed, history = fit(Communicator(), resume=path)
    whole, expected = fit(Communicator())
    np.testing.assert_allclose(resumed.buffers.copy(), whole.buffers.copy(), rtol=1e-12, atol=1e-12)
    assert [row["loss"] for row in history.rows] == pytest.approx([row["loss"] for row in expected.rows], rel=1e-10)


class Fails(Callback):
    def __init__(self, rank: int, event: str, error: Exception) -> None:
        self.rank = rank

        def fail(run: Run) -> None:
            if run.rank == rank and run.epoch == (1 if event != "on_train_begin" else 0):
                raise error

        setattr(self, event, fail)


@pytest.mark.parametrize("event", ["on_train_begin", "on_step_end", "on_epoch_end"])
@pytest.mark.parametrize("rank", [0, 2])
def test_what_fails_on_one_rank_ends_all_with_its_name(rank: int, event: str) -> None:
    errors = failures(3, lambda ranks: fit(ranks, [Fails(rank, event, OSError(28, "No space left on device"))]))
    for number, error in enumerate(errors):
        if number == rank:
            assert isinstance(error, OSError) and error.errno == 28
        else:
            assert isinstance(error, TrainingError)
            assert str(error).startswith(f"rank {rank} of 3 on host{rank // 2} failed: ") and "No space left" in str(error)


def test_who_stops_on_one_rank_stops_all_after_the_same_epoch() -> None:
    class Enough(Callback):
        def on_epoch_end(self, run: Run) -> None:
            run.stop = run.rank == 1 and run.epoch == 2

    assert [len(history.rows) for _, history in together(3, lambda ranks: fit(ranks, [Enough()], epochs=6))] == [2, 2, 2]


def test_early_stopping_stops_alike_and_restores_the_same_parameters() -> None:
    def work(ranks: Communicator) -> tuple[int, bytes]:
        own, history = fit(ranks, [EarlyStopping(patience=1)], epochs=30, validation_data=(IMAGES[::-1], LABELS))
        return len(history.rows), values(own)

    found = together(3, work)
    assert found[0] == found[1] == found[2] and found[0][0] < 30


def test_a_loss_that_is_no_number_on_one_rank_ends_all_in_its_step() -> None:
    broken = IMAGES.copy()
    broken[12] = 1e30  # the second half of the second batch, which is rank 1's, and its square overflows in float32

    def work(ranks: Communicator) -> tuple[str, bytes, int]:
        own = gc.Sequential(gc.Flatten(), gc.Dense(1)).build((1, 6, 6), device="cpu").compile("sgd", "mean_squared_error")
        with pytest.raises(TrainingError) as error:
            own.fit(broken, LABELS.astype(np.float32), batch_size=8, shuffle=False, verbose=False, parallel=ranks)
        assert own.optimizer is not None
        return str(error.value), values(own), own.optimizer.steps

    first, second = together(2, work)
    assert first == second and first[2] == 1 and "at step 2" in first[0]


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 2), (3, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(before: int, after: int, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    together(before, lambda ranks: fit(ranks, [Checkpoint(path if not ranks.rank else tmp_path / "none")], epochs=2))

    def work(ranks: Communicator) -> tuple[gc.Sequential, gc.History]:  # the file need not be on every machine
        return fit(ranks, resume=path if not ranks.rank else tmp_path / "elsewhere" / "run.safetensors")

    found = together(after, work)
    whole, expected = fit(Communicator())
    for own, history in found:
        assert values(own) == values(found[0][0]) and own.state() == whole.state()
        assert len(history.rows) == len(expected.rows) == 4
        np.testing.assert_allclose(own.buffers.copy(), whole.buffers.copy(), rtol=1e-12, atol=1e-12)


def test_a_checkpoint_that_cannot_be_read_is_refused_on_every_rank(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"nothing")
    assert {type(error) for error in failures(2, lambda ranks: fit(ranks, resume=path))} == {CheckpointError}


def other(name: str, rank: int) -> dict[str, Any]:
    """What one rank is given differently, by what the refusal calls it."""
    if not rank:
        return {}
    changed = IMAGES.copy()
    changed[5, 0, 2, 2] += 1
    return {
        "training data": {"x": changed},
        "seed": {"seed": 3},
        "batch size": {"batch_size": 10},
        "shuffling": {"shuffle": False},
        "augmentation": {"augment": "shift"},
        "epochs": {"epochs": 5},
        "parameters": {"model": model(seed=1).compile(gc.SGD(0.02, momentum=0.9))},
        "optimizer": {"model": model().compile(gc.SGD(0.03, momentum=0.9))},
        "validation data": {"validation_data": (IMAGES[:4], LABELS[:4])},
        "wish to resume": {"resume": "nowhere"},
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "training data",
        "seed",
        "batch size",
        "shuffling",
        "augmentation",
        "epochs",
        "optimizer",
        "parameters",
        "validation data",
        "wish to resume",
    ],
)
def test_ranks_that_see_something_else_are_refused_with_both_values(name: str) -> None:
    def work(ranks: Communicator) -> None:
        given = other(name, ranks.rank)
        if name == "parameters" and ranks.rank:
            given["model"].buffers.values[0] += 1
        fit(ranks, **given)

    errors = failures(3, work)
    assert len({str(error) for error in errors}) == 1
    assert isinstance(errors[0], ArgumentError)
    words = str(errors[0])
    assert words.startswith(f"the ranks do not see the same {name}: ")
    assert "on rank 1 (host0)" in words and "on rank 0 (host0)" in words


def test_other_versions_of_the_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = resuming.seen
    here = threading.local()
    monkeypatch.setattr(resuming, "seen", lambda *given: seen(*given) | {"version of gpucnn": here.version})

    def work(ranks: Communicator) -> None:
        here.version = "0.2.0" if ranks.rank else "0.1.0"
        fit(ranks)

    for error in failures(2, work):
        assert "the same version of gpucnn: which is '0.2.0' on rank 1 (host0) and '0.1.0' on rank 0 (host0)" in str(error)
    assert seen(model(), model().optimizer, Batches(IMAGES, LABELS, 4), None, {}, 1, [])["version of gpucnn"] == gc.__version__


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_machines_that_round_an_update_differently_are_told_apart(epoch: int, tmp_path: Path) -> None:
    """After the first epoch and at the end; in between nothing is lost by it, and nothing is looked at."""

    class Rounds(Callback):
        def on_step_end(self, run: Run) -> None:
            if run.rank == 2 and run.epoch + 1 == epoch and run.step == 2:
                run.model.buffers.values[7] += 1e-9

    path = tmp_path / "run.safetensors"
    for error in failures(3, lambda ranks: fit(ranks, [Rounds(), Checkpoint(path)])):
        assert isinstance(error, TrainingError)
        assert str(error).startswith("the parameters of rank 2 of 3 on host1 are no longer those of rank 0 of 3 on host0 (")
    _, description = checkpoint.load_tensors(path)
    assert description["run"]["epoch"] == (1 if epoch == 1 else 4)


def test_a_batch_smaller_than_the_number_of_ranks_is_refused() -> None:
    for error in failures(3, lambda ranks: fit(ranks, batch_size=2)):
        assert isinstance(error, ArgumentError) and "a batch of 2 is smaller than the number of ranks, 3" in str(error)


@pytest.mark.parametrize("value", ["nccl", 2, True, b"mpi", ["mpi"]])
def test_what_is_no_way_to_find_ranks_is_refused(value: Any) -> None:
    with pytest.raises(ArgumentError, match="parallel must be"):
        parallel.join(value)


def test_one_rank_costs_and_imports_nothing() -> None:
    program = """
import sys, numpy, gpucnn
model = gpucnn.Sequential(gpucnn.Flatten(), gpucnn.Dense(2)).build((1, 2, 2), device="cpu").compile("sgd")
x, y = numpy.zeros((4, 1, 2, 2)), numpy.zeros(4, int)
model.fit(x, y, verbose=False, parallel="auto")
model.evaluate(x, y, parallel="auto")
assert not [name for name in sys.modules if name.startswith(("mpi4py", "gpucnn.training.nccl"))]
"""
    clean = {name: value for name, value in os.environ.items() if name not in (*surroundings.RANKS, *surroundings.LOCAL)}
    subprocess.run([sys.executable, "-c", program], check=True, env={**clean, "GPUCNN_CPU": "numpy"})


@pytest.mark.parametrize(
    ("variables", "count", "local"),
    [
        ({}, 1, None),
        ({"PMI_SIZE": "4", "MPI_LOCALRANKID": "1"}, 4, 1),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, 2, 0),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "3"}, 8, 3),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0"}, 1, None),
        ({"PMI_SIZE": "many", "MPI_LOCALRANKID": ""}, 1, None),
        ({"PMI_SIZE": "0"}, 1, None),
    ],
)
def test_the_environment_says_what_was_started(
    variables: dict[str, str], count: int, local: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*surroundings.RANKS, *surroundings.LOCAL):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (surroundings.started_ranks(), surroundings.local_rank()) == (count, local)


@pytest.mark.parametrize(
    ("visible", "local", "expected"),
    [(None, 1, "1"), ("", 2, "2"), ("4,5,6", 1, "5"), ("4,5", 2, "-1"), ("7", 3, "7"), (None, None, None), ("0,1", None, "0,1")],
)
def test_each_rank_of_a_machine_sees_one_gpu(
    visible: str | None, local: int | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(device, "local_rank", lambda: local)
    device._own_gpu()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == expected


def test_a_rank_without_a_gpu_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 0, driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000)
    why = device._why_no_driver(types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime)), 2)
    assert why == "this machine has no GPU for its rank 2: start at most as many ranks on it as it has GPUs"


def test_ranks_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_NUM_THREADS", "1")  # so that what is there comes back
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 8)
    for allowed, ranks, expected in ((8, 2, "4"), (8, 16, "1"), (3, 2, "3")):  # the last were given theirs by whoever started them
        monkeypatch.delenv("GPUCNN_NUM_THREADS", raising=False)
        monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _, allowed=allowed: set(range(allowed)), raising=False)
        parallel.share_cores(ranks)
        assert os.environ["GPUCNN_NUM_THREADS"] == expected
    monkeypatch.setenv("GPUCNN_NUM_THREADS", "7")
    parallel.share_cores(2)
    assert os.environ["GPUCNN_NUM_THREADS"] == "7"

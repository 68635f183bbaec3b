"""Ranks: the processes that train one model together, and their communication.

    gpucnn train --ranks 4          mpiexec -n 4 python -m mpi4py -m gpucnn train

MPI (mpi4py) starts them and transfers arrays on the host, and NCCL's identifier; NCCL (nccl.py) transfers arrays on GPUs. With one rank
none of these is imported.

Every rank makes the same calls in the same order: if one leaves out a call, the others wait for it. A rank that fails alone therefore ends
its process, and with it all ranks: see `end`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import time
from collections.abc import Callable
from typing import Any

from gpucnn.device import Device
from gpucnn.errors import ArgumentError, DeviceError, GpucnnError, MissingExtraError, TrainingError
from gpucnn.surroundings import install, started_ranks
from gpucnn.text import first_line, message, reason_of, shown
from gpucnn.training.communicator import Communicator, T

GRACE = 5.0  # seconds that a rank waits for the others to end as well, before it ends them


def advice() -> str:
    """How to install what ranks need."""
    return f"{install('mpi')}, and an MPI: the system's, or pip install mpich"


class MPI(Communicator):
    """Ranks on MPI: arrays are NumPy's."""

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI as mpi

        self._mpi = mpi
        self._comm = comm
        self._ends = comm.Dup()  # used only when ranks end
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        machine = comm.Split_type(mpi.COMM_TYPE_SHARED)
        self._machine = machine
        self.local_rank, self.local_size = machine.Get_rank(), machine.Get_size()
        self.host = mpi.Get_processor_name()
        self._on: dict[str, Communicator] = {}

    def sum(self, array: Any) -> None:
        self._comm.Allreduce(self._mpi.IN_PLACE, array)

    def broadcast(self, array: Any, root: int = 0) -> None:
        self._comm.Bcast(array, root)

    def barrier(self) -> None:
        self._comm.Barrier()

    def gather(self, value: T) -> list[T]:
        return self._comm.allgather(value)  # type: ignore[no-any-return]

    def once(self, function: Callable[[], T]) -> T:
        result: Any = None
        if self.rank == 0:
            try:
                result = (function(), None)
            except Exception as error:
                self._comm.bcast((None, _sendable(error)))
                raise
        result, failure = self._comm.bcast(result)
        if failure is not None:
            raise failure
        return result  # type: ignore[no-any-return]

    def in_turn(self, function: Callable[[], T]) -> T:
        if self.local_rank:
            self._machine.Barrier()
            return function()
        try:
            return function()
        finally:
            self._machine.Barrier()

    def on(self, device: Device) -> Communicator:
        kinds = self.gather(device.kind)
        if len(set(kinds)) > 1:
            without = [str(rank) for rank, kind in enumerate(kinds) if kind == "cpu"]
            raise DeviceError(
                f"rank {', '.join(without)} of {self.size} got no GPU, and others did: start at most as many ranks on a machine as it has "
                "GPUs, or use device cpu"
            )
        if device.xp.__name__ != "cupy":
            return self
        if device.kind not in self._on:
            from gpucnn.training.nccl import NCCL

            self._on[device.kind] = NCCL(self, device)
        return self._on[device.kind]

    def end(self, status: int, complain: Callable[[str], None]) -> None:
        """Ends this rank for a reason that `complain` prints, with its name. If all others end within GRACE seconds, only rank 0 prints;
        otherwise this rank ends all others."""
        if self.rank == 0:
            complain("")
        together = self._ends.Ibarrier()
        limit = time.monotonic() + GRACE
        while not together.Test():
            if time.monotonic() > limit:
                if self.rank:
                    complain(f"{self.name}: ")
                self._comm.Abort(status)
            time.sleep(0.01)
        self._mpi.Finalize()


@functools.cache
def _world() -> Communicator:
    """All ranks, on MPI; a `Communicator` by itself where there is one. MissingExtraError without mpi4py or an MPI."""
    try:
        from mpi4py import MPI as mpi
    except ImportError as error:
        raise MissingExtraError(f"ranks need mpi4py and an MPI ({first_line(error)}): {advice()}") from None
    except RuntimeError as error:  # mpi4py is there, and finds no library
        raise MissingExtraError(f"mpi4py finds no MPI library ({first_line(error)}): {advice()}") from None
    if mpi.COMM_WORLD.Get_size() == 1:
        return Communicator()
    ranks = MPI(mpi.COMM_WORLD.Dup())
    share_cores(ranks.local_size)
    return ranks


def share_cores(local_size: int) -> None:
    """Gives each of the ranks on this machine its share of the cores, unless GPUCNN_NUM_THREADS or the launcher has set it."""
    whole = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else whole
    if allowed == whole:
        allowed = max(1, whole // local_size)
    os.environ.setdefault("GPUCNN_NUM_THREADS", str(allowed))


def current() -> Communicator:
    """The ranks that this process already knows to be one of; imports nothing to find out."""
    return _world() if _world.cache_info().currsize else Communicator()


def join(parallel: str | Communicator | None) -> Communicator:
    """The ranks that this process is one of.

    None: this process alone. "mpi": all that MPI knows. "auto": the same if the environment says that several were started (mpiexec, srun);
    otherwise this process alone, with nothing imported. Raises MissingExtraError without mpi4py, and ArgumentError for any other value, or
    if several processes were started that do not know of one another.
    """
    if isinstance(parallel, Communicator):
        return parallel
    if parallel is None:
        return Communicator()
    if not isinstance(parallel, str) or parallel not in ("auto", "mpi"):
        raise ArgumentError(f"parallel must be 'auto', 'mpi' or None, got {shown(parallel)}")
    started = started_ranks()
    if parallel == "auto" and started == 1:
        return Communicator()
    try:
        ranks = _world()
    except MissingExtraError as error:
        if started == 1:
            raise
        raise MissingExtraError(f"this process is one of {started} that were started together, and {error}") from None
    if ranks.size == 1 and started > 1:
        raise ArgumentError(
            f"{started} processes were started together, and MPI knows of one: mpiexec is of another MPI than the one that mpi4py finds "
            "(python -m mpi4py --mpi-lib-version), or srun wants --mpi=pmix or pmi2"
        )
    return ranks


def slice_of(size: int, ranks: int, rank: int) -> tuple[int, int]:
    """(first, count) of a rank's part of `size` examples, as even as possible; some ranks get 0 if there are fewer examples than ranks."""
    first = size * rank // ranks
    return first, size * (rank + 1) // ranks - first


def each_batch(ranks: Communicator, count: int, batch_size: int, work: Callable[[slice], T]) -> list[T]:
    """The results of `work` for each batch of `count` examples, in order. Ranks take the batches in turn, and all of them get all
    results. They must have come with the same model and data (`same_to_measure`)."""
    batches = [slice(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    done = ranks.gather([work(batch) for batch in batches[ranks.rank :: ranks.size]])
    return [done[index % ranks.size][index // ranks.size] for index in range(len(batches))]


def _sendable(error: Exception) -> Exception:
    """An exception in a form that can be sent to another process."""
    with contextlib.suppress(Exception):
        if type(copy := pickle.loads(pickle.dumps(error))) is type(error):
            return copy
    return type(error)(str(error)) if isinstance(error, GpucnnError) else TrainingError(message(reason_of(error)))

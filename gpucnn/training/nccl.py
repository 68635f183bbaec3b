"""Ranks on GPUs, one each: arrays of the device are summed by NCCL, everything else goes through MPI.

NCCL's calls are launched like kernels, on a stream of their own, so that a sum of some gradients runs beside the backward pass that
computes the others; a recorded step contains them like all its launches. They must come in the same order on every rank, as everything here
does.

Runs with the same ranks on the same machines are bit-identical as long as NCCL chooses the same algorithm. It may use the adders in the
switches (NVLink SHARP), whose order of additions is not specified. NCCL_NVLS_ENABLE=0 in the environment turns them off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn.device import VIRTUAL, Device
from gpucnn.errors import DeviceError, MissingExtraError
from gpucnn.surroundings import install
from gpucnn.text import first_line
from gpucnn.training.communicator import Communicator, T

EVENTS = 64  # used in turn: more than a step has sums


class NCCL(Communicator):
    """Ranks whose arrays of floats are on GPUs; `ranks` are the same, on MPI."""

    def __init__(self, ranks: Communicator, device: Device, library: Any = None) -> None:
        self._ranks = ranks
        self.rank, self.size, self.host = ranks.rank, ranks.size, ranks.host
        self.local_rank, self.local_size = ranks.local_rank, ranks.local_size
        cuda = device.xp.cuda
        self._nccl = library or self._library(device)
        one_each(ranks, device)
        made = self.once(self._nccl.get_unique_id)
        try:
            self._device = self._nccl.NcclCommunicator(self.size, made, self.rank)
        except Exception as error:  # NCCL's own errors: a closed port, a driver that is too old
            raise DeviceError(
                f"NCCL does not start on {self.name} ({first_line(error)}): NCCL_DEBUG=INFO in the environment says more, and "
                "--device cpu goes without it"
            ) from None
        self._cuda = cuda
        self._stream = cuda.Stream(non_blocking=True)
        self._events = [cuda.Event(disable_timing=True) for _ in range(EVENTS)]  # none may be created while a step is recorded
        self._next = 0
        self._types = {"float32": self._nccl.NCCL_FLOAT32, "float64": self._nccl.NCCL_FLOAT64}

    def sum(self, array: Any) -> None:
        if isinstance(array, np.ndarray):
            self._ranks.sum(array)
            return
        self.begin_sum(array)
        self.finish()

    def broadcast(self, array: Any, root: int = 0) -> None:
        host = array if isinstance(array, np.ndarray) else array.get()
        self._ranks.broadcast(host, root)
        if host is not array:
            array.set(host)

    def begin_sum(self, array: Any) -> None:
        self._after(self._cuda.get_current_stream(), self._stream)
        pointer = array.data.ptr
        self._device.allReduce(pointer, pointer, array.size, self._types[str(array.dtype)], self._nccl.NCCL_SUM, self._stream.ptr)

    def finish(self) -> None:
        self._after(self._stream, self._cuda.get_current_stream())

    def barrier(self) -> None:
        self._ranks.barrier()

    def gather(self, value: T) -> list[T]:
        return self._ranks.gather(value)

    def once(self, function: Callable[[], T]) -> T:
        return self._ranks.once(function)

    def in_turn(self, function: Callable[[], T]) -> T:
        return self._ranks.in_turn(function)

    def _after(self, first: Any, then: Any) -> None:
        """Makes later work on the stream `then` wait for the work on `first`."""
        event = self._events[self._next]
        self._next = (self._next + 1) % EVENTS
        event.record(first)
        then.wait_event(event)

    def _library(self, device: Device) -> Any:
        found = device.nccl()
        if found is None:
            version = device.xp.cuda.runtime.runtimeGetVersion() // 1000
            raise MissingExtraError(f"ranks on GPUs need NCCL: {install('nccl12' if version == 12 else 'nccl13')}, or --device cpu")
        return found


def one_each(ranks: Communicator, device: Device) -> None:
    """Raises DeviceError if two ranks have the same GPU: NCCL needs one for each."""
    own = "" if device.name.startswith(VIRTUAL) else device.xp.cuda.Device().pci_bus_id
    owners: dict[tuple[str, str], list[int]] = {}
    for rank, (host, bus) in enumerate(ranks.gather((ranks.host, own))):
        owners.setdefault((host, bus), []).append(rank)
    for (host, bus), found in owners.items():
        if bus and len(found) > 1:
            raise DeviceError(
                f"ranks {', '.join(map(str, found))} on {host} have the same GPU ({bus}): start at most as many ranks on a machine as it "
                "has GPUs, and build the model in each process before anything else uses the GPU"
            )

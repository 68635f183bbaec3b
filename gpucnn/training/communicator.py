"""The ways in which ranks communicate, for a single process, where they do nothing. On MPI: parallel.py; on GPUs: nccl.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gpucnn.device import Device

T = TypeVar("T")


class Communicator:
    """A single rank, which communicates with no others; base class of the communicators that do."""

    rank = 0
    size = 1
    local_rank = 0  # among the ranks on this machine
    local_size = 1
    host = ""

    @property
    def name(self) -> str:
        """The rank's name, for messages."""
        return f"rank {self.rank} of {self.size} on {self.host}"

    def sum(self, array: Any) -> None:
        """Replaces a contiguous array of floats by its sum over all ranks, bit-identical on every rank."""

    def begin_sum(self, array: Any) -> None:
        """Begins `sum`; on a GPU it need not be complete before `finish`."""
        self.sum(array)

    def finish(self) -> None:
        """Orders everything launched from now on after all sums that `begin_sum` has begun."""

    def broadcast(self, array: Any, root: int = 0) -> None:
        """Replaces the array on every rank by that of the rank `root`."""

    def barrier(self) -> None:
        """Waits until every rank has called this."""

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, by rank, on every rank."""
        return [value]

    def once(self, function: Callable[[], T]) -> T:
        """The result of `function` on rank 0, which alone calls it; an exception is raised on all ranks."""
        return function()

    def in_turn(self, function: Callable[[], T]) -> T:
        """The result of `function`, called on each machine by one rank first: what it downloads or caches is there for the others."""
        return function()

    def on(self, device: Device) -> Communicator:
        """The communicator for arrays on a device. Raises DeviceError if these ranks cannot use their devices together."""
        return self

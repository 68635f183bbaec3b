"""What a rank can say to the others, and what a process by itself does in its place. On MPI: parallel.py; on GPUs: nccl.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gpucnn.device import Device

T = TypeVar("T")


class Communicator:
    """One rank by itself, which has nobody to talk to; base of those that have."""

    rank = 0
    size = 1
    local_rank = 0  # among the ranks on this machine
    local_size = 1
    host = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"rank {self.rank} of {self.size} on {self.host}"

    def sum(self, array: Any) -> None:
        """Puts the sum over all ranks in the place of a contiguous array of floats: the same bits on every rank."""

    def begin_sum(self, array: Any) -> None:
        """`sum`, which on a GPU need not be done before `finish` says so."""
        self.sum(array)

    def finish(self) -> None:
        """What is launched from now on comes after all that `begin_sum` has begun."""

    def broadcast(self, array: Any, root: int = 0) -> None:
        """Puts the array of the rank `root` in the place of everybody's."""

    def barrier(self) -> None:
        """Waits until every rank is here."""

    def gather(self, value: T) -> list[T]:
        """What each rank has given, on every rank, by rank."""
        return [value]

    def once(self, function: Callable[[], T]) -> T:
        """What rank 0 gets from `function`, which no other rank calls; an exception is raised on all of them."""
        return function()

    def in_turn(self, function: Callable[[], T]) -> T:
        """`function`, on each machine by one rank first: what is downloaded or cached is there for the others."""
        return function()

    def on(self, device: Device) -> Communicator:
        """The communicator for arrays on a device. DeviceError where these ranks cannot use theirs together."""
        return self

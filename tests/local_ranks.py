"""Ranks that are threads of one process: what they compute together, without MPI and without its start-up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gpucnn.training.communicator import Communicator

T = TypeVar("T")


class _Room:
    """Where the ranks meet."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.places: list[Any] = [None] * size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.places[rank] = value
        self.barrier.wait()
        found = list(self.places)
        self.barrier.wait()
        return found


class LocalRank(Communicator):
    """One of them. Sums are added in the order of the ranks."""

    def __init__(self, room: _Room, rank: int) -> None:
        self.room, self.rank, self.size = room, rank, len(room.places)
        self.local_rank, self.local_size, self.host = rank, self.size, f"host{rank // 2}"
        self.sums = 0

    def sum(self, array: Any) -> None:
        assert isinstance(array, np.ndarray) and array.flags.c_contiguous
        self.sums += 1
        first, *others = self.room.exchange(self.rank, array.copy())
        assert len({part.shape for part in (first, *others)}) == 1, "ranks make different calls"
        total = first.copy()
        for part in others:
            total += part
        array[...] = total

    def broadcast(self, array: Any, root: int = 0) -> None:
        array[...] = self.room.exchange(self.rank, array.copy())[root]

    def barrier(self) -> None:
        self.room.exchange(self.rank, None)

    def gather(self, value: T) -> list[T]:
        return self.room.exchange(self.rank, value)

    def once(self, function: Callable[[], T]) -> T:
        said: Any = None
        if self.rank == 0:
            try:
                said = function(), None
            except Exception as error:
                said = None, error
        result, error = self.room.exchange(self.rank, said)[0]
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]


def together(size: int, work: Callable[[Any], T]) -> list[T]:
    """What `work` returns on each of `size` ranks, which it is given. Raises what a rank has raised; then the others, if they wait for it,
    are let go."""
    room = _Room(size)
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def body(rank: int) -> None:
        try:
            results[rank] = work(LocalRank(room, rank))
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            errors.append(error)
            room.barrier.abort()

    threads = [threading.Thread(target=body, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def failures(size: int, work: Callable[[Any], Any]) -> list[Exception]:
    """What each of the ranks raised; every one has to."""

    def caught(ranks: Any) -> Exception:
        try:
            work(ranks)
        except Exception as error:
            return error
        raise AssertionError(f"nothing was raised on rank {ranks.rank}")

    return together(size, caught)

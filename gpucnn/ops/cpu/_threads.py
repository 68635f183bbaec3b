"""Work cut into pieces that fit the cache, and distributed over the cores.

NumPy runs copies and elementwise passes on one core, and BLAS runs products on all of them; in turn, each waits for the other. So a
piece (some images, or some elements) goes through all its passes on one thread, and BLAS is held to one thread meanwhile. Pieces
depend on sizes alone, never on the number of threads: results are bit-identical on one core and on many.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gpucnn.arrays import quiet
from gpucnn.errors import ArgumentError
from gpucnn.text import shown
from gpucnn_loops import threads as pools

Array: TypeAlias = npt.NDArray[Any]
empty = pools.empty

SLAB = 1 << 18
"""Elements of a piece: 1 MB of float32, small enough that the results of a few passes are still in the last-level cache, and large enough
that a pass takes a tenth of a millisecond. Between two passes a thread must have Python's global lock: with pieces that fit the
second-level cache (2¹⁵) two threads spent their time handing it to one another, and pooling took four times as long."""
WORTH_A_THREAD = 1 << 18  # elements touched or multiplied; below it, waking another thread costs more than it saves


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


class _OneThread:
    """Holds BLAS to one thread from the moment the first thread enters until the last one leaves, then restores the number of threads.

    BLAS has one such number for the whole process. If two threads of the program each restored the number that they found, one might
    leave behind the number that the other had set. threadpoolctl from 3.7 on prevents this by letting only one thread change it, silently
    ignoring the others. Here the first thread to enter and the last to leave may differ, so the underlying setter is called.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[tuple[Any, int]] = []  # each library, and its number of threads

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = [(library, library.get_num_threads()) for library in _blas().lib_controllers]
                self._set([(library, 1) for library, _ in self._before])
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._set(self._before)

    @staticmethod
    def _set(numbers: list[tuple[Any, int]]) -> None:
        for library, number in numbers:
            getattr(library, "_real_set_num_threads", library.set_num_threads)(number)


_one_thread = _OneThread()


def _after_fork() -> None:
    global _one_thread
    _one_thread = _OneThread()  # another thread may have held the lock; its work is not done here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def threads() -> int:
    """The number of threads: GPUCNN_NUM_THREADS, otherwise as many as BLAS uses (which respects OPENBLAS_NUM_THREADS and the like), but no
    more than a container's share of the cores: with more, all of them would be paused for the rest of each period."""
    given = os.environ.get("GPUCNN_NUM_THREADS")
    if given is not None:
        if not given.isdecimal() or int(given) < 1:
            raise ArgumentError(f"GPUCNN_NUM_THREADS must be an integer of at least 1, got {shown(given)}")
        return int(given)
    found: int = max((library["num_threads"] for library in _blas().info()), default=os.cpu_count() or 1)
    return min(found, pools.share_of_time())


pools.count = threads


def blas_alike() -> Any:
    """A context in which BLAS has as many threads as the operations."""
    return _blas().limit(limits=threads())


def _pool(process: int) -> ThreadPoolExecutor:
    """The pool for NumPy's passes. Threads do not survive a fork, so each process has its own."""
    return pools.pool()


def workers_for(pieces: int, work: int) -> int:
    """The number of threads for this many pieces and this much work."""
    return min(threads(), pieces) if work >= WORTH_A_THREAD else 1


def share(pieces: int, body: Callable[[Iterable[int]], None], *, work: int, blas: bool = False) -> None:
    """Calls `body` once per thread, with that thread's share of range(pieces).

    work: about how many elements are touched or multiplied; little work stays on the calling thread, because waking another one takes
    tens of microseconds. blas: whether body calls BLAS, which is then limited to one thread per caller.
    """
    workers = workers_for(pieces, work)

    @quiet  # NumPy's settings for errors and printing are per thread, and are copied to each
    def own(worker: int) -> None:
        body(range(worker, pieces, workers))

    with _one_thread if blas else contextlib.nullcontext():
        if workers <= 1:
            own(0)
        else:
            list(_pool(os.getpid()).map(own, range(workers)))


def slabs(work: Callable[[slice], object], size: int) -> None:
    """Calls `work` on all threads with slices that cover range(size), for elementwise passes over flat buffers."""
    pieces = -(-size // SLAB)

    def body(share_of_pieces: Iterable[int]) -> None:
        for piece in share_of_pieces:
            work(slice(piece * SLAB, min((piece + 1) * SLAB, size)))

    share(pieces, body, work=size)


def matmul(a: Array, b: Array, out: Array) -> Array:
    """out (M, N) = a (M, K) · b (K, N), with the columns divided among the threads."""
    (m, k), n = a.shape, b.shape[1]
    pieces = max(1, min(8, n // 16, m * n * k // WORTH_A_THREAD))
    edges = [n * piece // pieces for piece in range(pieces + 1)]

    def body(own: Iterable[int]) -> None:
        for piece in own:
            part = slice(edges[piece], edges[piece + 1])
            np.matmul(a, b[:, part], out=out[:, part])

    share(pieces, body, work=m * n * k // 8, blas=True)
    return out

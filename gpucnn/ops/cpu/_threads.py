"""Work cut into pieces that fit the cache, shared out among the cores.

NumPy runs copies and elementwise passes on one core, and BLAS runs products on all of them; in turn, each waits for the other. So a
piece (some images, or some elements) goes through all its passes on one thread, and BLAS is held to one thread meanwhile. Pieces
depend on sizes alone, never on the number of threads: results are the same to the bit on one core and on many.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gpucnn.errors import ShapeError

Array: TypeAlias = npt.NDArray[Any]

SLAB = 1 << 15  # elements: with four float32 buffers of it in use, half a megabyte, a core's second-level cache
_busy = threading.local()


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@functools.cache
def threads() -> int:
    """Threads in use: GPUCNN_NUM_THREADS, else as many as BLAS takes (which heeds OPENBLAS_NUM_THREADS and the like)."""
    given = os.environ.get("GPUCNN_NUM_THREADS")
    if given is not None:
        if not given.isdecimal() or int(given) < 1:
            raise ShapeError(f"GPUCNN_NUM_THREADS must be a whole number of at least 1, got {given!r}")
        return int(given)
    return max((library["num_threads"] for library in _blas().info()), default=os.cpu_count() or 1)


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:  # one per process: threads do not survive a fork
    return ThreadPoolExecutor(threads(), thread_name_prefix="gpucnn")


def share(pieces: int, body: Callable[[Iterable[int]], None], *, blas: bool = False) -> None:
    """Calls `body` once per thread, with that thread's share of range(pieces); `blas` where body calls BLAS."""
    workers = min(threads(), pieces)
    if workers <= 1 or getattr(_busy, "inside", False):
        body(range(pieces))
        return

    def run(worker: int) -> None:
        _busy.inside = True
        body(range(worker, pieces, workers))

    pool = _pool(os.getpid())
    if blas:
        with _blas().limit(limits=1):
            list(pool.map(run, range(workers)))
    else:
        list(pool.map(run, range(workers)))


def slabs(work: Callable[[slice], None], size: int) -> None:
    """Calls `work` with slices that cover range(size), on all threads: for elementwise passes over flat buffers."""
    pieces = -(-size // SLAB)

    def body(share_of_pieces: Iterable[int]) -> None:
        for piece in share_of_pieces:
            work(slice(piece * SLAB, min((piece + 1) * SLAB, size)))

    share(pieces, body)

"""A process that compiles kernels for another one and leaves them on the disk: see crew.py, which starts it.

It reads what to compile for, then one kernel after the other from standard input, and answers each by a letter. It ends when there is
nothing more to read, as when the other process has ended for whatever reason.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys

from gpucnn_kernels.core._numba import loads, quickly, without_driver, without_ptx
from gpucnn_kernels.core.crew import DONE, FAILED, READY
from gpucnn_kernels.core.disk_cache import KernelCache


def main() -> None:
    """Compiles until there is nothing more to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # anything that is printed must not be mistaken for an answer
    wanted = pickle.load(given)
    answers.write(READY)
    with without_driver(wanted), quickly(), without_ptx():
        while True:
            try:
                mark, packed = pickle.load(given)
            except (EOFError, pickle.UnpicklingError):
                return
            answers.write(DONE if _compiled(mark, packed) else FAILED)


def _compiled(mark: str, packed: bytes) -> bool:
    """Compiles a kernel, and says whether it is on the disk now."""
    try:
        kernel, signature = loads(packed)
        kernel._cache = cache = KernelCache(kernel.py_func, mark)
        kernel.compile(signature)
        return cache.holds(signature, kernel.targetctx.codegen())
    except Exception:  # the other process tries again, and reports the error
        return False


if __name__ == "__main__":
    main()

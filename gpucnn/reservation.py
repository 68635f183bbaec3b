"""The reservation of a folder: one process at a time writes a run to it."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpucnn.errors import DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"  # the file in the folder
_UNKNOWN_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Reserves `folder` for this process, to write a run there. DataError, with the number of the process, if another one has it.

    The system releases the lock when a process ends, however it ends, so a leftover lock file is not an obstacle.
    """
    path = folder / LOCK
    handle = _lock(path, folder)
    try:
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(handle)


def _lock(path: Path, folder: Path) -> int | None:
    """The locked file, or None if the system has no locks."""
    if fcntl is None:
        return None
    for attempt in range(50):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            os.close(handle)
            if not owner.isdecimal() and attempt < 10:  # it has only just been locked
                time.sleep(0.02)
                continue
            process = f"process {owner}" if owner.isdecimal() else "another process"
            raise DataError(
                f"{process} is writing a run to {folder}: wait until it is done, or name another folder with --output"
            ) from None
        except OSError as error:
            os.close(handle)
            if error.errno in _UNKNOWN_LOCKS:
                return None
            raise
        with contextlib.suppress(OSError):
            if os.stat(path).st_ino == os.fstat(handle).st_ino:
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
                return handle
        os.close(handle)  # its owner has just removed it
    raise DataError(f"{folder} cannot be locked, because other processes keep changing it: name another folder with --output")

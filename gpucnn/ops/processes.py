"""How many processes compile, for both devices."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gpucnn.errors import DeviceError
from gpucnn.ops.cpu._threads import threads
from gpucnn.surroundings import started_ranks
from gpucnn.text import shown

VARIABLE = "GPUCNN_COMPILERS"  # environment variable: how many processes compile; without it, up to one per core
MEMORY = 400 << 20  # bytes for each process that compiles: it takes up to some 300 MB


def compilers(functions: int) -> int:
    """The number of processes that compile this many kernels or loops, this one included. DeviceError if GPUCNN_COMPILERS is not a
    number."""
    given = os.environ.get(VARIABLE, "").strip()
    if given:
        if not given.isascii() or not given.isdecimal():
            raise DeviceError(f"{VARIABLE} must be a number of processes, got {shown(given)}")
        return max(1, min(int(given), functions))
    if started_ranks() > 1:  # each of them compiles
        return 1
    # A process takes a second to start, as long as a small kernel takes.
    return max(1, min(threads(), -(-functions // 2), 1 + free_memory() // MEMORY))


def free_memory(told: Path = Path("/proc/meminfo")) -> int:
    """Available host memory in bytes; more than any machine has where the system does not report it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in told.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 1 << 60

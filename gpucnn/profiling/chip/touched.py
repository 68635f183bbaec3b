"""The cost of one memory access of a warp: cycles of shared memory, and sectors of global memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.profiling.chip.arithmetic import Value, as_lanes
from gpucnn.profiling.chip.machine import Instruction

SECTOR = 32  # bytes: global memory is read in such sectors
LINE = 128  # bytes that a first-level cache looks up at a time, and that shared memory delivers per cycle
REMEMBERED = 4096  # sectors that the first-level cache is assumed to hold for a warp: 128 KiB


@dataclass(frozen=True, slots=True)
class Access:
    """cycles: on the multiprocessor's path to its shared memory or first-level cache. sectors: 32-byte sectors of global memory; new: those
    that this warp has not read before. barrier: a barrier's address; parity: the one that is waited for."""

    cycles: float
    sectors: int = 0
    new: int = 0
    barrier: int | None = None
    parity: int = 0


class Touched:
    """The sectors that a warp has read so far."""

    def __init__(self) -> None:
        self._seen: dict[int, None] = {}
        self._patterns: dict[Any, tuple[float, tuple[int, ...]]] = {}

    def access(self, instruction: Instruction, address: Value, last: Value, active: Any) -> Access:
        """The access of an instruction, given an address for each thread (None: unknown, assumed to be well aligned)."""
        base, words = instruction.base, instruction.words
        if base in ("SYNCS", "ARRIVES", "UBLKCP"):
            barrier = int(as_lanes(address)[0]) if address is not None else None
            parity = 0 if last is None else int(as_lanes(last)[0]) >> 31 & 1
            return Access(1, barrier=barrier, parity=parity)
        width = 4 * words if ".U8" not in instruction.name and ".U16" not in instruction.name else 1 if ".U8" in instruction.name else 2
        count = 32 if active is None else int(active.sum())
        if address is None:
            sectors = -(-width * count // SECTOR) if base not in ("LDS", "STS", "ATOMS") else 0
            return Access(words, sectors, sectors)
        lanes = as_lanes(address).astype(np.int64)
        lanes = lanes if active is None else lanes[active]
        shared = base in ("LDS", "STS", "ATOMS")
        start = int(lanes[0]) // LINE * LINE
        key = shared, width, (lanes - start).tobytes()
        found = self._patterns.get(key)
        if found is None:
            found = (_cycles(lanes - start, width), ()) if shared else _pieces(lanes - start, width)
            self._patterns[key] = found
        cycles, pieces = found
        if shared:
            return Access(cycles)
        new = 0
        for piece in pieces:
            at = start + piece
            if at not in self._seen:
                new += 1
                self._seen[at] = None
                if len(self._seen) > REMEMBERED:
                    del self._seen[next(iter(self._seen))]
        return Access(cycles, len(pieces), new)


def _cycles(addresses: np.ndarray[Any, Any], width: int) -> float:
    """Cycles of shared memory: 32 banks of 4 bytes, each of which delivers one word per cycle, to all threads that read it.

    Accesses of 8 and 16 bytes are done for half and quarter warps (CUDA C++ Best Practices Guide, on shared memory). Loops of matrix
    products showed that 16-byte reads of few different words take one cycle per half warp, not two.
    """
    words = np.unique((addresses[:, None] + np.arange(0, max(width, 4), 4)) // 4)
    banks = np.bincount(words % 32, minlength=32)
    return float(max(banks.max(), width // 8))


def _pieces(addresses: np.ndarray[Any, Any], width: int) -> tuple[float, tuple[int, ...]]:
    """Cycles of the first-level cache, one for each line; and the sectors."""
    steps = np.arange(0, width, min(width, 4))
    sectors = np.unique((addresses[:, None] + steps) // SECTOR) * SECTOR
    return float(len(np.unique(sectors // LINE))), tuple(int(each) for each in sectors)

"""Resources and peak rates of chips, which kernels are planned for and compared with. Nothing here was measured.

The resources of a multiprocessor depend only on the compute capability; the number of multiprocessors and the memory depend on the card.
So an architecture is what the compiler targets, and a chip is what times are estimated for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpucnn.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Architecture:
    """The resources of a multiprocessor (SM) of a compute capability."""

    name: str
    capability: tuple[int, int]
    threads: int
    blocks: int
    shared: int  # bytes
    reserved: int  # bytes of shared memory that the system takes of each block
    lanes: int  # float32 FMAs per cycle
    registers: int = 65536


@dataclass(frozen=True, slots=True)
class Chip:
    """A card: `sms` multiprocessors of an architecture, and the memory that they share."""

    name: str
    architecture: Architecture
    sms: int
    bandwidth: float  # bytes per second
    fp32: float  # FLOP per second, an FMA being two; without tensor cores
    l2: int  # bytes
    memory: int  # bytes

    @property
    def arch(self) -> str:
        """The name of its architecture for compilers, such as "sm_90"."""
        return self.architecture.name


# From the table of technical specifications per compute capability in NVIDIA's CUDA C++ Programming Guide, and for lanes from its table of
# arithmetic throughput.
ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture("sm_75", (7, 5), 1024, 16, 64 << 10, 0, 64),  # Turing
        Architecture("sm_80", (8, 0), 2048, 32, 164 << 10, 1 << 10, 64),  # Ampere
        Architecture("sm_86", (8, 6), 1536, 16, 100 << 10, 1 << 10, 128),  # Ampere for graphics
        Architecture("sm_89", (8, 9), 1536, 24, 100 << 10, 1 << 10, 128),  # Ada
        Architecture("sm_90", (9, 0), 2048, 32, 228 << 10, 1 << 10, 128),  # Hopper
        Architecture("sm_100", (10, 0), 2048, 32, 228 << 10, 1 << 10, 128),  # Blackwell
        Architecture("sm_120", (12, 0), 1536, 24, 100 << 10, 1 << 10, 128),  # Blackwell for graphics
    )
}


def _chip(name: str, arch: str, sms: int, gigabytes_per_second: int, tera_flops: float, l2_mb: int, memory_gb: int) -> Chip:
    architecture = ARCHITECTURES[arch]
    return Chip(name, architecture, sms, gigabytes_per_second * 1e9, tera_flops * 1e12, l2_mb << 20, memory_gb * 10**9)


# From NVIDIA's data sheets: T4, A100 (80 GB, SXM), H100 (SXM), H200 (SXM) and HGX B200; and from the white papers on the Turing, A100,
# H100, GA102, Ada and RTX Blackwell architectures. The peaks are those at the boost clock. The size of the B200's second-level cache is
# as CUDA reports it.
CHIPS = {
    chip.name: chip
    for chip in (
        _chip("T4", "sm_75", 40, 320, 8.1, 4, 16),
        _chip("A100", "sm_80", 108, 2039, 19.5, 40, 80),
        _chip("RTX 3090", "sm_86", 82, 936, 35.6, 6, 24),
        _chip("RTX 4090", "sm_89", 128, 1008, 82.6, 72, 24),
        _chip("H100", "sm_90", 132, 3350, 67, 50, 80),
        _chip("H200", "sm_90", 132, 4800, 67, 50, 141),
        _chip("B200", "sm_100", 148, 7700, 75, 126, 180),
        _chip("RTX 5090", "sm_120", 170, 1792, 104.8, 96, 32),
    )
}
_STANDS_FOR = {chip.arch: chip for chip in CHIPS.values()}  # the last of an architecture: the H200 for sm_90


def find(name: str) -> Chip:
    """The chip of that name, in any case and with or without spaces and dashes ("rtx4090"), or the one that stands for an architecture
    ("sm_90": the H200).

    Raises UnknownNameError for any other name.
    """
    wanted = _key(name)
    for known, chip in (*CHIPS.items(), *_STANDS_FOR.items()):
        if _key(known) == wanted:
            return chip
    raise UnknownNameError(f"unknown chip {name!r}: the chips are {', '.join(CHIPS)}, or {', '.join(ARCHITECTURES)}")


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()

"""The units of a multiprocessor's quarter: which instruction uses which, how often a unit can be used, and when its result is
available.

Cycles are of the multiprocessor's clock. Rates are from the table of arithmetic throughput in NVIDIA's CUDA C++ Programming Guide.
Latencies were measured by others: on Hopper by W. Luo et al., "Benchmarking and dissecting the Nvidia Hopper GPU architecture via
microbenchmarking", 2024 (table IV: 29 cycles of shared memory, 41 of the first-level cache, 263 of the second-level cache, 479 of
memory). They are used for all chips, because from Volta to Hopper they differ by less than a third. The latency of memory was measured at
1.755 GHz, and is kept as a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpucnn.profiling.chip.chips import Architecture
from gpucnn.profiling.chip.machine import Instruction

SECOND_LEVEL = 263.0  # cycles until the first read arrives from the second-level cache
MEMORY = 479 / 1.755e9  # seconds, from memory


@dataclass(frozen=True, slots=True)
class Units:
    """second_half: whether FMAs have two pipes of 16 lanes and not one. tensor: columns of a product of 16 × n × 8 in TF32 in a cycle; of
    those of single warps (mma.sync) the fraction of_warps. port: bytes from the second-level cache in a cycle. bank_bytes: the same of
    shared memory. queue: cycles of work that may wait at the memory units before warps do."""

    second_half: bool
    tensor: float
    of_warps: float = 1
    arithmetic: float = 4
    uniform: float = 12
    special: float = 8
    special_latency: float = 25
    shared: float = 29
    first_level: float = 41
    constant: float = 30
    exchange: float = 24
    operands: float = 15
    barrier: float = 20
    tensor_latency: float = 32
    port: float = 64
    bank_bytes: float = 128
    queue: float = 24
    start: float = 0


def units_of(architecture: Architecture) -> Units:
    """The units of an architecture."""
    return Units(
        second_half=architecture.lanes == 128, tensor=_TENSOR.get(architecture.name, 2.0), of_warps=_OF_WARPS.get(architecture.name, 1)
    )


# From the peaks in TF32 of the data sheets of CHIPS, without sparsity: 156 TFLOP/s for an A100, 495 for an H100, and as much as in float32
# for the RTX 3090, 4090 and 5090. By a B200's older instructions none is published; it is taken to be an H100's a multiprocessor.
_TENSOR = {"sm_80": 1.0, "sm_86": 0.25, "sm_89": 0.25, "sm_120": 0.25}
_OF_WARPS = {"sm_90": 0.62}  # W. Luo et al., as above, section IV


_FMA = ("FFMA", "FADD", "FMUL")
_MULTIPLY = ("IMAD", "IDP", "HFMA2", "HADD2", "HMUL2", "FFMA2")
_SPECIAL = ("MUFU", "I2F", "F2I", "F2F", "POPC", "FLO", "BREV", "S2R", "S2UR", "FCHK")
_SHARED = ("LDS", "STS", "ATOMS", "LDSM", "STSM")
_GLOBAL = ("LDG", "STG", "LDGSTS", "LD", "ST", "LDL", "STL", "RED", "ATOMG", "ATOM", "UBLKCP")
_CONSTANT = ("LDC",)
_EXCHANGE = ("SHFL", "VOTE", "MATCH", "REDUX")
_BRANCH = ("NOP", "BRA", "BRX", "CALL", "RET", "EXIT", "BSSY", "BSYNC", "YIELD", "NANOSLEEP", "ELECT")
_WAIT = ("BAR", "WARPSYNC", "WARPGROUP", "DEPBAR", "LDGDEPBAR", "MEMBAR", "ERRBAR", "FENCE", "ARRIVES", "SYNCS", "CCTL", "USETMAXREG")


def kind_of(instruction: Instruction) -> str:
    """The unit that executes an instruction."""
    base = instruction.base
    for kind, names in (
        ("fma", _FMA),
        ("multiply", _MULTIPLY),
        ("special", _SPECIAL),
        ("shared", _SHARED),
        ("global", _GLOBAL),
        ("constant", _CONSTANT),
        ("exchange", _EXCHANGE),
        ("control", _BRANCH + _WAIT),
    ):
        if base in names:
            return kind
    if base in ("HGMMA", "HMMA", "IMMA", "QGMMA"):
        return "tensor"
    return "uniform" if base.startswith("U") or base in ("R2UR", "LDCU") else "alu"


def product_size(instruction: Instruction) -> float:
    """Columns of the result of a product on tensor cores, for a depth of 32 bytes, 8 numbers in TF32 or 16 in bfloat16: n of HGMMA's
    64 × n × 8 or 64 × n × 16; mma.sync's 16 × 8 × 8 and 16 × 8 × 16 have 8."""
    found = re.search(r"64x(\d+)x(\d+)", instruction.name)
    return int(found.group(1)) * int(found.group(2)) / (8 if "TF32" in instruction.name else 16) if found else 8.0

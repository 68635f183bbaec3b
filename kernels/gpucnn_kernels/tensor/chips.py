"""Which chips have the kernels on tensor cores."""

from __future__ import annotations

from gpucnn_kernels.core._numba import MLIR
from gpucnn_kernels.core.problem import Chip

UNCONFIRMED = 0.0
"""The merit of tiles that no chip has confirmed: all others go first. `gpucnn tune` compares their results before it selects one."""
_WARPS_FROM = (8, 0)  # the compute capability that has mma.sync in TF32 and bfloat16, and cp.async


def asynchronous_copies_there(chip: Chip) -> bool:
    """Whether a chip copies from global to shared memory by cp.async."""
    return chip.capability >= _WARPS_FROM and not MLIR


def warps_there(chip: Chip) -> bool:
    """Whether a chip's warps can feed its tensor cores."""
    return chip.capability >= _WARPS_FROM and not MLIR


_GROUPS_ON = (9, 0)  # the one that has wgmma


def groups_there(chip: Chip) -> bool:
    """Whether a chip has products of warpgroups."""
    return chip.capability == _GROUPS_ON and not MLIR

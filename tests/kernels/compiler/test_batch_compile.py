"""What the compiler makes of the kernels that make batches: nothing spilled, no memory of a thread's own, no float64, few registers."""

from __future__ import annotations

import pytest

from gpucnn.device import simulated
from gpucnn.profiling.chip import static
from gpucnn.profiling.chip.samples import batch_entries


def missing() -> str | None:
    try:
        static._linker()
    except static.ToolchainError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(simulated() or missing() is not None, reason=f"cannot compile kernels: {missing()}")

BY_NAME = {entry.name: entry for entry in batch_entries()}
# Copying whole examples of classes, which most training does, for every chip, and what has most to hold for two; the rest are marked slow.
EVERYWHERE = ("gather_batch-bytes-fours", "gather_batch-floats-fours")
ON_TWO = ("gather_batch-bytes", "gather_batch-floats-rows", "gather_batch-bytes-all", "gather_batch-floats-all")
QUICK = [(name, arch) for arch in static.CHIPS for name in (EVERYWHERE + ON_TWO if arch in ("sm_90", "sm_120") else EVERYWHERE)]
SLOW = [(name, arch) for arch in static.CHIPS for name in BY_NAME if (name, arch) not in QUICK]


@pytest.mark.parametrize(("name", "arch"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_kernels_fit_the_chip(name: str, arch: str) -> None:
    entry = BY_NAME[name]
    report = static.compile_kernel(entry, arch)
    assert report.spill_stores == report.spill_loads == 0, report
    assert report.stack == 0, report
    assert report.float64 == 0, report
    assert 0 < report.registers <= entry.max_registers, report
    assert report.shared == 0, report

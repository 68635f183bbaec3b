"""What each rung of the ladder gains, in the compiler's figures."""

from __future__ import annotations

import pytest

from gpucnn.device import simulated
from gpucnn.profiling.chip import sass, static
from gpucnn.profiling.chip.samples import Entry
from gpucnn_kernels.core._numba import float32, int32, types
from ladder import gpu as ladder


def missing() -> str | None:
    try:
        static._linker()
    except static.ToolchainError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(simulated() or missing() is not None, reason=f"cannot compile kernels: {missing()}")
_F = types.Array(float32, 1, "C")
RUNGS = [
    Entry(
        f"ladder-{rung.name.replace(' ', '-')}",
        rung.kernel,
        (_F, _F, _F, int32, int32, int32),
        rung.threads,
        max_registers=128,  # two blocks of 256 threads
        blocks_per_sm=rung.blocks_per_sm,
    )
    for rung in ladder.rungs()
]
# FFMAs of the main loop, per hundred instructions at least, reads of shared and of global memory by fours.
LOOPS = {
    "ladder-plain": (4, 5, 0, 0),
    "ladder-shared-memory": (16, 25, 4, 0),
    "ladder-register-tile": (512, 70, 0, 0),
    "ladder-128-bits": (512, 85, 32, 2),
    "ladder-double-buffer": (512, 85, 32, 2),
}


@pytest.mark.parametrize("entry", RUNGS, ids=lambda entry: entry.name)
def test_rung(entry: Entry) -> None:
    report = static.compile_kernel(entry, "sm_90")
    assert report.spill_stores == report.spill_loads == report.stack == report.float64 == 0, report
    assert report.registers <= entry.max_registers, report
    if sass.nvdisasm() is None:
        pytest.skip("no nvdisasm: pip install nvidia-cuda-nvdisasm")
    ffma, share, lds_128, ldg_128 = LOOPS[entry.name]
    loop = static._main_loop(entry, "sm_90")
    assert loop is not None
    assert (loop.ffma, loop.lds_128, loop.ldg_128) == (ffma, lds_128, ldg_128), loop
    assert loop.share * 100 >= share, loop
    if entry.name == "ladder-double-buffer":
        assert loop.first_load < 0.6, "the next tile is asked for too late"


def test_bytes_per_fma() -> None:
    assert [(rung.global_bytes, rung.shared_bytes) for rung in ladder.rungs()] == [(8, 0), (1 / 2, 8), *[(1 / 16, 1)] * 3]

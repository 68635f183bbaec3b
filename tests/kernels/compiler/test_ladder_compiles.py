"""What each rung of the ladder gains, in the compiler's figures."""

from __future__ import annotations

import numpy as np
import pytest
from compile_harness import check, machine_code, needs_compilers

from gpucnn.profiling.chip import sass
from gpucnn.profiling.chip.samples import Kernel
from gpucnn.profiling.what.launches import Part
from gpucnn.profiling.what.work import Work
from gpucnn_kernels.core.launch import recording
from ladder import gpu as ladder

pytestmark = needs_compilers

# FFMAs of the main loop, per hundred instructions at least, reads of shared and of global memory by fours.
LOOPS = {
    "ladder-plain": (4, 5, 0, 0),
    "ladder-shared-memory": (16, 25, 4, 0),
    "ladder-register-tile": (512, 70, 0, 0),
    "ladder-128-bits": (512, 85, 32, 2),
    "ladder-double-buffer": (512, 85, 32, 2),
}


@pytest.mark.parametrize("name", LOOPS)
def test_rung(name: str) -> None:
    rung = next(rung for rung in ladder.rungs() if f"ladder-{rung.name.replace(' ', '-')}" == name)
    with recording(launching=False) as launches:
        ladder.product(rung, *np.empty((3, 256, 256), np.float32))
    (launch,) = launches
    check(Kernel("", Part(launch, name, Work(0, 0)), None), "sm_90")
    if sass.nvdisasm() is None:
        pytest.skip("no nvdisasm: pip install nvidia-cuda-nvdisasm")
    ffma, share, lds_128, ldg_128 = LOOPS[name]
    loop = sass.main_loop(sass.disassemble(machine_code(launch, "sm_90")))
    assert loop is not None
    assert (loop.ffma, loop.lds_128, loop.ldg_128) == (ffma, lds_128, ldg_128), loop
    assert loop.share * 100 >= share, loop
    if name == "ladder-double-buffer":
        assert loop.first_load < 0.6, "the next tile is asked for too late"


def test_bytes_per_fma() -> None:
    assert [(rung.global_bytes, rung.shared_bytes) for rung in ladder.rungs()] == [(8, 0), (1 / 2, 8), *[(1 / 16, 1)] * 3]

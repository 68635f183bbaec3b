"""What the compiler makes of the engine: nothing spilled, no local memory, and a main loop that is mostly FMAs.

One compilation takes seconds, so that every variant is compiled for one chip and the two main ones for all; the rest are marked slow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.device import simulated
from gpucnn.ops.shapes import conv_window
from gpucnn.profiling.chip import sass, static
from gpucnn.profiling.chip.samples import ENGINE_ENTRIES, Entry
from gpucnn_kernels.conv import tiled
from gpucnn_kernels.core._numba import int32, types, uint32
from gpucnn_kernels.dense import tiled as tiled_dense
from gpucnn_kernels.engine.product import Product
from gpucnn_kernels.engine.tiles import BIAS, MASK, SUMS, TILES


def missing() -> str | None:
    try:
        static._linker()
    except static.ToolchainError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(simulated() or missing() is not None, reason=f"cannot compile kernels: {missing()}")
BY_NAME = {entry.name: entry for entry in ENGINE_ENTRIES}
EVERYWHERE = ("conv2d-tile128x128", "conv2d_weight_grad-tile128x128", "pack", "sum_slices")
ON_ONE = (*EVERYWHERE, "conv2d_weight_grad-tile128x64", "conv2d_weight_grad_odd-tile128x128", "conv2d-tile64x64", "dense-tile64x64")
QUICK = [(name, arch) for arch in static.CHIPS for name in (ON_ONE if arch == "sm_90" else EVERYWHERE)]
SLOW = [(name, arch) for arch in static.CHIPS for name in BY_NAME if (name, arch) not in QUICK]


@pytest.mark.parametrize(("name", "arch"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_variant_fits_the_chip(name: str, arch: str) -> None:
    entry = BY_NAME[name]
    report = static.compile_kernel(entry, arch)
    assert report.spill_stores == report.spill_loads == 0, report
    assert report.stack == 0, report
    assert report.float64 == 0, report
    assert report.registers <= entry.max_registers, report
    assert report.shared <= 48 * 1024, report
    assert report.occupancy > 0, report


# FFMAs per hundred instructions at least, reads of global memory by fours, and by ones.
LOOPS = {"conv2d-tile128x128": (75, 1, 4), "conv2d_weight_grad-tile128x128": (68, 1, 4), "dense-tile64x64": (80, 4, 0)}


@pytest.mark.skipif(sass.nvdisasm() is None, reason="no nvdisasm: pip install nvidia-cuda-nvdisasm")
@pytest.mark.parametrize("name", LOOPS)
def test_main_loop_is_ffma(name: str) -> None:
    share, ldg_128, ldg = LOOPS[name]
    loop = sass.hot_loop(sass.disassemble(static.machine_code(BY_NAME[name], "sm_90")))
    assert loop.ffma == 8 * 8 * 8, loop  # eight steps of k, all written out
    assert loop.lds_128 == 8 * 4, loop
    assert (loop.ldg_128, loop.ldg) == (ldg_128, ldg), loop
    assert loop.share * 100 >= share, loop
    assert loop.first_load < 0.6, "the next tile is asked for too late: see the comment in the loop"


def signature(plan: Product) -> tuple[Any, ...]:
    def of(value: Any) -> Any:
        if isinstance(value, tuple):
            return types.Tuple([of(item) for item in value])
        return {np.uint32: uint32, np.int32: int32}[type(value)]

    return tuple(of(argument) for argument in plan.arguments)


def test_catalogued_signatures_are_those_of_the_launchers() -> None:
    sizes, tile = (2, 4, 8, conv_window((8, 8), (3, 3), 2, 1), 1), TILES["tile64x64"]
    (forward,) = tiled._forward(sizes, tile, tiled.gather, tiled.Epilogue(BIAS, True))
    backward = tiled._input_grad(sizes, tile, tiled.gather, tiled.Epilogue(MASK))
    assert len(backward) == 4
    plans = [("conv2d", part.product) for part in (forward, *backward)]
    plans.append(("conv2d_weight_grad", tiled._weight_grad(sizes, tile, tiled.total, SUMS, True, 2)))
    for name, form in (
        ("dense", tiled_dense._FORWARD),
        ("dense_input_grad", tiled_dense._INPUT_GRAD),
        ("dense_weight_grad", tiled_dense._WEIGHT_GRAD),
    ):
        plans.append((name, tiled_dense._plan(form, (8, 8, 8), tile, 1, tiled_dense._Epilogue(form.extra, True))))
    for name, plan in plans:
        entry = BY_NAME[f"{name}-tile64x64"]
        assert entry.kernel is plan.kernel, name
        assert entry.signature[4:] == signature(plan), name
        assert entry.threads_per_block == plan.threads


def test_hot_loop_finds_the_loop_with_the_most_ffma() -> None:
    text = """
        /*0000*/  MOV R1, c[0x0][0x28] ;
    .L_x_1:
        /*0010*/  FFMA R2, R3, R4, R2 ;
        /*0020*/  @P0 BRA `(.L_x_1) ;
    .L_x_2:
        /*0030*/  LDS.128 R4, [R1] ;
        /*0040*/  @!P1 LDG.E.128 R4, [R1] ;
        /*0050*/  LDG.E R4, [R1] ;
        /*0060*/  FFMA.FTZ R2, R3, R4, R2 ;
        /*0070*/  FFMA R2, R3, R4, R2 ;
        /*0080*/  STS [R1], R4 ;
        /*0090*/  @P0 BRA P1, `(.L_x_2) ;
        /*00a0*/  EXIT ;
    """
    loop = sass.hot_loop(text)
    assert loop == sass.Loop(7, 2, 1, 1, 1, 1, 1 / 7)
    with pytest.raises(ValueError, match="no loop"):
        sass.hot_loop("EXIT")


def test_every_tile_is_catalogued() -> None:
    assert {name.partition("-")[2] for name in BY_NAME if "-" in name} == set(TILES)
    assert all(isinstance(entry, Entry) for entry in ENGINE_ENTRIES)

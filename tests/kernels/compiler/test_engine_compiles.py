"""What the compiler makes of the engine: nothing spilled, no local memory, and a main loop that is mostly FMAs.

One compilation takes seconds, so that variants of each kind are compiled for one chip, and the first of them for the oldest and the newest;
the rest are marked slow.
"""

from __future__ import annotations

import pytest
from compile_harness import ARCHS, check, kernels, machine_code, names, needs_compilers, params

from gpucnn.profiling.chip import sass

pytestmark = needs_compilers

ALL = names("-tile", "pack ", "sum_slices")
EVERYWHERE = ("conv2d-tile128x128 m2", "pack m2", "sum_slices m2")
ON_ONE = (
    *EVERYWHERE,
    "conv2d_weight_grad-tile128x128 m2",
    "conv2d_weight_grad-tile128x64 m2",
    "conv2d_weight_grad-tile128x128 odd",
    "conv2d-tile64x64 m2",
    "conv2d_input_grad-tile128x32 m2",
    "conv2d_weight_grad-tile32x64 few",
    "dense-tile64x64 even",
)
QUICK = [(name, arch) for arch in ("sm_75", "sm_90", "sm_120") for name in (ON_ONE if arch == "sm_90" else EVERYWHERE)]


@pytest.mark.parametrize(("name", "arch"), params(QUICK, [(name, arch) for arch in ARCHS for name in ALL]))
def test_variant_fits_the_chip(name: str, arch: str) -> None:
    check(kernels()[name], arch)


# FFMAs per hundred instructions at least, reads of global memory by fours, and by ones. In loops that copy past registers these are the
# copies, and one more, which makes a group of them (LDGDEPBAR).
LOOPS = {"conv2d-tile128x128 m2": (82, 1, 5), "conv2d_weight_grad-tile128x128 m2": (68, 1, 4), "dense-tile64x64 even": (84, 0, 17)}


@pytest.mark.skipif(sass.nvdisasm() is None, reason="no nvdisasm: pip install nvidia-cuda-nvdisasm")
@pytest.mark.parametrize("name", LOOPS)
def test_main_loop_is_ffma(name: str) -> None:
    share, ldg_128, ldg = LOOPS[name]
    loop = sass.hot_loop(sass.disassemble(machine_code(kernels()[name].launch, "sm_90")))
    assert loop.ffma == 8 * 8 * 8, loop  # eight steps of k, all written out
    assert loop.lds_128 == 8 * 4, loop
    assert (loop.ldg_128, loop.ldg) == (ldg_128, ldg), loop
    assert loop.share * 100 >= share, loop
    assert loop.first_load < 0.6, "the next tile is asked for too late: see the comment in the loop"


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


def test_every_tile_is_there() -> None:
    """Those for few filters where samples have few; the gradient of the input has the other kernels of the forward pass."""
    everywhere, cut = {"tile128x128", "tile128x64", "tile64x64"}, {"tile128x64-cut", "tile64x64-cut"}
    for operation, expected in {
        "conv2d": everywhere | cut,
        "conv2d_input_grad": {"tile128x32", "tile128x32-cut"},
        "conv2d_weight_grad": everywhere | {"tile32x64"},
        "dense": everywhere,
        "dense_input_grad": everywhere,
        "dense_weight_grad": everywhere,
    }.items():
        tiles = {name.split()[0].partition("-")[2] for name in ALL if name.startswith(f"{operation}-")}
        assert tiles == expected, operation

"""The kernels with 16 × 8 results per thread, compiled for every chip with asynchronous copies: nothing spilled, a loop that is mostly FMAs
and reads no global memory, and no bank of shared memory asked for two words at a time."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from compile_harness import ARCHS, check, kernels, loop_of, machine_code, names, needs_compilers

from gpucnn.profiling.chip import machine, sass
from gpucnn.profiling.chip.chips import ARCHITECTURES
from gpucnn.profiling.chip.constants import LaunchConstants
from gpucnn.profiling.chip.warp import Walker
from gpucnn_kernels.conv import wide

pytestmark = needs_compilers

ALL = names("-wide")
FEWEST = {("wide128x128", "m2"): 87, ("wide256x64", "m2"): 84, ("wide128x128", "m1"): 86, ("wide256x64", "m1"): 82}
"""FMAs per hundred instructions of the loop, at least. m1 has one channel, so its kernels ask for each channel whether it is there."""
QUICK = [("conv2d-wide128x128 m2", "sm_90")]


def test_each_is_there_with_whole_turns_and_without() -> None:
    assert set(ALL) == {f"conv2d-{tile} {sample}" for tile, sample in FEWEST} and {tile for tile, _ in FEWEST} == set(wide.TILES)
    assert set(ALL) <= set(kernels("A100")) and not any("-wide" in name for name in kernels("T4"))


@pytest.mark.parametrize(
    ("name", "arch"),
    [pytest.param(name, arch, marks=() if (name, arch) in QUICK else pytest.mark.slow) for name in ALL for arch in (*ARCHS[1:], "sm_89")],
)
def test_it_fits_the_chip(name: str, arch: str) -> None:
    kernel = kernels()[name]
    found = check(kernel, arch)
    assert found.registers > 128 + 2 * 24 and found.occupancy >= 2 * 128 / ARCHITECTURES[arch].threads, found
    if sass.nvdisasm() is None:
        return
    text = sass.disassemble(machine_code(kernel.launch, arch), "-hex", "-g")
    variant, sample = name.removeprefix("conv2d-").split()
    loop, tile = loop_of(text, "FFMA"), wide.TILES[variant]
    counts = Counter(each.split()[0] for each in loop if "[RZ]" not in each)  # reads of nothing keep order on Ampere and Ada
    assert counts["FFMA"] + 2 * counts["FFMA2"] == tile.BK * tile.TM * tile.TN, counts
    assert counts["LDS.128"] == tile.BK * (tile.TM + tile.TN) // 4, counts
    copies = Counter("128" in name for name in counts.elements() if name.startswith("LDGSTS"))
    assert copies == {False: tile.pixels * tile.BK, True: tile.fours}, counts
    assert not [name for name in counts if re.match(r"(LDG|STS|LD|ST|LDL|STL|LDS)(\.E)?$", name)], counts
    assert sum(name.startswith("BAR") for name in counts.elements()) == 1, counts
    assert 100 * counts["FFMA"] >= FEWEST[variant, sample] * len(loop), counts

    program = machine.parse(text)
    walker = Walker(program, LaunchConstants(kernel.launch, ARCHITECTURES[arch].capability))
    reads, begun = set(), 0
    way = walker.walk(kernel.launch.blocks // 2, 0, kernel.launch.threads)
    for place, access in way.accesses.items():
        code = program.instructions[way.issued[place]]
        if access is not None and code.base == "LDS" and code.words == 4:
            reads.add(access.cycles)
        begun += code.base == "LDGSTS"
    assert not way.cut and way.wrote
    assert reads == {2.0}, "a bank is asked for two words at a time"  # cycles of a read by fours of a warp (touched.py)
    _, _, turns, *_ = kernel.launch.arguments[4]
    assert begun == (int(turns) + tile.stages - 1) * (tile.pixels * tile.BK + tile.fours)

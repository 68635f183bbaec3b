"""The kernels on tensor cores, compiled for the one architecture that has these: no spills, and the products written out in the loop."""

from __future__ import annotations

import re

import pytest
from compile_harness import check, kernels, machine_code, names, needs_compilers

from gpucnn.profiling.chip import sass
from gpucnn_kernels.tensor import hopper

pytestmark = needs_compilers

ALL = names("-tensor", "pack_split")
QUICK = ("conv2d-tensor128x64 m2", "conv2d_weight_grad-tensor128x128 odd", "pack_split m2", "conv2d-tensor128x128-tf32 m2-tf32")


def slow_but_for_some() -> list[object]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL]


@pytest.mark.parametrize("name", slow_but_for_some())
def test_compiles_without_spills(name: str) -> None:
    kernel = kernels()[name]
    check(kernel, "sm_90")
    if sass.nvdisasm() is None or "tensor" not in name:
        return
    text = sass.disassemble(machine_code(kernel.launch, "sm_90"))
    assert len(re.findall(r"\bHGMMA\b", text)) == (4 if "tf32" in name else 12)  # for each 8 of 32 steps one product, or three
    assert not re.findall(r"\b(LDL|STL)\b", text)


def test_tiles_with_whole_blocks_and_without_are_there_for_this_chip_alone() -> None:
    assert set(QUICK) <= set(ALL) and len(ALL) == 2 * (2 * 3 * 2 + 1)
    assert not any("-tensor" in name for name in kernels("A100"))


def test_swizzled_rows_touch_every_bank_once() -> None:
    """Eight rows' pieces of 16 bytes at the same depth, which are read together; and the tile is filled without gaps."""
    for piece in range(8):
        banks = {hopper.swizzled(row, 4 * piece + i) % 32 for row in range(8) for i in range(4)}
        assert len(banks) == 32
    places = {hopper.swizzled(row, depth) for row in range(64) for depth in range(hopper.ROW)}
    assert places == set(range(64 * hopper.ROW))

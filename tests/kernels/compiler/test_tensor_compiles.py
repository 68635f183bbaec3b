"""The kernels on tensor cores, compiled for the one architecture that has these: no spills, and the products written out in the loop."""

from __future__ import annotations

import re
from typing import Any

import pytest
from compile_harness import check, kernels, machine_code, names, needs_compilers

from gpucnn.profiling.chip import sass, static
from gpucnn_kernels.core._numba import cuda, float32, int32, types, uint32, uint64
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.launch import Launch
from gpucnn_kernels.core.problem import TF32
from gpucnn_kernels.tensor import hopper

pytestmark = needs_compilers

ALL = names("-tensor", "pack_split")
QUICK = (
    "conv2d-tensor128x64 m2",
    "conv2d_weight_grad-tensor128x128 odd",
    "dense_input_grad-tensor128x128 even",
    "pack_split m2",
    "conv2d-tensor128x128-tf32 m2-tf32",
)


def slow_but_for_some() -> list[object]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL]


@pytest.mark.parametrize("name", slow_but_for_some())
def test_compiles_without_spills(name: str) -> None:
    made = kernels()[name]
    check(made, "sm_90")
    assert static.wgmma_remarks(made.launch, "sm_90") == []
    if sass.nvdisasm() is None or "tensor" not in name:
        return
    text = sass.disassemble(machine_code(made.launch, "sm_90"))
    kind = "BF16" if "bf16" in name else "TF32"
    products = {"BF16": 2, "TF32": 4 if "tf32" in name else 12}[kind]  # for each 16 or 8 of 32 steps one product, or three
    assert len(re.findall(r"\bHGMMA\b", text)) == len(re.findall(rf"\bHGMMA\.\w+\.F32\.{kind}\b", text)) == products
    assert not re.findall(r"\b(LDL|STL)\b", text)


def test_products_that_run_one_after_the_other_are_remarked_on() -> None:
    """A sum is changed while products may still be under way: what `test_compiles_without_spills` says there is none of."""
    multiply = hopper.multiply_add(64, TF32)

    @kernel
    def changes_a_sum(y: Any, n: Any) -> None:
        sums = cuda.local.array(32, float32)
        for i in range(32):
            sums[i] = y[i]
        for k in range(n):
            hopper.products_begin()
            multiply(sums, uint32(k), uint32(k), uint32(k), uint32(k), uint64(k), uint32(1))
            sums[3] += float32(1)
            hopper.products_commit()
            hopper.products_wait()
        for i in range(32):
            y[uint32(cuda.threadIdx.x * 32 + i)] = sums[i]

    class Changing(Launch):
        @property
        def signature(self) -> tuple[Any, ...]:
            return types.Array(float32, 1, "C"), int32

    remarks = static.wgmma_remarks(Changing(changes_a_sum, 1, 128, ()), "sm_90")
    assert any(remark.startswith("(C7511)") and "serialized" in remark for remark in remarks)


def test_tiles_with_whole_blocks_and_without_are_there_for_this_chip_alone() -> None:
    assert set(QUICK) <= set(ALL) and len(ALL) == 3 * (2 * 3 * 2 + 1) + 2 * 3 * (3 + 1) + 3 * 3 * 2  # the last are those that cut sums
    assert not any("-tensor" in name for name in kernels("A100"))


def test_swizzled_rows_touch_every_bank_once() -> None:
    """Eight rows' pieces of 16 bytes at the same depth, which are read together; and the tile is filled without gaps."""
    for piece in range(8):
        banks = {hopper.swizzled(row, 4 * piece + i) % 32 for row in range(8) for i in range(4)}
        assert len(banks) == 32
    places = {hopper.swizzled(row, depth) for row in range(64) for depth in range(hopper.ROW)}
    assert places == set(range(64 * hopper.ROW))
    for piece in range(4):
        banks = {hopper.swizzled_pair(row, 4 * piece + i) % 32 for row in range(8) for i in range(4)}
        assert len(banks) == 32
    places = {hopper.swizzled_pair(row, number) for row in range(64) for number in range(hopper.ROW // 2)}
    assert places == set(range(64 * hopper.ROW // 2))


def test_pairs_are_written_without_conflicts() -> None:
    """dy in bfloat16, as weight_grad.put_pairs writes it: a store of 8 bytes by 16 lanes at a time, of a word by those that have one."""
    for first in (0, 16):
        words = []
        for lane in range(first, first + 16):
            column, along = lane // 8, lane % 8
            words.append(hopper.swizzled_pair(column, along // 2 * 4 + along % 2 * 2))
        assert len({(word + i) % 32 for word in words for i in range(2)}) == 32
    assert len({hopper.swizzled_pair(5, lane // 8 * 4 + lane % 4) % 32 for lane in range(32) if lane // 4 % 2 == 0}) == 16

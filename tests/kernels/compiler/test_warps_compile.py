"""The kernels of warps on tensor cores, compiled for chips with and without wgmma: no spills, and a loop that is products."""

from __future__ import annotations

import re

import pytest
from compile_harness import check, kernels, loop_of, machine_code, names, needs_compilers
from tensor_cases import kept

from gpucnn.profiling.chip import sass
from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32, TF32
from gpucnn_kernels.tensor.parts import words_of

pytestmark = needs_compilers

ARCHS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_120")
ALL = names("-mma")
PRODUCTS = ("conv2d", "conv2d_weight_grad", "dense", "dense_input_grad", "dense_weight_grad")
SHARE = {
    "conv2d-mma": 20,
    "conv2d-mma-tf32": 7,
    "conv2d-mma-bf16": 6,
    "conv2d_weight_grad-mma": 7.5,
    "conv2d_weight_grad-mma-tf32": 2.5,
    "conv2d_weight_grad-mma-bf16": 1.6,
    "dense-mma": 17.5,
    "dense-mma-tf32": 6,
    "dense-mma-bf16": 7,
}
"""Products per hundred instructions of the loop, at least."""


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", [*ALL, *names("pack_fragments", "pack_pairs", "pack_parts")])
def test_compiles_without_spills(name: str, arch: str) -> None:
    kernel = kernels()[name]
    check(kernel, arch)
    if sass.nvdisasm() is None or "mma" not in name:
        return
    text = sass.disassemble(machine_code(kernel.launch, arch))
    assert not re.findall(r"\b(LDL|STL)\b", text)
    loop, kind = loop_of(text, "HMMA"), re.sub("^dense_[a-z_]*", "dense", name.split()[0]).replace("128x64", "")
    bits = kept(name.split()[0])
    products = sum(each.startswith("HMMA.16816.F32.BF16" if bits == BFLOAT16 else "HMMA.1688.F32.TF32") for each in loop)
    reads = [each for each in loop if re.match(r"LDSM?\b", each) and "[RZ]" not in each]  # those of nothing keep order on Ampere
    wide = sum(each.startswith("LDS.128") for each in reads)
    assert products == {FLOAT32: 6, TF32: 2, BFLOAT16: 1}[bits] * 4 * 4  # 16 steps of k, written out
    wide += sum(each.startswith("LDSM.16.M88.4") for each in loop)
    of_b = words_of(bits, 16) // 4 if name.startswith("conv2d-") else 4  # as it is packed, or as it is
    assert wide == 2 * 4 + of_b
    assert len(reads) - wide <= (8 if "conv2d_weight_grad" in name else 0)  # the table
    assert sum(each.startswith("BAR") for each in loop) == 1
    assert products >= SHARE[kind] / 100 * len(loop), (products, len(loop))


def test_they_are_there_for_every_chip_from_ampere_on() -> None:
    found = {name.split()[0] for name in ALL}
    assert found == {f"{op}-mma128x64{kind}" for op in PRODUCTS for kind in ("", "-tf32", "-bf16")}
    assert found <= {name.split()[0] for name in kernels("A100")} and found <= {name.split()[0] for name in kernels("RTX 5090")}
    assert not any("-mma" in name for name in kernels("T4"))

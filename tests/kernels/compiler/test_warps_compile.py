"""The kernels of warps on tensor cores, compiled for chips with and without wgmma: no spills, and a loop that is products."""

from __future__ import annotations

import re

import pytest
from compile_harness import check, kernels, machine_code, names, needs_compilers

from gpucnn.profiling.chip import sass

pytestmark = needs_compilers

ARCHS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_120")
ALL = names("-mma")
SHARE = {"": 16, "-tf32": 7}
"""Products per hundred instructions of the loop, at least."""


def loop_of(text: str) -> list[str]:
    """The instructions between the barrier's label and the jump back to it: the smallest loop that has products."""
    found: list[str] = []
    labels: dict[str, int] = {}
    loops = []
    for line in text.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label.group(1)] = len(found)
        if one := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?(.*?)\s*;", line):
            found.append(one.group(1))
            target = re.match(r"BRA.*?(\.L_x_\d+)", one.group(1))
            if target and target.group(1) in labels:
                loops.append(found[labels[target.group(1)] :])
    return min((loop for loop in loops if any(each.startswith("HMMA") for each in loop)), key=len)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", [*ALL, *names("pack_fragments")])
def test_compiles_without_spills(name: str, arch: str) -> None:
    kernel = kernels()[name]
    check(kernel, arch)
    if sass.nvdisasm() is None or "mma" not in name:
        return
    text = sass.disassemble(machine_code(kernel.launch, arch))
    assert not re.findall(r"\b(LDL|STL)\b", text)
    loop, kind = loop_of(text), "-tf32" if "tf32" in name else ""
    products = sum(each.startswith("HMMA.1688.F32.TF32") for each in loop)
    reads = [each for each in loop if re.match(r"LDS", each) and "[RZ]" not in each]  # those of nothing keep order on Ampere
    assert products == (2 * 4 * 4 if kind else 3 * 2 * 4 * 4)  # 16 steps of k, written out
    assert len(reads) == 2 * (4 + (2 if kind else 4)) and all(each.startswith("LDS.128") for each in reads)
    assert sum(each.startswith("BAR") for each in loop) == 1
    assert products >= SHARE[kind] / 100 * len(loop), (products, len(loop))


def test_they_are_there_for_every_chip_from_ampere_on() -> None:
    found = {name.split()[0] for name in ALL}
    assert found == {"conv2d-mma128x64", "conv2d-mma128x64-tf32"}
    assert found <= {name.split()[0] for name in kernels("A100")} and found <= {name.split()[0] for name in kernels("RTX 5090")}
    assert not any("-mma" in name for name in kernels("T4"))

"""What the compiler makes of the kernels that make batches: nothing spilled, no memory of a thread's own, no float64, few registers."""

from __future__ import annotations

import pytest
from compile_harness import ARCHS, check, kernels, names, needs_compilers, params

pytestmark = needs_compilers

ALL = names("gather_batch")
# Copying whole examples of classes, which most training does, for three chips, and what has most to hold for one; the rest are marked slow.
EVERYWHERE = ("gather_batch uint8-28x28", "gather_batch float32-28x28")
ON_ONE = ("gather_batch uint8-27x27", "gather_batch float32-28x28-rows", "gather_batch uint8-all", "gather_batch float32-all")
QUICK = [(name, arch) for arch in ("sm_75", "sm_90", "sm_120") for name in (EVERYWHERE + ON_ONE if arch == "sm_90" else EVERYWHERE)]


@pytest.mark.parametrize(("name", "arch"), params(QUICK, [(name, arch) for arch in ARCHS for name in ALL]))
def test_kernels_fit_the_chip(name: str, arch: str) -> None:
    found = check(kernels()[name], arch)
    assert found.shared == 0, found
    if not name.endswith(("move", "cutout", "warp", "elastic", "all")):
        assert found.registers <= 40, found

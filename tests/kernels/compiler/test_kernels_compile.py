"""What the compiler makes of every kernel, for chips that need not be there."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from compile_harness import IN_TURN, check, kernels, names, needs_compilers, once

from gpucnn.profiling.chip import sass, static
from gpucnn.profiling.chip.chips import ARCHITECTURES
from gpucnn_kernels.core._numba import cuda, float32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.launch import Launch

pytestmark = needs_compilers

# Those of other files: the engine's, those on tensor cores, and those that are made for a shape.
PLAIN = names(
    "",
    without=[
        "-tile",
        "-tensor",
        "-mma",
        "-wide",
        "pack",
        "sum_slices",
        "direct",
        "depthwise",
        "_max_pool",
        "_2x2",
        "add_parts",
        "softmax_cross_entropy",
        "gather_batch",
    ],
)


@pytest.mark.parametrize("arch", IN_TURN)
@pytest.mark.parametrize("name", once(PLAIN))
def test_kernel_fits_the_chip(name: str, arch: str) -> None:
    check(kernels()[name], arch)


def by_kernel(name: str) -> Launch:
    return next(each.launch for each in kernels().values() if each.part.name == name)


def test_unknown_chip() -> None:
    with pytest.raises(ValueError, match=r"unknown chip 'sm_1': the chips are sm_75"):
        static.compile_launch(by_kernel("relu"), "sm_1")


def test_float64_and_local_arrays_are_seen() -> None:
    """The checks would say so if there were anything to say."""
    array = np.zeros(1, np.float32)
    report = static.compile_launch(Launch(kernel(_slips), 1, 128, (array, array)), "sm_90")
    assert report.float64 > 0
    assert report.stack == 256


COUNTED = [pytest.param(name, marks=() if name in ("relu", "softmax") else pytest.mark.slow) for name in kernels()]


@pytest.mark.parametrize("name", COUNTED)
def test_float64_is_counted_as_ptx_has_it(name: str) -> None:
    """Also where there is no need to look: a kernel without float64 from the beginning is not linked for that."""
    launch = kernels()[name].launch
    assert static.compile_launch(launch, "sm_90").float64 == len(re.findall(r"\.f64\b", static.ptx(launch, "sm_90")))


def test_a_kernel_without_float64_is_linked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linking it as PTX, to count what is not there, takes as long as linking it for the chip."""
    linked: list[tuple[str, ...]] = []
    link = static._link
    monkeypatch.setattr(static, "_link", lambda kernel, signature, arch, *more: linked.append(more) or link(kernel, signature, arch, *more))
    array = np.zeros(1, np.float32)
    assert static.compile_launch(Launch(kernel(_adds_itself), 1, 128, (array,)), "sm_90").float64 == 0
    assert linked == [("-verbose",)]


def _adds_itself(x):  # type: ignore[no-untyped-def]
    i = cuda.grid(1)
    x[i] += x[i]


def test_functions_with_float64_inside_are_seen() -> None:
    """The sine of a large number is reduced in float64, in a function that NVVM has and the text of the kernel does not."""
    array = np.zeros(1, np.float32)
    report = static.compile_launch(Launch(kernel(_sine), 1, 128, (array,)), "sm_90")
    assert report.float64 > 0


def _sine(x):  # type: ignore[no-untyped-def]
    i = cuda.grid(1)
    x[i] = math.sin(x[i])


def test_the_kernels_own_options_count() -> None:
    """Bounds, and a limit on registers: each is that of the launch."""
    array, factor = np.zeros(1, np.float32), np.float32(2)
    free = static.compile_launch(Launch(kernel(_many), 1, 256, (array, array, factor)), "sm_90")
    bounded = static.compile_launch(Launch(kernel(launch_bounds=(256, 8))(_many), 1, 256, (array, array, factor)), "sm_90")
    limited = static.compile_launch(Launch(kernel(max_registers=24)(_many), 1, 256, (array, array, factor)), "sm_90")
    assert free.registers > 32 >= bounded.registers and limited.registers <= 24
    assert limited.spills > 0


def _slips(x, y):  # type: ignore[no-untyped-def]
    local = cuda.local.array(64, float32)
    i = cuda.grid(1)
    for j in range(64):
        local[j] = x[i + j] * 0.1
    for j in range(int(x[0])):
        y[j] = local[int(x[j]) % 64]


def _many(x, y, factor):  # type: ignore[no-untyped-def]
    sums = cuda.local.array(48, float32)
    i = cuda.grid(1)
    for j in range(48):
        sums[j] = x[i + j]
    for step in range(int(x[0])):
        for j in range(48):
            sums[j] = sums[j] * factor + x[step]
    for j in range(48):
        y[i * 48 + j] = sums[j]


def test_occupancy() -> None:
    """Figures that follow from the numbers in the programming guide by hand."""
    ampere = ARCHITECTURES["sm_80"]
    assert static.occupancy(ampere, 256, 32, 0) == 1  # 65536 / (32 · 32) = 64 warps: all of them
    assert static.occupancy(ampere, 256, 128, 0) == 0.25  # 65536 / (32 · 128) = 16 warps of 64
    assert static.occupancy(ampere, 32, 16, 0) == 0.5  # 32 blocks of a warp
    assert static.occupancy(ampere, 1024, 64, 0) == 0.5  # one block's registers
    assert static.occupancy(ampere, 128, 32, 40 << 10) == 4 * 4 / 64  # 164 KB / 41 KB
    assert static.occupancy(ARCHITECTURES["sm_75"], 256, 64, 0) == 1  # 32 warps are all there are


@pytest.mark.skipif(sass.nvdisasm() is None, reason="no nvdisasm: pip install nvidia-cuda-nvdisasm")
def test_loops_of_plain_kernels() -> None:
    """The inner loop, not one around it; none where there is none, whatever stands behind the end."""
    loop = static.main_loop(by_kernel("gemm"), "sm_90")
    assert loop is not None
    assert (loop.fma, loop.memory) == (16, 2)
    assert static.main_loop(by_kernel("relu"), "sm_90") is None


def test_loops_in_text() -> None:
    loop = "    .L_x_1:\n" + "/*0010*/ FFMA R2, R3, R4, R2 ;\n/*0020*/ LDG.E R2, [R4] ;\n/*0030*/ @P0 BRA `(.L_x_1) ;\n"
    end = "/*0100*/ EXIT ;\n    .L_x_9:\n/*0110*/ BRA `(.L_x_9);\n"
    around = "    .L_x_0:\n/*0000*/ FFMA R2, R3, R4, R2 ;\n" + loop + "/*0040*/ @P1 BRA `(.L_x_0) ;\n"
    assert sass.main_loop(end) is None
    assert sass.main_loop(around + end) == sass.hot_loop(around) == sass.Loop(3, 1, 0, 0, 1, 0, 1 / 3)
    written_out = "/*0050*/ FFMA R2, R3, R4, R2 ;\n"
    assert sass.main_loop(3 * written_out + loop + end) is not None
    assert sass.main_loop(4 * written_out + loop + end) is None


def test_without_compilers_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "SIMULATED", True)
    with pytest.raises(static.ToolchainError, match="unset NUMBA_ENABLE_CUDASIM"):
        static.check_compilers()

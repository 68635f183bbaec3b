"""What the compiler makes of the fused block's gradient, for the first layers of MNIST and CIFAR networks, and what its loop is made of."""

from __future__ import annotations

import pytest

from gpucnn.device import simulated
from gpucnn.ops.shapes import conv_window
from gpucnn.profiling.chip import sass, static
from gpucnn.profiling.chip.samples import CONV_SHAPES, Entry, direct_entries
from gpucnn_kernels.core.launch import Window


def missing() -> str | None:
    try:
        static._linker()
    except static.ToolchainError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(simulated() or missing() is not None, reason=f"cannot compile kernels: {missing()}")

SHAPES: dict[str, tuple[int, int, int, Window]] = {  # images, channels, filters
    shape.name: (shape.n, shape.c, shape.k, shape.window) for shape in CONV_SHAPES if shape.name in ("m1", "k1")
}
SHAPES["colour"] = (256, 3, 64, conv_window((32, 32), (3, 3), 1, 1))
# A first layer for every chip; the others, which take long, are marked slow. Without ReLU's gradient there is less to hold.
QUICK = [("m1", arch, True) for arch in sorted(static.CHIPS, key="sm_90".__eq__)]  # the last is still there for the loop's test
ALL = [(name, arch, masked) for arch in static.CHIPS for name in SHAPES for masked in (True, False)]
SLOW = [case for case in ALL if case not in QUICK and (case[2] or case[1] == "sm_90")]


def entry(name: str, masked: bool = True) -> Entry:
    *_, last = direct_entries(name, *SHAPES[name], masked=masked)
    assert last.name == f"conv2d_relu_max_pool2d_weight_grad-direct-{name}"
    return last


@pytest.mark.parametrize(("name", "arch", "masked"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_kernels_of_shapes_fit_the_chip(name: str, arch: str, masked: bool) -> None:
    own = entry(name, masked)
    report = static.compile_kernel(own, arch)
    assert report.spill_stores == report.spill_loads == 0, report
    assert report.stack == 0, report
    assert report.float64 == 0, report
    assert 0 < report.registers <= own.max_registers, report
    assert report.shared <= 48 * 1024, report
    assert report.occupancy > 0, report


@pytest.mark.skipif(sass.nvdisasm() is None, reason="no nvdisasm")
@pytest.mark.parametrize(("name", "ffma", "most"), [("m1", 100, 300), ("colour", 108, 320)])
def test_the_loop_is_reads_and_fmas(name: str, ffma: int, most: int) -> None:
    """One FMA for each filter and tap, one read for each FMA, and 100 instructions more."""
    text = sass.disassemble(static.machine_code(entry(name), "sm_90"))
    loop = sass.hot_loop(text)
    assert loop.ffma == ffma
    assert loop.instructions <= most
    assert loop.first_load < 0.25  # what the next position needs is asked for early

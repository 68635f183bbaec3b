"""What the compiler makes of the fused block's gradient, for the first layers of MNIST and CIFAR networks, and what its loop is made of."""

from __future__ import annotations

import pytest

from gpucnn.device import simulated
from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn_kernels import fused_grad, sass, static
from gpucnn_kernels._numba import float32, int32, types, uint32
from gpucnn_kernels.catalogue import CONV_SHAPES, Entry


def missing() -> str | None:
    try:
        static._linker()
    except static.ToolchainError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(simulated() or missing() is not None, reason=f"cannot compile kernels: {missing()}")

_F = types.Array(float32, 1, "C")
_I = types.Array(int32, 1, "C")

SHAPES: dict[str, tuple[int, int, int, Window]] = {  # images, channels, filters
    shape.name: (shape.n, shape.c, shape.k, conv_window(shape.hw, shape.rs, shape.stride, shape.padding))
    for shape in CONV_SHAPES
    if shape.name in ("m1", "k1")
}
SHAPES["colour"] = (256, 3, 64, conv_window((32, 32), (3, 3), 1, 1))


def entry(name: str, masked: bool) -> Entry:
    images, channels, filters, window = SHAPES[name]
    plan = fused_grad.grad_plan_of(images, channels, filters, window, pool_window(window.output, 2))
    assert plan is not None
    return Entry(
        f"{name}_relu_max_pool2d_weight_grad",
        fused_grad.weight_grad_kernel(plan, masked),
        (_F, _I, _F, _F, _F, uint32, int32, int32, uint32, int32, int32, uint32, uint32, uint32, uint32),
        plan.threads,
        max_registers=168,  # 112 sums, four reads' addresses and what the next position needs: three blocks
    )


# Without ReLU's gradient there is less to hold: one chip.
@pytest.mark.parametrize(
    ("name", "arch", "masked"),
    [*((name, arch, True) for name in SHAPES for arch in static.CHIPS), *((name, "sm_90", False) for name in SHAPES)],
)
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
    text = sass.disassemble(static.machine_code(entry(name, True), "sm_90"))
    loop = sass.hot_loop(text)
    assert loop.ffma == ffma
    assert loop.instructions <= most
    assert loop.first_load < 0.25  # what the next position needs is asked for early

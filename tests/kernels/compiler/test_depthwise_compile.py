"""What the compiler makes of the depthwise kernels, for the layers of MobileNet, EfficientNet and ConvNeXt."""

from __future__ import annotations

import pytest

from gpucnn.device import simulated
from gpucnn.ops.shapes import Window, conv_window
from gpucnn_kernels import depthwise, static
from gpucnn_kernels._numba import float32, int32, types, uint32
from gpucnn_kernels.catalogue import Entry


def missing() -> str | None:
    try:
        static._linker()
    except static.ToolchainError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(simulated() or missing() is not None, reason=f"cannot compile kernels: {missing()}")

_F = types.Array(float32, 1, "C")

SHAPES: dict[str, Window] = {
    "3x3": conv_window((112, 112), (3, 3), 1, 1),
    "3x3-stride-2": conv_window((112, 112), (3, 3), 2, 1),
    "5x5-stride-2": conv_window((56, 56), (5, 5), 2, 2),
    "3x3-dilation-2": conv_window((14, 14), (3, 3), 1, 2, dilation=2),
    "7x7": conv_window((56, 56), (7, 7), 1, 3),
}
MOST_REGISTERS = 128  # of which the taps are 9 to 49, and a strip's results 8 to 32


def entries(name: str) -> list[Entry]:
    window = SHAPES[name]
    strip, input_strip, plan = depthwise.strip_of(window), depthwise.input_strip_of(window), depthwise.grad_plan_of(64, 32, window)
    assert strip is not None and input_strip is not None and plan is not None
    sizes = (uint32, int32, int32, int32, int32)
    return [
        Entry(
            f"depthwise_{name}",
            depthwise.forward_kernel(strip),
            (_F, _F, _F, _F, uint32, *sizes, *(uint32,) * 11, int32, int32),
            max_registers=MOST_REGISTERS,
        ),
        Entry(
            f"depthwise_{name}_input_grad",
            depthwise.input_grad_kernel(input_strip, masked=name != "3x3-dilation-2"),  # with ReLU's gradient there is more to hold
            (_F, _F, _F, _F, uint32, *sizes, int32, int32, *(uint32,) * 9),
            max_registers=MOST_REGISTERS,
        ),
        Entry(
            f"depthwise_{name}_weight_grad",
            depthwise.weight_grad_kernel(plan.strip, plan.threads),
            (_F, _F, _F, *sizes, *(uint32,) * 11),
            plan.threads,
            max_registers=MOST_REGISTERS,
        ),
    ]


# Every chip for the layer of MobileNet, with and without stride; the others, which take long to compile, for one or two.
@pytest.mark.parametrize(
    ("name", "arch"),
    [
        *((name, arch) for name in ("3x3", "3x3-stride-2") for arch in static.CHIPS),
        ("7x7", "sm_90"),
        *((name, "sm_120") for name in ("5x5-stride-2", "3x3-dilation-2", "7x7")),
    ],
)
def test_kernels_of_shapes_fit_the_chip(name: str, arch: str) -> None:
    for entry in entries(name):
        report = static.compile_kernel(entry, arch)
        assert report.spill_stores == report.spill_loads == 0, report
        assert report.stack == 0, report
        assert report.float64 == 0, report
        assert 0 < report.registers <= entry.max_registers, report
        assert report.shared <= 48 * 1024, report
        assert report.occupancy > 0, report

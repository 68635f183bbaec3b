"""What the compiler makes of the depthwise kernels, for the layers of MobileNet, EfficientNet and ConvNeXt."""

from __future__ import annotations

import pytest

from gpucnn.device import simulated
from gpucnn.ops.shapes import conv_window
from gpucnn.profiling.chip import static
from gpucnn.profiling.chip.samples import DEPTHWISE_WINDOWS, depthwise_entries


def missing() -> str | None:
    try:
        static._linker()
    except static.ToolchainError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(simulated() or missing() is not None, reason=f"cannot compile kernels: {missing()}")

# The layer of MobileNet, and on the newest chip the same with a stride; the rest, which take long, are marked slow.
QUICK = [("3x3", "sm_90"), ("3x3-stride-2", "sm_120")]
SLOW = [(name, arch) for arch in static.CHIPS for name in DEPTHWISE_WINDOWS if (name, arch) not in QUICK]


@pytest.mark.parametrize(("name", "arch"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_kernels_of_shapes_fit_the_chip(name: str, arch: str) -> None:
    for entry in depthwise_entries(name, 64, 32, DEPTHWISE_WINDOWS[name]):
        report = static.compile_kernel(entry, arch)
        assert report.spill_stores == report.spill_loads == 0, report
        assert report.stack == 0, report
        assert report.float64 == 0, report
        assert 0 < report.registers <= entry.max_registers, report
        assert report.shared <= 48 * 1024, report
        assert report.occupancy > 0, report


@pytest.mark.slow
@pytest.mark.parametrize("name", DEPTHWISE_WINDOWS)
def test_the_gradient_without_relus_fits_one_chip(name: str) -> None:
    """There is less to hold."""
    _, entry, _ = depthwise_entries(name, 64, 32, DEPTHWISE_WINDOWS[name], masked=False)
    report = static.compile_kernel(entry, "sm_90")
    assert report.spill_stores == report.spill_loads == report.stack == report.float64 == 0, report
    assert report.registers <= entry.max_registers, report


def test_what_does_not_fit_is_no_entry() -> None:
    with pytest.raises(ValueError, match="not for wide: see"):
        depthwise_entries("wide", 1, 2, conv_window((16, 16), (9, 9)))

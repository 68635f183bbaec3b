"""What the compiler makes of the kernels that are made for a shape: those of the first layers of MNIST and CIFAR networks."""

from __future__ import annotations

import pytest

from gpucnn.device import simulated
from gpucnn.ops.shapes import Window, conv_window
from gpucnn.profiling.chip import static
from gpucnn.profiling.chip.samples import Entry, direct_entries, shape_entries


def missing() -> str | None:
    try:
        static._linker()
    except static.ToolchainError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(simulated() or missing() is not None, reason=f"cannot compile kernels: {missing()}")

ELSEWHERE = "conv2d_relu_max_pool2d_weight_grad"  # test_fused_grad_compile.py
BY_NAME = {entry.name: entry for entry in shape_entries() if not entry.name.startswith(ELSEWHERE)}
LARGE: dict[str, tuple[int, int, int, Window]] = {  # images, channels, filters
    "colour": (256, 3, 64, conv_window((32, 32), (3, 3), 1, 1)),
    "stem": (64, 3, 64, conv_window((224, 224), (7, 7), 2, 3)),
}


def check(entry: Entry, arch: str) -> None:
    report = static.compile_kernel(entry, arch)
    assert report.spill_stores == report.spill_loads == 0, report
    assert report.stack == 0, report
    assert report.float64 == 0, report
    assert 0 < report.registers <= entry.max_registers, report
    assert report.shared <= 48 * 1024, report
    assert report.occupancy > 0, report


@pytest.mark.parametrize("arch", static.CHIPS)
@pytest.mark.parametrize("name", BY_NAME)
def test_kernels_of_shapes_fit_the_chip(name: str, arch: str) -> None:
    check(BY_NAME[name], arch)


@pytest.mark.parametrize("name", ["colour", pytest.param("stem", marks=pytest.mark.slow)])
def test_three_channels_and_large_images_fit_one_chip(name: str) -> None:
    """They take long to compile."""
    for entry in direct_entries(name, *LARGE[name]):
        if not entry.name.startswith(ELSEWHERE):
            check(entry, "sm_90")


def test_every_first_layer_is_there() -> None:
    for operation in ("conv2d", "conv2d_weight_grad", "conv2d_relu_max_pool2d", "conv2d_relu_max_pool2d_weight_grad"):
        names = [entry.name for entry in shape_entries()]
        assert {name.rpartition("-")[2] for name in names if name.startswith(f"{operation}-direct")} == {"m1", "k1"}
    with pytest.raises(ValueError, match="not for long"):
        direct_entries("long", 1, 4, 8, conv_window((1, 9000), (1, 3)))

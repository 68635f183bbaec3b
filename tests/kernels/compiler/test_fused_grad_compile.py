"""What the compiler makes of the fused block's gradient, for the first layers of MNIST and CIFAR networks, and what its loop is made of."""

from __future__ import annotations

import functools

import pytest
from compile_harness import ARCHS, check, machine_code, needs_compilers, of, window_of

from gpucnn.ops.shapes import Window, conv_window
from gpucnn.profiling.chip import sass
from gpucnn.profiling.chip.samples import Kernel
from gpucnn.profiling.what.operations.conv import first_layer

pytestmark = needs_compilers

SHAPES: dict[str, tuple[int, int, int, Window]] = {  # images, channels, filters
    "m1": (128, 1, 32, window_of("m1")),
    "k1": (128, 1, 32, window_of("k1")),
    "colour": (256, 3, 64, conv_window((32, 32), (3, 3), 1, 1)),
}
# A first layer for the oldest chip, the newest and one between; the others, which take long, are marked slow. Without ReLU's gradient there
# is less to hold.
QUICK = [("m1", arch, True) for arch in ("sm_75", "sm_120", "sm_90")]  # the last is still there for the loop's test
ALL = [(name, arch, masked) for arch in ARCHS for name in SHAPES for masked in (True, False)]
SLOW = [case for case in ALL if case not in QUICK and (case[2] or case[1] == "sm_90")]


@functools.cache
def kernel(name: str, masked: bool = True) -> Kernel:
    (found,) = (each for each in of(first_layer(*SHAPES[name], relu=masked)) if each.part.name == "conv2d_relu_max_pool_weight_grad_slices")
    return found


@pytest.mark.parametrize(("name", "arch", "masked"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_kernels_of_shapes_fit_the_chip(name: str, arch: str, masked: bool) -> None:
    check(kernel(name, masked), arch)


@pytest.mark.skipif(sass.nvdisasm() is None, reason="no nvdisasm")
@pytest.mark.parametrize(("name", "ffma", "most"), [("m1", 100, 300), ("colour", 108, 320)])
def test_the_loop_is_reads_and_fmas(name: str, ffma: int, most: int) -> None:
    """One FMA for each filter and tap, one read for each FMA, and 100 instructions more."""
    text = sass.disassemble(machine_code(kernel(name).launch, "sm_90"))
    loop = sass.hot_loop(text)
    assert loop.ffma == ffma
    assert loop.instructions <= most
    assert loop.first_load < 0.25  # what the next position needs is asked for early

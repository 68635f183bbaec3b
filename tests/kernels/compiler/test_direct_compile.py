"""What the compiler makes of the kernels that are made for a shape: those of the first layers of MNIST and CIFAR networks."""

from __future__ import annotations

import pytest
from compile_harness import ARCHS, IN_TURN, check, kernels, machine_code, names, needs_compilers, of, once

from gpucnn.ops.shapes import Window, conv_window
from gpucnn.profiling.chip import machine, sass
from gpucnn.profiling.chip.constants import LaunchConstants
from gpucnn.profiling.chip.warp import Walker
from gpucnn.profiling.what.operations.conv import convolutions, first_layer
from gpucnn.profiling.what.operations.sample import floats
from gpucnn_kernels.choose import select

pytestmark = needs_compilers

ELSEWHERE = "conv2d_relu_max_pool_weight_grad_slices"  # test_fused_grad_compile.py
OWN = names("direct", "conv2d_relu_max_pool", "add_parts", "_2x2", "softmax_cross_entropy", without=[ELSEWHERE])
LARGE: dict[str, tuple[int, int, int, Window]] = {  # images, channels, filters
    "colour": (256, 3, 64, conv_window((32, 32), (3, 3), 1, 1)),
    "stem": (64, 3, 64, conv_window((224, 224), (7, 7), 2, 3)),
}
UNUSUAL: dict[str, tuple[int, int, int, Window]] = {
    **LARGE,
    "alexnet": (8, 3, 64, conv_window((224, 224), (11, 11), 4, 2)),
    "seven": (8, 1, 32, conv_window((28, 28), (7, 7), 1, 3)),
    "four": (8, 4, 16, conv_window((64, 64), (3, 3), 1, 1)),
    "wide": (2, 3, 64, conv_window((224, 224), (3, 3), 1, 1)),
    "three filters": (2, 2, 3, conv_window((19, 23), (3, 2), (1, 2), 1, dilation=2)),
    "five filters": (2, 1, 5, conv_window((40, 40), (5, 5))),
}


@pytest.mark.parametrize("arch", IN_TURN)
@pytest.mark.parametrize("name", once(OWN))
def test_kernels_of_shapes_fit_the_chip(name: str, arch: str) -> None:
    check(kernels()[name], arch)


@pytest.mark.skipif(sass.nvdisasm() is None, reason="there is no disassembler")
@pytest.mark.parametrize("name", once(names("conv2d_direct_input_grad")))
def test_no_bank_is_read_twice_at_a_time(name: str) -> None:
    """In what the compiler made of the gradient of the input's loop over filters, which ends with a block's last but one barrier."""
    kernel = kernels()[name]
    program = machine.parse(sass.disassemble(machine_code(kernel.launch, "sm_90"), "-hex", "-g"))
    walker = Walker(program, LaunchConstants(kernel.launch, (9, 0)))
    for warp in range(kernel.launch.threads // 32):
        way = walker.walk(1, warp, kernel.launch.threads)
        codes = [program.instructions[index] for index in way.issued]
        barriers = [place for place, code in enumerate(codes) if code.base == "BAR"]
        reads = [way.accesses[place] for place, code in enumerate(codes) if code.base == "LDS" and place < barriers[-2]]
        assert len(reads) >= 2 * 7 * 2 and {read.cycles for read in reads if read is not None} == {1.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LARGE))
def test_three_channels_and_large_images_fit_one_chip(name: str) -> None:
    """They take long to compile."""
    found = [each for each in of(convolutions(*LARGE[name]), first_layer(*LARGE[name])) if "_direct_" in each.part.name]
    found += [each for each in of(first_layer(*LARGE[name])) if each.part.name == "conv2d_relu_max_pool"]
    assert len(found) >= 2
    for each in found:
        check(each, "sm_90")


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", sorted(UNUSUAL))
def test_the_gradient_of_an_unusual_input_fits_every_chip(name: str, arch: str) -> None:
    """Most weights, most sums, and few filters."""
    n, c, k, window = UNUSUAL[name]
    dy, weight = floats(n, k, *window.output), floats(k, c, *window.kernel)
    with select.override(conv2d_input_grad="direct"):
        (kernel,) = [each for each in of(lambda ops: ops.conv2d_input_grad(dy, weight, window)) if "_direct_" in each.part.name]
    check(kernel, arch)


def test_every_first_layer_is_there() -> None:
    own = "conv2d_direct_forward", "conv2d_direct_input_grad", "conv2d_direct_weight_grad_slices", "conv2d_relu_max_pool"
    for kernel in (*own, ELSEWHERE):
        samples = {each.sample for each in kernels().values() if each.part.name == kernel}
        assert samples - {"m1-no-relu", "k1-no-relu"} == {"m1", "k1"}

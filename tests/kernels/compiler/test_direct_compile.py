"""What the compiler makes of the kernels that are made for a shape: those of the first layers of MNIST and CIFAR networks."""

from __future__ import annotations

import pytest
from compile_harness import IN_TURN, check, kernels, names, needs_compilers, of

from gpucnn.ops.shapes import Window, conv_window
from gpucnn.profiling.what.operations.conv import convolutions, first_layer

pytestmark = needs_compilers

ELSEWHERE = "conv2d_relu_max_pool_weight_grad_slices"  # test_fused_grad_compile.py
OWN = names("direct", "conv2d_relu_max_pool", "add_parts", "_2x2", "softmax_cross_entropy", without=[ELSEWHERE])
LARGE: dict[str, tuple[int, int, int, Window]] = {  # images, channels, filters
    "colour": (256, 3, 64, conv_window((32, 32), (3, 3), 1, 1)),
    "stem": (64, 3, 64, conv_window((224, 224), (7, 7), 2, 3)),
}


@pytest.mark.parametrize("arch", IN_TURN)
@pytest.mark.parametrize("name", OWN)
def test_kernels_of_shapes_fit_the_chip(name: str, arch: str) -> None:
    check(kernels()[name], arch)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LARGE))
def test_three_channels_and_large_images_fit_one_chip(name: str) -> None:
    """They take long to compile."""
    found = [each for each in of(convolutions(*LARGE[name]), first_layer(*LARGE[name])) if "_direct_" in each.part.name]
    found += [each for each in of(first_layer(*LARGE[name])) if each.part.name == "conv2d_relu_max_pool"]
    assert len(found) >= 2
    for each in found:
        check(each, "sm_90")


def test_every_first_layer_is_there() -> None:
    for kernel in ("conv2d_direct_forward", "conv2d_direct_weight_grad_slices", "conv2d_relu_max_pool", ELSEWHERE):
        samples = {each.sample for each in kernels().values() if each.part.name == kernel}
        assert samples - {"m1-no-relu", "k1-no-relu"} == {"m1", "k1"}

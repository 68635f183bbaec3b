"""What the compiler makes of the depthwise kernels, for the layers of MobileNet, EfficientNet and ConvNeXt."""

from __future__ import annotations

import pytest
from compile_harness import ARCHS, check, kernels, names, needs_compilers, of, params

from gpucnn.ops.shapes import conv_window
from gpucnn.profiling.chip import samples
from gpucnn.profiling.chip.chips import CHIPS
from gpucnn.profiling.what.operations.conv import convolutions
from gpucnn.profiling.what.operations.sample import Sample
from gpucnn.profiling.what.shapes import DEPTHWISE_WINDOWS

pytestmark = needs_compilers

GROUPS = {  # channels, window, groups: ResNeXt's of 4 and of 8, and others
    "4": (64, conv_window((56, 56), (3, 3), 1, 1), 16),
    "8-stride-2": (64, conv_window((56, 56), (3, 3), 2, 1), 8),
    "6": (48, conv_window((31, 31), (5, 5), 1, 2), 8),
    "3-dilated": (48, conv_window((31, 31), (3, 2), 1, 2, dilation=2), 16),
}

# The layer of MobileNet; the rest, which take long, are marked slow.
QUICK = [("3x3", "sm_90")]


@pytest.mark.parametrize(("sample", "arch"), params(QUICK, [(sample, arch) for arch in ARCHS for sample in DEPTHWISE_WINDOWS]))
def test_kernels_of_shapes_fit_the_chip(sample: str, arch: str) -> None:
    own = [each for name in names("depthwise") for each in [kernels()[name]] if each.sample == sample]
    assert len(own) == 3
    for each in own:
        check(each, arch)


@pytest.mark.parametrize(("name", "arch"), params([("4", "sm_90")], [(name, arch) for arch in ARCHS for name in GROUPS]))
def test_kernels_of_groups_fit_the_chip(name: str, arch: str) -> None:
    channels, window, groups = GROUPS[name]
    sample = Sample("here", convolutions(8, channels, channels, window, groups), variants=False)
    found = [each for each in samples.launched(sample, CHIPS["A100"]) if "depthwise" in each.part.name]
    kinds = "forward", "input_gradient", "weight_grad_slices"
    assert [each.part.name for each in found] == [f"conv2d_depthwise_{kind}" for kind in kinds]
    for each in found:
        check(each, arch)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEPTHWISE_WINDOWS)
def test_the_gradient_without_relus_fits_one_chip(name: str) -> None:
    """There is less to hold."""
    found = of(convolutions(64, 32, 32, DEPTHWISE_WINDOWS[name], 32, relu=False))
    (kernel,) = (each for each in found if each.part.name == "conv2d_depthwise_input_gradient")
    assert kernel.launch.kernel is not next(each.launch.kernel for each in kernels().values() if each.part.name == kernel.part.name)
    check(kernel, "sm_90")

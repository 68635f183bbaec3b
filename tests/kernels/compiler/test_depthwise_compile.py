"""What the compiler makes of the depthwise kernels, for the layers of MobileNet, EfficientNet and ConvNeXt."""

from __future__ import annotations

import pytest
from compile_harness import ARCHS, check, kernels, names, needs_compilers, of, params

from gpucnn.profiling.what.operations.conv import convolutions
from gpucnn.profiling.what.shapes import DEPTHWISE_WINDOWS

pytestmark = needs_compilers

# The layer of MobileNet; the rest, which take long, are marked slow.
QUICK = [("3x3", "sm_90")]


@pytest.mark.parametrize(("sample", "arch"), params(QUICK, [(sample, arch) for arch in ARCHS for sample in DEPTHWISE_WINDOWS]))
def test_kernels_of_shapes_fit_the_chip(sample: str, arch: str) -> None:
    own = [each for name in names("depthwise") for each in [kernels()[name]] if each.sample == sample]
    assert len(own) == 3
    for each in own:
        check(each, arch)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEPTHWISE_WINDOWS)
def test_the_gradient_without_relus_fits_one_chip(name: str) -> None:
    """There is less to hold."""
    found = of(convolutions(64, 32, 32, DEPTHWISE_WINDOWS[name], 32, relu=False))
    (kernel,) = (each for each in found if each.part.name == "conv2d_depthwise_input_gradient")
    assert kernel.launch.kernel is not next(each.launch.kernel for each in kernels().values() if each.part.name == kernel.part.name)
    check(kernel, "sm_90")

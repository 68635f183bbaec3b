"""What the rules choose for first layers of networks that people use: predicted to take not much longer than it must.

Nothing is measured: the time is predicted from machine code (gpucnn/profiling/chip/predict.py), and the bound is the roofline.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from compile_harness import ARCHS, check, compiled, machine_code, needs_compilers

from gpucnn.ops.shapes import Window, conv_window
from gpucnn.profiling.chip import machine, predict, samples, sass
from gpucnn.profiling.chip.chips import CHIPS, Chip
from gpucnn.profiling.chip.samples import Kernel
from gpucnn.profiling.what.operations import work_of
from gpucnn.profiling.what.operations.sample import Ops, Sample, floats

pytestmark = [needs_compilers, pytest.mark.skipif(sass.nvdisasm() is None, reason="there is no disassembler")]

LAYERS: dict[str, tuple[int, int, int, Window]] = {  # images, channels, filters
    "resnet": (64, 3, 64, conv_window((224, 224), (7, 7), 2, 3)),
    "vgg": (64, 3, 64, conv_window((224, 224), (3, 3), 1, 1)),
    "alexnet": (64, 3, 64, conv_window((224, 224), (11, 11), 4, 2)),
    "mobilenet": (64, 3, 32, conv_window((224, 224), (3, 3), 2, 1)),
    "cifar": (256, 3, 64, conv_window((32, 32), (3, 3), 1, 1)),
    "grey": (8, 1, 64, conv_window((512, 512), (3, 3), 1, 1)),
}
MOST = 4.0  # times the bound


def forward(n: int, c: int, k: int, window: Window) -> Callable[[Ops], object]:
    arrays = floats(n, c, *window.input), floats(k, c, *window.kernel), floats(k)
    return lambda ops: ops.conv2d(*arrays, window, relu=True)


def input_grad(n: int, c: int, k: int, window: Window) -> Callable[[Ops], object]:
    dy, weight = floats(n, k, *window.output), floats(k, c, *window.kernel)
    return lambda ops: ops.conv2d_input_grad(dy, weight, window)


def weight_grad(n: int, c: int, k: int, window: Window) -> Callable[[Ops], object]:
    dy, x = floats(n, k, *window.output), floats(n, c, *window.input)
    return lambda ops: ops.conv2d_weight_grad(dy, x, window, dbias=floats(k))


def launched(run: Callable[[Ops], object], chip: Chip) -> list[Kernel]:
    """The kernels of an operation that the rules choose, in order."""
    return samples.launched(Sample("here", run, variants=False), chip)


def times(run: Callable[[Ops], object], chip: Chip) -> tuple[float, float]:
    """(predicted, bound) of an operation, in seconds."""
    found, predicted = launched(run, chip), 0.0
    for kernel in found:
        code = machine.parse(sass.disassemble(machine_code(kernel.launch, chip.arch), "-hex", "-g"))
        occupancy = compiled(kernel.launch, chip.arch).occupancy
        predicted += predict.predict(kernel.launch, kernel.part.work, code, occupancy, chip).seconds
    assert found[0].call is not None
    work = work_of(found[0].call)
    return predicted, max(work.flops / chip.fp32, work.least_bytes / chip.bandwidth)


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["H100", "A100", "RTX 4090"])
@pytest.mark.parametrize("make", [forward, input_grad, weight_grad])
@pytest.mark.parametrize("name", LAYERS)
def test_the_choice_is_near_the_bound(name: str, make: Callable[..., Callable[[Ops], object]], chip: str) -> None:
    predicted, bound = times(make(*LAYERS[name]), CHIPS[chip])
    assert bound < predicted < MOST * bound, (predicted, bound)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("make", [forward, weight_grad])
@pytest.mark.parametrize("name", LAYERS)
def test_its_kernels_fit_every_chip(name: str, make: Callable[..., Callable[[Ops], object]], arch: str) -> None:
    for kernel in launched(make(*LAYERS[name]), CHIPS["A100"]):
        if kernel.launch.role != "engine":  # the catalogue has those
            check(kernel, arch)

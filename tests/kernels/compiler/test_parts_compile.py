"""What the compiler makes of the kernels for images that lie apart, as a branch's do within the output of `Concat`: those of their own, and
of the others what they are launched with there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from compile_harness import ARCHS, H100, check, kernels, needs_compilers, params, window_of

from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn.profiling.chip.samples import Kernel
from gpucnn.profiling.what.launches import Part
from gpucnn.profiling.what.operations.sample import floats, ints
from gpucnn.profiling.what.shapes import DEPTHWISE_WINDOWS
from gpucnn.profiling.what.work import Work
from gpucnn_kernels.choose import select
from gpucnn_kernels.core.launch import recording

pytestmark = needs_compilers


def part(*shape: int) -> Any:
    """Some channels of larger images."""
    n, c, *rest = shape
    return floats(n, c + 5, *rest)[:, 3 : 3 + c]


def convolution(n: int, c: int, k: int, window: Window, groups: int = 1) -> None:
    from gpucnn.ops import cuda as ops

    x, weight, dy = floats(n, c, *window.input), floats(k, c // groups, *window.kernel), part(n, k, *window.output)
    ops.conv2d(x, weight, floats(k), window, groups, relu=True, out=part(n, k, *window.output))
    ops.conv2d_input_grad(dy, weight, window, groups, relu=x)
    ops.conv2d_weight_grad(dy, x, window, groups, dbias=floats(k))


def first_layer(n: int, c: int, k: int, window: Window) -> None:
    from gpucnn.ops import cuda as ops

    pooling = pool_window(window.output, 2)
    x, y = floats(n, c, *window.input), floats(n, k, *pooling.output)
    dy, places = part(*y.shape), ints(*y.shape)
    ops.conv2d_relu_max_pool2d(x, floats(k, c, *window.kernel), floats(k), window, pooling, out=part(*y.shape))
    for relu in (y, None):
        ops.conv2d_relu_max_pool2d_weight_grad(dy, places, x, window, pooling, relu=relu, dbias=floats(k))


def pooling() -> None:
    from gpucnn.ops import cuda as ops

    window = pool_window((28, 28), 3, 1, "same")
    x, y, dy = floats(64, 16, *window.input), part(64, 16, *window.output), part(64, 16, *window.output)
    _, places = ops.max_pool2d(x, window, out=y)
    ops.max_pool2d_grad(dy, places, window, relu=floats(*dy.shape))
    ops.avg_pool2d(x, window, out=y)
    ops.avg_pool2d_grad(dy, window)


def normalization() -> None:
    from gpucnn.ops import cuda as ops

    x, dy, ones = floats(64, 16, 28, 28), part(64, 16, 28, 28), floats(16)
    _, mean, rstd = ops.batch_norm(x, ones, ones, (ones, ones), momentum=0.1, eps=1e-5, relu=True, out=part(*x.shape))
    ops.batch_norm_grad(dy, x, ones, (mean, rstd), relu=True, dweight=ones, dbias=ones)
    ops.copied(x, out=part(*x.shape))


OWN: dict[str, Callable[[], None]] = {
    f"{kind} {name}": functools.partial(run, 128, 1, 32, window_of(name))
    for kind, run in (("few channels", convolution), ("first layer", first_layer))
    for name in ("m1", "k1")
} | {f"depthwise {name}": functools.partial(convolution, 64, 32, 32, window, 32) for name, window in DEPTHWISE_WINDOWS.items()}
SHARED: dict[str, Callable[[], None]] = {
    "pooling": pooling,
    "normalization": normalization,
    "tiles": functools.partial(convolution, 128, 16, 32, conv_window((14, 14), 3, padding=1)),
}


@functools.cache
def launched(name: str) -> list[Kernel]:
    """The kernels of a run on an H100 that the catalogue, which other tests compile, does not have."""
    with select.for_chip(H100.sms, capability=H100.architecture.capability), recording(launching=False) as launches:
        (OWN | SHARED)[name]()
    known = {(id(each.launch.kernel), each.launch.signature) for each in kernels().values()}
    found = {(id(launch.kernel), launch.signature): launch for launch in launches}
    return [Kernel(name, Part(launch, launch.name, Work(0, 0)), None) for key, launch in found.items() if key not in known]


QUICK = [("depthwise 3x3", "sm_90")]


@pytest.mark.parametrize(("name", "arch"), params(QUICK, [(name, arch) for name in OWN for arch in ARCHS]))
def test_kernels_of_parts_fit_the_chip(name: str, arch: str) -> None:
    found = launched(name)
    assert found
    for each in found:
        check(each, arch)


@pytest.mark.parametrize("name", SHARED)
def test_the_other_kernels_of_parts_are_in_the_catalogue(name: str) -> None:
    assert launched(name) == []

"""Sizes of real networks, with real launches: what the simulator would take days for."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_harness import REAL, Output, distinct, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window, pool_window
from gpucnn.profiling.what.shapes import CONV_SHAPES, POOL_SHAPES, ConvShape, PoolShape
from tolerances import check

pytestmark = pytest.mark.gpu
IMAGES = 3 if REAL else 1  # of the batch: the reference is worked out in float64 on the CPU


# On the virtual GPU a large one takes seconds: one of each kind is quick, and make slow has all.
SHAPES = [pytest.param(shape, marks=() if REAL or shape.name in ("m1", "m2", "k2", "r2") else pytest.mark.slow) for shape in CONV_SHAPES]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_convolution(gpu: Device, shape: ConvShape) -> None:
    window = conv_window(shape.hw, shape.rs, shape.stride, shape.padding)
    x, weight = normal(0, IMAGES, shape.c, *shape.hw), normal(1, shape.k, shape.c, *shape.rs)
    dy = normal(2, IMAGES, shape.k, *window.output)
    for name, first, second, terms, direction in (
        ("conv2d", x, weight, weight[0].size, "forward"),
        ("conv2d_input_grad", dy, weight, weight.size // shape.c, "input_grad"),
        ("conv2d_weight_grad", dy, x, dy.size // shape.k, "weight_grad"),
    ):
        bias = (None,) if name == "conv2d" else ()
        ref = getattr(cpu, name)(double(first), double(second), *bias, window)
        magnitude = getattr(cpu, name)(np.abs(double(first)), np.abs(double(second)), *bias, window)
        out = Output(gpu, ref.shape)
        getattr(gpu.ops, name)(gpu.array(first), gpu.array(second), *bias, window, out=out.array)
        check(out.result(), ref, magnitude=magnitude, terms=terms, direction=direction)


@pytest.mark.parametrize("shape", POOL_SHAPES, ids=lambda shape: shape.name)
def test_pooling(gpu: Device, shape: PoolShape) -> None:
    window = pool_window(shape.hw, shape.kernel, shape.stride, shape.padding)
    x = distinct(3, IMAGES, shape.c, *shape.hw)
    y, places = gpu.ops.max_pool2d(gpu.array(x), window)
    ref, ref_places = cpu.max_pool2d(x, window)
    np.testing.assert_array_equal(to_numpy(y), ref)
    np.testing.assert_array_equal(to_numpy(places), ref_places)


def test_launches_follow_the_current_stream(gpu: Device) -> None:
    """A kernel waits for what CuPy put on the same stream before it, and CuPy for the kernel."""
    xp = gpu.xp
    with xp.cuda.Stream(non_blocking=True):
        x = xp.zeros((1 << (24 if REAL else 10),), "float32")
        for _ in range(20):
            x += 1
        y = gpu.ops.relu(x) + 1
        gpu.synchronize()
    assert float(y.min()) == float(y.max()) == 21


def test_launches_can_be_captured(gpu: Device) -> None:
    """A launch within a stream capture becomes part of the graph: nothing in it waits for the host."""
    xp = gpu.xp
    x, y = xp.arange(-5, 5, dtype="float32"), xp.empty(10, "float32")
    gpu.ops.relu(x, out=y)  # compiled before the capture
    stream = xp.cuda.Stream(non_blocking=True)
    stream.wait_event(xp.cuda.get_current_stream().record())  # x was made on that one
    with stream:
        stream.begin_capture()
        gpu.ops.relu(x, out=y)
        graph = stream.end_capture()
        x += 3
        graph.launch(stream)
        stream.synchronize()
    np.testing.assert_array_equal(to_numpy(y), np.maximum(np.arange(-5, 5) + 3, 0))

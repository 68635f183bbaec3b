"""The catalogue's own windows are those that users get, and what it says of kernels made for a shape is what launchers do."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from gpucnn.device import simulated
from gpucnn.ops.augment import Augment
from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn.profiling.chip.samples import CONV_SHAPES, DEPTHWISE_WINDOWS, POOL_SHAPES, ConvShape, PoolShape, all_entries
from gpucnn_kernels import batch, pool
from gpucnn_kernels.conv import depthwise, direct, pooled, pooled_grad
from gpucnn_kernels.core import launch


@pytest.mark.parametrize("shape", [*CONV_SHAPES, *POOL_SHAPES], ids=lambda shape: shape.name)
def test_windows(shape: ConvShape | PoolShape) -> None:
    expected: Window
    if isinstance(shape, ConvShape):
        expected = conv_window(shape.hw, shape.rs, shape.stride, shape.padding)
    else:
        expected = pool_window(shape.hw, shape.kernel, shape.stride, shape.padding)
    assert asdict(shape.window) == asdict(expected)  # type: ignore[call-overload]


def test_windows_of_depthwise_layers() -> None:
    expected = {
        "3x3": conv_window((112, 112), (3, 3), 1, 1),
        "3x3-stride-2": conv_window((112, 112), (3, 3), 2, 1),
        "5x5-stride-2": conv_window((56, 56), (5, 5), 2, 2),
        "3x3-dilation-2": conv_window((14, 14), (3, 3), 1, 2, dilation=2),
        "7x7": conv_window((56, 56), (7, 7), 1, 3),
    }
    given = {name: asdict(window) for name, window in DEPTHWISE_WINDOWS.items()}  # type: ignore[call-overload]
    assert given == {name: asdict(window) for name, window in expected.items()}


def test_names_are_different() -> None:
    names = [entry.name for entry in all_entries()]
    assert len(set(names)) == len(names)


def floats(*shape: int) -> Any:
    return np.empty(shape, np.float32)


def ints(*shape: int) -> Any:
    return np.empty(shape, np.int32)


def launch_depthwise(window: Any, n: int = 2, c: int = 4) -> None:
    x, weight, bias, dy = floats(n, c, *window.input), floats(c, 1, *window.kernel), floats(c), floats(n, c, *window.output)
    depthwise.conv2d(x, weight, bias, dy, window)
    depthwise.conv2d_input_grad(dy, weight, x, window, relu=x)
    depthwise.conv2d_weight_grad(dy, x, weight, window, dbias=bias, workspace=floats(depthwise.workspace_size(n, c, c, window)))


def launch_first_layer(shape: ConvShape) -> None:
    n, c, k, window, pooling = shape.n, shape.c, shape.k, shape.window, pool_window(shape.window.output, 2)
    x, weight, bias, dy = floats(n, c, *shape.hw), floats(k, c, *shape.rs), floats(k), floats(n, k, *window.output)
    direct.conv2d(x, weight, bias, dy, window)
    direct.conv2d_weight_grad(dy, x, weight, window, dbias=bias, workspace=floats(direct.workspace_size(n, c, k, window)))
    y, places = floats(n, k, *pooling.output), ints(n, k, *pooling.output)
    pooled.conv2d_relu_max_pool2d(x, weight, bias, y, places, window, pooling)
    space = floats(pooled_grad.workspace_size(n, c, k, window, pooling))
    pooled_grad.conv2d_relu_max_pool2d_weight_grad(y, places, x, weight, window, pooling, relu=y, dbias=bias, workspace=space)


def launch_pooling(shape: PoolShape) -> None:
    x, y, places = floats(1, 2, *shape.hw), floats(1, 2, *shape.window.output), ints(1, 2, *shape.window.output)
    pool.max_pool2d(x, y, places, shape.window)
    for relu in (None, y):
        pool.max_pool2d_grad(y, places, x, shape.window, relu=relu)


def launch_batches() -> None:
    batch.permutation(ints(9), 1, 2)
    augments = (Augment(shift=1), Augment(cutout=1), Augment(scale=0.1), Augment(elastic=1.0), Augment(1, 1.0, 0.1, 1.0, True, 2, 1.0))
    for dtype in ("uint8", "float32"):
        for side in (3, 4):  # one by one, and by fours
            images, x = np.empty((9, 1, side, side), dtype), floats(5, 1, side, side)
            for labels, targets in ((ints(9), ints(5)), (floats(9, 3), floats(5, 3))):
                batch.gather_batch(images, labels, ints(9), ints(2), x, targets, batch_size=5)
        for augment in augments:
            batch.gather_batch(images, ints(9), ints(9), ints(2), x, ints(5), batch_size=5, augment=augment)


@pytest.mark.skipif(simulated(), reason="the simulator knows no types")
def test_signatures_and_blocks_are_those_of_the_launchers() -> None:
    """Of what is made for a shape; tests/kernels/compiler/test_engine_compiles.py looks at the engine."""
    with launch.recording(launching=False) as launches:
        for window in DEPTHWISE_WINDOWS.values():
            launch_depthwise(window)
        for shape in CONV_SHAPES:
            if direct.fits(shape.c, shape.window):
                launch_first_layer(shape)
        for pooling in POOL_SHAPES:
            launch_pooling(pooling)
        launch_batches()
    said: dict[int, list[Any]] = {}
    for entry in all_entries():
        said.setdefault(id(entry.kernel), []).append((entry.signature, entry.threads_per_block))
    for each in launches:
        assert (each.signature, each.threads) in said.get(id(each.kernel), ()), each.name
    seen = {id(each.kernel) for each in launches}
    made = ("depthwise", "direct", "gather_batch", "permutation", "add_parts", "pool2d")
    missed = {entry.name for entry in all_entries() if id(entry.kernel) not in seen and any(part in entry.name for part in made)}
    assert missed == {"max_pool2d_grad-2x2", "max_pool2d_relu_grad-2x2", "max_pool2d-2x2", "avg_pool2d", "avg_pool2d_grad"}

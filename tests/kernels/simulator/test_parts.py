"""Images that lie apart, as the channels of one branch do within those of all: the bits of whole arrays, and nothing beside is touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import COMPILED, distinct, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu, cuda
from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.conv import tiled
from gpucnn_kernels.core.launch import Launch, images, recording
from gpucnn_kernels.engine.tiles import Tile

BESIDE = 3  # channels before a part, and two behind it


class Part:
    """Some channels of larger images, all of which are NaN or `values`."""

    def __init__(self, device: Device, shape: tuple[int, ...], values: Any = None, before: int = BESIDE) -> None:
        n, c, *rest = shape
        self.whole = device.xp.full((n, before + c + 2, *rest), np.nan, "float32")
        self.first, self.count = before, c
        if values is not None:
            self.array[...] = device.array(values)

    @property
    def array(self) -> Any:
        return self.whole[:, self.first : self.first + self.count]

    def result(self) -> Any:
        found = to_numpy(self.whole)
        own = slice(self.first, self.first + self.count)
        assert np.isnan(np.delete(found, own, axis=1)).all(), "written beside its part"
        assert not np.isnan(found[:, own]).any(), "not all of it was written"
        return np.ascontiguousarray(found[:, own])


def same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(np.asarray(found).view(np.uint32), np.asarray(to_numpy(expected)).view(np.uint32))


SMALL = Tile(8, 8, 8, 4, 4)
CONVOLUTIONS = {  # images, channels, filters, groups, window
    "ragged": (2, 3, 9, 1, conv_window((5, 3), (3, 2), padding=1)),
    "whole quads": (2, 4, 4, 1, conv_window((4, 4), 1)),
    "strided": (3, 2, 5, 1, conv_window((7, 8), (3, 2), (2, 3), 1)),
    "groups": (2, 4, 6, 2, conv_window((4, 3), (2, 1), dilation=(2, 1))),
}


@pytest.mark.parametrize(("n", "c", "k", "groups", "window"), CONVOLUTIONS.values(), ids=list(CONVOLUTIONS))
@pytest.mark.parametrize("before", [3, 4])
def test_convolutions_on_the_engine(device: Device, n: int, c: int, k: int, groups: int, window: Window, before: int) -> None:
    """Forward, and both gradients. "whole quads" are written and read by fours, also where three channels come before."""
    shape, made = (n, k, *window.output), tiled.variants("tile", SMALL, 1.0)
    x, weight = device.array(normal(0, n, c, *window.input)), device.array(normal(1, k, c // groups, *window.kernel))
    bias = device.array(normal(2, k))
    dy = normal(3, *shape)

    def run(operation: str, *arguments: Any, slices: int = 1, **more: Any) -> None:
        variant, problem = made[operation], getattr(problems, operation)(n, c, k, window, groups)
        assert variant.parts and variant.launch is not None
        space = device.xp.full(max(variant.workspace(problem, slices), 4), np.nan, "float32")
        variant.launch(*arguments, workspace=space, **more, **({"slices": slices} if variant.slices else {}))

    part, y = Part(device, shape, before=before), device.xp.empty(shape, "float32")
    for target in (part.array, y):
        run("conv2d", x, weight, bias, target, window, groups, True)
    same(part.result(), y)

    def gradients(dy: Any) -> tuple[Any, Any, Any]:
        dx, dweight, dbias = (device.xp.full(each.shape, np.nan, "float32") for each in (x, weight, bias))
        run("conv2d_input_grad", dy, weight, dx, window, groups, relu=x)
        run("conv2d_weight_grad", dy, x, dweight, window, groups, dbias=dbias, slices=2)
        return dx, dweight, dbias

    for found, expected in zip(gradients(Part(device, shape, dy, before).array), gradients(device.array(dy)), strict=True):
        same(to_numpy(found), expected)


WINDOWS = {
    "2x2": pool_window((7, 6), 2),
    "3x3, side by side": pool_window((5, 4), 3, 1, "same"),
    "dilated": pool_window((9, 8), (3, 2), (2, 3), 1, (2, 1)),
}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=list(WINDOWS))
def test_pooling(device: Device, window: Window) -> None:
    ops, shape = device.ops, (3, 2, *window.output)
    x, dy = device.array(distinct(0, 3, 2, *window.input)), normal(1, *shape)
    part = Part(device, shape)
    expected, places = ops.max_pool2d(x, window)
    y, indices = ops.max_pool2d(x, window, out=part.array)
    same(part.result(), expected)
    np.testing.assert_array_equal(to_numpy(indices), to_numpy(places))
    assert y.shape == shape
    given = Part(device, shape, dy).array
    for relu in (None, expected):
        whole = ops.max_pool2d_grad(device.array(dy), places, window, relu=relu)
        same(to_numpy(ops.max_pool2d_grad(given, places, window, relu=relu)), whole)
    part = Part(device, shape)
    ops.avg_pool2d(x, window, out=part.array)
    same(part.result(), ops.avg_pool2d(x, window))
    same(to_numpy(ops.avg_pool2d_grad(given, window)), ops.avg_pool2d_grad(device.array(dy), window))


@pytest.mark.parametrize(
    ("c", "groups", "name"),
    [(8, 1, "plain"), *(pytest.param(*each, marks=COMPILED) for each in ((2, 1, "direct"), (4, 4, "depthwise"), (8, 1, "tile64x64")))],
)
def test_whatever_the_variant_is(device: Device, c: int, groups: int, name: str) -> None:
    """None of them needs a copy."""
    window, ops = conv_window((6, 5), 3, padding=1), device.ops
    shape = (2, 4, *window.output)
    x, weight, dy = device.array(normal(0, 2, c, 6, 5)), device.array(normal(1, 4, c // groups, 3, 3)), normal(2, *shape)
    given, part = Part(device, shape, dy).array, Part(device, shape)
    bias, found, expected = device.array(normal(3, 4)), device.xp.full(4, np.nan, "float32"), device.xp.full(4, np.nan, "float32")
    names = {"conv2d": name, "conv2d_weight_grad": name, **({} if name == "direct" else {"conv2d_input_grad": name})}
    with select.override(**names), recording() as launches:
        ops.conv2d(x, weight, bias, window, groups, relu=True, out=part.array)
        same(part.result(), ops.conv2d(x, weight, bias, window, groups, relu=True))
        whole = device.array(dy)
        same(to_numpy(ops.conv2d_input_grad(given, weight, window, groups)), ops.conv2d_input_grad(whole, weight, window, groups))
        dweight = ops.conv2d_weight_grad(given, x, window, groups, dbias=found)
        same(to_numpy(dweight), ops.conv2d_weight_grad(whole, x, window, groups, dbias=expected))
        same(to_numpy(found), expected)
    assert not any("copy" in launch.name for launch in launches)


@pytest.mark.parametrize("side", [pytest.param(6, marks=COMPILED)])
def test_convolution_with_pooling_in_one_kernel(device: Device, side: int) -> None:
    window, halves = conv_window((side, side), 3, padding=1), pool_window((side, side), 2)
    x, weight, dy = device.array(normal(0, 2, 1, 6, 6)), device.array(normal(1, 4, 1, 3, 3)), normal(2, 2, 4, 3, 3)
    with select.override(conv2d_relu_max_pool2d="direct", conv2d_relu_max_pool2d_weight_grad="direct"), recording() as launches:
        expected, places = device.ops.conv2d_relu_max_pool2d(x, weight, None, window, halves)
        part = Part(device, dy.shape)
        device.ops.conv2d_relu_max_pool2d(x, weight, None, window, halves, out=part.array)
        same(part.result(), expected)
        for relu in (None, expected):
            found, whole = (
                device.ops.conv2d_relu_max_pool2d_weight_grad(given, places, x, window, halves, relu=relu)
                for given in (Part(device, dy.shape, dy).array, device.array(dy))
            )
            same(to_numpy(found), whole)
    assert not any("copy" in launch.name for launch in launches)


@pytest.mark.parametrize("shape", [(3, 2, 3, 5), (4, 3)], ids=["images", "rows"])
def test_batch_normalization(device: Device, shape: tuple[int, ...]) -> None:
    ops, c = device.ops, shape[1]
    x, dy = device.array(normal(0, *shape)), normal(1, *shape)
    weight, bias, mean = (device.array(normal(number, c)) for number in (2, 3, 4))
    given, options = Part(device, shape, dy).array, {"eps": 1e-5, "relu": True}
    with recording() as launches:
        results = []
        for part in (Part(device, shape), None):
            running = device.array(np.zeros(c, np.float32)), device.array(np.ones(c, np.float32))
            out = None if part is None else part.array
            y, *kept = ops.batch_norm(x, weight, bias, running, momentum=0.1, out=out, **options)
            results.append([to_numpy(y) if part is None else part.result(), *map(to_numpy, (*kept, *running))])
        for found, expected in zip(*results, strict=True):
            same(found, expected)
        running = mean, device.array(np.abs(normal(5, c)) + 1)
        for source in (x, Part(device, shape, to_numpy(x)).array):
            part = Part(device, shape)
            ops.batch_norm_apply(source, weight, bias, running, out=part.array, **options)
            same(part.result(), ops.batch_norm_apply(x, weight, bias, running, **options))
        results = []
        for gradient in (given, device.array(dy)):
            sums = [device.xp.full(c, np.nan, "float32") for _ in range(2)]
            dx = ops.batch_norm_grad(gradient, x, weight, (kept[0], kept[1]), relu=True, dweight=sums[0], dbias=sums[1])
            results.append([to_numpy(each) for each in (dx, *sums)])
        for found, expected in zip(*results, strict=True):
            same(found, expected)
    assert not any("copy" in launch.name for launch in launches)


def described(launch: Launch) -> tuple[Any, ...]:
    return launch.kernel, launch.blocks, launch.threads, launch.shared


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_the_kernel_is_that_of_whole_arrays(capability: tuple[int, int]) -> None:
    """On tensor cores as well: all that differs are the numbers by which it counts from an image to the next."""
    window = conv_window((14, 14), 3, padding=1)
    x, weight, whole = (np.empty(shape, np.float32) for shape in ((64, 32, 14, 14), (64, 32, 3, 3), (64, 96, 14, 14)))

    def launches(y: Any) -> list[Launch]:
        with select.for_chip(132, capability=capability), recording(launching=False) as found:
            cuda.conv2d(x, weight, None, window, out=y)
            cuda.conv2d_input_grad(y, weight, window)
            cuda.conv2d_weight_grad(y, x, window, dbias=np.empty(64, np.float32))
        return found

    parts, wholes = launches(whole[:, 16:80]), launches(np.empty((64, 64, 14, 14), np.float32))
    assert list(map(described, parts)) == list(map(described, wholes))
    assert not any("copy" in launch.name for launch in parts)


def test_arrays_that_are_no_parts_are_refused() -> None:
    x = np.empty((4, 6, 5, 3), np.float32)
    flat, step = images(x[:, 1:3], "x", (4, 2, 5, 3))
    assert step == 90 and flat.shape == (3 * 90 + 30,) and np.shares_memory(flat, x)
    assert images(x, "x", x.shape)[1] == 0 and images(x[:1, 1:3], "x", (1, 2, 5, 3))[1] == 0
    with pytest.raises(ValueError, match=r"an image of x of shape \(1, 6, 5, 2\) is not C-contiguous"):
        images(x[..., :2], "x", (4, 6, 5, 2))
    with pytest.raises(ValueError, match=r"x has shape \(4, 2, 5, 3\), expected \(4, 3, 5, 3\)"):
        images(x[:, 1:3], "x", (4, 3, 5, 3))
    with pytest.raises(ValueError, match="lie 0 bytes apart, and are 360 bytes long"):
        images(np.broadcast_to(x[:1], x.shape), "x", x.shape)
    with pytest.raises(TypeError, match="x is float64"):
        images(np.empty((4, 6, 5, 3))[:, 1:3], "x", (4, 2, 5, 3))


def test_copies(device: Device) -> None:
    for shape in ((1, 1), (3, 5), (2, 3, 4, 5), (5, 1, 3, 3)):
        x = normal(1, *shape)
        part = Part(device, shape)
        device.ops.copied(device.array(x), out=part.array)
        same(part.result(), x)
        same(to_numpy(device.ops.copied(part.array)), x)
        host = np.full(part.whole.shape, np.nan, np.float32)
        cpu.copied(x, out=host[:, BESIDE : BESIDE + shape[1]])
        same(cpu.copied(host[:, BESIDE : BESIDE + shape[1]]), x)

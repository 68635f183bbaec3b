"""Convolution, ReLU and pooling in one kernel: exactly what the kernels one after the other give, and close to float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import COMPILED, Output, cases, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu
from gpucnn.ops.cuda._arrays import stream
from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn_kernels.conv import direct, direct_plan, pooled
from gpucnn_kernels.conv.patch import patch_of
from tolerances import check

Case = tuple[int, int, int, Window]  # images, channels, filters

CASES: dict[str, Case] = {
    "one-window": (1, 1, 1, conv_window((2, 2), (1, 1))),
    "first-layer": (2, 1, 3, conv_window((8, 8), (5, 5), padding="same")),
    "odd": (1, 3, 5, conv_window((9, 7), (3, 3), padding=1)),
    "primes": (2, 2, 9, conv_window((13, 11), (3, 2))),
    "stride": (1, 4, 2, conv_window((11, 13), (3, 3), 2, "same")),
    "dilation": (1, 1, 4, conv_window((9, 10), (2, 3), 1, (1, 2), dilation=2)),
    "asymmetric": (2, 1, 3, conv_window((5, 6), (3, 4), (1, 2), ((2, 0), (0, 3)))),
    "padding-over-kernel": (1, 1, 2, conv_window((5, 6), (1, 1), 1, 2)),
}


# A window is a kernel, and takes seconds to compile. The simulator has them all.
QUICK = ("first-layer", "odd", "padding-over-kernel")


@pytest.fixture(params=cases(CASES, QUICK))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def one_kernel(
    device: Device, x: Any, weight: Any, bias: Any, window: Window, threads: int = 8, plan: direct_plan.Plan | None = None
) -> tuple[Any, Any]:
    """The pooled values and their places, by the fused kernel with blocks of `threads`, or as a plan says."""
    pooling = pool_window(window.output, 2)
    shape = (x.shape[0], weight.shape[0], *pooling.output)
    y, places = Output(device, shape), Output(device, shape, "int32")
    plan = plan or direct_plan.plan_of(x.shape[1], weight.shape[0], window, side=2, threads=threads)
    arrays = [None if array is None else device.array(array) for array in (x, weight, bias)]
    pooled.conv2d_relu_max_pool2d(*arrays, y.array, places.array, window, pooling, 1, stream(arrays[0]), plan=plan)
    return y.result(nan=True), places.result()


def exactly_two_kernels(device: Device, x: Any, weight: Any, bias: Any, window: Window, threads: int = 8) -> None:
    got = one_kernel(device, x, weight, bias, window, threads)
    out = Output(device, (x.shape[0], weight.shape[0], *window.output))
    arrays = [None if array is None else device.array(array) for array in (x, weight, bias)]
    plan = direct_plan.plan_of(x.shape[1], weight.shape[0], window, threads=16)
    direct.conv2d(*arrays, out.array, window, 1, True, stream(arrays[0]), plan=plan)
    y, places = cpu.max_pool2d(out.result(nan=True), pool_window(window.output, 2))
    np.testing.assert_array_equal(got[0], y)
    np.testing.assert_array_equal(got[1], places)


@pytest.mark.parametrize("bands", [pytest.param(2, marks=COMPILED), 3])
def test_bands_of_columns(device: Device, bands: int) -> None:
    """The same bits as whole rows, in bands of 5 pooled columns and one of 3, or of 7 and 6."""
    window = conv_window((9, 27), (3, 3), 1, 1)
    arrays = normal(0, 2, 1, 9, 27), normal(1, 3, 1, 3, 3), normal(2, 3), window
    patch = patch_of(1, window, 8, side=2, across=-(-13 // bands))
    assert patch is not None and -(-13 // patch.across) == bands
    got = one_kernel(device, *arrays, plan=direct_plan.Plan(patch, 8, 4, 1, bands))
    for own, whole in zip(got, one_kernel(device, *arrays), strict=True):
        np.testing.assert_array_equal(own, whole)


@pytest.mark.parametrize("with_bias", [False, True])
def test_close_to_float64(device: Device, case: Case, with_bias: bool) -> None:
    n, c, k, window = case
    x, weight, bias = normal(0, n, c, *window.input), normal(1, k, c, *window.kernel), normal(2, k)
    y, places = one_kernel(device, x, weight, bias if with_bias else None, window)
    pooling = pool_window(window.output, 2)
    wide = double(bias) if with_bias else None
    ref, _ = cpu.conv2d_relu_max_pool2d(double(x), double(weight), wide, window, pooling)
    wide = None if wide is None else np.abs(wide)
    magnitude, _ = cpu.conv2d_relu_max_pool2d(np.abs(double(x)), np.abs(double(weight)), wide, window, pooling)
    check(y, ref, magnitude=magnitude, terms=weight[0].size, direction="forward")
    # The place holds the value, and lies in its window: then only ties could be elsewhere, and those are below.
    outputs = cpu.conv2d(double(x), double(weight), double(bias) if with_bias else None, window, relu=True)
    won = np.take_along_axis(outputs.reshape(n, k, -1), places.reshape(n, k, -1), axis=2).reshape(y.shape)
    check(y, won, magnitude=magnitude, terms=weight[0].size, direction="forward")
    rows, columns = places // window.output[1] // 2, places % window.output[1] // 2
    np.testing.assert_array_equal(rows, np.broadcast_to(np.arange(y.shape[2])[:, None], y.shape))
    np.testing.assert_array_equal(columns, np.broadcast_to(np.arange(y.shape[3]), y.shape))


def test_the_same_bits_as_two_kernels(device: Device, case: Case) -> None:
    n, c, k, window = case
    exactly_two_kernels(device, normal(3, n, c, *window.input), normal(4, k, c, *window.kernel), normal(5, k), window)


def test_ties(device: Device) -> None:
    """Small whole numbers, so that many of four are equal; and windows where ReLU leaves nothing but zeros."""
    *_, window = CASES["first-layer"]
    random = np.random.default_rng(6)
    x = random.integers(0, 2, (1, 1, 8, 8)).astype(np.float32)
    weight, bias = np.zeros((3, 1, 5, 5), np.float32), np.array([0, -9, 1], np.float32)
    weight[:, :, 1:3, 2:4] = random.integers(-1, 2, (3, 1, 2, 2))
    exactly_two_kernels(device, x, weight, bias, window)
    y, places = one_kernel(device, x, weight, bias, window)
    outputs = cpu.conv2d(x, weight, bias, window, relu=True).reshape(3, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(3, 16, 4)
    assert ((outputs == outputs.max(axis=2, keepdims=True)).sum(axis=2) > 1)[[0, 2]].mean() > 0.5
    ref, ref_places = cpu.conv2d_relu_max_pool2d(x, weight, bias, window, pool_window(window.output, 2))
    np.testing.assert_array_equal(y, ref)
    np.testing.assert_array_equal(places, ref_places)


def test_nan_and_infinities(device: Device) -> None:
    *_, window = CASES["padding-over-kernel"]
    x = np.random.default_rng(7).choice(np.array([np.nan, -np.inf, np.inf, -3, 1], np.float32), (3, 1, *window.input))
    exactly_two_kernels(device, x, np.ones((1, 1, 1, 1), np.float32), None, window)


def test_the_operation_with_and_without_the_kernel(device: Device) -> None:
    window, grouped = conv_window((6, 5), (3, 3), padding=1), conv_window((4, 4), (1, 1))
    cases = [
        (1, window, pool_window(window.output, 2)),  # one kernel, in blocks as the launcher likes them
        (1, window, pool_window(window.output, 3, 2, 1)),  # another pooling
        (1, window, pool_window(window.output, 2, ceil_mode=True)),
        (2, grouped, pool_window(grouped.output, 2)),  # groups
    ]
    assert [pooled.fits(groups, window, pooling, groups) for groups, window, pooling in cases] == [True, False, False, False]
    for groups, window, pooling in cases:
        x, weight, bias = normal(8, 1, groups, *window.input), normal(9, 2, 1, *window.kernel), normal(10, 2)
        y, places = device.ops.conv2d_relu_max_pool2d(*map(device.array, (x, weight, bias)), window, pooling, groups)
        ref, ref_places = cpu.conv2d_relu_max_pool2d(double(x), double(weight), double(bias), window, pooling, groups)
        np.testing.assert_allclose(to_numpy(y), ref, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(to_numpy(places), ref_places)


def test_the_gradient_of_relu_on_the_pooled_values() -> None:
    window = conv_window((6, 6), (3, 3), padding=1)
    pooling = pool_window(window.output, 2)
    x, weight, bias = double(normal(11, 2, 1, 6, 6)), double(normal(12, 3, 1, 3, 3)), double(normal(13, 3)) - 2
    outputs = cpu.conv2d(x, weight, bias, window, relu=True)
    y, places = cpu.conv2d_relu_max_pool2d(x, weight, bias, window, pooling)
    assert (y == 0).any() and (y > 0).any()
    dy = double(normal(14, *y.shape))
    after = cpu.max_pool2d_grad(cpu.relu_grad(dy, y), places, pooling)
    np.testing.assert_array_equal(after, cpu.relu_grad(cpu.max_pool2d_grad(dy, places, pooling), outputs))


def test_given_outputs_are_written(device: Device) -> None:
    window = conv_window((4, 4), (1, 1))
    y, places = Output(device, (1, 1, 2, 2)), Output(device, (1, 1, 2, 2), "int32")
    x, weight = device.array(normal(15, 1, 1, 4, 4)), device.array(np.ones((1, 1, 1, 1), np.float32))
    for ops in (device.ops, cpu):
        got = ops.conv2d_relu_max_pool2d(x, weight, None, window, pool_window((4, 4), 2), out=y.array, indices=places.array)
        assert got[0] is y.array and got[1] is places.array
        y.result(), places.result()
        if device.xp is not np:
            break


@pytest.mark.parametrize("summed", [False, True])
def test_a_convolution_is_normalized_for_predictions(summed: bool, device: Device) -> None:
    window, ops = conv_window((5, 6), (3, 3), padding=1), device.ops
    numbers = [normal(20 + index, 3) for index in range(3)] + [np.abs(normal(23, 3)) + 1]
    arrays = normal(16, 2, 2, 5, 6), normal(17, 3, 2, 3, 3), normal(18, 3), normal(19, 2, 3, 5, 6)
    x, weight, bias, added, *affine_and_running = map(device.array, (*arrays, *numbers))
    affine, running = tuple(affine_and_running[:2]), tuple(affine_and_running[2:])
    out = Output(device, (2, 3, 5, 6))
    given = {"eps": 1e-3, "relu": True, "added": added if summed else None, "out": out.array}
    assert ops.conv2d_batch_norm_apply(x, weight, bias, window, 1, affine, running, **given) is out.array
    expected = ops.batch_norm_apply(ops.conv2d(x, weight, bias, window), *affine, running, eps=1e-3, relu=not summed)
    expected = ops.add(expected, added, relu=True) if summed else expected
    np.testing.assert_array_equal(out.result(), to_numpy(expected))


def test_what_is_refused() -> None:
    window = conv_window((4, 4), (3, 3), padding=1)
    x, weight, y = np.zeros((1, 1, 4, 4), np.float32), np.zeros((2, 1, 3, 3), np.float32), np.zeros((1, 2, 2, 2), np.float32)
    with pytest.raises(ValueError, match=r"given 1 channels, .* pooling \(3, 3\) with stride \(1, 1\)"):
        pooled.conv2d_relu_max_pool2d(x, weight, None, y, y.astype(np.int32), window, pool_window((4, 4), 3, 1))
    with pytest.raises(TypeError, match="indices is float32"):
        pooled.conv2d_relu_max_pool2d(x, weight, None, y, y, window, pool_window((4, 4), 2))

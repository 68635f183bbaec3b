"""The gradient of convolution, ReLU and pooling in one kernel against the CPU's operations one after the other, in float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from kernel_harness import COMPILED, Output, cases, double, normal

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn.ops.cuda._arrays import stream
from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn_kernels.conv import direct_plan, pooled, pooled_grad
from gpucnn_kernels.conv.corners import corners_of
from gpucnn_kernels.conv.parts import GradPlan
from tolerances import check


class Case:
    """Images (n, c), k filters; x, and dy and the pooled values and places as the forward operations would give them."""

    def __init__(self, n: int, c: int, k: int, window: Window, like: int = 0) -> None:
        self.window, self.pooling = window, pool_window(window.output, 2)
        self.sizes = (n, c, k)
        self.x = normal(like, n, c, *window.input)
        self.weight = normal(like + 1, k, c, *window.kernel)
        self.y, self.indices = cpu.conv2d_relu_max_pool2d(self.x, self.weight, normal(like + 2, k), window, self.pooling)
        self.dy = normal(like + 3, *self.y.shape)

    def plan(self, threads: int = 8, blocks: int = 3, **changes: Any) -> GradPlan:
        plan = pooled_grad.grad_plan_of(*self.sizes, self.window, self.pooling, threads=threads, blocks=blocks)
        assert plan is not None
        return dataclasses.replace(plan, **changes)


CASES = {
    "one-window": lambda: Case(1, 1, 1, conv_window((2, 2), (1, 1))),
    "first-layer": lambda: Case(2, 1, 3, conv_window((8, 8), (5, 5), padding="same")),
    "odd": lambda: Case(1, 3, 5, conv_window((9, 7), (3, 3), padding=1)),
    "primes": lambda: Case(1, 2, 5, conv_window((13, 11), (3, 2))),
    "stride": lambda: Case(1, 4, 2, conv_window((11, 13), (3, 3), 2, "same")),
    "stride-over-kernel": lambda: Case(3, 1, 1, conv_window((11, 9), (2, 1), (3, 2))),
    "dilation": lambda: Case(1, 1, 4, conv_window((9, 10), (2, 3), 1, (1, 2), dilation=2)),
    "dilation-stride": lambda: Case(1, 2, 2, conv_window((10, 9), (3, 2), (2, 3), ((1, 2), (0, 1)), dilation=(2, 3))),
    "asymmetric": lambda: Case(2, 1, 3, conv_window((5, 6), (3, 4), (1, 2), ((2, 0), (0, 3)))),
    "padding-over-kernel": lambda: Case(1, 1, 2, conv_window((2, 3), (1, 1), 1, 2)),
    "more-columns-than-threads": lambda: Case(1, 1, 2, conv_window((4, 19), (2, 2))),
}


# A window is a kernel, and takes seconds to compile. The simulator has them all; the tests below take these where any would do.
QUICK = ("first-layer", "odd", "dilation-stride", "padding-over-kernel", "more-columns-than-threads")


@pytest.fixture(params=cases(CASES, QUICK))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def weight_grad(device: Device, case: Case, plan: GradPlan, with_bias: bool = True, masked: bool = True) -> Any:
    """Also with NaN in the workspace, and with a margin behind it that must stay as it is."""
    k = case.sizes[2]
    dweight, dbias = Output(device, case.weight.shape), Output(device, (k,))
    workspace = Output(device, (plan.parts * k * (case.weight[0].size + 1),))
    dy, indices, x = (device.array(array) for array in (case.dy, case.indices, case.x))
    pooled_grad.conv2d_relu_max_pool2d_weight_grad(
        dy,
        indices,
        x,
        dweight.array,
        case.window,
        case.pooling,
        1,
        stream(x),
        relu=device.array(case.y) if masked else None,
        dbias=dbias.array if with_bias else None,
        workspace=workspace.array,
        plan=plan,
        adders=(8, 2),
    )
    workspace.result()  # all of it written, nothing beside it
    wide_dy, wide_x = double(case.dy), double(case.x)
    dconv = cpu.max_pool2d_grad(cpu.relu_grad(wide_dy, case.y) if masked else wide_dy, case.indices, case.pooling)
    terms = case.dy.size // k  # the others are zeros, and not added
    ref, magnitude = (cpu.conv2d_weight_grad(f(dconv), f(wide_x), case.window) for f in (np.asarray, np.abs))
    got = dweight.result()
    check(got, ref, magnitude=magnitude, terms=terms, direction="weight_grad")
    if with_bias:
        ref, magnitude = cpu.bias_grad(dconv), cpu.bias_grad(np.abs(dconv))
        check(dbias.result(), ref, magnitude=magnitude, terms=terms, direction="weight_grad")
    else:
        assert np.isnan(dbias.buffer).all()
    return got


def test_weight_grad(device: Device, case: Case) -> None:
    weight_grad(device, case, case.plan())


def test_without_bias_and_relu(device: Device) -> None:
    case = CASES["first-layer"]()
    weight_grad(device, case, case.plan(), with_bias=False, masked=False)


def test_after_the_fused_kernel(device: Device) -> None:
    """Its places and its values, in the blocks that the launcher itself chooses, and as the operation hands them on."""
    case = CASES["first-layer"]()
    n, c, k = case.sizes
    y, places = Output(device, case.y.shape), Output(device, case.y.shape, "int32")
    x, weight, dy = (device.array(array) for array in (case.x, case.weight, case.dy))
    forward = direct_plan.plan_of(c, k, case.window, side=2, threads=8)
    pooled.conv2d_relu_max_pool2d(x, weight, None, y.array, places.array, case.window, case.pooling, 1, stream(x), plan=forward)
    dweight, dbias = Output(device, case.weight.shape), Output(device, (k,))
    workspace = Output(device, (pooled_grad.workspace_size(n, c, k, case.window, case.pooling),))
    arrays, options = (dy, places.array, x, dweight.array), {"relu": y.array, "dbias": dbias.array, "workspace": workspace.array}
    pooled_grad.conv2d_relu_max_pool2d_weight_grad(*arrays, case.window, case.pooling, 1, stream(x), **options)
    workspace.result()
    dconv = cpu.max_pool2d_grad(cpu.relu_grad(double(case.dy), y.result()), places.result(), case.pooling)
    for got, f in ((dweight, lambda d, x: cpu.conv2d_weight_grad(d, x, case.window)), (dbias, lambda d, _: cpu.bias_grad(d))):
        ref, magnitude = f(dconv, double(case.x)), f(np.abs(dconv), np.abs(double(case.x)))
        check(got.result(), ref, magnitude=magnitude, terms=case.dy.size // k, direction="weight_grad")


def test_ties_and_zeros(device: Device) -> None:
    """Small whole numbers, so that many of four are equal, and windows where ReLU leaves nothing: exact, as sums of whole numbers are."""
    case = CASES["first-layer"]()
    random = np.random.default_rng(6)
    case.x = random.integers(0, 2, case.x.shape).astype(np.float32)
    weight, bias = np.zeros_like(case.weight), np.array([0, -9, 1], np.float32)
    weight[:, :, 1:3, 2:4] = random.integers(-1, 2, (3, 1, 2, 2))
    case.y, case.indices = cpu.conv2d_relu_max_pool2d(case.x, weight, bias, case.window, case.pooling)
    case.dy = random.integers(-3, 4, case.dy.shape).astype(np.float32)
    assert (case.y == 0).any() and (case.y > 0).any()
    got = weight_grad(device, case, case.plan())
    dconv = cpu.max_pool2d_grad(cpu.relu_grad(case.dy, case.y), case.indices, case.pooling)
    np.testing.assert_array_equal(got, cpu.conv2d_weight_grad(dconv, case.x, case.window))
    assert not got[1].any()


def test_where_relu_gave_zero_dy_may_be_anything(device: Device) -> None:
    case = CASES["padding-over-kernel"]()
    case.y[:, :, 1] = 0
    case.dy[:, :, 1] = np.array([np.nan, np.inf, -np.inf], np.float32)
    weight_grad(device, case, case.plan())


@pytest.mark.parametrize(("blocks", "threads"), [(1, 8), (6, 8), pytest.param(6, 16, marks=COMPILED), (1000, 8)])
def test_slices_of_images(device: Device, blocks: int, threads: int) -> None:
    case = Case(3, 1, 5, conv_window((8, 8), (5, 5), padding="same"))
    weight_grad(device, case, case.plan(threads, blocks))


def test_an_image_in_several_units(device: Device) -> None:
    case = Case(2, 1, 2, conv_window((9, 7), (2, 2)))
    corners = corners_of(1, case.window, 8, 12288)
    assert corners is not None
    weight_grad(device, case, case.plan(patch=corners, stretch=8, units=2 * 2, slice_units=3))


@pytest.mark.parametrize("group_rows", [pytest.param(3, marks=COMPILED), 4])
def test_taps_in_groups(device: Device, group_rows: int) -> None:
    """42 taps are more than a thread holds: rows of them go to two groups, of the same size or not."""
    case = Case(1, 3, 1, conv_window((4, 6), (2, 7), padding=1))
    plan = case.plan()
    assert plan.tap_groups == 2 and plan.group_rows == 3
    weight_grad(device, case, dataclasses.replace(plan, group_rows=group_rows))


def test_the_same_bits_every_time(device: Device) -> None:
    case = CASES["first-layer"]()
    assert weight_grad(device, case, case.plan()).tobytes() == weight_grad(device, case, case.plan()).tobytes()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "stride"), [(5, 1), (13, 1), (28, 1), (32, 1), (96, 1), (5, 2), (13, 2), (28, 2), (32, 2)])
def test_neighbours_lie_in_neighbouring_banks(channels: int, size: int, stride: int) -> None:
    """Whatever the tap and whoever won: a warp's positions are in 32 different banks, across the ends of rows as well."""
    window = conv_window((size, size), (3, 3), stride, 1)
    plan = pooled_grad.grad_plan_of(1, channels, 16, window, pool_window(window.output, 2))
    assert plan is not None and plan.shared <= 12288
    places, winners = np.arange(32), np.random.default_rng(0).integers(0, 4, 32)
    words = places // plan.patch.across * plan.patch.pitch + places % plan.patch.across + winners * plan.patch.copy
    assert len(set(words % 32)) == 32


def test_what_fits() -> None:
    window = conv_window((28, 28), (5, 5), padding="same")
    assert pooled_grad.fits(1, window, pool_window((28, 28), 2))
    assert not pooled_grad.fits(5, window, pool_window((28, 28), 2))
    assert not pooled_grad.fits(4, window, pool_window((28, 28), 2), groups=2)
    assert not pooled_grad.fits(1, window, pool_window((28, 28), 3))
    wide = conv_window((8, 700), (3, 3))
    assert pooled.fits(1, wide, pool_window(wide.output, 2)) and not pooled_grad.fits(1, wide, pool_window(wide.output, 2))


def test_what_is_refused() -> None:
    window = conv_window((4, 4), (3, 3), padding=1)
    pooling = pool_window((4, 4), 2)
    x, dy, weight, space = (np.zeros(shape, np.float32) for shape in ((1, 1, 4, 4), (1, 2, 2, 2), (2, 1, 3, 3), (9999,)))
    places = dy.astype(np.int32)
    launch = pooled_grad.conv2d_relu_max_pool2d_weight_grad
    with pytest.raises(ValueError, match=r"given 1 channels, .* pooling \(3, 3\) with stride \(1, 1\)"):
        launch(dy, places, x, weight, window, pool_window((4, 4), 3, 1), workspace=space)
    with pytest.raises(TypeError, match="indices is float32"):
        launch(dy, dy, x, weight, window, pooling, workspace=space)
    with pytest.raises(ValueError, match="relu has shape"):
        launch(dy, places, x, weight, window, pooling, relu=dy[:, :1], workspace=space)
    with pytest.raises(ValueError, match="workspace holds 3 numbers, and"):
        launch(dy, places, x, weight, window, pooling, workspace=space[:3])

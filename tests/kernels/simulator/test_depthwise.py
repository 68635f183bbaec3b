"""Depthwise convolution, and convolution in small groups, in their kernels against the CPU's in float64: forward and all gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, cases, double, normal

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn.ops.cuda._arrays import stream
from gpucnn.ops.shapes import Window, conv_window
from gpucnn_kernels.conv import depthwise, depthwise_grad, depthwise_input_grad
from gpucnn_kernels.conv.strips import strip_of
from tolerances import check


class Case:
    """Images (n, c · of, *hw), m filters of rs for each group of `of` channels; the rest as the window takes it."""

    def __init__(self, n: int, c: int, hw: tuple[int, int], rs: tuple[int, int], m: int = 1, of: int = 1, **window: Any) -> None:
        self.window: Window = conv_window(hw, rs, **window)
        self.x = normal(0, n, c * of, *hw)
        self.weight = normal(1, c * m, of, *rs)
        self.bias = normal(2, c * m)
        self.dy = normal(3, n, c * m, *self.window.output)
        self.groups = c

    def plan(self, threads: int = 8, blocks: int = 1, **changes: Any) -> depthwise_grad.GradPlan:
        k, of = self.weight.shape[:2]
        plan = depthwise_grad.grad_plan_of(self.x.shape[0], k, self.window, threads, blocks, (of, k // self.groups))
        assert plan is not None
        return dataclasses.replace(plan, **changes)


CASES = {
    "one": lambda: Case(1, 1, (1, 1), (1, 1)),
    "one-pixel-padded": lambda: Case(2, 2, (1, 1), (3, 3), padding=1),
    "same": lambda: Case(2, 2, (5, 6), (3, 3), padding="same"),
    "more-than-a-strip": lambda: Case(1, 1, (19, 3), (3, 2)),
    "multiplier": lambda: Case(2, 2, (4, 5), (3, 3), 2, padding=1),
    "stride": lambda: Case(1, 3, (9, 7), (3, 3), padding=1, stride=2),
    "multiplier-stride-dilation": lambda: Case(2, 1, (9, 8), (3, 2), 3, stride=2, dilation=2, padding=2),
    "same-even": lambda: Case(1, 2, (6, 8), (3, 2), padding="same", stride=2),
    "primes": lambda: Case(2, 2, (13, 11), (5, 3), padding=(2, 3), stride=(3, 1)),
    "stride-over-kernel": lambda: Case(1, 2, (11, 7), (2, 1), stride=(3, 2)),
    "dilation": lambda: Case(1, 1, (9, 8), (2, 3), dilation=(3, 2), padding=(1, 2)),
    "dilation-stride": lambda: Case(1, 1, (10, 9), (3, 2), dilation=(2, 3), stride=(4, 2), padding=((1, 2), (0, 1))),
    "asymmetric": lambda: Case(2, 1, (5, 6), (3, 4), padding=((2, 0), (0, 3)), stride=(2, 3)),
    "padding-over-kernel": lambda: Case(1, 1, (2, 3), (1, 1), padding=3, stride=2),
    "pixels-that-none-reads": lambda: Case(1, 1, (6, 7), (1, 1), stride=4),
    "groups-of-4": lambda: Case(2, 2, (10, 3), (3, 3), 4, 4, padding=1),
    "groups-of-8-to-4": lambda: Case(1, 2, (7, 9), (3, 3), 4, 8, padding=1, stride=2),
    "groups-of-3-to-2": lambda: Case(2, 3, (9, 5), (3, 2), 2, 3, stride=(1, 2), dilation=(2, 1), padding=((0, 1), (2, 1))),
    "groups-to-one": lambda: Case(1, 2, (4, 5), (1, 1), 1, 4),
    "groups-of-16-to-12": lambda: Case(1, 2, (3, 4), (5, 5), 12, 16, padding=2),
}


# A window is a kernel, and takes seconds to compile. The simulator has them all. What is compiled: one strip and several, pixels that none
# reads, sums over a group of channels for two and four filters at a time. Other tests take these as well where any would do.
QUICK = ("more-than-a-strip", "multiplier-stride-dilation", "primes", "groups-of-8-to-4", "groups-of-3-to-2")


@pytest.fixture(params=cases(CASES, QUICK))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def forward(device: Device, case: Case, with_bias: bool, relu: bool) -> None:
    out = Output(device, case.dy.shape)
    x, weight, bias = device.array(case.x), device.array(case.weight), device.array(case.bias) if with_bias else None
    depthwise.conv2d(x, weight, bias, out.array, case.window, case.groups, relu, stream(x))
    wide = double(case.bias) if with_bias else None
    ref = cpu.conv2d(double(case.x), double(case.weight), wide, case.window, case.groups, relu=relu)
    wide = None if wide is None else np.abs(wide)
    magnitude = cpu.conv2d(np.abs(double(case.x)), np.abs(double(case.weight)), wide, case.window, case.groups)
    check(out.result(), ref, magnitude=magnitude, terms=case.weight[0].size, direction="forward")


def input_grad(device: Device, case: Case, relu: Any = None) -> None:
    out = Output(device, case.x.shape)
    dy, weight = device.array(case.dy), device.array(case.weight)
    mask = None if relu is None else device.array(relu)
    depthwise_input_grad.conv2d_input_grad(dy, weight, out.array, case.window, case.groups, stream(dy), relu=mask)
    wide_dy, wide_weight = double(case.dy), double(case.weight)
    ref = cpu.conv2d_input_grad(wide_dy, wide_weight, case.window, case.groups, relu=relu)
    magnitude = cpu.conv2d_input_grad(np.abs(wide_dy), np.abs(wide_weight), case.window, case.groups)
    check(out.result(), ref, magnitude=magnitude, terms=case.weight.size // case.groups, direction="input_grad")


def weight_grad(device: Device, case: Case, plan: depthwise_grad.GradPlan | None, with_bias: bool = True) -> Any:
    """Also with NaN in the workspace, and with a margin behind it that must stay as it is."""
    (n, k), c, groups = case.dy.shape[:2], case.x.shape[1], case.groups
    dweight, dbias = Output(device, case.weight.shape), Output(device, (k,))
    parts = plan.parts * (case.weight.size + k) if plan else depthwise_grad.workspace_size(n, c, k, case.window, groups)
    workspace = Output(device, (parts,))
    dy, x, given = device.array(case.dy), device.array(case.x), dbias.array if with_bias else None
    options = {"dbias": given, "workspace": workspace.array, "plan": plan, "adders": (8, 2)}
    depthwise_grad.conv2d_weight_grad(dy, x, dweight.array, case.window, case.groups, stream(x), **options)
    workspace.result()  # all of it written, nothing beside it
    wide_dy, wide_x = double(case.dy), double(case.x)
    terms = case.dy.size // k
    ref, magnitude = (cpu.conv2d_weight_grad(f(wide_dy), f(wide_x), case.window, groups) for f in (np.asarray, np.abs))
    got = dweight.result()
    check(got, ref, magnitude=magnitude, terms=terms, direction="weight_grad")
    if with_bias:
        ref, magnitude = cpu.bias_grad(wide_dy), cpu.bias_grad(np.abs(wide_dy))
        check(dbias.result(), ref, magnitude=magnitude, terms=terms, direction="weight_grad")
    else:
        assert np.isnan(dbias.buffer).all()
    return got


@pytest.mark.parametrize(("with_bias", "relu"), [(False, False), (True, True)])
def test_forward(device: Device, case: Case, with_bias: bool, relu: bool) -> None:
    forward(device, case, with_bias, relu)


def test_input_grad(device: Device, case: Case) -> None:
    input_grad(device, case)


@pytest.mark.parametrize("name", ["multiplier", "groups-of-4"])
def test_input_grad_with_relu(device: Device, name: str) -> None:
    """Zeros among the input as well, where the gradient is 0 whatever comes down."""
    case = CASES[name]()
    relu = np.maximum(case.x, 0)
    assert (relu == 0).any() and (relu > 0).any()
    input_grad(device, case, relu)


def test_weight_grad(device: Device, case: Case) -> None:
    weight_grad(device, case, case.plan())


def test_the_launchers_own_plan(device: Device) -> None:
    weight_grad(device, Case(1, 1, (4, 4), (2, 2)), None)
    weight_grad(device, Case(1, 2, (4, 4), (2, 2), 4, 2), None)


@pytest.mark.parametrize("slice_units", [1, 3, 10, 30, 31])
def test_slices(device: Device, slice_units: int) -> None:
    """Slices that end in the middle of a row, slices with a unit for some threads only, and one that holds everything."""
    case = CASES["primes"]()
    plan = case.plan()
    assert plan.units == 2 * 1 * 15
    weight_grad(device, case, dataclasses.replace(plan, slice_units=slice_units))


def test_no_bias_gradient(device: Device) -> None:
    case = CASES["multiplier-stride-dilation"]()
    weight_grad(device, case, case.plan(), with_bias=False)


def test_the_same_bits_every_time(device: Device) -> None:
    case = CASES["multiplier-stride-dilation"]()
    plan = case.plan(slice_units=3)
    assert weight_grad(device, case, plan).tobytes() == weight_grad(device, case, plan).tobytes()


def test_nan_and_infinity(device: Device) -> None:
    case = CASES["more-than-a-strip"]()
    case.x[0, 0, 1, 1], case.x[0, 0, 12, 2] = np.nan, np.inf
    out = Output(device, case.dy.shape)
    x = device.array(case.x)
    depthwise.conv2d(x, device.array(case.weight), device.array(case.bias), out.array, case.window, case.groups, True, stream(x))
    with np.errstate(invalid="ignore"):
        ref = cpu.conv2d(case.x, case.weight, case.bias, case.window, relu=True)
    got = out.result(nan=True)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(ref))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(ref))


def test_what_fits() -> None:
    small = conv_window((9, 9), (3, 3))
    assert depthwise.fits(32, 32, small) and depthwise.fits(32, 64, small)
    assert not depthwise.fits(32, 48, small)
    assert depthwise.fits(8, 8, conv_window((56, 56), (7, 7), 1, 3))
    assert not depthwise.fits(8, 8, conv_window((56, 56), (9, 9)))
    assert not depthwise.fits(8, 8, conv_window((56, 56), (3, 3), 6))
    assert not depthwise.fits(8, 8, conv_window((99, 99), (3, 3), dilation=(32, 1)))
    assert not depthwise.fits(8, 8, conv_window((99, 99), (3, 3), dilation=(1, 32)))


def test_which_groups_fit() -> None:
    window = conv_window((9, 9), (3, 3))
    assert depthwise.fits(128, 128, window, 32) and depthwise.fits(32, 4, window, 2) and depthwise.fits(6, 9, window, 3)
    assert not depthwise.fits(34, 4, window, 2) and not depthwise.fits(4, 34, window, 2)  # too many
    assert not depthwise.fits(4, 4, window, 1) and not depthwise.fits(9, 4, window, 2) and not depthwise.fits(4, 9, window, 2)
    for group, together in (((4, 4), 4), ((4, 6), 2), ((4, 3), 1), ((1, 4), 1)):
        strip = strip_of(window, group)
        assert strip is not None and strip.filters == together and strip.summed == (group[0] > 1)


def test_strips_are_of_about_one_length() -> None:
    for size, length in ((112, 8), (56, 8), (28, 7), (14, 7), (9, 5), (7, 7), (1, 1)):
        strip = strip_of(conv_window((size, size), (3, 3), 1, 1))
        assert strip is not None and strip.length == length


def test_what_is_refused() -> None:
    window = conv_window((4, 4), (3, 3))
    x, weight, y = (np.zeros(shape, np.float32) for shape in ((1, 2, 4, 4), (2, 1, 3, 3), (1, 2, 2, 2)))
    with pytest.raises(ValueError, match="weight has shape"):
        depthwise.conv2d(x, weight.repeat(2, axis=1), None, y, window)
    with pytest.raises(ValueError, match="given 2 channels, 3 filters"):
        depthwise.conv2d(x, weight.repeat(3, axis=0)[:3], None, y, window)
    with pytest.raises(ValueError, match="relu has shape"):
        depthwise_input_grad.conv2d_input_grad(y, weight, x, window, relu=x[:, :1])
    with pytest.raises(ValueError, match="workspace holds 3 numbers, and"):
        depthwise_grad.conv2d_weight_grad(y, x, weight, window, workspace=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="given 4 channels, 34 filters, 2 groups"):
        depthwise.group_of(4, 34, window, 2)
    with pytest.raises(ValueError, match="up to 16 channels, or as many groups as channels, given 2 groups and 40 channels"):
        depthwise.group_of(40, 4, window, 2)
    with pytest.raises(ValueError, match="as many groups as channels, given 1 groups and 2 channels"):
        depthwise.conv2d(x, weight, None, y, window, 1)

"""The gradient of a first layer's input by a kernel of its own, against the CPU's in float64 and the plain kernel's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from direct_cases import CASES, Case, any_case
from hypothesis import HealthCheck, given, settings
from kernel_harness import COMPILED, Output, cases, double

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn.ops.cuda._arrays import stream
from gpucnn.ops.shapes import Window, conv_window
from gpucnn_kernels.conv import direct_input_grad, plain
from gpucnn_kernels.conv.direct_input_plan import Plan, plan_of
from tolerances import check

QUICK = ("dilation-stride",)
ROOM = 12288  # words of shared memory that a block has on every chip


@pytest.fixture(params=cases(CASES, QUICK))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def small_plan(case: Case, own: int = 1, across: int = 3, shares: int = 2, filters: int = 4, rows: int = 1, columns: int = 1) -> Plan:
    """Several blocks down and across, several turns, and filters beyond the last."""
    stride_h, stride_w = case.window.stride
    return Plan(case.window, case.sizes[1], own, (rows * stride_h, columns * stride_w), across, shares, filters)


def input_grad(device: Device, case: Case, plan: Plan | None, relu: bool = False) -> Any:
    case.x = np.maximum(case.x, 0)  # as ReLU leaves it
    dy, weight, x = map(device.array, (case.dy, case.weight, case.x))
    out = Output(device, case.x.shape)
    direct_input_grad.conv2d_input_grad(dy, weight, out.array, case.window, 1, stream(x), relu=x if relu else None, plan=plan)
    got, mask = out.result(), case.x if relu else None
    ref = cpu.conv2d_input_grad(double(case.dy), double(case.weight), case.window, relu=mask)
    magnitude = cpu.conv2d_input_grad(np.abs(double(case.dy)), np.abs(double(case.weight)), case.window)
    check(got, ref, magnitude=magnitude, terms=case.weight.size // case.sizes[1], direction="input_grad")
    return got


def test_small_tiles(device: Device, case: Case) -> None:
    for relu in (False, True):
        input_grad(device, case, small_plan(case), relu)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("name", [pytest.param(name, marks=COMPILED) for name in ("first-layer", "same-stride", "asymmetric")])
def test_all_channels_to_a_thread(device: Device, name: str, relu: bool) -> None:
    """And more pixels, in one block."""
    case = CASES[name]()
    input_grad(device, case, small_plan(case, case.sizes[1], 16, 3, 6, 2, 3), relu)


@pytest.mark.parametrize("case", [pytest.param(name, marks=COMPILED) for name in CASES], indirect=True)
def test_the_launchers_own_plan(device: Device, case: Case) -> None:
    """Beside the plain kernel too: the same sums in another order."""
    got, out = input_grad(device, case, None), Output(device, case.x.shape)
    dy = device.array(case.dy)
    plain.conv2d_input_grad(dy, device.array(case.weight), out.array, case.window, 1, stream(dy))
    magnitude = cpu.conv2d_input_grad(np.abs(double(case.dy)), np.abs(double(case.weight)), case.window)
    check(got, double(out.result()), magnitude=magnitude, terms=2 * case.weight.size // case.sizes[1], direction="input_grad")


@pytest.mark.parametrize("across", [1, pytest.param(5, marks=COMPILED)])
@pytest.mark.parametrize(("shares", "filters"), [(1, 1), *(pytest.param(*each, marks=COMPILED) for each in ((2, 4), (7, 7), (3, 9)))])
def test_shares_and_turns(device: Device, across: int, shares: int, filters: int) -> None:
    """Each a part of what there is, or more."""
    case = Case(2, 1, (4, 5), 5, (2, 1), padding=1)
    input_grad(device, case, small_plan(case, 1, across, shares, filters, 2))


def test_the_same_bits_every_time_and_where_images_lie_apart(device: Device) -> None:
    case = Case(2, 1, (4, 5), 5, (2, 1), padding=1)
    plan = small_plan(case, 1, 1, 1, 1, 2)
    expected = input_grad(device, case, plan)
    np.testing.assert_array_equal(input_grad(device, case, plan), expected)
    k, out, weight = case.sizes[2], Output(device, case.x.shape), device.array(case.weight)
    apart = device.array(np.pad(case.dy, ((0, 0), (3, 2), (0, 0), (0, 0)), constant_values=np.nan))[:, 3 : 3 + k]
    direct_input_grad.conv2d_input_grad(apart, weight, out.array, case.window, 1, stream(weight), plan=plan)
    np.testing.assert_array_equal(out.result(), expected)


def test_nan_and_infinity_reach_the_pixels_that_were_read(device: Device) -> None:
    """And no others; a mask of NaN is not positive."""
    case = CASES["dilation-stride"]()
    case.dy[0, 1, 1, 0], case.dy[0, 2, 0, 1], case.x[0, 0, 0, 0] = np.nan, np.inf, np.nan
    dy, weight, x = map(device.array, (case.dy, case.weight, case.x))
    for relu in (None, x):
        out = Output(device, case.x.shape)
        direct_input_grad.conv2d_input_grad(dy, weight, out.array, case.window, 1, stream(x), relu=relu, plan=small_plan(case))
        with np.errstate(invalid="ignore"):
            ref = cpu.conv2d_input_grad(case.dy, case.weight, case.window, relu=None if relu is None else case.x)
        got = out.result(nan=True)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(ref))
        np.testing.assert_array_equal(np.isinf(got), np.isinf(ref))
        assert np.isfinite(got).any() and np.isnan(got).any() and (relu is not None or np.isinf(got).any())


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_case())
def test_any_legal_window(device: Device, case: Case) -> None:
    input_grad(device, case, small_plan(case), relu=True)
    input_grad(device, case, None)


SHAPES: list[tuple[int, int, Window]] = [  # channels, filters
    (1, 32, conv_window((28, 28), (5, 5), padding="same")),
    (1, 32, conv_window((28, 28), (3, 3))),
    (1, 7, conv_window((13, 300), (7, 7), (1, 2), 3)),
    (2, 16, conv_window((31, 33), (2, 5), 2, dilation=(2, 3))),
    (3, 64, conv_window((224, 224), (7, 7), 2, 3)),
    (3, 64, conv_window((224, 224), (11, 11), 4, 2)),
    (3, 64, conv_window((32, 32), (3, 3), padding=1)),
    (4, 1, conv_window((1, 1), (1, 1))),
    (4, 33, conv_window((64, 1000), (3, 3), (3, 4), 1)),
]


@pytest.mark.parametrize(("channels", "filters", "window"), SHAPES)
def test_no_bank_is_read_twice_at_a_time(channels: int, filters: int, window: Window) -> None:
    """Whatever number of dy a warp's threads read, their words are the same or in different banks, with tiles and shares of any kind."""
    plan = plan_of(channels, filters, window)
    assert plan is not None and plan.threads <= 256 and plan.shared <= ROOM
    threads = np.arange(plan.working)
    own, share = threads % plan.across, threads // plan.threads_per_share
    words = share * plan.plane + own  # each number of dy lies a constant further (`number` in the kernel)
    for first in range(0, plan.working, 32):
        of_warp = set(words[first : first + 32].tolist())
        assert len({word % 32 for word in of_warp}) == len(of_warp)


@pytest.mark.parametrize(("channels", "filters", "window"), SHAPES)
def test_tiles_cover_an_image_and_what_has_read_it(channels: int, filters: int, window: Window) -> None:
    """By brute force along each axis: every pixel is in a tile, and every tap that has read it is among its tile's numbers."""
    plan = plan_of(channels, filters, window)
    assert plan is not None
    for axis in (0, 1):
        size, stride, dilation, taps = window.input[axis], window.stride[axis], window.dilation[axis], window.kernel[axis]
        before, length = window.padding[axis][0], plan.tile[axis]
        assert plan.step[axis] * stride == length
        assert (plan.tiles[axis] - 1) * length < size + before % stride <= plan.tiles[axis] * length
        for place in range(size):
            tile = (place + before % stride) // length
            first = before // stride + tile * plan.step[axis] + plan.first[axis]
            for tap in range(taps):
                row, rest = divmod(place + before - tap * dilation, stride)
                assert rest or first <= row < first + plan.seen[axis]


def test_what_fits() -> None:
    def fits(channels: int, window: Window) -> bool:
        return plan_of(channels, 32, window) is not None

    assert fits(1, conv_window((28, 28), (5, 5), padding="same")) and fits(4, conv_window((1, 1), (1, 1)))
    assert not fits(5, conv_window((28, 28), (5, 5)))
    assert not fits(1, conv_window((28, 28), (12, 12)))
    assert not fits(1, conv_window((300, 300), (3, 3), dilation=64))  # a tile reaches over too much of dy
    assert not fits(1, conv_window((90, 90), (3, 3), 9))  # and with this stride over too many pixels
    plan = plan_of(1, 3, conv_window((28, 28), (5, 5)))
    assert plan is not None and plan.shares <= 3


def test_what_is_refused() -> None:
    window = conv_window((4, 4), (3, 3))
    dy, weight, dx = (np.zeros(shape, np.float32) for shape in ((1, 2, 2, 2), (2, 1, 3, 3), (1, 1, 4, 4)))
    with pytest.raises(ValueError, match=r"for up to 4 channels and 128 taps.*given 5 channels"):
        direct_input_grad.conv2d_input_grad(dy, np.zeros((2, 5, 3, 3), np.float32), np.zeros((1, 5, 4, 4), np.float32), window)
    with pytest.raises(ValueError, match="for one group, given 2"):
        direct_input_grad.conv2d_input_grad(dy, weight, dx, window, 2)
    with pytest.raises(ValueError, match="weight has shape"):
        direct_input_grad.conv2d_input_grad(dy, weight[:, :, :2], dx, window)
    with pytest.raises(ValueError, match="relu has shape"):
        direct_input_grad.conv2d_input_grad(dy, weight, dx, window, relu=dy)
    with pytest.raises(ValueError, match="dy has shape"):
        direct_input_grad.conv2d_input_grad(dx, weight, dx, window)
    with pytest.raises(ValueError, match="dx has shape"):
        direct_input_grad.conv2d_input_grad(dy, weight, dx[:, :, :3], window)

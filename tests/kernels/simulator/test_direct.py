"""The direct convolution of few channels against the CPU's in float64: forward, gradient of weight and of bias."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from direct_cases import CASES, QUICK, Case, any_case
from hypothesis import HealthCheck, given, settings
from kernel_harness import COMPILED, Output, cases, double

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn.ops.cuda._arrays import stream
from gpucnn.ops.shapes import conv_window
from gpucnn_kernels.conv import direct, direct_grad, direct_plan
from gpucnn_kernels.conv.parts import GradPlan
from gpucnn_kernels.conv.patch import patch_of
from tolerances import check


@pytest.fixture(params=cases(CASES, QUICK))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def forward(device: Device, case: Case, plan: direct_plan.Plan | None, with_bias: bool = True, relu: bool = False) -> Any:
    bias = case.bias if with_bias else None
    out = Output(device, case.dy.shape)
    x, weight = device.array(case.x), device.array(case.weight)
    given = None if bias is None else device.array(bias)
    direct.conv2d(x, weight, given, out.array, case.window, 1, relu, stream(x), plan=plan)
    wide = None if bias is None else double(bias)
    ref = cpu.conv2d(double(case.x), double(case.weight), wide, case.window, relu=relu)
    wide = None if wide is None else np.abs(wide)
    magnitude = cpu.conv2d(np.abs(double(case.x)), np.abs(double(case.weight)), wide, case.window)
    got = out.result()
    check(got, ref, magnitude=magnitude, terms=case.weight[0].size, direction="forward")
    return got


def weight_grad(device: Device, case: Case, plan: GradPlan, with_bias: bool = True) -> None:
    """Also with NaN in the workspace, and with a margin behind it that must stay as it is."""
    k = case.sizes[2]
    dweight, dbias = Output(device, case.weight.shape), Output(device, (k,))
    workspace = Output(device, (plan.parts * k * (case.weight[0].size + 1),))
    dy, x = device.array(case.dy), device.array(case.x)
    given = dbias.array if with_bias else None
    options = {"dbias": given, "workspace": workspace.array, "plan": plan, "adders": (8, 2)}
    direct_grad.conv2d_weight_grad(dy, x, dweight.array, case.window, 1, stream(x), **options)
    workspace.result()  # all of it written, nothing beside it
    wide_dy, wide_x = double(case.dy), double(case.x)
    terms = case.dy.size // k
    ref, magnitude = (cpu.conv2d_weight_grad(f(wide_dy), f(wide_x), case.window) for f in (np.asarray, np.abs))
    check(dweight.result(), ref, magnitude=magnitude, terms=terms, direction="weight_grad")
    if with_bias:
        ref, magnitude = cpu.bias_grad(wide_dy), cpu.bias_grad(np.abs(wide_dy))
        check(dbias.result(), ref, magnitude=magnitude, terms=terms, direction="weight_grad")
    else:
        assert np.isnan(dbias.buffer).all()


def small_plan(case: Case, threads: int = 16, **changes: int) -> direct_plan.Plan:
    _, c, k = case.sizes
    plan = direct_plan.plan_of(c, k, case.window, threads=threads)
    assert plan is not None
    return dataclasses.replace(plan, **changes)


def small_grad_plan(case: Case, threads: int = 8, blocks: int = 3) -> GradPlan:
    plan = direct_plan.grad_plan_of(*case.sizes, case.window, threads=threads, blocks=blocks)
    assert plan is not None
    return plan


@pytest.mark.parametrize(("with_bias", "relu"), [(False, False), (True, True)])
def test_forward(device: Device, case: Case, with_bias: bool, relu: bool) -> None:
    forward(device, case, small_plan(case), with_bias, relu)


def test_weight_grad(device: Device, case: Case) -> None:
    weight_grad(device, case, small_grad_plan(case))


def test_the_launchers_own_plans(device: Device) -> None:
    case = Case(1, 1, (6, 6), 5, (3, 3), padding=1)
    forward(device, case, None)
    n, c, k = case.sizes
    dweight, dbias = Output(device, case.weight.shape), Output(device, (k,))
    workspace = Output(device, (direct_grad.workspace_size(n, c, k, case.window),))
    dy, x = device.array(case.dy), device.array(case.x)
    direct_grad.conv2d_weight_grad(dy, x, dweight.array, case.window, 1, stream(x), dbias=dbias.array, workspace=workspace.array)
    workspace.result()
    np.testing.assert_allclose(dweight.result(), cpu.conv2d_weight_grad(double(case.dy), double(case.x), case.window), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dbias.result(), cpu.bias_grad(double(case.dy)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [8, pytest.param(64, marks=COMPILED)])
def test_stretches_and_warps(device: Device, threads: int) -> None:
    """Stretches that begin in the middle of a row, several warps, and warps with nothing to do, give the same bits."""
    case = CASES["same-stride"]()
    np.testing.assert_array_equal(forward(device, case, small_plan(case, threads)), forward(device, case, small_plan(case, 16)))


@pytest.mark.parametrize(("filters", "positions"), [(16, 2), pytest.param(8, 4, marks=COMPILED)])
def test_two_filters_of_four_at_a_time(device: Device, filters: int, positions: int) -> None:
    case = Case(1, 2, (5, 5), 17, (2, 2))
    patch = patch_of(2, case.window, 8 * positions)
    assert patch is not None
    forward(device, case, direct_plan.Plan(patch, 8, filters, positions))


@pytest.mark.parametrize(("blocks", "threads"), [(1, 8), (6, 8), pytest.param(6, 16, marks=COMPILED), (1000, 8)])
def test_slices_of_images(device: Device, blocks: int, threads: int) -> None:
    case = Case(3, 1, (8, 8), 5, (5, 5), padding="same")
    weight_grad(device, case, small_grad_plan(case, threads, blocks))


@pytest.mark.parametrize(("threads", "sharing"), [(8, 2), pytest.param(16, 4, marks=COMPILED), pytest.param(64, 2, marks=COMPILED)])
@pytest.mark.parametrize("name", ["filters", pytest.param("bands", marks=COMPILED)])
def test_parts_of_a_block_share_the_pixels(device: Device, name: str, threads: int, sharing: int) -> None:
    """Each has filters of its own: more of them than there are, or more than a block's."""
    case = {
        "filters": lambda: Case(3, 2, (7, 5), 21, (3, 2), padding=((1, 0), (0, 2)), stride=(1, 2)),
        "bands": lambda: Case(2, 1, (5, 16), 3, (3, 3), padding=1),
    }[name]()
    plan = direct_plan.grad_plan_of(*case.sizes, case.window, threads=threads, blocks=5, sharing=sharing)
    assert plan is not None and plan.lanes * sharing == threads and plan.own_filters == 4 * sharing
    weight_grad(device, case, plan)


def test_which_blocks_share_pixels() -> None:
    """Where there are enough for all. Blocks whose threads have many sums are fewer."""
    stem, small = (256, 3, 64, conv_window((56, 56), (3, 3), 2, 1)), (128, 1, 32, conv_window((28, 28), (5, 5), padding="same"))
    many, few = direct_plan.grad_plan_of(*stem), direct_plan.grad_plan_of(*small)
    assert many is not None and few is not None
    assert many.sharing == 4 and many.slice_units >= 4 and many.slices * 4 <= 384 and few.sharing == 1 and few.slices * 8 == 512


def test_no_bias_gradient(device: Device) -> None:
    case = CASES["same-stride"]()
    weight_grad(device, case, small_grad_plan(case), with_bias=False)


def test_an_image_in_several_units(device: Device) -> None:
    case = Case(2, 1, (7, 6), 2, (2, 2), stride=(1, 2))
    plan = small_grad_plan(case)
    patch = patch_of(1, case.window, 8)
    assert patch is not None
    weight_grad(device, case, dataclasses.replace(plan, patch=patch, stretch=8, units=2 * 3, slice_units=2))


@pytest.mark.parametrize("group_rows", [pytest.param(3, marks=COMPILED), 4])
def test_taps_in_groups(device: Device, group_rows: int) -> None:
    """42 taps are more than a thread holds: rows of them go to two groups, of the same size or not."""
    case = Case(1, 3, (4, 6), 1, (2, 7), padding=1)
    plan = small_grad_plan(case)
    assert plan.tap_groups == 2 and plan.group_rows == 3
    weight_grad(device, case, dataclasses.replace(plan, group_rows=group_rows))


def test_the_same_bits_every_time(device: Device) -> None:
    case = CASES["same-stride"]()
    plan, results = small_grad_plan(case), []
    for _ in range(2):
        dweight = Output(device, case.weight.shape)
        workspace = device.xp.empty(plan.parts * (case.weight.size + case.bias.size), "float32")
        dy, x = device.array(case.dy), device.array(case.x)
        options = {"workspace": workspace, "plan": plan, "adders": (8, 2)}
        direct_grad.conv2d_weight_grad(dy, x, dweight.array, case.window, 1, stream(x), **options)
        results.append(dweight.result())
    np.testing.assert_array_equal(*results)


def test_nan_and_infinity(device: Device) -> None:
    case = Case(1, 1, (6, 6), 5, (3, 3), padding=1)
    case.x[0, 0, 1, 1], case.x[0, 0, 5, 5] = np.nan, np.inf
    out = Output(device, case.dy.shape)
    x = device.array(case.x)
    arrays = x, device.array(case.weight), device.array(case.bias), out.array
    direct.conv2d(*arrays, case.window, 1, True, stream(x))
    with np.errstate(invalid="ignore"):
        ref = cpu.conv2d(case.x, case.weight, case.bias, case.window, relu=True)
    got = out.result(nan=True)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(ref))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(ref))


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_case())
def test_any_legal_window(device: Device, case: Case) -> None:
    forward(device, case, small_plan(case), relu=True)
    weight_grad(device, case, small_grad_plan(case, blocks=2))


def test_what_fits() -> None:
    assert direct.fits(1, conv_window((28, 28), (5, 5), padding="same"))
    assert direct.fits(3, conv_window((224, 224), (7, 7), 2, 3))
    assert not direct.fits(5, conv_window((28, 28), (5, 5)))
    assert not direct.fits(4, conv_window((28, 28), (5, 5)), groups=2)
    assert not direct.fits(1, conv_window((28, 28), (12, 12)))
    long = conv_window((40, 40), (1, 29))  # more taps in a row than a thread of the gradient has sums of
    assert direct.fits(1, long) and not direct_grad.fits(1, long)
    wide = conv_window((8, 5000), (3, 3))  # 4998 positions are in bands of 17 × 294
    assert direct.fits(4, wide) and direct_grad.fits(4, wide)
    prime = conv_window((8, 5005), (3, 3))  # and 5003 are not in any bands of equal width
    assert direct.fits(4, prime) and not direct_grad.fits(4, prime)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [5, 13, 28, 32, 224])
@pytest.mark.parametrize(("stride", "side"), [(1, 1), (2, 1), (1, 2)])
def test_neighbours_lie_in_neighbouring_banks(channels: int, size: int, stride: int, side: int) -> None:
    """Whatever the tap: a warp's positions are in 32 different banks, across the ends of rows as well."""
    window = conv_window((size, size), (3, 3), stride, 1)
    plan = direct_plan.plan_of(channels, 16, window, side)
    assert plan is not None and plan.shared <= 12288 and plan.start % 4 == 0
    places = np.arange(32)
    words = places // plan.patch.across * plan.patch.pitch + places % plan.patch.across
    assert len(set(words % 32)) == 32


BANDS = {
    "ragged": lambda: Case(2, 2, (9, 13), 5, (3, 3), padding=1),  # bands of 5, 5 and 3 columns
    "stride": lambda: Case(1, 3, (11, 23), 9, (3, 4), padding=(1, 2), stride=2),
    "even": lambda: Case(2, 1, (7, 12), 3, (3, 3), padding=1),
    "dilation": lambda: Case(1, 1, (9, 20), 4, (2, 2), dilation=(1, 3), stride=(3, 1), padding=((0, 1), (2, 1))),
}


def cut_plan(case: Case, bands: int, turns: int = 1, threads: int = 8) -> direct_plan.Plan:
    """In so many bands of columns, and with the channels in so many turns."""
    _, c, k = case.sizes
    width, positions = case.window.output[1], 4
    patch = patch_of(c // turns, case.window, threads * positions, across=-(-width // bands))
    assert patch is not None and -(-width // patch.across) == bands
    return direct_plan.Plan(patch, threads, 8 if k > 4 else 4, positions, bands, turns)


@pytest.mark.parametrize(
    ("name", "bands"),
    [
        pytest.param(name, bands, marks=() if (name, bands) in (("ragged", 3), ("stride", 2)) else COMPILED)
        for bands in (2, 3)
        for name in BANDS
    ],
)
def test_bands_of_columns(device: Device, name: str, bands: int) -> None:
    """The same bits as whole rows; also where the last band is narrower, and where a stretch ends within a row."""
    case = BANDS[name]()
    np.testing.assert_array_equal(forward(device, case, cut_plan(case, bands)), forward(device, case, cut_plan(case, 1)))


@pytest.mark.parametrize(("name", "bands"), [("stride", 3), pytest.param("ragged", 1, marks=COMPILED)])
def test_a_channel_at_a_time(device: Device, name: str, bands: int) -> None:
    """The same bits as all channels at once; every thread is there for all turns, also one without a position."""
    case = BANDS[name]()
    plan = cut_plan(case, bands, case.sizes[1])
    np.testing.assert_array_equal(forward(device, case, plan, relu=True), forward(device, case, cut_plan(case, 1), relu=True))


@pytest.mark.parametrize("name", cases({key: BANDS[key] for key in ("even", "dilation")}, ("even",)))
@pytest.mark.parametrize("bands", [pytest.param(2, marks=COMPILED), 4])
def test_weight_gradient_by_bands(device: Device, name: str, bands: int) -> None:
    """Each a part of a column's positions, in units of 8 positions and of more."""
    case = BANDS[name]()
    n, c, _ = case.sizes
    (P, Q), plan = case.window.output, small_grad_plan(case)
    assert Q % bands == 0
    for stretch in (8, 24):
        patch = patch_of(c, case.window, stretch, across=Q // bands)
        assert patch is not None
        units = n * bands * -(-P * Q // bands // stretch)
        weight_grad(device, case, dataclasses.replace(plan, patch=patch, stretch=stretch, bands=bands, units=units, slice_units=2))


@pytest.mark.parametrize("kernel", [(3, 3), (7, 7), (11, 11)])
@pytest.mark.parametrize(("hw", "stride"), [(224, 1), (224, 2), (224, 4), (512, 2), (1021, 3)])
def test_what_a_block_copies_of_a_large_image(hw: int, stride: int, kernel: tuple[int, int]) -> None:
    """Not much more than its positions read, wherever they lie: bands, where whole rows would be too much."""
    window = conv_window((hw, hw), kernel, stride, kernel[0] // 2)
    plan = direct_plan.plan_of(3, 64, window)
    assert plan is not None
    least = plan.stretch * stride**2
    assert plan.patch.rows * plan.patch.columns <= 2 * (least + kernel[0] * kernel[1])
    assert 0 < plan.patch.across * plan.bands - window.output[1] < plan.patch.across or plan.patch.across * plan.bands == window.output[1]


def test_what_is_refused() -> None:
    window = conv_window((4, 4), (3, 3))
    x, weight, y = (np.zeros(shape, np.float32) for shape in ((1, 1, 4, 4), (2, 1, 3, 3), (1, 2, 2, 2)))
    with pytest.raises(ValueError, match="weight has shape"):
        direct.conv2d(x, weight[:, :, :2], None, y, window)
    with pytest.raises(ValueError, match="for up to 4 channels"):
        direct.conv2d(np.zeros((1, 5, 4, 4), np.float32), np.zeros((2, 5, 3, 3), np.float32), None, y, window)
    with pytest.raises(ValueError, match="workspace holds 3 numbers, and"):
        direct_grad.conv2d_weight_grad(y, x, weight, window, workspace=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="there is no workspace, and one of"):
        direct_grad.conv2d_weight_grad(y, x, weight, window)
    with pytest.raises(ValueError, match="for one group, given 2"):
        direct.conv2d(x, weight, None, y, window, 2)

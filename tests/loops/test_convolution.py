"""Every road of a convolution against the NumPy reference in float64."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_cases import DEPTHWISE, DIRECT, PIXELS, POINTWISE, WHOLE, WINOGRAD, arrays, check_weight, hold, nan_like, plan_of, window_of

from gpucnn.ops.cpu import conv as reference
from gpucnn.ops.cpu import roads
from gpucnn.ops.shapes import conv_window
from gpucnn_loops import pixel_sums, pointwise, tables
from gpucnn_loops.after import Norm
from gpucnn_loops.depthwise import Depthwise
from gpucnn_loops.direct import Direct
from gpucnn_loops.pixel_sums import PixelSums
from gpucnn_loops.pixels import Pixels, back, gains
from gpucnn_loops.pointwise import Pointwise
from gpucnn_loops.whole import Whole
from gpucnn_loops.winograd_plan import Winograd, fits


@pytest.mark.parametrize(
    ("case", "road"),
    [
        (case, road)
        for cases, road in ((DIRECT, Direct), (DEPTHWISE, Depthwise), (PIXELS, Pixels), (WHOLE, Whole), (WINOGRAD, Winograd))
        for case in cases
    ],
)
def test_each_pass_is_the_references(case: tuple[Any, ...], road: type, rng: np.random.Generator) -> None:
    given = arrays(case, rng)
    plan = plan_of(given)
    assert type(plan) is road or (road is Direct and type(plan) in (Pixels, Pointwise, Whole))
    hold(plan, given)


@pytest.mark.parametrize("case", [*DIRECT, *DEPTHWISE, *PIXELS, *POINTWISE, *WHOLE, *WINOGRAD])
def test_the_direct_road_takes_every_shape(case: tuple[Any, ...], rng: np.random.Generator) -> None:
    given = arrays(case, rng)
    hold(Direct(given["x"].shape[1], len(given["bias"]), given["window"], given["groups"]), given)


@pytest.mark.parametrize("case", [case for case in (*DIRECT, *PIXELS, *POINTWISE, *WHOLE) if pointwise.fits(window_of(case))])
@pytest.mark.parametrize("threads", [1, 3])
def test_pointwise_is_the_direct_road_to_the_bit(
    case: tuple[Any, ...], threads: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pointwise, "LARGE", 1)
    monkeypatch.setattr(pointwise, "MANY", 1)
    monkeypatch.setattr(tables, "number", lambda: threads)  # the channels of y are divided among them
    a = arrays(case, rng)
    size = a["x"].shape[1], len(a["bias"]), a["window"], a["groups"]
    plan, direct = Pointwise(*size), Direct(*size)
    hold(plan, a)
    monkeypatch.setattr(plan, "direct", None)  # nothing more goes there
    numbers = rng.random((4, len(a["bias"])), dtype=np.float32)
    for bias, norm, added in ((a["bias"], Norm(*numbers, 1e-3), a["dy"]), (None, None, a["dy"]), (a["bias"], None, None)):
        for relu in (False, True):
            y, expected = nan_like(a["dy"]), nan_like(a["dy"])
            plan.forward(a["x"], a["weight"], bias, relu, y, norm, added)
            direct.forward(a["x"], a["weight"], bias, relu, expected, norm, added)
            np.testing.assert_array_equal(y.view(np.int32), expected.view(np.int32))
    for mask in (None, a["x"]):
        dx, expected = nan_like(a["x"]), nan_like(a["x"])
        plan.input_grad(a["dy"], a["weight"], mask, dx)
        direct.input_grad(a["dy"], a["weight"], mask, expected)
        np.testing.assert_array_equal(dx, expected)  # 0 may have either sign where no pixel of dy belongs


@st.composite
def pointwises(draw: st.DrawFn) -> tuple[Any, ...]:
    groups, each = draw(st.sampled_from([1, 1, 2])), st.one_of(st.integers(1, 3), st.integers(15, 140))
    n, h, w, stride = draw(st.integers(1, 9)), draw(st.integers(1, 19)), draw(st.integers(1, 19)), draw(st.sampled_from([1, 1, 2, 3]))
    return n, groups * draw(each), h, w, groups * draw(each), 1, 1, stride, 0, 1, groups


@given(pointwises(), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_pointwise(case: tuple[Any, ...], seed: int) -> None:
    a = arrays(case, np.random.default_rng(seed))
    with mock.patch.multiple(pointwise, LARGE=1, MANY=1):
        hold(Pointwise(a["x"].shape[1], len(a["bias"]), a["window"], a["groups"]), a)


def test_a_large_weight_is_not_turned_for_few_pixels(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    for name in ("forward", "input_grad"):
        monkeypatch.setattr(Direct, name, lambda self, *arrays, name=name: called.append(name))

    def direct(n: int, c: int, side: int, k: int, stride: int = 1) -> list[str]:
        called.clear()
        a = arrays((n, c, side, side, k, 1, 1, stride, 0, 1, 1), rng)
        plan = plan_of(a)
        plan.forward(a["x"], a["weight"], None, False, nan_like(a["dy"]))
        plan.input_grad(a["dy"], a["weight"], None, nan_like(a["x"]))
        return list(called)

    assert direct(1, 512, 7, 512) == ["input_grad"] and direct(6, 512, 7, 512) == []
    assert direct(1, 64, 7, 64) == ["input_grad"] and direct(2, 64, 7, 64) == ["forward", "input_grad"]
    assert direct(2, 512, 14, 512, 2) == ["input_grad"] and direct(6, 256, 14, 1024, 2) == []


def by_row(case: tuple[Any, ...]) -> bool:
    window = window_of(case)
    return window.stride[1] == 1 and min(before for before, _ in window.padding) >= 0


@pytest.mark.parametrize("case", [case for case in (*DIRECT, *PIXELS, *WHOLE, *WINOGRAD) if by_row(case)])
@pytest.mark.parametrize("threads", [1, 3])
def test_sums_of_pixels_take_every_shape_at_a_step_of_one(
    case: tuple[Any, ...], threads: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "number", lambda: threads)  # an image is divided among them
    a = arrays(case, rng)
    got, dbias = nan_like(a["weight"]), nan_like(a["bias"])
    PixelSums(a["x"].shape[1], len(a["bias"]), a["window"], a["groups"]).weight_grad(a["dy"], a["x"], got, dbias)
    check_weight(got, dbias, a)
    monkeypatch.undo()
    again = nan_like(got)
    PixelSums(a["x"].shape[1], len(a["bias"]), a["window"], a["groups"]).weight_grad(a["dy"], a["x"], again, None)
    np.testing.assert_array_equal(got, again)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_pixels_behind_a_row_of_outputs_do_not_count(value: float, rng: np.random.Generator) -> None:
    """The last vector of a row goes on into the next one, whose first pixels meet the first taps alone."""
    a = arrays((2, 2, 9, 30, 4, 3, 3, 1, 0, 1, 1), rng)
    a["x"][1, 1, 5, 0] = a["x"][0, 0, 8, 29] = value
    got = nan_like(a["weight"])
    PixelSums(2, 4, a["window"]).weight_grad(a["dy"], a["x"], got, None)
    met = np.zeros((2, 3, 3), bool)
    met[1, :, 0] = met[0, 2, 2] = True
    np.testing.assert_array_equal(np.isfinite(got), np.broadcast_to(~met, got.shape))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Any, ...]:
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    each = st.one_of(st.integers(1, 3), st.integers(15, 35))
    r, s, dh, dw = (draw(st.integers(1, 4)) for _ in range(4))
    top, bottom, left, right = (draw(st.integers(0, 3)) for _ in range(4))
    h = draw(st.integers(max(1, dh * (r - 1) + 1 - top - bottom), 19))
    w = draw(st.integers(max(1, dw * (s - 1) + 1 - left - right), 19))
    stride = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    n, c, k = draw(st.integers(1, 19)), groups * draw(each), groups * draw(each)
    return n, c, h, w, k, r, s, stride, ((top, bottom), (left, right)), (dh, dw), groups


@given(convolutions(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_any_convolution(case: tuple[Any, ...], seed: int) -> None:
    given = arrays(case, np.random.default_rng(seed))
    hold(plan_of(given), given)


@st.composite
def winograds(draw: st.DrawFn) -> tuple[Any, ...]:
    r = draw(st.sampled_from([3, 5]))
    sides = tuple((draw(st.integers(0, r - 1)), draw(st.integers(0, r - 1))) for _ in range(2))
    h, w = (draw(st.integers(r, 20)) for _ in range(2))
    return draw(st.integers(1, 18)), draw(st.integers(16, 49)), h, w, draw(st.integers(16, 65)), r, r, 1, sides, 1, 1


@given(winograds(), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_winograd(case: tuple[Any, ...], seed: int) -> None:
    given = arrays(case, np.random.default_rng(seed))
    hold(Winograd(given["x"].shape[1], len(given["bias"]), given["window"]), given)


@pytest.mark.parametrize("case", [WINOGRAD[1], WINOGRAD[2], DIRECT[3], DEPTHWISE[1], *PIXELS[1:4], PIXELS[9]])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e37])
def test_what_is_not_finite_means_what_it_means_in_the_reference(case: tuple[Any, ...], value: float, rng: np.random.Generator) -> None:
    a = arrays(case, rng)
    plan, window, groups = plan_of(a), a["window"], a["groups"]
    a["x"][0, 0, 2, 3] = a["dy"][-1, 1, 1, 2] = value
    y, dx, dweight, dbias = (nan_like(a[name]) for name in ("dy", "x", "weight", "bias"))
    with np.errstate(all="ignore"):
        expected = reference.conv2d(a["x"], a["weight"], a["bias"], window, groups)
        plan.forward(a["x"], a["weight"], a["bias"], False, y)
        same_places(y, expected)
        plan.input_grad(a["dy"], a["weight"], None, dx)
        same_places(dx, reference.conv2d_input_grad(a["dy"], a["weight"], window, groups))
        plan.weight_grad(a["dy"], a["x"], dweight, dbias)
        same_places(dweight, reference.conv2d_weight_grad(a["dy"], a["x"], window, groups))
        same_places(dbias, reference.bias_grad(a["dy"]))


def same_places(got: Any, expected: Any) -> None:
    """NaN and each infinity where the reference has them; the reference may have more NaN, since it multiplies padding by weights, too."""
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
    for infinity in (np.inf, -np.inf):
        np.testing.assert_array_equal(got == infinity, expected == infinity)


def test_an_image_that_is_not_finite_changes_no_other(rng: np.random.Generator) -> None:
    a = arrays(WINOGRAD[2], rng)
    plan = plan_of(a)
    before, after = nan_like(a["dy"]), nan_like(a["dy"])
    plan.forward(a["x"], a["weight"], a["bias"], True, before)
    a["x"][3, 1, 4, 4] = np.nan
    plan.forward(a["x"], a["weight"], a["bias"], True, after)
    others = np.delete(np.arange(len(before)), 3)
    np.testing.assert_array_equal(after[others], before[others])


@pytest.mark.parametrize("case", [DIRECT[1], DEPTHWISE[1], PIXELS[1], WINOGRAD[1], (1, 512, 5, 5, 512, 1, 1, 1, 0, 1, 1)])
def test_an_image_has_the_same_bits_in_every_batch(case: tuple[Any, ...], rng: np.random.Generator) -> None:
    a = arrays((17, *case[1:]), rng)
    plan = plan_of(a)
    y, dx = nan_like(a["dy"]), nan_like(a["x"])
    plan.forward(a["x"], a["weight"], a["bias"], True, y)
    plan.input_grad(a["dy"], a["weight"], None, dx)
    for size in (1, 2, 5, 16):
        part, part_dx = nan_like(y[:size]), nan_like(dx[:size])
        plan.forward(a["x"][:size], a["weight"], a["bias"], True, part)
        plan.input_grad(a["dy"][:size], a["weight"], None, part_dx)
        np.testing.assert_array_equal(part, y[:size])
        np.testing.assert_array_equal(part_dx, dx[:size])


def test_winograd_is_for_what_gains_by_it() -> None:
    def window(side: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Any:
        return conv_window((side, side), kernel, stride, padding, dilation)

    assert fits(64, 64, window(13, 3)) and fits(32, 64, window(14, 5, padding=2))
    assert not fits(15, 64, window(13, 3)) and not fits(64, 3, window(13, 3))  # lanes of the transforms would be empty
    assert not fits(64, 64, window(13, 3, stride=2)) and not fits(64, 64, window(13, 3, dilation=2)) and not fits(64, 64, window(13, 4))
    assert not fits(64, 64, window(13, 3), groups=2)
    assert not fits(64, 64, window(4, 3))  # a tile for two outputs


def test_pixels_are_lanes_where_that_gains() -> None:
    def window(side: int, kernel: int, padding: int = 0, stride: int = 1) -> Any:
        return conv_window((side, side), kernel, stride, padding)

    assert gains(1, 6, window(28, 5, 2)) and gains(16, 6, back(window(14, 5))) and gains(64, 64, window(14, 1))
    assert not gains(6, 16, window(14, 5))  # all lanes are filters
    assert not gains(64, 128, window(7, 1))  # 49 pixels in 64 lanes
    of_weight = pixel_sums.gains
    assert of_weight(1, 6, window(28, 5, 2)) and of_weight(3, 6, window(32, 5)) and of_weight(3, 8, window(112, 3, 1))
    assert not of_weight(6, 16, window(14, 5)) and not of_weight(16, 6, window(8, 3, 1))
    assert not of_weight(32, 8, window(28, 1)) and not of_weight(1, 6, window(28, 5, 2, stride=2))
    assert not gains(1, 6, window(28, 5, 2, stride=2)) and not gains(16, 6, back(window(14, 2, 3)))


def test_a_plan_is_made_once_and_knows_no_batch() -> None:
    window = conv_window((9, 9), 3)
    assert roads.convolution(16, 16, window, 1) is roads.convolution(16, 16, conv_window((9, 9), 3), 1)


def test_an_image_whose_frame_is_larger_than_memory_should_hold_goes_to_numpy() -> None:
    assert roads.convolution(1, 1, conv_window((9, 9), 3, 1, 2**13), 1) is None

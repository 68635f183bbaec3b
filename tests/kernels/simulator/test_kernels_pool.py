"""The pooling kernels against the CPU's. Maxima and their places are exact; means are compared in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_harness import Output, distinct, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.errors import ShapeError
from gpucnn.ops import cpu
from gpucnn.ops.shapes import Window, pool_window
from tolerances import check

WINDOWS: dict[str, Window] = {
    "one": pool_window((1, 1), 1),
    "plain": pool_window((6, 4), 2),
    "tail": pool_window((7, 5), 2),
    "overlap": pool_window((7, 5), 3, 2, 1),
    "primes": pool_window((11, 13), (5, 3), (3, 2), (2, 1)),
    "stride-over-kernel": pool_window((9, 8), 2, 3),
    "dilation": pool_window((9, 7), (2, 3), 1, 1, dilation=(3, 2)),
    "asymmetric": pool_window((5, 6), 4, 3, ((2, 0), (1, 2))),
    "ceil": pool_window((7, 6), 3, 2, 1, ceil_mode=True),
    "ceil-overhang": pool_window((9, 7), 3, 3, 1, ceil_mode=True),
    "same": pool_window((7, 6), 3, 2, "same"),
    "same-even": pool_window((5, 5), 2, 2, "same"),
    "global": pool_window((3, 5), (3, 5)),
}


@pytest.fixture(params=WINDOWS)
def window(request: pytest.FixtureRequest) -> Window:
    return WINDOWS[request.param]


def max_pool(device: Device, x: Any, window: Window) -> tuple[Any, Any]:
    y, places = Output(device, (*x.shape[:2], *window.output)), Output(device, (*x.shape[:2], *window.output), "int32")
    got = device.ops.max_pool2d(device.array(x), window, out=y.array, indices=places.array)
    assert got[0] is y.array and got[1] is places.array
    return y.result(nan=True), places.result()


def same_as_cpu(device: Device, x: Any, window: Window) -> None:
    y, places = max_pool(device, x, window)
    ref, ref_places = cpu.max_pool2d(x, window)
    np.testing.assert_array_equal(y, ref)
    np.testing.assert_array_equal(places, ref_places)
    assert places.min() >= 0 and places.max() < window.input[0] * window.input[1]


def max_grad(device: Device, x: Any, window: Window) -> None:
    _, places = cpu.max_pool2d(x, window)
    dy = normal(7, *places.shape)
    out = Output(device, x.shape)
    device.ops.max_pool2d_grad(device.array(dy), device.array(places), window, out=out.array)
    ref = cpu.max_pool2d_grad(double(dy), places, window)
    magnitude = cpu.max_pool2d_grad(np.abs(double(dy)), places, window)
    check(out.result(), ref, magnitude=magnitude, terms=window.kernel[0] * window.kernel[1], direction="input_grad")


def averages(device: Device, x: Any, window: Window, count_include_pad: bool) -> None:
    terms = window.kernel[0] * window.kernel[1]
    out = Output(device, (*x.shape[:2], *window.output))
    device.ops.avg_pool2d(device.array(x), window, count_include_pad, out=out.array)
    ref = cpu.avg_pool2d(double(x), window, count_include_pad)
    magnitude = cpu.avg_pool2d(np.abs(double(x)), window, count_include_pad)
    check(out.result(), ref, magnitude=magnitude, terms=terms, direction="forward")

    dy = normal(8, *ref.shape)
    out = Output(device, x.shape)
    device.ops.avg_pool2d_grad(device.array(dy), window, count_include_pad, out=out.array)
    ref = cpu.avg_pool2d_grad(double(dy), window, count_include_pad)
    magnitude = cpu.avg_pool2d_grad(np.abs(double(dy)), window, count_include_pad)
    check(out.result(), ref, magnitude=magnitude, terms=terms, direction="input_grad")


def test_max(device: Device, window: Window) -> None:
    same_as_cpu(device, distinct(0, 2, 3, *window.input), window)


def test_ties(device: Device, window: Window) -> None:
    x = np.random.default_rng(1).integers(0, 2, (2, 2, *window.input)).astype(np.float32)
    same_as_cpu(device, x, window)
    same_as_cpu(device, np.zeros_like(x[:1]), window)


def test_nan_and_minus_infinity(device: Device, window: Window) -> None:
    random = np.random.default_rng(2)
    x = random.choice(np.array([np.nan, -np.inf, np.inf, -3, 1], np.float32), (2, 2, *window.input))
    same_as_cpu(device, x, window)
    same_as_cpu(device, np.full((1, 1, *window.input), -np.inf, np.float32), window)
    same_as_cpu(device, np.full((1, 1, *window.input), np.nan, np.float32), window)


def test_max_grad(device: Device, window: Window) -> None:
    max_grad(device, distinct(3, 2, 2, *window.input), window)
    max_grad(device, np.zeros((1, 1, *window.input), np.float32), window)


@pytest.mark.parametrize("count_include_pad", [True, False])
def test_averages(device: Device, window: Window, count_include_pad: bool) -> None:
    averages(device, normal(4, 2, 2, *window.input), window, count_include_pad)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    hw, kernel, stride = draw(st.tuples(st.integers(1, 8), st.integers(1, 8))), draw(pair), draw(pair)
    half = [k // 2 for k in kernel]
    sides = st.tuples(*(st.tuples(st.integers(0, h), st.integers(0, h)) for h in half))
    padding = draw(st.one_of(st.just("same"), st.just("valid"), sides))
    try:
        return pool_window(hw, kernel, stride, padding, draw(st.sampled_from([1, 1, 2])), draw(st.booleans()))
    except ShapeError:  # the window does not fit
        return pool_window(hw, 1, stride)


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(windows(), st.booleans())
def test_any_legal_window(device: Device, window: Window, count_include_pad: bool) -> None:
    x = distinct(5, 1, 2, *window.input)
    same_as_cpu(device, x, window)
    max_grad(device, x, window)
    averages(device, x, window, count_include_pad)


def test_indices_stay_in_their_plane(device: Device) -> None:
    """Indices count from the plane's first pixel, so two equal images have equal indices."""
    window = WINDOWS["overlap"]
    image = distinct(6, 1, 1, *window.input)
    _, places = device.ops.max_pool2d(device.array(np.concatenate([image, image])), window)
    places = to_numpy(places)
    np.testing.assert_array_equal(places[0], places[1])

"""The pooling kernels against the CPU's. Maxima and their places are exact; means are compared in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_harness import Output, cases, distinct, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.errors import ShapeError
from gpucnn.ops import cpu
from gpucnn.ops.cuda._arrays import stream
from gpucnn.ops.shapes import Window, pool_window
from gpucnn_kernels import average, average_strips, pool, pool_2x2, pool_strips
from gpucnn_kernels.core import launch
from tolerances import check

WINDOWS: dict[str, Window] = {
    "one": pool_window((1, 1), 1),
    "plain": pool_window((6, 4), 2),
    "tail": pool_window((7, 5), 2),
    "tail-row": pool_window((5, 6), 2),
    "tail-column": pool_window((4, 7), 2),
    "one-window": pool_window((3, 3), 2),
    "one-row": pool_window((2, 9), 2),
    "two-by-two-ceil": pool_window((5, 7), 2, ceil_mode=True),
    "two-by-two-dilated": pool_window((7, 7), 2, dilation=2),
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


def test_max_grad_with_relu(device: Device, window: Window) -> None:
    """What ReLU's gradient makes of the gradient of pooling its output, to the bit: ties, zeros of both signs, NaN."""
    x = np.random.default_rng(12).choice(np.array([0, 0, -0.0, np.nan, 1e-45, 1, 2, np.inf], np.float32), (2, 2, *window.input))
    y, places = cpu.max_pool2d(x, window)
    dy = np.random.default_rng(13).choice(np.array([-0.0, 0, 1.5, -2, 3, np.inf], np.float32), y.shape)
    arrays, results = (device.array(dy), device.array(places)), []
    for relu in (None, device.array(y)):
        out = Output(device, x.shape)
        pool.max_pool2d_grad(*arrays, out.array, window, stream(out.array), relu=relu)
        results.append(out.result())
    np.testing.assert_array_equal(results[1].view(np.uint32), cpu.relu_grad(results[0], x).view(np.uint32))


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


@pytest.mark.parametrize("size", [(6, 8), (7, 8), (6, 7), (7, 7)])
@pytest.mark.parametrize("pairs", [False, True])
def test_two_by_two_is_the_general_kernel_to_the_bit(device: Device, size: tuple[int, int], pairs: bool) -> None:
    """Both ways to read rows, ties and NaN and zeros of both signs, and indices that no window could have given."""
    window = pool_window(size, 2)
    x = np.random.default_rng(10).choice(np.array([np.nan, -np.inf, np.inf, -0.0, 0, 1, 2], np.float32), (2, 3, *size))
    dy = np.random.default_rng(11).choice(np.array([-0.0, 0, 1.5, -2], np.float32), (2, 3, *window.output))
    # Where rows are of even length, an array that starts 4 bytes after a multiple of 16 must not be read in pairs.
    given = device.xp.empty(x.size + 1, "float32")[0 if pairs else 1 :][: x.size].reshape(x.shape)
    given[...] = device.array(x)
    dx = device.xp.empty(x.size + 1, "float32")[0 if pairs else 1 :][: x.size].reshape(x.shape)
    assert pool_2x2.pairs_of(given, window) == pool_2x2.pairs_of(dx, window) == (pairs and size[1] % 2 == 0)
    y, places = device.xp.empty(dy.shape, "float32"), device.xp.empty(dy.shape, "int32")
    pool.max_pool2d(given, y, places, window, stream(y))
    ref_y, ref_places, ref_dx = device.xp.empty_like(y), device.xp.empty_like(places), device.xp.empty(x.shape, "float32")
    sizes = launch.geometry(window)
    launch.run_each(pool.max_pool2d_kernel, y.size, stream(y), given.ravel(), ref_y.ravel(), ref_places.ravel(), sizes)
    np.testing.assert_array_equal(to_numpy(y).view(np.uint32), to_numpy(ref_y).view(np.uint32))
    np.testing.assert_array_equal(to_numpy(places), to_numpy(ref_places))

    places.reshape(-1)[:2] = -1  # of no window
    gradient = device.array(dy)
    dx[...] = np.nan
    pool.max_pool2d_grad(gradient, places, dx, window, stream(y))
    flat = gradient.ravel(), places.ravel(), y.ravel(), ref_dx.ravel()
    launch.run_each(pool.max_pool2d_grad_kernel, dx.size, stream(y), *flat, sizes, np.int32(0), pool.divisors(window))
    np.testing.assert_array_equal(to_numpy(dx).view(np.uint32), to_numpy(ref_dx).view(np.uint32))

    dx[...] = np.nan
    pool.max_pool2d_grad(gradient, places, dx, window, stream(y), relu=y)
    launch.run_each(pool.max_pool2d_grad_kernel, dx.size, stream(y), *flat, sizes, np.int32(1), pool.divisors(window))
    np.testing.assert_array_equal(to_numpy(dx).view(np.uint32), to_numpy(ref_dx).view(np.uint32))


STRIPS: dict[str, Window] = {
    "3x3": pool_window((10, 12), 3, 2, 1),
    "odd": pool_window((9, 7), 3, 2, 1),
    "one-pixel": pool_window((1, 1), 3, 1, 1),
    "one-row": pool_window((1, 9), (1, 3), (1, 2), (0, 1)),
    "5x5": pool_window((7, 6), 5, 1, 2),
    "primes": pool_window((11, 13), (5, 3), (3, 2), (2, 1)),
    "ceil": pool_window((8, 6), 3, 2, 1, ceil_mode=True),
    "ceil-overhang": pool_window((9, 7), 3, 3, 1, ceil_mode=True),
    "same": pool_window((7, 6), 3, 2, "same"),
    "same-even": pool_window((6, 5), 4, 3, "same"),
    "2x2-same": pool_window((5, 5), 2, 2, "same"),
    "asymmetric": pool_window((5, 6), 4, 3, ((2, 0), (1, 2))),
    "5x5-apart": pool_window((23, 11), 5, 5),
}


@pytest.mark.parametrize("name", cases(STRIPS, ["3x3"]))
def test_strips_are_the_general_kernels_to_the_bit(device: Device, name: str) -> None:
    """Ties and NaN and zeros of both signs, rows that can be written in pairs and others, and indices that no window could have given."""
    window = STRIPS[name]
    assert pool_strips.fits(window) and not pool_strips.suits(window, 6)
    x = np.random.default_rng(10).choice(np.array([np.nan, -np.inf, np.inf, -0.0, 0, 1, 2], np.float32), (2, 3, *window.input))
    dy = np.random.default_rng(11).choice(np.array([-0.0, 0, 1.5, -2, 0.1, 1e8, np.inf], np.float32), (2, 3, *window.output))
    given, gradient, sizes = device.array(x), device.array(dy), launch.geometry(window)
    y, places = Output(device, dy.shape), Output(device, dy.shape, "int32")
    pool_strips.forward(given.ravel(), y.array.ravel(), places.array.ravel(), window, 6, stream(given))
    ref_y, ref_places = device.xp.empty(dy.shape, "float32"), device.xp.empty(dy.shape, "int32")
    launch.run_each(pool.max_pool2d_kernel, dy.size, stream(given), given.ravel(), ref_y.ravel(), ref_places.ravel(), sizes)
    np.testing.assert_array_equal(y.result(nan=True).view(np.uint32), to_numpy(ref_y).view(np.uint32))
    np.testing.assert_array_equal(places.result(), to_numpy(ref_places))

    for lost in (0, 1):
        places.array.reshape(-1)[:lost] = -1  # of no window
        for relu in (None, ref_y):
            dx, ref_dx = Output(device, x.shape), device.xp.empty(x.shape, "float32")
            mask = None if relu is None else relu.ravel()
            pool_strips.gradient(gradient.ravel(), places.array.ravel(), mask, dx.array.ravel(), window, 6, stream(given))
            flat = gradient.ravel(), places.array.ravel(), ref_y.ravel(), ref_dx.ravel()
            masked = np.int32(relu is not None)
            launch.run_each(pool.max_pool2d_grad_kernel, x.size, stream(given), *flat, sizes, masked, pool.divisors(window))
            np.testing.assert_array_equal(dx.result(nan=True).view(np.uint32), to_numpy(ref_dx).view(np.uint32))


@pytest.mark.parametrize(
    ("window", "strips"),
    [
        (pool_window((256, 256), 3, 2, 1), True),
        (pool_window((255, 257), 3, 2, 1), False),  # too few pixels
        (pool_window((256, 256), 2), False),  # has kernels of its own
        (pool_window((256, 256), 6, 2), False),
        (pool_window((256, 256), 2, 3), False),  # pixels left out
        (pool_window((256, 256), 3, 2, 1, dilation=2), False),
    ],
)
def test_which_windows_are_done_in_strips(window: Window, strips: bool) -> None:
    x, y, places = (np.empty((1, 1, *size), kind) for size, kind in ((window.input, "f4"), (window.output, "f4"), (window.output, "i4")))
    with launch.recording(launching=False) as launches:
        pool.max_pool2d(x, y, places, window)
        pool.max_pool2d_grad(y, places, x, window)
        pool.max_pool2d_grad(y, places, x, window, relu=y)
    assert [each.name.startswith("max_pool2d_strips") for each in launches] == [strips] * 3
    with launch.recording(launching=False) as launches:
        average.avg_pool2d(x, y, window)
        average.avg_pool2d_grad(y, x, window)
    assert [each.name.startswith("avg_pool2d_strips") for each in launches] == [strips or window.kernel == window.stride] * 2


@pytest.mark.parametrize("name", cases(STRIPS, ["3x3"]))
def test_strips_of_averages_are_the_general_kernels_to_the_bit(device: Device, name: str) -> None:
    """Zeros of both signs, infinities and NaN; means over padding and without."""
    window = STRIPS[name]
    numbers = np.array([np.nan, -np.inf, np.inf, -0.0, 0, 1.5, -2, 0.1, 0.3, 1e-40, 1e8], np.float32)
    share = [0.01, 0.01, 0.01, *[0.97 / 8] * 8]
    x, dy = (np.random.default_rng(size[0]).choice(numbers, (2, 3, *size), p=share) for size in (window.input, window.output))
    given, gradient = device.array(x), device.array(dy)
    for padded in (True, False):
        counting = launch.geometry(window), tuple(np.int32(number) for number in (window.padding[0][1], window.padding[1][1], padded))
        y, ref_y = Output(device, dy.shape), device.xp.empty(dy.shape, "float32")
        average_strips.forward(given.ravel(), y.array.ravel(), window, padded, 6, stream(given))
        launch.run_each(average.avg_pool2d_kernel, dy.size, stream(given), given.ravel(), ref_y.ravel(), *counting)
        np.testing.assert_array_equal(y.result(nan=True).view(np.uint32), to_numpy(ref_y).view(np.uint32))
        dx, ref_dx = Output(device, x.shape), device.xp.empty(x.shape, "float32")
        average_strips.gradient(gradient.ravel(), dx.array.ravel(), window, padded, 6, stream(given))
        launch.run_each(average.avg_pool2d_grad_kernel, x.size, stream(given), gradient.ravel(), ref_dx.ravel(), *counting)
        np.testing.assert_array_equal(dx.result(nan=True).view(np.uint32), to_numpy(ref_dx).view(np.uint32))

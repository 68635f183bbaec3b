"""Convolution with ReLU and pooling in one pass, and the gradient of its weight from the winners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_cases import FIRST, arrays, exact, nan_like, window_of

from gpucnn.errors import ShapeError
from gpucnn.ops import cpu
from gpucnn.ops.cpu import conv, pool, roads
from gpucnn.ops.shapes import conv_window, pool_window
from gpucnn_loops.first import CHANNELS, MOST, First
from gpucnn_loops.pooled import Pooled, halves
from gpucnn_loops.tile import ROWS, WIDE
from gpucnn_loops.vector import L
from gpucnn_loops.windows import Windows
from gpucnn_loops.winograd_plan import Winograd
from tolerances import bound, check

CASES: list[tuple[Any, ...]] = [
    (1, 1, 4, 4, 1, 3, 3, 1, 0, 1, 1),
    (5, 1, 28, 28, 32, 3, 3, 1, 0, 1, 1),
    (9, 1, 14, 13, 33, 5, 5, 1, 2, 1, 1),
    (17, 3, 11, 17, 7, 3, 3, 1, 1, 1, 1),
    (3, 2, 19, 20, 18, 2, 5, (2, 1), 1, (1, 2), 1),  # a stride; taps that do not lie side by side
    (2, 1, 33, 33, 4, 3, 17, 1, 0, 1, 1),  # a run of taps longer than a vector
    (3, 40, 9, 9, 17, 3, 3, 2, 1, 1, 1),  # more taps than the winners' sums take
    (3, 20, 14, 15, 37, 3, 3, 1, 1, 1, 1),  # Winograd's
    (10, 32, 14, 14, 64, 5, 5, 1, 2, 1, 1),
    *FIRST,
]
FEW = [(2, 1, 10, 9, 3, 3, 2, 1, 0, 1, 1), (3, 2, 12, 12, 7, 3, 3, 1, 0, (2, 1), 1)]  # 16 and 20 windows; fewer filters than a tile


def first_layer(case: tuple[Any, ...]) -> bool:
    """Whether its lanes may be windows."""
    (p, q), stride = window_of(case).output, case[7]
    return case[1] <= CHANNELS and case[1] * case[5] * case[6] <= MOST and stride == 1 and p // 2 * (q // 2) >= L


BOTH = [case for case in CASES + FEW if first_layer(case)]


def reference(e: dict[str, Any]) -> Any:
    return conv.conv2d(e["x"], e["weight"], e["bias"], e["window"], relu=True)


def clear_winners(y: Any, window: Any, error: Any) -> Any:
    """Where no rounding can make another place the maximum: it is ahead by more than both errors, or all are 0."""
    planes = y[:, :, : 2 * window.output[0], : 2 * window.output[1]]
    fours = planes.reshape(*y.shape[:2], window.output[0], 2, window.output[1], 2).swapaxes(3, 4).reshape(*y.shape[:2], *window.output, 4)
    errors = error[:, :, : 2 * window.output[0], : 2 * window.output[1]].reshape(*y.shape[:2], window.output[0], 2, window.output[1], 2)
    ordered = np.sort(fours, axis=-1)
    return ordered[..., 3] - ordered[..., 2] > 2 * errors.max(axis=(3, 5))


@pytest.mark.parametrize("case", CASES)
def test_forward_is_the_references(case: tuple[Any, ...], rng: np.random.Generator) -> None:
    a = arrays(case, rng)
    hold_forward(a)


def both_ways(a: dict[str, Any], window: Any) -> Any:
    """(y, indices), which without indices is the same y."""
    y, indices = cpu.conv2d_relu_max_pool2d(a["x"], a["weight"], a["bias"], a["window"], window)
    alone, nothing = cpu.conv2d_relu_max_pool2d(a["x"], a["weight"], a["bias"], a["window"], window, out=nan_like(y), places=False)
    np.testing.assert_array_equal(alone, y)
    if roads.pooled(a["x"].shape[1], len(a["bias"]), a["window"], window, 1) is not None:
        assert nothing is None
    return y, indices


def hold_forward(a: dict[str, Any]) -> None:
    e, window = exact(a), pool_window(a["window"].output, 2)
    whole = reference(e)
    y, indices = both_ways(a, window)
    expected, places = pool.max_pool2d(whole, window)
    plan = roads.convolution(a["x"].shape[1], len(a["bias"]), a["window"], 1)
    if isinstance(plan, Winograd):
        from gpucnn_loops.transforms import matrices
        from tolerances import winograd

        magnitude, terms = winograd(e["x"], e["weight"], a["window"].padding, matrices(a["window"].kernel[0]))
    else:
        magnitude, terms = conv.conv2d(np.abs(e["x"]), np.abs(e["weight"]), None, a["window"]), a["weight"][0].size
    magnitude = magnitude + np.abs(e["bias"])[:, None, None]
    check(y, expected, magnitude=pool.max_pool2d(magnitude, window)[0], terms=terms, direction="forward")
    sure = clear_winners(whole, window, bound(magnitude, terms, "forward"))
    np.testing.assert_array_equal(indices[sure], places[sure])
    # Where all are 0 the first one is the maximum; and whatever the place, it is one of its window.
    np.testing.assert_array_equal(indices[y == 0], corners(window, a)[np.nonzero(y == 0)[2:]])
    q = a["window"].output[1]
    assert set(np.unique(indices - corners(window, a))) <= {0, 1, q, q + 1}


def corners(window: Any, a: dict[str, Any]) -> Any:
    return (np.arange(window.output[0])[:, None] * 2 * a["window"].output[1] + 2 * np.arange(window.output[1])).astype(np.int32)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_is_the_references_with_the_same_winners(case: tuple[Any, ...], masked: bool, rng: np.random.Generator) -> None:
    hold_gradient(arrays(case, rng), masked, rng)


def hold_gradient(a: dict[str, Any], masked: bool, rng: np.random.Generator) -> None:
    window = pool_window(a["window"].output, 2)
    y, indices = cpu.conv2d_relu_max_pool2d(a["x"], a["weight"], a["bias"], a["window"], window)
    dy = rng.standard_normal(y.shape, dtype=np.float32)
    dweight, dbias = nan_like(a["weight"]), nan_like(a["bias"])
    cpu.conv2d_relu_max_pool2d_weight_grad(dy, indices, a["x"], a["window"], window, relu=None if masked else y, out=dweight, dbias=dbias)
    dconv = pool.max_pool2d_grad(dy.astype(np.float64), indices, window, relu=None if masked else y)
    x = a["x"].astype(np.float64)
    terms = len(x) * window.output[0] * window.output[1] + 8
    plan = roads.convolution(a["x"].shape[1], len(a["bias"]), a["window"], 1)
    if isinstance(plan, Winograd):
        from gpucnn_loops.transforms import matrices
        from tolerances import winograd_weight_grad

        magnitude, terms = winograd_weight_grad(dconv, x, a["window"].padding, matrices(a["window"].kernel[0]))
    else:
        magnitude = conv.conv2d_weight_grad(np.abs(dconv), np.abs(x), a["window"])
    check(dweight, conv.conv2d_weight_grad(dconv, x, a["window"]), magnitude=magnitude, terms=terms, direction="weight_grad")
    check(dbias, conv.bias_grad(dconv), magnitude=conv.bias_grad(np.abs(dconv)), terms=terms, direction="weight_grad")


@st.composite
def layers(draw: st.DrawFn) -> tuple[Any, ...]:
    c, k = draw(st.sampled_from([1, 2, 3, 16, 20])), draw(st.integers(1, 35))
    r, s, dh, dw = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, 2))
    h = draw(st.integers(max(2, dh * (r - 1) + 2 - 2 * padding), 17))
    w = draw(st.integers(max(2, dw * (s - 1) + 2 - 2 * padding), draw(st.sampled_from([17, 40]))))
    return draw(st.integers(1, 18)), c, h, w, k, r, s, 1, padding, (dh, dw), 1


@given(layers(), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_any_first_layer(case: tuple[Any, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = arrays(case, rng)
    hold_forward(a)
    hold_gradient(a, seed % 2 == 0, rng)


@pytest.mark.parametrize("case", [CASES[1], CASES[7]])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_handed_on_as_in_the_reference(case: tuple[Any, ...], value: float, rng: np.random.Generator) -> None:
    a = arrays(case, rng)
    a["x"][1, 0, 5, 5] = value
    window = pool_window(a["window"].output, 2)
    y, indices = both_ways(a, window)
    with np.errstate(all="ignore"):
        expected, places = pool.max_pool2d(reference(a), window)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(y), np.isinf(expected))
    odd = ~np.isfinite(expected)
    np.testing.assert_array_equal(indices[odd], places[odd])
    dy = rng.standard_normal(y.shape, dtype=np.float32)
    dweight = cpu.conv2d_relu_max_pool2d_weight_grad(dy, indices, a["x"], a["window"], window, relu=y)
    with np.errstate(all="ignore"):
        dconv = pool.max_pool2d_grad(dy, indices, window, relu=y)
        np.testing.assert_array_equal(np.isfinite(dweight), np.isfinite(conv.conv2d_weight_grad(dconv, a["x"], a["window"])))


@pytest.mark.parametrize("placed", [True, False])
@pytest.mark.parametrize("case", BOTH)
def test_lanes_may_be_windows_or_filters(case: tuple[Any, ...], placed: bool, rng: np.random.Generator) -> None:
    a = arrays(case, rng)
    (n, c), (k, window) = a["x"].shape[:2], (len(a["bias"]), a["window"])
    a["x"][0, 0, 0, 0] = np.nan
    shape = n, k, window.output[0] // 2, window.output[1] // 2
    found = []
    for plan in (First(c, k, window), Pooled(c, k, window)):
        y, indices = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int32)
        plan.forward(a["x"], a["weight"], a["bias"], y, indices if placed else None)
        found.append((y, indices))
    (y, indices), (expected, places) = found
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    magnitude = conv.conv2d(np.abs(np.nan_to_num(a["x"])).astype(np.float64), np.abs(a["weight"]).astype(np.float64), None, window)
    magnitude = pool.max_pool2d(magnitude + np.abs(a["bias"])[:, None, None], pool_window(window.output, 2))[0]
    numbers = np.isfinite(y)
    check(
        y[numbers], expected[numbers].astype(np.float64), magnitude=magnitude[numbers], terms=2 * a["weight"][0].size, direction="forward"
    )
    np.testing.assert_array_equal(indices[~numbers], places[~numbers])
    assert (indices == places).mean() > 0.99, "but for two maxima that are the same to within rounding"
    if not placed or not Pooled(c, k, window).sums_winners:
        return
    x = np.nan_to_num(a["x"])
    dy = rng.standard_normal(shape, dtype=np.float32)
    masked = y if c == 1 else None
    sums = []
    for plan in (First(c, k, window), Pooled(c, k, window)):
        dweight, dbias = nan_like(a["weight"]), nan_like(a["bias"])
        assert not plan.weight_grad(dy, masked, places, a["x"], dweight, dbias), "x is not finite"
        assert plan.weight_grad(dy, masked, places, x, dweight, dbias)
        alone = nan_like(dweight)
        plan.weight_grad(dy, masked, places, x, alone, None)
        np.testing.assert_array_equal(alone, dweight)
        sums.append((dweight, dbias))
    bound_of = conv.conv2d_weight_grad(
        np.abs(pool.max_pool2d_grad(dy.astype(np.float64), places, pool_window(window.output, 2))), np.abs(x).astype(np.float64), window
    )
    terms = 2 * n * shape[2] * shape[3]
    check(sums[0][0], sums[1][0].astype(np.float64), magnitude=bound_of, terms=terms, direction="weight_grad")
    total = np.abs(dy).astype(np.float64).sum(axis=(0, 2, 3))
    check(sums[0][1], sums[1][1].astype(np.float64), magnitude=total, terms=terms, direction="weight_grad")


def test_ties_go_to_the_first_place() -> None:
    a = arrays(CASES[1], np.random.default_rng(0))
    a["x"][...] = 1
    window = pool_window(a["window"].output, 2)
    _, indices = cpu.conv2d_relu_max_pool2d(a["x"], a["weight"], a["bias"], a["window"], window)
    np.testing.assert_array_equal(indices, np.broadcast_to(corners(window, a), indices.shape))


def test_which_poolings_are_done_in_the_same_pass() -> None:
    window = arrays(CASES[1], np.random.default_rng(0))["window"]
    assert halves(window, pool_window(window.output, 2))
    for other in (pool_window(window.output, 3), pool_window(window.output, 2, 1), pool_window(window.output, 2, 2, 1)):
        assert not halves(window, other)
        assert isinstance(roads.pooled(1, 32, window, other, 1), Windows)
    assert isinstance(roads.pooled(1, 32, window, pool_window(window.output, 2), 1), First if WIDE else Pooled)
    assert isinstance(roads.pooled(1, 6, window, pool_window(window.output, 2), 1), First if WIDE or ROWS == 6 else Pooled)
    narrow, gaps = conv_window((8, 9), 3), conv_window((50, 50), 3, 1, 0, 10)
    for other in (narrow, gaps):
        assert isinstance(roads.pooled(1, 32, other, pool_window(other.output, 2), 1), Pooled)
    large = conv_window((200, 200), 3)
    assert roads.pooled(1, 32, large, pool_window(large.output, 3, 2), 1) is None  # its outputs leave the cache
    few = conv_window((28, 28), 5, 1, 2)
    assert roads.pooled(1, 6, few, pool_window(few.output, 3, 2), 1) is None  # its lanes are pixels


def hold_one_after_the_other(a: dict[str, Any], window: Any) -> None:
    y, indices = both_ways(a, window)
    with np.errstate(all="ignore"):
        expected, places = pool.max_pool2d(cpu.conv2d(a["x"], a["weight"], a["bias"], a["window"], relu=True), window)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, places)


@pytest.mark.parametrize("value", [1.0, np.nan, np.inf])
@pytest.mark.parametrize("pooling", [(3, 2, 1), (2, 1, 0), (2, 2, 1), ((1, 3), (2, 1), (0, 1)), (2, 3, 0, 2)])
@pytest.mark.parametrize("case", [CASES[1], CASES[3], CASES[7], CASES[8]])
def test_other_poolings_give_what_one_after_the_other_does(
    case: tuple[Any, ...], pooling: tuple[Any, ...], value: float, rng: np.random.Generator
) -> None:
    a = arrays((2, *case[1:]), rng)
    a["x"][1, 0, 5, 5] = value
    a["bias"][0] = -1e9  # nothing is positive in its plane: the first place of each window
    hold_one_after_the_other(a, pool_window(a["window"].output, *pooling))


@given(layers(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_any_pooling(case: tuple[Any, ...], r: int, stride: int, dilation: int, ceil: bool, seed: int) -> None:
    a = arrays(case, np.random.default_rng(seed))
    try:
        window = pool_window(a["window"].output, r, stride, r // 2, dilation, ceil)
    except ShapeError:
        return
    hold_one_after_the_other(a, window)

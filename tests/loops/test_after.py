"""What follows a convolution's sums in the same pass: the bits of one operation after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_cases import DEPTHWISE, DIRECT, PIXELS, WHOLE, WINOGRAD, arrays, exact, nan_like

import gpucnn as gc
from gpucnn.layers.fused import ConvBatchNorm
from gpucnn.ops import cpu
from gpucnn.ops.cpu import fused as reference
from tolerances import check

EPS = 1e-3


def statistics(k: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """(weight, bias) and the running (mean, variance) of a batch normalization."""
    weight, bias, mean = (rng.standard_normal(k, dtype=np.float32) for _ in range(3))
    return (weight, bias), (mean, rng.random(k, dtype=np.float32) + np.float32(0.1))


def hold_bits(a: dict[str, Any], biased: bool, relu: bool, summed: bool, rng: np.random.Generator) -> None:
    """Asserts that the operation gives the bits of a convolution, a normalization and a sum, −0 and NaN in the same places."""
    affine, running = statistics(len(a["bias"]), rng)
    given = a["x"], a["weight"], a["bias"] if biased else None, a["window"], a["groups"]
    added, out = a["dy"] if summed else None, nan_like(a["dy"])
    with np.errstate(all="ignore"):
        expected = cpu.batch_norm_apply(cpu.conv2d(*given), *affine, running, eps=EPS, relu=relu and not summed)
        expected = cpu.add(expected, a["dy"], relu=relu) if summed else expected
        got = cpu.conv2d_batch_norm_apply(*given, affine, running, eps=EPS, relu=relu, added=added, out=out)
    assert got is out
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.signbit(got[expected == 0]), np.signbit(expected[expected == 0]))


CHOSEN = [DIRECT[0], DIRECT[2], DIRECT[9], DIRECT[17], *DEPTHWISE[:5], *PIXELS, *WHOLE, DEPTHWISE[-1], *WINOGRAD[:3], WINOGRAD[6]]


@pytest.mark.parametrize("case", CHOSEN)
def test_the_bits_of_one_after_the_other(case: tuple[Any, ...], rng: np.random.Generator) -> None:
    a = arrays(case, rng)
    a["weight"][0] = 0  # sums of 0
    for number in range(8):
        hold_bits(a, bool(number & 1), bool(number & 2), bool(number & 4), rng)


@pytest.mark.parametrize("case", [DIRECT[3], DEPTHWISE[1], PIXELS[2], PIXELS[3], WINOGRAD[1], WINOGRAD[2]])
@pytest.mark.parametrize("value", [np.inf, np.nan, 3e37])
def test_what_is_not_finite_is_where_it_is_one_after_the_other(case: tuple[Any, ...], value: float, rng: np.random.Generator) -> None:
    a = arrays(case, rng)
    a["x"][0, 0, 2, 3] = value
    hold_bits(a, True, True, False, rng)
    a["dy"][-1, 1, 1, 2] = value
    hold_bits(a, True, False, True, rng)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, ...]:
    r = draw(st.integers(1, 5))
    groups = draw(st.sampled_from([1, 1, 1, 2]))
    c, k = (groups * draw(st.one_of(st.integers(1, 4), st.integers(16, 40))) for _ in range(2))
    h, w = (draw(st.integers(r, 17)) for _ in range(2))
    return draw(st.integers(1, 9)), c, h, w, k, r, r, draw(st.integers(1, 2)), draw(st.integers(0, 2)), 1, groups


@given(cases(), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_any_case(case: tuple[Any, ...], biased: bool, relu: bool, summed: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hold_bits(arrays(case, rng), biased, relu, summed, rng)


@pytest.mark.parametrize("case", [DIRECT[2], DEPTHWISE[1], PIXELS[2]])
def test_it_is_the_references(case: tuple[Any, ...], rng: np.random.Generator) -> None:
    a = arrays(case, rng)
    e, (affine, running) = exact(a), statistics(len(a["bias"]), rng)
    wide = tuple(tuple(values.astype(np.float64) for values in pair) for pair in (affine, running))
    options = {"eps": EPS, "relu": True}
    got = cpu.conv2d_batch_norm_apply(a["x"], a["weight"], a["bias"], a["window"], a["groups"], affine, running, added=a["dy"], **options)
    expected = reference.conv2d_batch_norm_apply(e["x"], e["weight"], e["bias"], e["window"], e["groups"], *wide, added=e["dy"], **options)
    (weight, bias), (mean, variance) = (tuple(np.abs(values)[:, None, None] for values in pair) for pair in wide)
    sums = reference.conv2d(np.abs(e["x"]), np.abs(e["weight"]), np.abs(e["bias"]), e["window"], e["groups"])
    magnitude = (sums + mean) * (weight / np.sqrt(variance + EPS)) + bias + np.abs(e["dy"])
    # Besides the sum's roundings: the mean, the product, the shift, the array; and four of the scale.
    check(got, expected, magnitude=magnitude, terms=a["weight"][0].size + 8, direction="forward")


def test_images_may_lie_apart(rng: np.random.Generator) -> None:
    for case in (DIRECT[2], DEPTHWISE[1], PIXELS[3], WINOGRAD[1]):
        a = arrays(case, rng)
        affine, running = statistics(len(a["bias"]), rng)
        given = a["x"], a["weight"], None, a["window"], a["groups"], affine, running
        n, k, *plane = a["dy"].shape
        whole = np.full((n, k + 3, *plane), 7, np.float32)
        cpu.conv2d_batch_norm_apply(*given, eps=EPS, relu=True, out=whole[:, 2 : 2 + k])
        np.testing.assert_array_equal(whole[:, 2 : 2 + k], cpu.conv2d_batch_norm_apply(*given, eps=EPS, relu=True))
        assert (whole[:, :2] == 7).all() and (whole[:, 2 + k :] == 7).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predictions_run_both_layers_as_one(dtype: str, rng: np.random.Generator) -> None:
    class Doubled(gc.BatchNorm2D):
        def _forward(self, x: Any, training: bool, out: Any = None) -> Any:
            return 2 * super()._forward(x, training, out)

    model = gc.Sequential(
        gc.Conv2D(5, 3, use_bias=False),
        gc.BatchNorm2D(activation="relu"),
        gc.Residual(gc.Conv2D(5, 3, padding="same"), gc.BatchNorm2D(), activation="tanh"),
        gc.Residual(
            gc.DepthwiseConv2D(3, padding="same"), gc.BatchNorm2D(), shortcut=[gc.Conv2D(5, 1), gc.BatchNorm2D()], activation="relu"
        ),
        gc.Concat([gc.Conv2D(3, 1), gc.BatchNorm2D(affine=False)], [gc.DepthwiseConv2D(1), gc.BatchNorm2D(activation="sigmoid")]),
        gc.Conv2D(4, 3, activation="relu"),
        gc.BatchNorm2D(),
        gc.Conv2D(3, 1),
        Doubled(),
    ).build((2, 9, 9), device="cpu", dtype=dtype)
    for layer in (part for each in model.layers for part in each.walk().values()):
        for array in layer.arrays:
            array.value[...] = rng.random(array.shape) + 0.5
    chains = [model.chain, *(chain for layer in model.layers for chain in layer.chains())]
    found = [
        "+".join(layer.name for layer in stage.layers) for chain in chains for stage in chain.ahead if isinstance(stage, ConvBatchNorm)
    ]
    assert found == [
        "conv2d_1+batchnorm2d_1",
        "residual_1.conv2d_1+residual_1.batchnorm2d_1",
        "residual_2.depthwiseconv2d_1+residual_2.batchnorm2d_1",
        "residual_2.shortcut.conv2d_1+residual_2.shortcut.batchnorm2d_1",
        "concat_1.branch_1.conv2d_1+concat_1.branch_1.batchnorm2d_1",
    ]
    x = rng.standard_normal((3, 2, 9, 9)).astype(dtype)
    y = x
    for layer in model.layers:
        y = layer.forward(y)
        np.testing.assert_array_equal(model.features(x, layer.name), y)  # which runs what is inside one by one, too
    np.testing.assert_array_equal(model.forward(x), y)

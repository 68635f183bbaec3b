"""Initial values: variances and limits of the papers, and that they depend on the seed alone."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import ArgumentError, UnknownNameError
from gpucnn.initializers import INITIALIZERS, fans, get_initializer

SHAPE = (64, 32, 3, 5)  # fan_in 32·15, fan_out 64·15; 30,720 values


def test_fans_count_the_taps() -> None:
    assert fans((7, 5)) == (5, 7)
    assert fans((7, 5, 3, 2)) == (30, 42)


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("he_normal", 2 / (32 * 15)),
        ("he_uniform", 2 / (32 * 15)),
        ("glorot_normal", 2 / (96 * 15)),
        ("glorot_uniform", 2 / (96 * 15)),
    ],
)
def test_variance_is_the_papers(name: str, variance: float) -> None:
    values = get_initializer(name)(SHAPE, np.random.default_rng(0))
    assert values.shape == SHAPE
    # Five standard deviations of a sample variance over 30,720 values: √(2 / n) of a normal, less of a uniform.
    assert values.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / values.size))
    assert abs(values.mean()) < 5 * math.sqrt(variance / values.size)
    if "uniform" in name:
        limit = math.sqrt(3 * variance)
        assert 0.999 * limit < np.abs(values).max() <= limit
    else:
        assert np.abs(values).max() > 3.5 * math.sqrt(variance)  # a uniform one would end at 1.73


def test_zeros_are_zeros() -> None:
    assert not get_initializer("zeros")((3, 2), np.random.default_rng(0)).any()


@pytest.mark.parametrize("name", INITIALIZERS)
def test_the_same_generator_gives_the_same_values(name: str) -> None:
    first, again, other = (get_initializer(name)((4, 3, 2, 2), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert name in ("zeros", "ones") or (first != other).all()


def test_an_unknown_initializer_is_refused_where_it_is_given() -> None:
    for make in (lambda: gc.Conv2D(2, 3, initializer="he"), lambda: gc.Dense(2, initializer="xavier"), lambda: get_initializer("he")):
        with pytest.raises(UnknownNameError, match=r"unknown initializer .*he_normal, he_uniform, glorot_normal, glorot_uniform, zeros"):
            make()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda shape: np.ones((2, 2)), r"must have the shape \(3, 4\), got \(2, 2\)"),
        (lambda shape: 1.0, r"must have the shape \(3, 4\), got \(\)"),
        (lambda shape: np.full(shape, np.nan), "must be finite numbers, in float32 too, got NaN"),
        (lambda shape: np.full(shape, 1e300), "must be finite numbers, in float32 too"),
        (lambda shape: "ones", "must be numbers, got <U4"),
        (lambda shape: None, "must be numbers, got object"),
        (lambda shape: np.full(shape, 1j), "must be numbers, got complex128"),
    ],
)
def test_what_a_function_may_not_return(values: Any, message: str) -> None:
    with warnings.catch_warnings(), pytest.raises(ArgumentError, match=f"^what the initializer .*lambda> returns {message}"):
        warnings.simplefilter("error")
        gc.Sequential(gc.Dense(3, initializer=values)).build((4,), device="cpu")
    whole = gc.Sequential(gc.Dense(3, initializer=lambda shape: np.ones(shape, int).tolist())).build((4,), device="cpu")
    assert (whole.parameters["dense_1.weight"].value == 1).all()


def test_the_default_is_hes_before_relu_and_glorots_elsewhere() -> None:
    assert gc.Conv2D(2, 3, activation="relu").initializer == gc.Dense(2, activation="relu").initializer == "he_uniform"
    assert gc.Conv2D(2, 3).initializer == gc.Dense(2, activation="softmax").initializer == "glorot_uniform"
    assert gc.Dense(2, activation="relu", initializer="zeros").initializer == "zeros"


def test_weights_are_drawn_and_biases_are_zero() -> None:
    model = gc.Sequential(gc.Conv2D(4, 3, activation="relu"), gc.Flatten(), gc.Dense(3)).build((1, 5, 5), seed=3, device="cpu")
    for name, parameter in model.parameters.items():
        assert parameter.value.any() == name.endswith("weight")
    limit = math.sqrt(6 / 9)
    assert np.abs(model.parameters["conv2d_1.weight"].value).max() <= limit
    assert np.abs(model.parameters["conv2d_1.weight"].value).max() > 0.7 * limit


def test_float32_and_float64_models_start_from_the_same_draw() -> None:
    small, large = (
        gc.Sequential(gc.Dense(5)).build((4,), seed=1, device="cpu", dtype=dtype).parameters["dense_1.weight"].value
        for dtype in ("float32", "float64")
    )
    np.testing.assert_array_equal(small, large.astype("float32"))

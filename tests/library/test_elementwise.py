"""Dense and the activations on the CPU: SciPy and numerical gradients as oracles; extremes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import gpucnn.functional as F
from gpucnn.errors import ShapeError
from gpucnn.ops import cpu

EXTREMES = np.array([-np.inf, -1e300, -1e4, -750.0, -37.0, -1e-300, -0.0, 0.0, 1e-300, 37.0, 750.0, 1e4, 1e300, np.inf])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_dense_and_its_gradients_are_einsums(n: int, c: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, weight, bias, dy = rng.normal(size=(n, c)), rng.normal(size=(k, c)), rng.normal(size=k), rng.normal(size=(n, k))
    expected = np.einsum("nc,kc->nk", x, weight)
    np.testing.assert_allclose(F.dense(x, weight), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(F.dense(x, weight, bias), expected + bias, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(cpu.dense(x, weight, bias, relu=True), np.maximum(expected + bias, 0), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(cpu.dense_input_grad(dy, weight), np.einsum("nk,kc->nc", dy, weight), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(cpu.dense_weight_grad(dy, x), np.einsum("nk,nc->kc", dy, x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(cpu.bias_grad(dy), np.einsum("nk->k", dy), rtol=1e-12, atol=1e-13)


def test_dense_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="x has 3 features and weight 4: they must be the same"):
        F.dense(np.zeros((2, 3)), np.zeros((5, 4)))
    with pytest.raises(ShapeError, match=r"bias must have one value for each of the 5 outputs, got shape \(4,\)"):
        F.dense(np.zeros((2, 4)), np.zeros((5, 4)), np.zeros(4))
    with pytest.raises(ShapeError, match="x must have 2 axes"):
        F.dense(np.zeros((2, 4, 1)), np.zeros((5, 4)))


def test_relu_is_the_maximum_with_zero_and_keeps_nan() -> None:
    x = np.append(EXTREMES, np.nan)
    np.testing.assert_array_equal(F.relu(x), np.append(np.where(EXTREMES > 0, EXTREMES, 0), np.nan))


def test_relu_gradient_passes_where_the_output_is_above_zero_and_stops_infinities_elsewhere() -> None:
    y = np.array([0.0, 1.0, 0.0, 2.0])
    dy = np.array([np.inf, 3.0, np.nan, np.inf])
    np.testing.assert_array_equal(cpu.relu_grad(dy, y), [0, 3, 0, np.inf])
    before = np.array([-1.0, 1.0, -0.0, 2.0])  # relu's input does as well as its output
    np.testing.assert_array_equal(cpu.relu_grad(dy, before), [0, 3, 0, np.inf])
    np.testing.assert_array_equal(cpu.relu_grad(dy, y, out=dy), [0, 3, 0, np.inf])  # in place as well


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_is_scipys_and_never_overflows(dtype: str) -> None:
    with np.errstate(over="ignore"):
        x = EXTREMES.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with np.errstate(over="raise", invalid="raise", divide="raise", under="ignore"):
            y = F.sigmoid(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, special.expit(x), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_is_scipys_at_any_offset(dtype: str, rng: np.random.Generator) -> None:
    x = rng.normal(size=(5, 7)).astype(dtype) * 10
    for offset in (0, 1e4, -1e4):
        shifted = (x + offset).astype(dtype)
        # Both sides start from the same rounded values; what is left are a few roundings of exp and of a sum of 7.
        np.testing.assert_allclose(F.softmax(shifted), special.softmax(shifted, axis=-1), rtol=30 * np.finfo(dtype).eps)
    assert F.softmax(x).dtype == dtype
    np.testing.assert_array_equal(F.softmax(np.array([[1e4, -1e4], [-np.inf, 0.0]], dtype)), [[1, 0], [0, 1]])


def test_softmax_works_along_the_last_axis_of_any_shape(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3, 4, 5))
    np.testing.assert_allclose(F.softmax(x), special.softmax(x, axis=-1), rtol=1e-13)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "softmax"])
def test_activation_gradients_are_the_numerical_ones(name: str, tie_free: Any, rng: np.random.Generator, numerical_gradient: Any) -> None:
    x = tie_free(4, 6)
    dy = rng.normal(size=x.shape)
    activation, gradient = getattr(cpu, name), getattr(cpu, f"{name}_grad")
    expected = numerical_gradient(lambda: float((activation(x) * dy).sum()), x)
    y = activation(x)
    kept = x.copy(), y.copy(), dy.copy()
    np.testing.assert_allclose(gradient(dy, y), expected, rtol=1e-6, atol=1e-8)
    for array, old in zip((x, y, dy), kept, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "softmax"])
def test_activations_write_where_out_says(name: str, rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4))
    expected = getattr(cpu, name)(x)
    out = np.full_like(x, np.nan)
    getattr(cpu, name)(x, out=out)
    np.testing.assert_array_equal(out, expected)
    out, dy = np.full_like(x, np.nan), rng.normal(size=x.shape)
    getattr(cpu, f"{name}_grad")(dy, expected, out=out)
    np.testing.assert_array_equal(out, getattr(cpu, f"{name}_grad")(dy, expected))


def test_flatten_keeps_the_batch_and_the_order() -> None:
    x = np.arange(24.0).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(F.flatten(x), np.arange(24.0).reshape(2, 12))


@pytest.mark.parametrize("function", [F.relu, F.sigmoid, F.softmax, F.flatten])
def test_empty_arrays_are_refused_and_named(function: Any) -> None:
    for shape in ((0,), (3, 0), ()):
        with pytest.raises(ShapeError, match="x must not be empty"):
            function(np.zeros(shape))
    with pytest.raises(TypeError, match="x must be float32 or float64, got int64: convert it"):
        function(np.zeros((2, 2), np.int64))

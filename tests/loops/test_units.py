"""Smooth and bounded variants of ReLU by compiled loops: NumPy's bits where there is no exponential, and otherwise what rounding allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_small import NANS, SIZES, draw

from gpucnn.ops import cpu
from gpucnn.ops.cpu import units
from gpucnn_loops.loops import every
from tolerances import check

STRAIGHT = {"leaky_relu": (0.2,), "relu6": (), "hard_sigmoid": (), "hard_swish": ()}
CURVED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "elu": ("elu", (1.5,)),
    "silu": ("silu", ()),
    "gelu": ("gelu", (False,)),
    "gelu by tanh": ("gelu", (True,)),
}
OF_INPUT = "hard_swish", "silu", "gelu"


def wide(function: str, *arrays: Any, more: tuple[Any, ...]) -> Any:
    """The reference in float64."""
    with np.errstate(all="ignore"):
        return getattr(units, function)(*(array.astype(np.float64) for array in arrays), *more)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", STRAIGHT)
def test_straight_lines_have_numpys_bits(name: str, size: int, rng: np.random.Generator) -> None:
    x, dy, more = draw(rng, size), draw(rng, size), STRAIGHT[name]
    with np.errstate(all="ignore"):
        x *= np.float32(3)
        y = getattr(units, name)(x, *more)
        kept = x if name in OF_INPUT else y
        dx = getattr(units, f"{name}_grad")(dy, kept, *more)
    np.testing.assert_array_equal(getattr(cpu, name)(x, *more), y)
    np.testing.assert_array_equal(getattr(cpu, f"{name}_grad")(dy, kept, *more), dx)
    kept = kept.copy()
    assert getattr(cpu, name)(x, *more, out=x) is x and getattr(cpu, f"{name}_grad")(dy, kept, *more, out=dy) is dy
    np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(dy, dx)


def exact_gelu_by_tanh(x: Any) -> Any:
    """x·σ(2u) in float64: ½·(1 + tanh u) would cancel even there."""
    with np.errstate(all="ignore"):
        return x * _logistic(_twice_u(x))


def _twice_u(x: Any) -> Any:
    return 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


def _logistic(z: Any) -> Any:
    return np.exp(np.minimum(z, 0)) / (1 + np.exp(-np.abs(z)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CURVED)
def test_curves(name: str, size: int, rng: np.random.Generator) -> None:
    x, (function, more) = draw(rng, size, odd=False), CURVED[name]
    by_tanh = name == "gelu by tanh"
    x[: size // 2] *= np.float32(2 if by_tanh else 5)  # into the tails, as far as they are normal numbers
    x64 = x.astype(np.float64)
    exact = exact_gelu_by_tanh(x64) if by_tanh else wide(function, x, more=more)
    y = getattr(cpu, function)(x, *more)
    # elu: eˣ is off by three roundings, of up to 2.5 times the difference from 1; that and the product by one. silu: the sigmoid is off by
    # seven, the product by one. gelu: next to x = −√2 half of erf, off by four roundings, is 5.4 times what is left of ½; one for the
    # difference and one for the product. By tanh: u is off by five, and so e^2u by as many as that is large; the rest is the sigmoid's.
    terms = {"elu": 10, "silu": 8, "gelu": 24, "gelu by tanh": 13}[name]
    far = 1 + np.abs(_twice_u(x64)) if by_tanh else 1
    check(y, exact, magnitude=np.abs(exact) * far, terms=terms, direction="elementwise")

    dy, kept = draw(rng, size, odd=False), y if name == "elu" else x
    got = getattr(cpu, f"{function}_grad")(dy, kept, *more)
    if name == "elu":
        np.testing.assert_array_equal(got, units.elu_grad(dy, kept, *more))
    else:
        slope, part = _parts(name, x64)
        # Two terms: the function above without its product, and x times a derivative, which is made of a sigmoid (seven roundings) and
        # another, or of a bell (four), and three products. By tanh both have what u is off by, and the second what its slope is: three.
        terms = {"silu": 20, "gelu": 24, "gelu by tanh": 28}[name]
        magnitude, exact = np.abs(dy) * (part + np.abs(x64 * slope)) * far, dy * (part + x64 * slope)
        check(got, exact, magnitude=magnitude, terms=terms, direction="elementwise")

    own, x0, given = x.copy(), kept.copy(), dy.copy()
    assert getattr(cpu, function)(own, *more, out=own) is own and getattr(cpu, f"{function}_grad")(given, x0, *more, out=given) is given
    np.testing.assert_array_equal(own, y)
    np.testing.assert_array_equal(given, got)


def _parts(name: str, x: Any) -> tuple[Any, Any]:
    """(the derivative of the factor of x, the factor), in float64."""
    if name == "silu":
        return _logistic(x) * _logistic(-x), _logistic(x)
    if name == "gelu":
        return np.exp(-x * x / 2) / np.sqrt(2 * np.pi), units._normal(x, False)
    z = _twice_u(x)
    return _logistic(z) * _logistic(-z) * 2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x * x), _logistic(z)


ENDS = [np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, 1e20, -1e20, 87.0, -80.0, 29.9, -29.9, 30.1, -30.1, 40.5, -40.5]


@pytest.mark.parametrize("name", [*STRAIGHT, *CURVED])
def test_nan_infinities_and_the_ends_of_the_numbers(name: str) -> None:
    function, more = CURVED.get(name, (name, STRAIGHT.get(name, ())))
    x = np.array(ENDS + [0.5] * 3, np.float32)
    found, expected = getattr(cpu, function)(x, *more), wide(function, x, more=more)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    numbers = ~np.isnan(expected)
    np.testing.assert_allclose(found[numbers], expected[numbers], rtol=2e-6, atol=1e-30)
    dx, expected = getattr(cpu, f"{function}_grad")(np.ones_like(x), x, *more), wide(f"{function}_grad", np.ones_like(x), x, more=more)
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(expected))
    numbers = ~np.isnan(expected)
    np.testing.assert_allclose(dx[numbers], expected[numbers], rtol=2e-6, atol=1e-30)
    for bits in NANS:
        x.view(np.uint32)[[3, 18]] = bits
        found = getattr(cpu, function)(x, *more)
        assert np.isnan(found[[3, 18]]).all() and np.isfinite(found[19])


def test_they_are_loops(rng: np.random.Generator) -> None:
    parts = {loop.name for loop in every() if loop.name.startswith("units.")}
    x = rng.standard_normal(40, dtype=np.float32)
    for name in [*STRAIGHT, *CURVED]:
        function, more = CURVED.get(name, (name, STRAIGHT.get(name, ())))
        getattr(cpu, function)(x, *more)
        getattr(cpu, f"{function}_grad")(x, x, *more)
    ready = {loop.name for loop in every() if loop.ready}
    assert len(parts) == 16 and parts <= ready

"""What the tests of the library share: float64 numerical gradients, and small data to train on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


def _numerical_gradient(f: Callable[[], float], array: np.ndarray[Any, Any], step: float = 1e-6) -> np.ndarray[Any, Any]:
    """df/d(array) by central differences; `f` reads `array`, which is changed one element at a time and put back."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = f()
        array[index] = value - step
        below = f()
        array[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


@pytest.fixture(scope="session")
def numerical_gradient() -> Callable[..., np.ndarray[Any, Any]]:
    """Central differences in float64. Their own error is about step² + 1e-16 / step, so 1e-8 for values near one."""
    return _numerical_gradient


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


@pytest.fixture
def tie_free(rng: np.random.Generator) -> Callable[..., np.ndarray[Any, Any]]:
    """Values that all differ by far more than the step of a numerical gradient, and none of them near zero: no kink is ever crossed."""

    def make(*shape: int) -> np.ndarray[Any, Any]:
        count = int(np.prod(shape))
        values = (np.arange(count) - count / 2 + 0.25) / 16
        return rng.permutation(values).reshape(shape)

    return make

"""What the tests of the library share: float64 numerical gradients, and small data to train on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
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


@pytest.fixture(autouse=True)
def ctrl_c_is_heeded() -> Iterator[None]:
    """Also where the tests were started in the background, or with nohup: there Ctrl-C is ignored, by what a test starts as well."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

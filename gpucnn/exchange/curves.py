"""Recognizes activations that an exporter has written as arithmetic, by comparing their values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpucnn.arrays import quiet
from gpucnn.layers import ELU, GELU, HardSigmoid, HardSwish, Layer, LeakyReLU, ReLU, ReLU6, Sigmoid, SiLU, Tanh

Curve: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]

SAMPLES = np.concatenate([np.linspace(-6, 6, 49), [-1e4, -100.0, -31.0, -13.0, 13.0, 31.0, 100.0, 1e4]])
NEAR = 2e-6  # relative to the larger of 1 and x, because the constants in files are float32
_erf = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(_erf(x))


def sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(1 / (1 + np.exp(-x)))


def relu(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.maximum(x, 0))


def gelu(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(x * (1 + erf(x / math.sqrt(2))) / 2)


def gelu_by_tanh(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2)


def silu(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(x * sigmoid(x))


def relu6(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.clip(x, 0, 6))


def hard_sigmoid(slope: float = 1 / 6, middle: float = 0.5) -> Curve:
    return lambda x: np.clip(slope * x + middle, 0, 1)


def hard_swish(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(x * relu6(x + 3) / 6)


def leaky(slope: float) -> Curve:
    return lambda x: np.where(x > 0, x, slope * x)


def elu(alpha: float) -> Curve:
    return lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@quiet
def match(curve: Curve) -> tuple[type[Layer], dict[str, Any]] | None:
    """The layer, with its settings, that has the formula's values at all SAMPLES; None if there is none."""
    try:
        found = np.asarray(curve(SAMPLES), np.float64)
    except (ValueError, TypeError, ArithmeticError):
        return None
    at_minus_one = float(found[np.flatnonzero(SAMPLES == -1)[0]])
    slope, alpha = -at_minus_one, at_minus_one / math.expm1(-1)
    known: list[tuple[type[Layer], dict[str, Any], Curve]] = [
        (ReLU, {}, relu),
        (Sigmoid, {}, sigmoid),
        (Tanh, {}, np.tanh),
        (SiLU, {}, silu),
        (GELU, {}, gelu),
        (GELU, {"approximate": True}, gelu_by_tanh),
        (ReLU6, {}, relu6),
        (HardSigmoid, {}, hard_sigmoid()),
        (HardSwish, {}, hard_swish),
        *([(LeakyReLU, {"negative_slope": slope}, leaky(slope))] if 0 < slope < math.inf else []),
        *([(ELU, {"alpha": alpha}, elu(alpha))] if 0 < alpha < math.inf else []),
    ]
    for kind, settings, values in known:
        if (np.abs(found - values(SAMPLES)) <= NEAR * np.maximum(1, np.abs(SAMPLES))).all():
            return kind, {name: value if isinstance(value, bool) else float(f"{value:.7g}") for name, value in settings.items()}
    return None

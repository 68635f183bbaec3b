"""Initial values of weights, by name.

He: K. He et al., "Delving Deep into Rectifiers" (ICCV 2015), variance 2 / fan_in, right before ReLU. Glorot: X. Glorot and Y. Bengio,
"Understanding the difficulty of training deep feedforward neural networks" (AISTATS 2010), variance 2 / (fan_in + fan_out). Uniform
forms have the same variance: the limit is √3 standard deviations.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gpucnn.arrays import numbers
from gpucnn.checks import LARGEST
from gpucnn.errors import ArgumentError, UnknownNameError
from gpucnn.names import Registry
from gpucnn.text import plain

Shape: TypeAlias = tuple[int, ...]
Values: TypeAlias = npt.NDArray[np.float64]
Initializer: TypeAlias = Callable[[Shape, np.random.Generator, int], Values]
INITIALIZERS: Registry[Initializer] = Registry("initializer")


def fans(shape: Shape, groups: int = 1) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (K, C) or (K, C/groups, R, S): inputs per output, and outputs per input."""
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] // groups * taps


@INITIALIZERS.add("he_normal")
def he_normal(shape: Shape, rng: np.random.Generator, groups: int = 1) -> Values:
    """Normal, variance 2 / fan_in."""
    return rng.normal(0.0, math.sqrt(2 / fans(shape)[0]), shape)


@INITIALIZERS.add("he_uniform")
def he_uniform(shape: Shape, rng: np.random.Generator, groups: int = 1) -> Values:
    """Uniform, variance 2 / fan_in."""
    limit = math.sqrt(6 / fans(shape)[0])
    return rng.uniform(-limit, limit, shape)


@INITIALIZERS.add("glorot_normal")
def glorot_normal(shape: Shape, rng: np.random.Generator, groups: int = 1) -> Values:
    """Normal, variance 2 / (fan_in + fan_out)."""
    return rng.normal(0.0, math.sqrt(2 / sum(fans(shape, groups))), shape)


@INITIALIZERS.add("glorot_uniform")
def glorot_uniform(shape: Shape, rng: np.random.Generator, groups: int = 1) -> Values:
    """Uniform, variance 2 / (fan_in + fan_out)."""
    limit = math.sqrt(6 / sum(fans(shape, groups)))
    return rng.uniform(-limit, limit, shape)


@INITIALIZERS.add("zeros")
def zeros(shape: Shape, rng: np.random.Generator, groups: int = 1) -> Values:
    """Zeros, for biases."""
    return np.zeros(shape)


@INITIALIZERS.add("ones")
def ones(shape: Shape, rng: np.random.Generator, groups: int = 1) -> Values:
    """Ones, for the scales of normalization."""
    return np.ones(shape)


Given: TypeAlias = str | Callable[..., npt.ArrayLike]  # an initializer as an argument: a name, or a function


def get_initializer(given: Given) -> Initializer:
    """The initializer of a name, or of a function of (shape), (shape, rng) or (shape, rng, groups).

    Raises UnknownNameError, which lists the names. The result of a function is checked when it is called.
    """
    if not callable(given):
        if isinstance(given, str) and "." in given and INITIALIZERS.meant(given) is None:
            return _elsewhere(given)
        return INITIALIZERS.pick(given)
    if given in INITIALIZERS.values():
        return given  # type: ignore[return-value]
    function, needed = given, _needed(given)

    def drawn(shape: Shape, rng: np.random.Generator, groups: int = 1) -> Values:
        called = f"what the initializer {as_text(function)} returns"
        values = numbers(function(*(shape, rng, groups)[:needed]), called, ArgumentError).astype(np.float64)
        if values.shape != tuple(shape):
            raise ArgumentError(f"{called} must have the shape {tuple(shape)}, got {values.shape}")
        if not (np.abs(values) <= LARGEST).all():
            raise ArgumentError(f"{called} must be finite numbers, in float32 too, got NaN, infinity or numbers above {LARGEST:.2g}")
        return values

    return drawn


def as_text(given: Given) -> str:
    """An initializer as a file stores it: its name, or where a function comes from."""
    if isinstance(given, str):
        return INITIALIZERS.meant(given) or given
    named = INITIALIZERS.name_of(given)
    owner = given if hasattr(given, "__qualname__") else type(given)
    return named or f"{owner.__module__}.{owner.__qualname__}"


def _elsewhere(name: str) -> Initializer:
    """Represents a function that is not available here, in a model whose weights are loaded anyway."""

    def missing(shape: Shape, rng: np.random.Generator, groups: int = 1) -> Values:
        raise UnknownNameError(
            f"the initializer {plain(name)} is unknown here: register it with gpucnn.register(initializer=...), or name another"
        )

    return missing


def _needed(function: Callable[..., Any]) -> int:
    """How many of (shape, rng, groups) a function takes: its required arguments, or all three if it has more than one."""
    try:
        parameters = [p for p in inspect.signature(function).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    except (TypeError, ValueError):
        return 1
    needed = sum(parameter.default is parameter.empty for parameter in parameters)
    return 1 if needed <= 1 else min(len(parameters), 3)

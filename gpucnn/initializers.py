"""Initial values of weights, by name.

He: K. He et al., "Delving Deep into Rectifiers" (ICCV 2015), variance 2 / fan_in, right before ReLU. Glorot: X. Glorot and Y. Bengio,
"Understanding the difficulty of training deep feedforward neural networks" (AISTATS 2010), variance 2 / (fan_in + fan_out). Uniform
forms have the same variance: the limit is √3 standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gpucnn.names import Registry

Shape: TypeAlias = tuple[int, ...]
Values: TypeAlias = npt.NDArray[np.float64]
Initializer: TypeAlias = Callable[[Shape, np.random.Generator, int], Values]
INITIALIZERS: Registry[Initializer] = Registry("initializer")


def fans(shape: Shape, groups: int = 1) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (K, C) or (K, C/groups, R, S): the inputs of an output, and the outputs of an input."""
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
    """Zeros: for biases."""
    return np.zeros(shape)


@INITIALIZERS.add("ones")
def ones(shape: Shape, rng: np.random.Generator, groups: int = 1) -> Values:
    """Ones: for the scales of normalization."""
    return np.ones(shape)


def get_initializer(name: str) -> Initializer:
    """The initializer called `name`; UnknownNameError says which there are."""
    return INITIALIZERS.pick(name)

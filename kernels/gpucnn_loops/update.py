"""Optimizers: one pass over flat arrays, every number touched once, with the same roundings in the same order as NumPy's passes."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.elementwise import elements
from gpucnn_loops.loops import loop
from gpucnn_loops.threads import address

Array = NDArray[np.float32]


@loop("i i f* f* f f")
def sgd_plain(first, last, p, g, rate, decay):
    """p −= rate·(g + decay·p)."""
    for i in range(first, last):
        gradient = g[i] + decay * p[i] if decay != 0 else g[i]
        p[i] -= rate * gradient


@loop("i i f* f* f* f f f i")
def sgd_momentum(first, last, p, g, v, rate, decay, momentum, nesterov):
    """v = momentum·v + g; p −= rate·v, or rate·(g + momentum·v)."""
    if nesterov:
        for i in range(first, last):
            gradient = g[i] + decay * p[i] if decay != 0 else g[i]
            velocity = v[i] * momentum + gradient
            v[i] = velocity
            p[i] -= rate * (gradient + momentum * velocity)
    else:
        for i in range(first, last):
            gradient = g[i] + decay * p[i] if decay != 0 else g[i]
            velocity = v[i] * momentum + gradient
            v[i] = velocity
            p[i] -= rate * velocity


@loop("i i f* f* f* f* f f f f f f f f f")
def adam(first, last, p, g, m, v, rate, root, shrink, decay, beta1, rest1, beta2, rest2, epsilon):
    """m = β₁m + (1 − β₁)g; v = β₂v + (1 − β₂)g²; p = shrink·p − rate·m / (√v·root + ε). decay·p is added to g."""
    for i in range(first, last):
        at_start = p[i] * shrink
        gradient = g[i] + decay * at_start if decay != 0 else g[i]
        mean = m[i] * beta1 + rest1 * gradient
        variance = v[i] * beta2 + gradient * gradient * rest2
        m[i], v[i] = mean, variance
        p[i] = at_start - mean / (np.sqrt(variance) * root + epsilon) * rate


def sgd_update(p: Array, g: Array, v: Array | None, rate: float, momentum: float, nesterov: bool, decay: float) -> None:
    """One step; all arrays flat and of one size."""
    if v is None:
        elements(p.size, lambda first, last: sgd_plain(first, last, address(p), address(g), rate, decay))
    else:
        elements(p.size, lambda first, last: sgd_momentum(first, last, address(p), address(g), address(v), rate, decay, momentum, nesterov))


def adam_update(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    rate: float,
    root: float,
    shrink: float,
    decay: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> None:
    """One step; all arrays flat and of one size."""
    numbers = rate, root, shrink, decay, beta1, 1 - beta1, beta2, 1 - beta2, epsilon
    elements(p.size, lambda first, last: adam(first, last, address(p), address(g), address(m), address(v), *numbers))

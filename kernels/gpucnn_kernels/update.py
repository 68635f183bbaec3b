"""Optimizer steps, in place over flat buffers: a thread for four parameters, all parameters of a model in one launch.

Every number is read once and written once, so a step is memory-bound. Four numbers are read by one instruction where all buffers begin at a
multiple of 16 bytes, and no read waits for another; the rest, or all if the buffers are not aligned, is done one by one in the same
launch. A GPU turns a product followed by a sum into one instruction that rounds once; a CPU rounds twice. The last bit may differ.

Values that change from step to step are read from memory, `rates`, so that a captured step can be replayed: the learning rate (for Adam
divided by 1 − β₁ᵗ), 1 / √(1 − β₂ᵗ), the factor by which weight decay multiplies a parameter, and whether to update at all, 0 after a loss
that was NaN or infinite.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.launch import Array, Stream, aligned, floats, run_each
from gpucnn_kernels.core.vector import load_4, store_4

RATES = 4  # numbers in `rates`


@device(forceinline=True)
def sgd_one(p, g, v, rate, settings, has_velocity):
    """A parameter and its velocity after a step."""
    momentum, nesterov, weight_decay = settings
    if weight_decay != float32(0):
        g += weight_decay * p
    if has_velocity:
        v = momentum * v + g
        g = g + momentum * v if nesterov else v
    return p - rate * g, v


@kernel
def sgd_kernel(parameters, gradients, velocity, rates, fours, settings, has_velocity):
    """Threads up to `fours` take four parameters each, and those after them one."""
    i = uint32(cuda.grid(1))
    rate, go = rates[0], rates[3]
    if i < fours:
        at = uint32(i * uint32(4))
        p0, p1, p2, p3 = load_4(parameters, at)
        g0, g1, g2, g3 = load_4(gradients, at)
        v0, v1, v2, v3 = float32(0), float32(0), float32(0), float32(0)
        if has_velocity:
            v0, v1, v2, v3 = load_4(velocity, at)
        p0, v0 = sgd_one(p0, g0, v0, rate, settings, has_velocity)
        p1, v1 = sgd_one(p1, g1, v1, rate, settings, has_velocity)
        p2, v2 = sgd_one(p2, g2, v2, rate, settings, has_velocity)
        p3, v3 = sgd_one(p3, g3, v3, rate, settings, has_velocity)
        if go != float32(0):
            store_4(parameters, at, p0, p1, p2, p3)
            if has_velocity:
                store_4(velocity, at, v0, v1, v2, v3)
        return
    at = uint32(uint32(fours * uint32(4)) + uint32(i - fours))
    if at < parameters.size and go != float32(0):
        before = velocity[at] if has_velocity else float32(0)
        p, v = sgd_one(parameters[at], gradients[at], before, rate, settings, has_velocity)
        parameters[at] = p
        if has_velocity:
            velocity[at] = v


@device(forceinline=True)
def adam_one(p, g, m, v, of_step, settings):
    """A parameter, and the means of its gradients and of their squares, after a step."""
    rate, root, shrink = of_step
    beta1, beta2, epsilon, one_less_beta1, one_less_beta2, decay = settings
    p = p * shrink
    if decay != float32(0):
        g += decay * p
    m = beta1 * m + one_less_beta1 * g
    v = beta2 * v + one_less_beta2 * (g * g)
    return p - rate * (m / (float32(math.sqrt(v)) * root + epsilon)), m, v


@kernel
def adam_kernel(parameters, gradients, mean, variance, rates, fours, settings):
    """Threads up to `fours` take four parameters each, and those after them one."""
    i = uint32(cuda.grid(1))
    of_step, go = (rates[0], rates[1], rates[2]), rates[3]
    if i < fours:
        at = uint32(i * uint32(4))
        p0, p1, p2, p3 = load_4(parameters, at)
        g0, g1, g2, g3 = load_4(gradients, at)
        m0, m1, m2, m3 = load_4(mean, at)
        v0, v1, v2, v3 = load_4(variance, at)
        p0, m0, v0 = adam_one(p0, g0, m0, v0, of_step, settings)
        p1, m1, v1 = adam_one(p1, g1, m1, v1, of_step, settings)
        p2, m2, v2 = adam_one(p2, g2, m2, v2, of_step, settings)
        p3, m3, v3 = adam_one(p3, g3, m3, v3, of_step, settings)
        if go != float32(0):
            store_4(parameters, at, p0, p1, p2, p3)
            store_4(mean, at, m0, m1, m2, m3)
            store_4(variance, at, v0, v1, v2, v3)
        return
    at = uint32(uint32(fours * uint32(4)) + uint32(i - fours))
    if at < parameters.size and go != float32(0):
        p, m, v = adam_one(parameters[at], gradients[at], mean[at], variance[at], of_step, settings)
        parameters[at] = p
        mean[at] = m
        variance[at] = v


def _fours(*arrays: Array) -> int:
    """The number of reads of four parameters: as many as possible if each buffer begins at a multiple of 16 bytes, otherwise 0."""
    return arrays[0].shape[0] // 4 if all(map(aligned, arrays)) else 0


def sgd_update(
    parameters: Array,
    gradients: Array,
    velocity: Array | None,
    *,
    rates: Array,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    stream: Stream = 0,
) -> None:
    """g = gradient + weight_decay·p; v = momentum·v + g; p −= rate·(g + momentum·v if nesterov else v). `velocity` may be None."""
    size = parameters.shape[0]
    flat, given = floats(parameters, "parameters", (size,)), floats(gradients, "gradients", (size,))
    # Without a velocity the gradients stand in, neither read nor written as such: keeps one signature.
    moving = given if velocity is None else floats(velocity, "velocity", (size,))
    fours = _fours(flat, given, moving)
    run_each(
        sgd_kernel,
        size - 3 * fours,
        stream,
        flat,
        given,
        moving,
        floats(rates, "rates", (RATES,)),
        np.uint32(fours),
        _sgd_settings(momentum, nesterov, weight_decay),
        np.int32(velocity is not None),
    )


def adam_update(
    parameters: Array,
    gradients: Array,
    mean: Array,
    variance: Array,
    *,
    rates: Array,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    stream: Stream = 0,
) -> None:
    """Adam (Kingma and Ba 2015, algorithm 1); with `decoupled`, AdamW (Loshchilov and Hutter 2019).

    m = β₁m + (1 − β₁)g; v = β₂v + (1 − β₂)g²; p −= lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε), with what depends on the step in `rates`.
    """
    size = parameters.shape[0]
    named = {"parameters": parameters, "gradients": gradients, "mean": mean, "variance": variance}
    arrays = [floats(array, name, (size,)) for name, array in named.items()]
    fours = _fours(*arrays)
    run_each(
        adam_kernel,
        size - 3 * fours,
        stream,
        *arrays,
        floats(rates, "rates", (RATES,)),
        np.uint32(fours),
        _adam_settings(beta1, beta2, epsilon, 0 if decoupled else weight_decay),
    )


# Settings stay as they are from step to step, and so do the tuples.


@functools.lru_cache(maxsize=64)
def _sgd_settings(momentum: float, nesterov: bool, weight_decay: float) -> tuple[Any, ...]:
    return np.float32(momentum), np.int32(nesterov), np.float32(weight_decay)


@functools.lru_cache(maxsize=64)
def _adam_settings(beta1: float, beta2: float, epsilon: float, weight_decay: float) -> tuple[np.float32, ...]:
    # 1 − β is computed in double precision, because 1 − β₂ is a thousandth
    return tuple(map(np.float32, (beta1, beta2, epsilon, 1 - beta1, 1 - beta2, weight_decay)))

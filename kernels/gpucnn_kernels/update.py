"""Optimizer steps, in place over flat buffers: one thread per parameter, all parameters of a model in one launch.

Every number is read once and written once, so a step is memory-bound. A GPU turns a product followed by a sum into one instruction that
rounds once; a CPU rounds twice. The last bit may differ.

What changes from step to step is read from memory, `rates`, so that a captured step can be replayed: the learning rate (for Adam divided
by 1 − β₁ᵗ), 1 / √(1 − β₂ᵗ), what weight decay leaves of a parameter, and whether to do anything at all: 0 after a loss that was no number.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.launch import Array, Stream, floats, run_each

RATES = 4  # numbers in `rates`


@kernel
def sgd_kernel(parameters, gradients, velocity, rates, momentum, nesterov, weight_decay, has_velocity):
    i = uint32(cuda.grid(1))
    if i >= parameters.size or rates[3] == float32(0):
        return
    p = parameters[i]
    g = gradients[i]
    if weight_decay != float32(0):
        g += weight_decay * p
    if has_velocity:
        v = momentum * velocity[i] + g
        velocity[i] = v
        g = g + momentum * v if nesterov else v
    parameters[i] = p - rates[0] * g


@kernel
def adam_kernel(parameters, gradients, mean, variance, rates, beta1, beta2, epsilon, one_less_beta1, one_less_beta2, decay):
    i = uint32(cuda.grid(1))
    if i >= parameters.size or rates[3] == float32(0):
        return
    p = parameters[i] * rates[2]
    g = gradients[i]
    if decay != float32(0):
        g += decay * p
    m = beta1 * mean[i] + one_less_beta1 * g
    v = beta2 * variance[i] + one_less_beta2 * (g * g)
    mean[i] = m
    variance[i] = v
    parameters[i] = p - rates[0] * (m / (float32(math.sqrt(v)) * rates[1] + epsilon))


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
    run_each(
        sgd_kernel,
        size,
        stream,
        floats(parameters, "parameters", (size,)),
        floats(gradients, "gradients", (size,)),
        # Without a velocity the gradients stand in, neither read nor written as such: keeps one signature.
        floats(gradients, "gradients") if velocity is None else floats(velocity, "velocity", (size,)),
        floats(rates, "rates", (RATES,)),
        np.float32(momentum),
        np.int32(nesterov),
        np.float32(weight_decay),
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
    run_each(
        adam_kernel,
        size,
        stream,
        floats(parameters, "parameters", (size,)),
        floats(gradients, "gradients", (size,)),
        floats(mean, "mean", (size,)),
        floats(variance, "variance", (size,)),
        floats(rates, "rates", (RATES,)),
        np.float32(beta1),
        np.float32(beta2),
        np.float32(epsilon),
        np.float32(1 - beta1),  # worked out in double precision: 1 − β₂ is a thousandth
        np.float32(1 - beta2),
        np.float32(0 if decoupled else weight_decay),
    )

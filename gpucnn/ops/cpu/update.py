"""Optimizer steps, in place over flat buffers: every parameter of a model in one call."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array, slabs

__all__ = ["adam_update", "sgd_update"]


def sgd_update(
    parameters: Array,
    gradients: Array,
    velocity: Array | None,
    *,
    rates: Array,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> None:
    """g = gradient + weight_decay·p; v = momentum·v + g; p −= rate·(g + momentum·v if nesterov else v), with rate = rates[0].

    PyTorch's form, where the learning rate is outside the velocity. `velocity` is None without momentum. What changes from step to step
    is in `rates` (4), on the device: see `adam_update`. Nothing is done where rates[3] is 0.
    """
    real, rate = parameters.dtype.type, rates[0]
    if not rates[3]:
        return

    def step(part: slice) -> None:
        p, g = parameters[part], gradients[part]
        if weight_decay:
            g = g + real(weight_decay) * p
        if velocity is None:
            p -= rate * g
            return
        v = velocity[part]
        v *= real(momentum)
        v += g
        p -= rate * (g + real(momentum) * v if nesterov else v)

    slabs(step, parameters.size)


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
) -> None:
    """Adam (Kingma and Ba 2015, algorithm 1); with `decoupled`, AdamW (Loshchilov and Hutter 2019).

    m = β₁m + (1 − β₁)g; v = β₂v + (1 − β₂)g²; p −= lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε). Weight decay is added to g, or with
    `decoupled` taken from the parameters: p −= lr·weight_decay·p. `rates` holds lr/(1 − β₁ᵗ), 1/√(1 − β₂ᵗ), 1 − lr·weight_decay where
    decoupled and otherwise 1, and whether to do anything at all: nothing is done where rates[3] is 0.
    """
    real = parameters.dtype.type
    rate, root, shrink, go = rates
    if not go:
        return

    def update(part: slice) -> None:
        p, g, m, v = parameters[part], gradients[part], mean[part], variance[part]
        if weight_decay and decoupled:
            p *= shrink
        elif weight_decay:
            g = g + real(weight_decay) * p
        scratch = real(1 - beta1) * g
        m *= real(beta1)
        m += scratch
        np.multiply(g, g, out=scratch)
        scratch *= real(1 - beta2)
        v *= real(beta2)
        v += scratch
        np.sqrt(v, out=scratch)
        scratch *= root
        scratch += real(epsilon)
        np.divide(m, scratch, out=scratch)
        scratch *= rate
        p -= scratch

    slabs(update, parameters.size)

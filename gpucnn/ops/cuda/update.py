"""Optimizer steps, in place over flat buffers: every parameter of a model in one call."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, stream
from gpucnn_kernels import update as kernels

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
    kernels.sgd_update(
        parameters,
        gradients,
        velocity,
        rates=rates,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        stream=stream(parameters),
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
) -> None:
    """Adam (Kingma and Ba 2015, algorithm 1); with `decoupled`, AdamW (Loshchilov and Hutter 2019).

    m = β₁m + (1 − β₁)g; v = β₂v + (1 − β₂)g²; p −= lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε). Weight decay is added to g, or with
    `decoupled` taken from the parameters: p −= lr·weight_decay·p. `rates` holds lr/(1 − β₁ᵗ), 1/√(1 − β₂ᵗ), 1 − lr·weight_decay where
    decoupled and otherwise 1, and whether to do anything at all: nothing is done where rates[3] is 0.
    """
    kernels.adam_update(
        parameters,
        gradients,
        mean,
        variance,
        rates=rates,
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        weight_decay=weight_decay,
        decoupled=decoupled,
        stream=stream(parameters),
    )

"""Updates of parameters by compiled loops."""

from __future__ import annotations

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import update as reference
from gpucnn.ops.cpu._engine import loops
from gpucnn.ops.cpu._threads import Array

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
    if not loops(parameters, gradients, velocity):
        reference.sgd_update(parameters, gradients, velocity, rates=rates, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    elif rates[3]:
        rate = float(rates[0])
        _engine.modules().update.sgd_update(parameters, gradients, velocity, rate, momentum, nesterov, weight_decay)


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
    if not loops(parameters, gradients, mean, variance):
        reference.adam_update(
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
        )
        return
    rate, root, shrink, go = (float(number) for number in rates)
    if go:
        own = (shrink, 0.0) if decoupled and weight_decay else (1.0, weight_decay)
        _engine.modules().update.adam_update(parameters, gradients, mean, variance, rate, root, *own, beta1, beta2, epsilon)

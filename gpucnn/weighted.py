"""Examples that count more than others: a loss whose labels have a weight behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.arrays import numbers
from gpucnn.checks import integer, positive
from gpucnn.device import Device
from gpucnn.errors import ArgumentError, DataError
from gpucnn.layers.base import Array
from gpucnn.losses import Loss
from gpucnn.text import shown


class Weighted(Loss):
    """`loss`, in which each example counts as much as its weight says: the mean over the batch of weight · loss.

    Labels are rows of floats: those of the loss, or a class number, and the weight as the last of each.
    """

    def __init__(self, loss: Loss) -> None:
        if type(loss).each is Loss.each:
            raise ArgumentError(f"loss {loss.name!r} does not give the loss of each example (`each`), so that none can be weighted")
        self.loss = loss
        self.name = loss.name  # type: ignore[misc]
        self.fused_activation = loss.fused_activation  # type: ignore[misc]

    def rows(self, labels: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
        """Checked labels and weights (N,) as the labels that `__call__` takes."""
        self.whole = labels.ndim == 1
        columns = labels[:, None] if self.whole else labels
        return np.concatenate([columns, weights[:, None]], axis=1, dtype=weights.dtype)

    def answers(self, labels: Array) -> int:
        return int(labels.shape[0]) if self.whole else self.loss.answers(labels[:, :-1])

    def __call__(self, device: Device, outputs: Array, labels: Array) -> tuple[Array, Array, Array]:
        own, weights = labels[:, :-1], labels[:, -1]
        own = own[:, 0].astype(np.int32) if self.whole else device.xp.ascontiguousarray(own)
        _, correct, doutputs = self.loss(device, outputs, own)
        return (self.loss.each(device, outputs, own) * weights).mean(), correct, doutputs * weights[:, None]


def example_weights(
    labels: NDArray[Any], sample_weight: Any, class_weight: Mapping[int, float] | None, dtype: np.dtype[Any]
) -> NDArray[Any] | None:
    """The weight of each example, from its own and that of its class (1 where none is given); None where all are alike.

    DataError unless sample_weight has a number of at least 0 for each example, ArgumentError for a class_weight that is no dict of them.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights = np.ones(len(labels), dtype)
    if sample_weight is not None:
        given = numbers(sample_weight, "sample_weight")
        if given.shape not in ((len(labels),), (len(labels), 1)):
            raise DataError(f"sample_weight must have one number for each of the {len(labels)} examples, got shape {given.shape}")
        if not np.isfinite(given).all() or given.min() < 0:
            raise DataError("sample_weight must be finite numbers of at least 0")
        weights *= given.reshape(-1)
    if class_weight is not None:
        if not isinstance(class_weight, Mapping):
            raise TypeError(f"class_weight must be a dict of class numbers and weights, got {shown(class_weight)}")
        classes = labels if labels.ndim == 1 else labels.argmax(axis=1) if labels.shape[1] > 1 else labels[:, 0]
        for number, weight in class_weight.items():
            chosen = classes == integer(number, "a class in class_weight", 0)
            weights[chosen] *= positive(weight, f"the weight of class {number}", zero=True)
    return weights

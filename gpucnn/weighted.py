"""Weighted examples: a loss whose labels carry a weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.arrays import numbers, quiet, several_classes
from gpucnn.checks import integer, positive
from gpucnn.device import Device
from gpucnn.errors import ArgumentError, DataError
from gpucnn.layers.base import Array
from gpucnn.losses import Loss
from gpucnn.text import shown


class Weighted(Loss):
    """A weighted `loss`: the mean over the batch of weight · loss.

    Labels are rows of floats: the labels of the loss, or a class number, followed by the weight.
    """

    def __init__(self, loss: Loss) -> None:
        if type(loss).each is Loss.each:
            raise ArgumentError(f"loss {loss.name!r} does not have the loss of each example (`each`), so examples cannot be weighted")
        self.loss = loss
        self.name = loss.name  # type: ignore[misc]
        self.fused_activation = loss.fused_activation  # type: ignore[misc]

    def rows(self, labels: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
        """Combines checked labels and weights (N,) into the labels that `__call__` takes."""
        self.whole = labels.ndim == 1
        columns = labels[:, None] if self.whole else labels
        return np.concatenate([columns, weights[:, None]], axis=1, dtype=weights.dtype)

    def answers(self, labels: Array) -> int:
        return int(labels.shape[0]) if self.whole else self.loss.answers(labels[:, :-1])

    @quiet
    def __call__(self, device: Device, outputs: Array, labels: Array) -> tuple[Array, Array, Array]:
        own, weights = labels[:, :-1], labels[:, -1]
        own = own[:, 0].astype(np.int32) if self.whole else device.xp.ascontiguousarray(own)
        _, correct, doutputs = self.loss.of_batch(device, outputs, own)
        return (self.loss.each_of_batch(device, outputs, own) * weights).mean(), correct, doutputs * weights[:, None]


@quiet
def example_weights(
    loss: Loss, labels: NDArray[Any], sample_weight: Any, class_weight: Mapping[int, float] | None, dtype: np.dtype[Any], outputs: int
) -> NDArray[Any] | None:
    """The weight of each example: sample weight times class weight, each 1 by default. None if there are no weights. labels: as the `loss`
    has checked them. outputs: the model's, one per class, or one for two classes.

    Raises DataError unless sample_weight has a number of at least 0 for each example, and for class_weight where examples have several
    classes or none; ArgumentError unless class_weight is a dict of such numbers for classes that the model knows.
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
        if several_classes(labels):
            example = int(np.argmax(labels.sum(axis=1) != 1))
            raise DataError(
                f"class_weight goes with one class for each example, and example {example} has {labels[example].sum():g}: "
                "give sample_weight"
            )
        classes = labels if labels.ndim == 1 else labels.argmax(axis=1) if labels.shape[1] > 1 else labels[:, 0]
        for number, weight in class_weight.items():
            if integer(number, "a class in class_weight", 0) >= max(outputs, 2):
                raise ArgumentError(
                    f"class_weight has a weight for class {number}, and classes are numbered from 0 to {max(outputs, 2) - 1}"
                )
            chosen = classes == (number if labels.ndim == 1 or labels.shape[1] > 1 else _as_checked(loss, number, dtype))
            weights[chosen] *= positive(weight, f"the weight of class {number}", zero=True)
    if not np.isfinite(weights).all():
        raise DataError(f"the weight of example {int(np.argmin(np.isfinite(weights)))} is infinite in {dtype}: give smaller weights")
    return weights


def _as_checked(loss: Loss, number: int, dtype: np.dtype[Any]) -> Any:
    """The label of class 0 or 1 of a model with one output: the hinge loss has −1 for 0."""
    try:
        return loss.check_labels(np.array([number]), 1, 1, dtype).ravel()[0]
    except DataError:  # a loss of the user's, with other labels
        return number

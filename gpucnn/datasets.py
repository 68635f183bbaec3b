"""Data sets as Keras's programs load them: `datasets.mnist.load_data()`. `gpucnn.load_dataset` has more sets, and the names of their
classes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpucnn.data import load_dataset

__all__ = ["cifar10", "cifar100", "fashion_mnist", "mnist"]

Pair: TypeAlias = tuple[NDArray[np.uint8], NDArray[Any]]


class _Set:
    """A data set by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<datasets.{self.name.replace('-', '_')}: load_data() gives ((x_train, y_train), (x_test, y_test))>"

    def load_data(self) -> tuple[Pair, Pair]:
        """((x_train, y_train), (x_test, y_test)) in Keras's form: uint8 images (N, H, W), colour images (N, H, W, 3); class numbers (N),
        for CIFAR (N, 1). Sets are found, downloaded and checked as by `load_dataset`, which raises the same errors."""
        data = load_dataset(self.name)
        return _as_keras(data.train_images, data.train_labels), _as_keras(data.test_images, data.test_labels)


def _as_keras(images: NDArray[np.uint8], labels: NDArray[Any]) -> Pair:
    if images.shape[1] == 1:
        return images[:, 0], labels.astype(np.uint8)
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels.astype(np.uint8)[:, None]


mnist, fashion_mnist, cifar10, cifar100 = _Set("mnist"), _Set("fashion-mnist"), _Set("cifar10"), _Set("cifar100")

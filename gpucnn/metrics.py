"""Metrics of predictions, on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpucnn.errors import DataError

METRICS = ("accuracy",)


def accuracy(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The part of rows whose largest score (N, K), the first of equals, is at the label: class numbers (N) or rows (N, K)."""
    guesses, truth = np.asarray(scores), np.asarray(labels)
    if guesses.ndim != 2 or len(guesses) != len(truth) or not len(guesses):
        raise DataError(f"accuracy compares scores (N, K) with N labels, got shapes {guesses.shape} and {truth.shape}")
    if truth.ndim == 2:
        truth = truth.argmax(axis=1)
    return float(np.mean(guesses.argmax(axis=1) == truth))


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    """counts[i, j]: how many of class i were taken for class j. labels and predicted: class numbers (N)."""
    truth, guesses = np.asarray(labels), np.asarray(predicted)
    if truth.shape != guesses.shape or truth.ndim != 1:
        raise DataError(f"confusion_matrix compares two rows of class numbers, got shapes {truth.shape} and {guesses.shape}")
    for values in (truth, guesses):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise DataError(f"class numbers must lie in 0..{classes - 1}, got {values.min()}..{values.max()}")
    counts: Any = np.bincount(truth.astype(np.int64) * classes + guesses, minlength=classes * classes)
    return counts.reshape(classes, classes)  # type: ignore[no-any-return]

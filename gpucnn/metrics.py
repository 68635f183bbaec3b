"""Metrics of predictions, on any arrays of numbers (gpucnn.arrays).

A metric is a function `(scores, labels) -> float`: scores as `Sequential.predict` returns them, labels as the loss has
checked them, before label smoothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gpucnn.arrays import class_numbers, numbers, several_classes
from gpucnn.checks import COUNT, integer
from gpucnn.errors import DataError
from gpucnn.names import Registry

Metric: TypeAlias = Callable[[Any, Any], float]
METRICS: Registry[Metric] = Registry("metric")


@METRICS.add("accuracy")
def accuracy(scores: Any, labels: Any) -> float:
    """The fraction of correct answers. With several scores (N, K), an answer is correct if the largest score (the first of equals) belongs
    to the label; labels are class numbers (N) or (N, 1), or rows (N, K). With one score, (N) or (N, 1), it is correct if score and label
    lie on the same side of ½.

    NaN counts as wrong. Raises DataError for shapes that do not fit together and for class numbers out of range.
    """
    guesses, truth = numbers(scores, "scores"), numbers(labels, "labels")
    if guesses.ndim == 1:
        guesses = guesses[:, None]
    if guesses.ndim != 2 or not guesses.size or not truth.ndim or len(guesses) != len(truth):
        raise DataError(f"accuracy compares scores (N, K) with N labels, got shapes {guesses.shape} and {truth.shape}")
    count, classes = guesses.shape
    known = ~np.isnan(guesses).any(axis=1)
    if classes == 1:
        if truth.shape not in ((count,), (count, 1)):
            raise DataError(f"one score an example needs one label an example, (N) or (N, 1), got labels of shape {truth.shape}")
        if truth.size and (truth.min() < 0 or truth.max() > 1):
            raise DataError(f"labels of one score an example must lie in 0..1, got {truth.min()}..{truth.max()}")
        return float(np.mean(known & ((guesses[:, 0] > 0.5) == (truth.reshape(-1) > 0.5))))
    numbered: Any = class_numbers(truth, count, classes)
    if numbered is None:
        if truth.shape != guesses.shape:
            raise DataError(f"labels must be class numbers ({count},) or rows {guesses.shape}, got shape {truth.shape}")
        numbered = truth.argmax(axis=1)
    return float(np.mean(known & (guesses.argmax(axis=1) == numbered)))


def confusion_matrix(labels: Any, predicted: Any, classes: int) -> npt.NDArray[np.int64]:
    """counts[i, j]: the number of examples of class i predicted as class j. labels and predicted: class numbers (N) or (N, 1)."""
    classes = integer(classes, "classes", 1, most=COUNT)
    truth, guesses = (_column(numbers(values, name)) for values, name in ((labels, "labels"), (predicted, "predicted classes")))
    if truth.shape != guesses.shape or truth.ndim != 1:
        raise DataError(f"confusion_matrix compares two rows of class numbers, got shapes {truth.shape} and {guesses.shape}")
    for values in (truth, guesses):
        if values.dtype.kind not in "iu" and values.size:
            raise DataError(f"class numbers must be integers, got {values.dtype}: for scores, pass .argmax(axis=1)")
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise DataError(f"class numbers must lie in 0..{classes - 1}, got {values.min()}..{values.max()}")
    counts: Any = np.bincount(truth.astype(np.int64) * classes + guesses.astype(np.int64), minlength=classes * classes)
    return counts.reshape(classes, classes)  # type: ignore[no-any-return]


def top_k_accuracy(scores: Any, labels: Any, k: int = 5) -> float:
    """The fraction of examples whose label is among the `k` largest scores. scores (N, K); labels: class numbers (N), (N, 1) or rows
    (N, K). Of equal scores, the lower class number wins; NaN counts as wrong."""
    k = integer(k, "k", 1)
    guesses, truth = _classes(scores, labels, "top_k_accuracy")
    own = np.take_along_axis(guesses, truth[:, None], axis=1)
    before = np.arange(guesses.shape[1]) < truth[:, None]
    larger = ((guesses > own) | ((guesses == own) & before)).sum(axis=1)
    return float(np.mean((larger < k) & ~np.isnan(guesses).any(axis=1)))


@METRICS.add("top_5_accuracy")
def top_5_accuracy(scores: Any, labels: Any) -> float:
    """The fraction of examples whose label is among the five largest scores; see `top_k_accuracy`."""
    return top_k_accuracy(scores, labels, 5)


def precision_recall(scores: Any, labels: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(precision, recall), each (K,): the fraction of predictions of a class that are correct, and the fraction of its examples that are
    found; 0 for a class that never occurs. scores (N, K), the largest is the prediction; labels: class numbers (N), (N, 1) or rows (N, K).

    Where each output answers by itself, a score above ½ is a yes, or above 0 if labels are −1 and 1: of one score an example, (N) or
    (N, 1), for which K is 1; and of rows of zeros and ones, if any row has not exactly one 1."""
    apart = _apart(scores, labels)
    if apart is not None:
        guessed, true = apart
        both = (guessed & true).sum(axis=0).astype(np.float64)
        return both / np.maximum(guessed.sum(axis=0), 1), both / np.maximum(true.sum(axis=0), 1)
    guesses, truth = _classes(scores, labels, "precision_recall")
    counts = confusion_matrix(truth, guesses.argmax(axis=1), guesses.shape[1])
    right = np.diag(counts).astype(np.float64)
    return right / np.maximum(counts.sum(axis=0), 1), right / np.maximum(counts.sum(axis=1), 1)


@METRICS.add("precision")
def precision(scores: Any, labels: Any) -> float:
    """The mean precision over all classes, or that of one score an example; see `precision_recall`."""
    return float(precision_recall(scores, labels)[0].mean())


@METRICS.add("recall")
def recall(scores: Any, labels: Any) -> float:
    """The mean recall over all classes, or that of one score an example; see `precision_recall`."""
    return float(precision_recall(scores, labels)[1].mean())


def _apart(scores: Any, labels: Any) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None:
    """(predicted, true), both (N, K), if each output answers by itself; None if outputs are classes, of which one is the answer."""
    guesses, truth = numbers(scores, "scores"), numbers(labels, "labels")
    guesses, truth = (values[:, None] if values.ndim == 1 else values for values in (guesses, truth))
    if guesses.ndim != 2 or not guesses.size or guesses.shape != truth.shape:
        return None
    if guesses.shape[1] > 1 and not several_classes(truth):
        return None
    return guesses > (0 if truth.min() < 0 else 0.5), truth > (0 if truth.min() < 0 else 0.5)


def _classes(scores: Any, labels: Any, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Checks scores (N, K) of several classes and class numbers (N). DataError for anything else."""
    guesses, truth = numbers(scores, "scores"), numbers(labels, "labels")
    if guesses.ndim != 2 or guesses.shape[1] < 2 or not guesses.size or not truth.ndim or len(guesses) != len(truth):
        raise DataError(f"{name} compares scores (N, K) of at least two classes with N labels, got {guesses.shape} and {truth.shape}")
    found: Any = class_numbers(truth, *guesses.shape)
    if found is None:
        if truth.shape != guesses.shape:
            raise DataError(f"labels must be class numbers ({len(guesses)},) or rows {guesses.shape}, got shape {truth.shape}")
        found = truth.argmax(axis=1)
    return guesses, found.reshape(-1).astype(np.int64)


def _column(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values

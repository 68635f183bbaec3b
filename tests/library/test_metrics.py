"""Metrics of predictions."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn.errors import DataError
from gpucnn.metrics import accuracy, confusion_matrix


def test_accuracy_is_the_part_of_rows_with_the_largest_score_at_the_label() -> None:
    scores = [[0.1, 0.9], [0.8, 0.2], [0.5, 0.5], [0.3, 0.7]]
    assert accuracy(scores, [1, 0, 0, 0]) == 0.75  # of equals the first is the guess
    assert accuracy(scores, np.eye(2)[[1, 0, 1, 1]]) == 0.75


@pytest.mark.parametrize(("scores", "labels"), [([[0.1, 0.9]], [1, 0]), ([[[0.1, 0.9]]], [1]), (np.zeros((0, 2)), [])])
def test_accuracy_refuses_what_cannot_be_compared(scores: object, labels: object) -> None:
    with pytest.raises(DataError, match=r"compares scores \(N, K\) with N labels, got shapes"):
        accuracy(scores, labels)  # type: ignore[arg-type]


def test_confusion_counts_true_classes_in_rows() -> None:
    counts = confusion_matrix([0, 0, 1, 2, 2, 2], [0, 1, 1, 0, 2, 2], 4)
    np.testing.assert_array_equal(counts, [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]])
    assert confusion_matrix(np.array([], int), np.array([], int), 2).tolist() == [[0, 0], [0, 0]]
    # Small unsigned class numbers must not wrap around in truth · classes + guess.
    assert confusion_matrix(np.array([200], np.uint8), np.array([199], np.uint8), 201)[200, 199] == 1


def test_confusion_refuses_classes_out_of_range_and_rows_of_other_lengths() -> None:
    for truth, guesses in (([0, 3], [0, 1]), ([0, 1], [0, 3]), ([-1, 0], [0, 0])):
        with pytest.raises(DataError, match=r"class numbers must lie in 0..2, got"):
            confusion_matrix(truth, guesses, 3)
    with pytest.raises(DataError, match=r"two rows of class numbers, got shapes \(2,\) and \(3,\)"):
        confusion_matrix([0, 1], [0, 1, 2], 3)

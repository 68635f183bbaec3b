"""Metrics of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import metrics
from gpucnn.errors import ArgumentError, DataError
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
    with pytest.raises(ArgumentError, match=r"classes must be at most 2,147,483,647, got"):
        confusion_matrix([0, 1], [0, 1], 2**40)


def test_top_k_counts_the_k_largest(rng: np.random.Generator) -> None:
    scores = np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.2, np.nan, 0.1]])
    assert metrics.top_k_accuracy(scores, [1, 1, 0], 1) == pytest.approx(1 / 3)
    assert metrics.top_k_accuracy(scores, [2, 0, 0], 2) == pytest.approx(2 / 3)  # of equals the first counts as larger
    assert metrics.top_k_accuracy(scores, [2, 1, 0], 2) == pytest.approx(1 / 3)
    assert metrics.top_k_accuracy(scores[:2], np.eye(3)[[0, 0]], 3) == 1
    random, labels = rng.random((50, 9)), rng.integers(0, 9, 50)
    assert metrics.top_k_accuracy(random, labels, 1) == metrics.accuracy(random, labels)
    order = np.argsort(-random, axis=1)[:, :5]
    assert metrics.top_5_accuracy(random, labels) == pytest.approx(
        np.mean([label in row for label, row in zip(labels, order, strict=True)])
    )
    with pytest.raises(DataError, match="top_k_accuracy compares scores"):
        metrics.top_k_accuracy(np.zeros((3, 1)), [0, 0, 0])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        metrics.top_k_accuracy(random, labels, 0)


def test_precision_and_recall_are_scikit_learns(rng: np.random.Generator) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels = rng.random((80, 5)), rng.integers(0, 4, 80)  # one class never comes up
    precision, recall = metrics.precision_recall(scores, labels)
    expected = sklearn.precision_recall_fscore_support(labels, scores.argmax(axis=1), labels=range(5), zero_division=0)
    np.testing.assert_allclose(precision, expected[0])
    np.testing.assert_allclose(recall, expected[1])
    assert metrics.precision(scores, labels) == pytest.approx(precision.mean())
    assert metrics.recall(scores, np.eye(5)[labels]) == pytest.approx(recall.mean())


@pytest.mark.parametrize("shape", [(80,), (80, 1), (80, 4)])
def test_precision_and_recall_of_outputs_that_answer_by_themselves_are_scikit_learns(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels = rng.random(shape), rng.integers(0, 2, shape)
    precision, recall = metrics.precision_recall(scores, labels)
    average = {"average": "binary"} if labels.size == 80 else {"average": None}
    for found, wanted in ((precision, sklearn.precision_score), (recall, sklearn.recall_score)):
        np.testing.assert_allclose(found, np.atleast_1d(wanted(labels.squeeze(), scores.squeeze() > 0.5, **average)))
    assert metrics.precision(scores, labels) == pytest.approx(precision.mean())
    signs = metrics.precision_recall(scores - 0.5, 2 * labels - 1) if labels.size == 80 else (precision, recall)
    np.testing.assert_array_equal(signs, (precision, recall))


def test_rows_with_one_class_each_are_classes(rng: np.random.Generator) -> None:
    scores, rows = np.array([[0.1, 0.3], [0.9, 0.6], [0.2, 0.7]]), np.eye(2)[[1, 0, 1]]
    for labels in (rows, 0.8 * rows + 0.1, 2 * rows - 1):  # as they are, softened, and of the hinge loss
        assert [each.tolist() for each in metrics.precision_recall(scores, labels)] == [[1, 1], [1, 1]]
    rows[1, 1] = 1  # two answers: now each output is one of its own
    assert [each.tolist() for each in metrics.precision_recall(scores, rows)] == [[1, 1], [1, 2 / 3]]


def test_one_probability_has_a_precision_in_training() -> None:
    x = np.linspace(-1, 1, 40)[:, None]
    model = gc.Sequential(gc.Dense(1, activation="sigmoid")).build((1,), device="cpu")
    model.compile("adam", "binary_crossentropy", ["accuracy", "precision", "recall"])
    model.parameters["dense_1.weight"].value[...] = 1
    assert model.evaluate(x, x[:, 0] > 0.5)[1:] == (pytest.approx(0.75), pytest.approx(0.5), 1)


@pytest.mark.parametrize("value", ["half", None, [0.5], np.ones(2), 1j])
def test_a_metric_returns_a_number(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metrics.METRICS, "own", lambda scores, labels: value)
    model = gc.Sequential(gc.Dense(3)).build((4,), device="cpu").compile(metrics=["own"])
    with pytest.raises(TypeError, match=r"^the metric 'own' must return a number, got "):
        model.evaluate(np.zeros((2, 4)), [0, 1])


def test_a_metric_cannot_change_the_labels_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeroed(scores: Any, labels: Any) -> float:
        scores[...] = labels[...] = 0
        return 0.0

    monkeypatch.setitem(metrics.METRICS, "zeroed", zeroed)
    monkeypatch.setitem(metrics.METRICS, "negated", lambda scores, labels: -labels.copy().sum())
    monkeypatch.setitem(metrics.METRICS, "scored", lambda scores, labels: scores.sum())
    x, y = np.random.default_rng(0).random((6, 4)), np.array([0, 1, 2, 0, 1, 2], np.int32)
    model = gc.Sequential(gc.Dense(3, activation="softmax")).build((4,), device="cpu").compile(metrics=["zeroed", "negated", "scored"])
    for _ in range(2):
        assert model.evaluate(x, y)[1:] == (0, -6, pytest.approx(6))
    assert model.fit(x, y, epochs=2, validation_data=(x, y), verbose=False)["val_negated"] == [-6, -6]
    assert y.tolist() == [0, 1, 2, 0, 1, 2]


def test_new_metrics_are_measured_by_name() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 4), np.float32), rng.integers(0, 6, 30)
    model = (
        gc.Sequential(gc.Dense(6)).build((4,), device="cpu").compile("adam", metrics=["accuracy", "top_5_accuracy", "precision", "recall"])
    )
    history = model.fit(x, y, batch_size=8, validation_data=(x, y), verbose=False)
    scores = model.predict(x)
    assert history["val_top_5_accuracy"][-1] == pytest.approx(metrics.top_5_accuracy(scores, y))
    assert history["val_recall"][-1] == pytest.approx(metrics.recall(scores, y))
    assert {"top_5_accuracy", "precision", "recall"} <= set(metrics.METRICS)

"""A small network learns scikit-learn's digits on the CPU in seconds."""

from __future__ import annotations

import importlib.util

import pytest

import gpucnn as gc


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn has the images, and is not installed")
def test_a_small_network_learns_to_read_digits(tmp_path: object) -> None:
    digits = gc.load_dataset("digits")
    model = gc.Sequential(
        gc.Conv2D(16, 3, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.Conv2D(32, 3, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.Flatten(),
        gc.Dropout(0.2),
        gc.Dense(10),
    )
    model.build((1, 8, 8), seed=0, device="cpu").compile(gc.Adam(5e-3))
    untrained = model.evaluate(digits.test_images, digits.test_labels)[1]
    history = model.fit(digits.train_images, digits.train_labels, batch_size=64, epochs=8, verbose=False)
    _loss, accuracy = model.evaluate(digits.test_images, digits.test_labels)
    assert untrained < 0.3
    assert history["loss"][-1] < history["loss"][0] / 3
    assert accuracy >= 0.95
    guesses = model.predict(digits.test_images)
    assert gc.metrics.accuracy(guesses, digits.test_labels) == accuracy
    confusion = gc.metrics.confusion_matrix(digits.test_labels, guesses.argmax(axis=1), 10)
    assert confusion.trace() / confusion.sum() == accuracy

"""The reference networks, known from the MNIST chapters of textbooks and tutorials."""

from __future__ import annotations

from collections.abc import Callable

from gpucnn.checks import integer, pick
from gpucnn.layers import Conv2D, Dense, Dropout, Flatten, Layer, MaxPool2D
from gpucnn.model import Sequential


def _keras(classes: int) -> list[Layer]:
    return [
        Conv2D(32, 3, activation="relu"),
        MaxPool2D(2),
        Flatten(),
        Dense(256, activation="relu"),
        Dense(classes),
    ]


def _tf2(classes: int) -> list[Layer]:
    return [
        Conv2D(64, 3, activation="relu"),
        MaxPool2D(2),
        Conv2D(64, 3, activation="relu"),
        Flatten(),
        Dense(128, activation="relu"),
        Dense(classes),
    ]


def _lenet5x5(classes: int) -> list[Layer]:
    return [
        Conv2D(32, 5, padding="same", activation="relu"),
        MaxPool2D(2),
        Conv2D(64, 5, padding="same", activation="relu"),
        MaxPool2D(2),
        Flatten(),
        Dense(1024, activation="relu"),
        Dropout(0.5),
        Dense(classes),
    ]


NETWORKS: dict[str, Callable[[int], list[Layer]]] = {"keras": _keras, "tf2": _tf2, "lenet5x5": _lenet5x5}


def network(name: str, classes: int = 10) -> Sequential:
    """The reference network `name` ("keras", "tf2" or "lenet5x5") with raw outputs for `classes` classes, unbuilt."""
    return Sequential(pick(name, NETWORKS, "model")(integer(classes, "classes", 1)))

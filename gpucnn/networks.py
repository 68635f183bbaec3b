"""The reference networks, known from the MNIST chapters of textbooks and tutorials."""

from __future__ import annotations

from collections.abc import Callable

from gpucnn.checks import integer
from gpucnn.layers import Conv2D, Dense, Dropout, Flatten, Layer, MaxPool2D
from gpucnn.model import Sequential
from gpucnn.names import Registry

NETWORKS: Registry[Callable[[int], list[Layer]]] = Registry("model")
"""Functions that make the layers of a network for so many classes, raw outputs last."""


@NETWORKS.add("keras")
def _keras(classes: int) -> list[Layer]:
    return [
        Conv2D(32, 3, activation="relu"),
        MaxPool2D(2),
        Flatten(),
        Dense(256, activation="relu"),
        Dense(classes),
    ]


@NETWORKS.add("tf2")
def _tf2(classes: int) -> list[Layer]:
    return [
        Conv2D(64, 3, activation="relu"),
        MaxPool2D(2),
        Conv2D(64, 3, activation="relu"),
        Flatten(),
        Dense(128, activation="relu"),
        Dense(classes),
    ]


@NETWORKS.add("lenet5x5")
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


def network(name: str, classes: int = 10) -> Sequential:
    """The network called `name` in NETWORKS with raw outputs for `classes` classes, unbuilt."""
    return Sequential(NETWORKS.pick(name)(integer(classes, "classes", 1)))

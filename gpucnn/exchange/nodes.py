"""The layers of a model during import, each with its weights, checked one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.exchange.problems import Problem
from gpucnn.exchange.value import Node, Value
from gpucnn.layers import Layer, Softmax
from gpucnn.layers.base import Shape
from gpucnn.text import reason_of

MOST_LAYERS = 10_000
LOGARITHM = "its last layer returned logarithms of probabilities; now it returns the probabilities themselves"


@dataclass
class Nodes:
    """All nodes, each after those that it needs. most: the number of elements that all weights together may have, given the size of the
    file, because one array could be used in any number of places. logarithms: softmax layers that were log_softmax in the file, and where.
    notes: messages about the model for the person who imports it."""

    most: int
    nodes: list[Node] = field(default_factory=list)
    logarithms: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def input(self, shape: Shape, axes: tuple[int, ...]) -> Value:
        """The model's input; `shape` is in gpucnn's order of axes."""
        self.nodes.append(Node(None, {}, {}, [], shape, "the input"))
        return Value(0, shape, axes)

    def add(
        self,
        kind: type[Layer],
        value: Value,
        where: str,
        weights: dict[str, NDArray[Any]] | None = None,
        *,
        plain: bool = False,
        whole: bool = False,
        **settings: Any,
    ) -> Value:
        """Appends a layer to a value that has nothing pending. Problem if the layer or its weights do not fit."""
        if len(self.nodes) >= MOST_LAYERS:
            raise Problem(f"is layer {MOST_LAYERS:,}, which is over the limit")
        weights = weights or {}
        try:
            layer = kind(**settings)
            shape = layer.build(value.shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise Problem(f"does not fit: {reason_of(error)}") from None
        for array in (*layer.parameters, *layer.arrays):
            given = weights.get(array.name)
            if given is None:
                raise Problem(f"has no {array.name}")
            if given.shape != array.shape:
                raise Problem(f"has a {array.name} of shape {given.shape} (in gpucnn's order), but its sizes need {array.shape}")
            self.most -= given.size
            if self.most < 0:
                raise Problem("needs more weights than the file has, because several layers share them and each gets its own here")
            if not np.isfinite(given).all():
                raise Problem(f"has NaN or infinity in its {array.name}")
        self.nodes.append(Node(kind, settings, weights, [value.node], shape, where, plain, whole))
        axes = value.axes if len(shape) == len(value.shape) else tuple(range(len(shape)))
        return Value(len(self.nodes) - 1, shape, axes, value.order if len(shape) == 1 and shape == value.shape else None)

    def log_softmax(self, value: Value, where: str) -> Value:
        """The logarithm of softmax, which is imported as softmax if it is the last layer; `ended` checks that it is."""
        made = self.add(Softmax, value, where)
        self.logarithms[made.node] = where
        return made

    def ended(self, output: Value) -> None:
        """Notes about the model that ends in `output`. Problem if a layer that must be the last one is not."""
        for node, where in self.logarithms.items():
            if node != output.node:
                raise Problem(f"continues after {where!r}, a log_softmax, which is supported only as the last layer")
            self.notes.append(LOGARITHM)

    def shared(self, name: str) -> None:
        """Notes weights that the file stores once and uses in several places."""
        self.notes.append(
            f"the weights of {name!r} are used in several places; here each place has its own, and training can make them differ"
        )

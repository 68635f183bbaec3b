"""Turns a graph into nested layers: branches that split and join again become a Residual or a Concat.

The branches of a join begin at its immediate dominator, the last node that all paths to the join pass through. From there, each branch is a
chain of its own. Graphs without this structure, in which a branch ends inside another one, would visit a node twice, and are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.device import Device
from gpucnn.errors import CheckpointError
from gpucnn.exchange.graph import Graph
from gpucnn.exchange.problems import Problem
from gpucnn.exchange.value import LAST, Node, Value
from gpucnn.layers import (
    AvgPool2D,
    BatchNorm2D,
    Concat,
    Conv2D,
    ConvTranspose2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    LocallyConnected2D,
    MaxPool2D,
    Residual,
)
from gpucnn.layers.activation import _Activation
from gpucnn.model import Sequential
from gpucnn.text import reason_of

WITH_BIAS = (Conv2D, DepthwiseConv2D, ConvTranspose2D, Dense)
WITH_ACTIVATION = (*WITH_BIAS, LocallyConnected2D, BatchNorm2D, Residual, Concat)
WHOLE: dict[type[Layer], type[Layer]] = {AvgPool2D: GlobalAvgPool2D, MaxPool2D: GlobalMaxPool2D}


@dataclass
class Part:
    """A layer to be created, with its weights and the branches inside it."""

    kind: type[Layer]
    settings: dict[str, Any]
    weights: dict[str, NDArray[Any]]
    plain: bool = False
    whole: bool = False
    branches: list[list[Part]] = field(default_factory=list)


def model_of(graph: Graph, output: Value, device: str | Device = "auto", *, last: bool = False) -> Sequential:
    """The built model that ends in `output`, with its weights; `last`: it accepts images with their channels last.

    Problem if the graph cannot be divided into branches, or has no layers.
    """
    if output.order is not None:
        raise Problem("ends in features whose order gpucnn's layers cannot produce")
    graph.ended(output)
    try:
        parts = _Apart(graph).chain(output.node, 0)
    except RecursionError:
        raise Problem("has branches nested more deeply than is supported") from None
    if not parts:
        raise Problem("has no layers")
    weights: list[tuple[Layer, dict[str, NDArray[Any]]]] = []
    layers = [_made(part, weights) for part in parts]
    shape = graph.nodes[0].shape
    try:
        if last:
            model = Sequential(layers).build([shape[axis] for axis in LAST], device=device, data_format="channels_last")
        else:
            model = Sequential(layers).build(shape, device=device, data_format="channels_first" if len(shape) == 3 else None)
    except (ValueError, MemoryError) as error:
        raise CheckpointError(f"its layers do not form a gpucnn model ({reason_of(error)})") from None
    for layer, arrays in weights:
        for array in (*layer.parameters, *layer.arrays):
            array.value = arrays[array.name]
    return model


class _Apart:
    def __init__(self, graph: Graph) -> None:
        self.nodes = graph.nodes
        self.before = _dominators(graph.nodes)
        self.seen: set[int] = set()

    def chain(self, end: int, start: int) -> list[Part]:
        """The layers after the node `start`, up to the node `end`."""
        found, current = [], end
        while current != start:
            node = self.nodes[current]
            if current in self.seen:
                raise Problem(f"uses the output of {node.where!r} in two places that neither Residual nor Concat joins")
            self.seen.add(current)
            if len(node.inputs) > 1:
                found.append(self._join(node, self.before[current]))
                current = self.before[current]
            else:
                assert node.kind is not None
                found.append(Part(node.kind, dict(node.settings), node.weights, node.plain, node.whole))
                current = node.inputs[0]
        return _tidy(found[::-1])

    def _join(self, node: Node, top: int) -> Part:
        assert node.kind is not None
        branches = [self.chain(each, top) for each in node.inputs]
        if node.kind is Concat:  # a branch needs a layer: dropout at a rate of 0 changes nothing, in training either
            branches = [branch or [Part(Dropout, {"rate": 0.0}, {})] for branch in branches]
        else:
            branches.sort(key=lambda branch: not branch)  # x itself is the shortcut
            if not branches[0]:
                raise Problem(f"adds a value to itself in {node.where!r}")
        return Part(node.kind, {}, {}, branches=branches)


def _dominators(nodes: list[Node]) -> list[int]:
    """For each node, the last node before it that all paths to it pass through; nodes come after their inputs."""
    found, depth = [0], [0]
    for node in nodes[1:]:
        one = node.inputs[0]
        for two in node.inputs[1:]:
            while one != two:
                if depth[one] >= depth[two]:
                    one = found[one]
                else:
                    two = found[two]
        found.append(one)
        depth.append(depth[one] + 1)
    return found


def _tidy(parts: list[Part]) -> list[Part]:
    """Merges biases and activations into the layers that they belong to, and replaces pooling of whole images by global pooling."""
    tidied: list[Part] = []
    for part in parts:
        last = tidied[-1] if tidied else None
        if last is not None:
            free = last.settings.get("activation") is None
            if part.plain and last.kind in WITH_BIAS and free and (part.weights["weight"] == 1).all():
                bias = last.weights.get("bias", 0.0) + part.weights["bias"]
                last.weights, last.settings = last.weights | {"bias": bias}, last.settings | {"use_bias": True}
                continue
            if last.kind in WITH_ACTIVATION and free and issubclass(part.kind, _Activation) and _is_default(part):
                last.settings = last.settings | {"activation": part.kind.kind}
                continue
            if part.kind is Flatten and last.whole:
                tidied[-1] = Part(WHOLE[last.kind], {}, {})
                continue
        tidied.append(part)
    return tidied


def _is_default(part: Part) -> bool:
    """Whether an activation has only default settings, so that its name describes it."""
    return part.kind(**part.settings).settings() == part.kind().settings()


def _made(part: Part, weights: list[tuple[Layer, dict[str, NDArray[Any]]]]) -> Layer:
    if part.kind is Residual:
        first, second = ([_made(each, weights) for each in branch] for branch in part.branches)
        layer: Layer = Residual(*first, shortcut=_one(second) if second else None, **part.settings)
    elif part.kind is Concat:
        layer = Concat(*[_one([_made(each, weights) for each in branch]) for branch in part.branches], **part.settings)
    else:
        layer = part.kind(**part.settings)
    weights.append((layer, {name: np.asarray(array) for name, array in part.weights.items()}))
    return layer


def _one(layers: list[Layer]) -> Layer | list[Layer]:
    return layers[0] if len(layers) == 1 else layers

"""A model as the page computes it: nodes in execution order, the arrays that they read, and how they are nested."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from gpucnn.device import to_numpy
from gpucnn.errors import GpucnnError, ShapeError
from gpucnn.layers import (
    ELU,
    GELU,
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
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    LocallyConnected2D,
    MaxPool2D,
    ReLU,
    ReLU6,
    Residual,
    SavedArray,
    SeparableConv2D,
    Sigmoid,
    SiLU,
    Softmax,
    Stack,
    Tanh,
    ZeroPad2D,
)
from gpucnn.layers.activations import ACTIVATIONS
from gpucnn.losses import get_loss
from gpucnn.model import Sequential
from gpucnn.ops.shapes import Window
from gpucnn.text import plain

Tree: TypeAlias = list[Any]  # numbers of nodes, and blocks {"kind", "name", "rows": [Tree, ...], "end": the node that joins them}

OPERATIONS: dict[type[Layer], str] = {  # for exactly that class: one derived from it may do something else
    Conv2D: "conv",
    DepthwiseConv2D: "conv",
    ConvTranspose2D: "transposed",
    LocallyConnected2D: "local",
    Dense: "dense",
    BatchNorm2D: "norm",
    MaxPool2D: "max_pool",
    AvgPool2D: "avg_pool",
    GlobalAvgPool2D: "global_avg",
    GlobalMaxPool2D: "global_max",
    ZeroPad2D: "pad",
    Flatten: "flatten",
    Dropout: "pass",
    **dict.fromkeys((ReLU, Sigmoid, Softmax, Tanh, LeakyReLU, ELU, GELU, SiLU, ReLU6, HardSigmoid, HardSwish), "pass"),
}
COMPUTED = frozenset(
    {"relu", "sigmoid", "softmax", "tanh", "leaky_relu", "elu", "gelu", "silu", "relu6", "hard_sigmoid", "hard_swish"}
)  # activations that page/activations.js has
OPAQUE = "opaque"  # a layer that the page does not compute, such as your own: its outputs are stored for the images on the page


class Graph:
    """nodes: the operations in order, node 0 being the input; each is {"id", "name", "kind", "op", "inputs", "shape", …}, ready for
    JSON. arrays: what "weight", "bias" and so on of a node refer to, {"at", "shape"} in one concatenation of all arrays. tree: the
    nesting of the nodes, for people. scores: the node whose values are probabilities, or None."""

    def __init__(self, model: Sequential) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.arrays: list[SavedArray] = []
        self.size = 0
        model._built()
        source = self._add("input", "Input", "input", [], model.input_shape)
        self.tree: Tree = [source]
        for layer in model.layers:
            source = self._layer(layer, layer.name, source, self.tree)
        self.scores = self._scores(model, source)

    def values(self) -> np.ndarray[Any, Any]:
        """The numbers of all arrays, float32, in order."""
        parts = [to_numpy(array.value).reshape(-1) for array in self.arrays]
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)

    @property
    def opaque(self) -> list[str]:
        """The names of the layers that a page cannot compute."""
        return [str(node["name"]) for node in self.nodes if node["op"] == OPAQUE]

    def _add(self, name: str, kind: str, op: str, inputs: Sequence[int], shape: Sequence[int], **more: Any) -> int:
        self.nodes.append(
            {
                "id": len(self.nodes),
                "name": plain(name),
                "kind": plain(kind),
                "op": op,
                "inputs": list(inputs),
                "shape": [int(size) for size in shape],
                **{key: value for key, value in more.items() if value is not None},
            }
        )
        return len(self.nodes) - 1

    def _array(self, array: SavedArray | None) -> dict[str, Any] | None:
        if array is None:
            return None
        stored = {"at": self.size, "shape": list(array.shape)}
        self.arrays.append(array)
        self.size += array.size
        return stored

    def _layer(self, layer: Layer, name: str, source: int, tree: Tree) -> int:
        """Adds the operations of a layer after node `source`; returns the node that has its output."""
        kind: type[Layer] = type(layer)
        if layer.activation is not None and layer.activation not in COMPUTED:
            kind = Layer  # the page does not compute it
        if kind in (Stack, SeparableConv2D):
            return self._block(layer, name, source, tree)
        if kind is Residual and isinstance(layer, Residual):
            return self._residual(layer, name, source, tree)
        if kind is Concat and isinstance(layer, Concat):
            return self._concat(layer, name, source, tree)
        after = self._activation(layer)
        op = OPERATIONS.get(kind, OPAQUE)
        more = {} if op == OPAQUE else after | self._details(layer)
        if op == OPAQUE:
            more["parameters"] = sum(array.size for _, array in layer.named_parameters())
        node = self._add(name, type(layer).__name__, op, [source], layer.output_shape, **more)
        tree.append(node)
        return node

    def _block(self, layer: Layer, name: str, source: int, tree: Tree) -> int:
        row: Tree = []
        for inner, part in layer.inner().items():
            source = self._layer(part, f"{name}.{inner}", source, row)
        tree.append({"kind": type(layer).__name__, "name": plain(name), "rows": [row]})
        return source

    def _residual(self, layer: Residual, name: str, source: int, tree: Tree) -> int:
        rows: list[Tree] = [[]]
        main = side = source
        for inner, part in layer.inner().items():
            if part is layer.shortcut:
                rows.append([])
                side = self._layer(part, f"{name}.{inner}", source, rows[1])
            else:
                main = self._layer(part, f"{name}.{inner}", main, rows[0])
        node = self._add(name, "Residual", "add", [main, side], layer.output_shape, **self._activation(layer))
        tree.append({"kind": "Residual", "name": plain(name), "rows": rows if len(rows) == 2 else [rows[0], []], "end": node})
        return node

    def _concat(self, layer: Concat, name: str, source: int, tree: Tree) -> int:
        rows: list[Tree] = [[] for _ in layer.branches]
        ends = [self._layer(part, f"{name}.{inner}", source, row) for (inner, part), row in zip(layer.inner().items(), rows, strict=True)]
        node = self._add(name, "Concat", "concat", ends, layer.output_shape, **self._activation(layer))
        tree.append({"kind": "Concat", "name": plain(name), "rows": rows, "end": node})
        return node

    def _activation(self, layer: Layer) -> dict[str, Any]:
        if layer.activation is None:
            return {}
        function = getattr(layer.device.ops, ACTIVATIONS[layer.activation].apply)
        usual = {name: each.default for name, each in inspect.signature(function).parameters.items() if name not in ("x", "out")}
        return {"activation": layer.activation, "options": {name: float(value) for name, value in (usual | layer.options).items()}}

    def _details(self, layer: Layer) -> dict[str, Any]:
        """The settings that the operation of a built-in layer needs."""
        found: dict[str, Any] = {}
        if isinstance(layer, Conv2D | ConvTranspose2D):
            found["groups"] = layer.groups
        if isinstance(layer, Conv2D | ConvTranspose2D | LocallyConnected2D | MaxPool2D | AvgPool2D):
            found["window"] = _window(layer.window)
        if isinstance(layer, AvgPool2D):
            found["counts_padding"] = layer.count_include_pad and not layer.window.same
        if isinstance(layer, ZeroPad2D):
            found["padding"] = [list(sides) for sides in layer.padding]
        if isinstance(layer, Dropout):
            found["rate"] = layer.rate
        if isinstance(layer, BatchNorm2D):
            found |= {"eps": layer.eps, "mean": self._array(layer.mean), "variance": self._array(layer.variance)}
        for name in ("weight", "bias"):
            if (array := getattr(layer, name, None)) is not None:
                found[name] = self._array(array)
        return found

    def _scores(self, model: Sequential, last: int) -> int | None:
        """The node of the probabilities, as `Sequential.predict` returns them; an activation left to the loss is added."""
        shape, activation = model.output_shape, model.last_activation
        if len(shape) != 1:
            return None
        loss = model.loss
        if loss is None and shape[0] > 1:
            loss = get_loss("categorical_crossentropy")  # as in `gpucnn predict`
        final = None if loss is None else loss.final(activation)
        if final is not None:
            added = self._add("probabilities", final.capitalize(), "pass", [last], shape, activation=final, options={})
            self.tree.append(added)
            return added
        return last if activation in ("softmax", "sigmoid") else None


def _window(window: Window) -> dict[str, Any]:
    return {
        "input": list(window.input),
        "kernel": list(window.kernel),
        "stride": list(window.stride),
        "padding": [list(sides) for sides in window.padding],
        "dilation": list(window.dilation),
        "output": list(window.output),
        "same": window.same,
    }


def opaque_outputs(model: Sequential, graph: Graph, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs of the user's own layers for images (N, …) in the model's format: float32 (N, …), by the layer's name.

    GpucnnError where such a layer fails.
    """
    found: dict[str, np.ndarray[Any, Any]] = {}
    for node in graph.nodes:
        if node["op"] != OPAQUE:
            continue
        name = str(node["name"])
        try:
            outputs = to_numpy(model.features(images, name))
        except GpucnnError:
            raise
        except Exception as error:
            raise GpucnnError(f"layer {name!r}, which is not one of gpucnn's layers, fails: {type(error).__name__}: {error}") from error
        if outputs.shape != (expected := (len(images), *node["shape"])):
            raise ShapeError(f"layer {name!r} must give an array of shape {expected}, and gives {outputs.shape}: fix the layer")
        found[name] = outputs.astype(np.float32)
    return found


def parameter_count(graph: Graph) -> int:
    """The number of trained values: weights and biases, those of the user's own layers included."""
    arrays: int = sum(math.prod(node[key]["shape"]) for node in graph.nodes for key in ("weight", "bias") if key in node)
    return arrays + sum(int(node.get("parameters", 0)) for node in graph.nodes)

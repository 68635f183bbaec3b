"""Imports a .keras file as a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, TypeAlias

from gpucnn.checks import integer
from gpucnn.device import Device
from gpucnn.errors import ArgumentError, CheckpointError, GpucnnError
from gpucnn.exchange import keras_read
from gpucnn.exchange.graph import Graph
from gpucnn.exchange.keras_layers import LAYERS
from gpucnn.exchange.keras_told import Told
from gpucnn.exchange.nodes import MOST_LAYERS
from gpucnn.exchange.problems import DAMAGE, NotTakenError, Problem
from gpucnn.exchange.tree import model_of
from gpucnn.exchange.value import FIRST, LAST, Value, goes_with, sizes_given
from gpucnn.layout import image_shape
from gpucnn.model import Sequential
from gpucnn.text import number_of, plain, reason_of, shown

Call: TypeAlias = tuple[str, int]  # the name of a layer, and the number of the call
MODELS = ("Sequential", "Functional", "Model")
PIXELS = "gpucnn divides integer pixels by 255 before the model: its own Rescaling was adapted"


def import_keras(path: str | Path, *, input_shape: Sequence[int] | None = None, device: str | Device = "auto") -> Sequential:
    """The model in a .keras file of Keras 3, built, with its weights, and not compiled.

    Sequential and functional models, also nested, can be imported if they consist of the layers in
    `gpucnn.exchange.keras_layers.LAYERS`. A model whose images have channels last still accepts such images (`model.data_format`); kernels,
    and the weights of a dense layer after a Flatten, are reordered. Nothing in the file is executed: custom layers are refused by name.

    A Rescaling of the input refers to pixels 0 … 255. gpucnn divides integer pixels by 255 before a model sees them, so the layer is
    adapted: Rescaling(1/255) is dropped.

    input_shape: the shape of an example in the file's order of axes, mostly (H, W, C), if the file leaves it open.

    Raises NotTakenError, a CheckpointError, which names every layer that gpucnn lacks; CheckpointError for files that are not .keras files,
    are damaged, or refer to other files; MissingExtraError without the package h5py.
    """
    with keras_read.read(path) as (config, weights):
        path = weights.path
        walk = _Walk(config, weights)
        try:
            output = walk.model(config, "", walk.input(input_shape))
            if walk.problems or output is None:
                raise NotTakenError(path, walk.problems)
            output = walk.graph.settled(output, "the output")
            model = model_of(walk.graph, output, device, last=walk.axes == LAST)
        except Problem as problem:
            raise NotTakenError(path, [*walk.problems, f"the model {problem}"]) from None
        except GpucnnError:
            raise
        except DAMAGE as error:
            raise CheckpointError(f"{path} describes its model in an unsupported way ({reason_of(error)}): save it with Keras 3") from None
    notes = [*([PIXELS] if walk.rescales else []), *walk.graph.notes]
    model.metadata = {"imported_from": path.name} | ({"note": "; ".join(notes)} if notes else {})
    return model


class _Walk:
    """Visits the layers of a model, and of the models inside it."""

    def __init__(self, config: dict[str, Any], weights: keras_read.Weights) -> None:
        self.graph, self.weights, self.problems = Graph(weights.path.stat().st_size), weights, list[str]()
        self.layers = list(_every_layer(config))
        if len(self.layers) > MOST_LAYERS:
            raise CheckpointError(f"{weights.path} describes {len(self.layers):,} layers; the limit is {MOST_LAYERS:,}")
        self.rescales = False
        formats = {layer["config"].get("data_format") for layer in self.layers if layer.get("class_name") != "Flatten"} - {None}
        self.axes: tuple[int, ...] = FIRST if formats == {"channels_first"} else LAST
        self.shape = _declared(config, self.layers)

    def input(self, given: Sequence[int] | None) -> Value:
        """The model's input: as the file says, or as given if the file leaves it open."""
        path = self.weights.path
        if given is not None:
            wanted = sizes_given(given)
            if self.shape is not None and not goes_with(wanted, self.shape):
                raise ArgumentError(f"input_shape {shown(wanted)} does not fit {path}, which takes {shown(tuple(self.shape))}")
            self.shape = list(wanted)
        if self.shape is None or None in self.shape:
            was = "it" if self.shape is None else shown(tuple(self.shape))
            raise CheckpointError(
                f"{path} leaves the shape of its input open ({was}): give it, as --input 32x32x3 or input_shape=(32, 32, 3)"
            )
        try:
            sizes = [integer(size, "a size", 1) for size in self.shape]
        except (TypeError, ValueError):
            sizes = []
        if len(sizes) not in (1, 2, 3):
            raise CheckpointError(
                f"{path} takes an input of shape {shown(tuple(self.shape))}, and only images or rows of features are supported"
            )
        if len(self.shape) != 3:
            self.axes = (0,) if len(self.shape) == 1 else (1, 2)
        ours = [1] * (3 if len(self.shape) > 1 else 1)
        for size, axis in zip(sizes, self.axes, strict=True):
            ours[axis] = size
        return self.graph.input(image_shape(ours, "channels_first") if len(ours) == 3 else tuple(ours), self.axes)

    def model(self, config: dict[str, Any], path: str, value: Value) -> Value | None:
        """The output of a model; None if something on the way to it could not be imported."""
        settings = config["config"]
        if config.get("class_name") not in MODELS:
            raise Problem(f"is a {shown(config.get('class_name'))}, and only sequential and functional models are supported")
        placed = _paths(settings["layers"], f"{path}layers/", inputs=config["class_name"] != "Sequential")
        if config["class_name"] == "Sequential":
            found: Value | None = value
            for layer, where in placed:
                if layer["class_name"] != "InputLayer":
                    found = self._layer(layer, where, [found])
            return found
        starts, ends = _ends(settings["input_layers"]), _ends(settings["output_layers"])
        if len(starts) != 1 or len(ends) != 1:
            both = f"{number_of(len(starts), 'input')} and {number_of(len(ends), 'output')}"
            raise Problem(f"has {both}, and gpucnn's models have one of each")
        calls, sources = self._calls(placed)
        values: dict[Call, Value | None] = {starts[0]: value}
        for call in TopologicalSorter(sources).static_order():  # a layer that is called twice may come before its second input
            if call in values:
                continue
            if call not in calls or any(source not in values for source in sources[call]):
                raise ValueError(f"no layer outputs {call[0]}")
            layer, where = calls[call]
            count = len(self.graph.nodes)
            values[call] = self._layer(layer, where, [values[source] for source in sources[call]])
            if call[1] == 1 and any(node.weights for node in self.graph.nodes[count:]):
                self.graph.shared(plain(call[0]))
        return values[ends[0]]

    def _calls(self, placed: list[tuple[dict[str, Any], str]]) -> tuple[dict[Call, tuple[dict[str, Any], str]], dict[Call, list[Call]]]:
        """The calls of the layers in a functional model, and the inputs of each."""
        calls: dict[Call, tuple[dict[str, Any], str]] = {}
        sources: dict[Call, list[Call]] = {}
        for layer, where in placed:
            for number, node in enumerate(layer["inbound_nodes"] or [{"args": [], "kwargs": {}}]):
                call = str(layer["config"]["name"]), number
                calls[call], sources[call] = (layer, where), list(_sources(node["args"]))
                if list(_sources(list(node["kwargs"].values()))):
                    raise Problem(f"calls {shown(call[0])} with values by name, in an unsupported way")
        return calls, sources

    def _layer(self, layer: dict[str, Any], path: str, inputs: list[Value | None]) -> Value | None:
        given = [value for value in inputs if value is not None]
        if len(given) < len(inputs):  # already reported
            return None
        kind, settings = layer["class_name"], layer["config"]
        name = str(settings["name"])
        try:
            if kind in MODELS and len(given) == 1:
                return self.model(layer, f"{path}/", given[0])
            if kind not in LAYERS or not str(layer.get("module", "")).startswith("keras"):
                raise Problem("has no equivalent layer in gpucnn")
            if kind == "Rescaling" and given[0].node == 0:
                self.rescales = True
            told = Told(self.graph, settings, given, name, lambda shapes: self.weights.of(path, name, shapes))
            return LAYERS[kind](told)
        except Problem as problem:
            self._refuse(layer, str(problem))
            return None

    def _refuse(self, layer: dict[str, Any], why: str) -> None:
        words = f"{plain(layer['class_name'])} {plain(layer['config']['name'])!r} {why}"
        if words not in self.problems:  # for a layer that is called in several places
            self.problems.append(words)


def _every_layer(config: dict[str, Any], depth: int = 0) -> Iterator[dict[str, Any]]:
    """All layers in the description, including those inside nested models."""
    layers = config.get("config", {}).get("layers") if depth < 50 else None
    for layer in layers if isinstance(layers, list) else []:
        if not isinstance(layer, dict) or not isinstance(layer.get("config"), dict):
            raise CheckpointError(f"the description of a layer is damaged: {shown(layer)}")
        yield layer
        yield from _every_layer(layer, depth + 1)


def _declared(config: dict[str, Any], layers: list[dict[str, Any]]) -> list[int | None] | None:
    """The shape of an example, as far as the file specifies it."""
    shapes = [layer["config"].get("batch_shape") for layer in layers if layer.get("class_name") == "InputLayer"]
    if not shapes:
        shapes = [config["config"].get("build_input_shape"), (config.get("build_config") or {}).get("input_shape")]
    found = next((shape for shape in shapes if isinstance(shape, list) and len(shape) > 1), None)
    return None if found is None else list(found[1:])


def _paths(layers: list[dict[str, Any]], before: str, *, inputs: bool) -> list[tuple[dict[str, Any], str]]:
    """Layers with the paths of their weights: the kind in lower case, numbered from the second of a kind on. In a sequential model the
    input does not count as a layer."""
    counts: dict[str, int] = {}
    placed = []
    for layer in layers:
        if layer["class_name"] == "InputLayer" and not inputs:
            placed.append((layer, ""))
            continue
        kind = re.sub(r"\W+", "", str(layer["class_name"]))
        kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()
        number = counts[kind] = counts.get(kind, -1) + 1
        placed.append((layer, f"{before}{kind}_{number}" if number else f"{before}{kind}"))
    return placed


def _ends(given: Any) -> list[Call]:
    """The calls in ["name", 0, 0], or in a list of such lists."""
    if isinstance(given, list) and given and isinstance(given[0], str):
        given = [given]
    return [(str(name), int(number)) for name, number, *_ in given]


def _sources(given: Any) -> Iterator[Call]:
    """The calls whose outputs are among the arguments of a call."""
    if isinstance(given, list):
        for each in given:
            yield from _sources(each)
    elif isinstance(given, dict) and given.get("class_name") == "__keras_tensor__":
        name, number, *_ = given["config"]["keras_history"]
        yield str(name), int(number)

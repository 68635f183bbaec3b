"""Imports an ONNX graph as a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.arrays import quiet
from gpucnn.device import Device
from gpucnn.errors import ArgumentError, CheckpointError, GpucnnError
from gpucnn.exchange.graph import Graph
from gpucnn.exchange.onnx_fold import BATCH, fold
from gpucnn.exchange.onnx_op import FLOATS, Op
from gpucnn.exchange.onnx_ops import OPS
from gpucnn.exchange.onnx_read import OnnxFile, read
from gpucnn.exchange.packages import onnx
from gpucnn.exchange.problems import DAMAGE, NotTakenError, Problem
from gpucnn.exchange.tree import model_of
from gpucnn.exchange.value import FIRST, LAST, Value, goes_with, sizes_given
from gpucnn.layout import FEW, SIDE
from gpucnn.model import Sequential
from gpucnn.text import listed, number_of, plain, reason_of, shown

ROOM = 1 << 20  # elements that weights may have beyond the file's size, because some are expanded from a few numbers
LONGEST = 1 << 20  # characters of metadata that are imported
PASSED_ON = ("Identity", "Cast", "Add", "Sub", "Mul", "Div")  # nodes from an input to the transposition that shows the order of its axes


def import_onnx(path: str | Path, *, input_shape: Sequence[int] | None = None, device: str | Device = "auto") -> Sequential:
    """The model in an ONNX file, built, with its weights, and not compiled.

    A graph can be imported if it has one input and one output and computes only what gpucnn's layers compute, whatever nodes the exporter
    used: convolutions (depthwise, grouped, transposed), pooling, dense layers, batch normalization, activations, sums and concatenations of
    branches, dropout, padding, flattening. If the graph's images have channels last, as in Keras, the model accepts such images
    (`model.data_format`), and its weights are reordered.

    input_shape: the shape of an example in the file's order of axes, mostly (C, H, W), if the file leaves it open.

    Raises NotTakenError, a CheckpointError, which names every node that gpucnn lacks; CheckpointError for files that are not ONNX files,
    are cut short, or refer to files in other folders; MissingExtraError without the package onnx.
    """
    file = read(path)
    try:
        walk = _Walk(file, input_shape)
    except GpucnnError:
        raise
    except DAMAGE as error:
        raise CheckpointError(f"{file.path} describes its input in an unsupported way ({reason_of(error)}): export it again") from error
    walk.run()
    if walk.problems:
        raise NotTakenError(file.path, walk.problems)
    try:
        model = model_of(walk.graph, walk.output(), device, last=walk.last)
    except Problem as problem:
        raise NotTakenError(file.path, [f"the graph {problem}"]) from None
    except CheckpointError as error:
        raise CheckpointError(f"{file.path} was not imported: {error}") from None
    model.metadata = _metadata(file, model.output_shape[0])
    if walk.graph.notes:
        model.metadata["note"] = "; ".join(walk.graph.notes)
    return model


class _Walk:
    """Visits the nodes, which are listed in an order in which they can be computed."""

    def __init__(self, file: OnnxFile, input_shape: Sequence[int] | None) -> None:
        self.file, self.graph = file, Graph(ROOM + file.size())
        self.constants: dict[str, NDArray[Any]] = {}
        self.values: dict[str, Value] = {}
        self.problems: list[str] = []
        self._told: set[str] = set()  # shared weights that have been reported
        self._lost: set[str] = set()  # outputs of nodes that could not be imported
        self.uses = Counter(name for node in file.graph.node for name in node.input)
        self.uses.update(output.name for output in file.graph.output)
        name, shape, axes, self.batch = self._input(input_shape)
        self.last = axes == LAST
        self.values[name] = self.graph.input(shape, axes)

    def _input(self, given: Sequence[int] | None) -> tuple[str, tuple[int, ...], tuple[int, ...], int | None]:
        """The input's name, the shape of an example in gpucnn's order, the order of the file's axes, and the batch size if fixed."""
        inputs = [each for each in self.file.graph.input if each.name not in self.file.initializers]
        path = self.file.path
        if len(inputs) != 1 or len(self.file.graph.output) != 1:
            names = listed([each.name for each in (*inputs, *self.file.graph.output)], 6)
            raise CheckpointError(
                f"{path} has {number_of(len(inputs), 'input')} and {number_of(len(self.file.graph.output), 'output')} ({names}), "
                "and models have one of each: "
                "export a part that does"
            )
        kind = int(inputs[0].type.tensor_type.elem_type)
        if kind not in FLOATS:
            raise CheckpointError(
                f"{path} takes an input of type {onnx().TensorProto.DataType.Name(kind)}, and only floats are supported: "
                "export it with floats"
            )
        dims = inputs[0].type.tensor_type.shape.dim
        sizes: list[int | None] = [int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]
        if len(sizes) not in (2, 3, 4):
            raise CheckpointError(
                f"{path} takes an input of {len(sizes)} axes, and only images (N, C, H, W) or features (N, F) are supported"
            )
        if given is not None:
            wanted = sizes_given(given)
            if not goes_with(wanted, sizes[1:]):
                raise ArgumentError(f"input_shape {shown(wanted)} does not fit {path}, which takes {_open(sizes[1:])}")
            sizes[1:] = wanted
        if None in sizes[1:]:
            raise CheckpointError(
                f"{path} leaves the size of its input open ({_open(sizes[1:])}): give it, as --input 3x32x32 or input_shape=(3, 32, 32)"
            )
        last = len(sizes) == 4 and self._is_last(inputs[0].name, sizes[1:])
        axes = {2: (0,), 3: (1, 2), 4: LAST if last else FIRST}[len(sizes)]
        shape = [1] * (3 if len(sizes) > 2 else 1)
        for size, axis in zip(sizes[1:], axes, strict=True):
            shape[axis] = size or 1
        return inputs[0].name, tuple(shape), axes, sizes[0]

    def _is_last(self, name: str, sizes: Sequence[int | None]) -> bool:
        """Whether images have their channels last: then the graph first moves the channels to the front. Without such a node, the shape
        decides."""
        names, told = {name}, set()
        for node in self.file.graph.node:
            if names.isdisjoint(node.input) or node.op_type == "Shape":
                continue
            if node.op_type in PASSED_ON:
                names.update(node.output)
            elif node.op_type == "Transpose":
                told.add([list(each.ints) for each in node.attribute if each.name == "perm"] == [[0, 3, 1, 2]])
            elif node.op_type not in ("Flatten", "Reshape"):
                told.add(False)
        if told:
            return told == {True}
        h, w, c = sizes
        return c in FEW and (h or SIDE) >= SIDE and (w or SIDE) >= SIDE

    @quiet
    def run(self) -> None:
        """Turns all nodes into layers. Nodes that cannot be imported are added to `problems`; nodes that depend on them are skipped."""
        for node in self.file.graph.node:
            if not self._lost.isdisjoint(node.input):
                self._lost.update(node.output)
                continue
            try:
                self._take(node)
            except Problem as problem:
                self._refuse(node, str(problem))
            except DAMAGE as error:
                self._refuse(node, f"is written in an unsupported way ({reason_of(error)})")

    def _refuse(self, node: Any, why: str) -> None:
        named = plain(node.name or (node.output[0] if node.output else ""))
        self.problems.append(f"{plain(node.op_type)} {named!r} {why}")
        self._lost.update(node.output)

    def output(self) -> Value:
        """The output of the graph."""
        name = self.file.graph.output[0].name
        if name not in self.values:
            raise Problem(f"outputs {shown(name)}, which does not depend on its input")
        return self.graph.settled(self.values[name], "the output")

    def constant(self, name: str) -> NDArray[Any] | None:
        """The constant called `name`; None if it depends on the input."""
        if name not in self.constants and name in self.file.initializers:
            self.constants[name] = self.file.array(self.file.initializers[name])
        return self.constants.get(name)

    def _take(self, node: Any) -> None:
        for name in node.input:
            if name and name not in self.values and self.constant(name) is None:
                raise Problem(f"takes {shown(name)}, which no earlier node outputs")
        attributes = {each.name: self._attribute(each) for each in node.attribute}
        op = Op(self, node.op_type, list(node.input), list(node.output), attributes, plain(node.name or node.output[0]))
        if node.op_type == "Constant":
            values = [value for name, value in attributes.items() if name.startswith("value")]
            if len(values) != 1 or not isinstance(values[0], int | float | list | np.ndarray):
                raise Problem("is not a constant of numbers")
            self.constants[node.output[0]] = np.asarray(values[0])
        elif node.op_type == "Shape" and node.input[0] in self.values:
            sizes = np.array([BATCH, *self.values[node.input[0]].logical], object)
            self.constants[node.output[0]] = sizes[attributes.get("start", 0) : attributes.get("end")]
        elif not any(name in self.values for name in node.input):
            known = fold(node.op_type, [self.constant(name) if name else None for name in node.input], attributes, _numpy_type)
            if known is None:
                raise Problem("computes with constants in a way that is not supported")
            self.constants[node.output[0]] = known
        elif node.op_type not in OPS:
            raise Problem("has no equivalent layer in gpucnn")
        else:
            count = len(self.graph.nodes)
            for other in node.output[1:]:
                if self.uses[other]:
                    raise Problem(f"has a second output that is used, {shown(other)}")
            self.values[node.output[0]] = self._shared(OPS[node.op_type](op), node.output[0], op.where)
            if any(each.weights for each in self.graph.nodes[count:]):
                self._note_shared(node)

    def _shared(self, value: Value, name: str, where: str) -> Value:
        """Makes a value that several nodes use a layer at once, so that they share it. A formula that is not a layer yet remains one, and
        so does padding that no layer adds."""
        if self.uses[name] < 2 or (value.pad is not None and value.pad[1] != "zero"):
            return value
        try:
            return self.graph.settled(value, where)
        except Problem:
            if value.curve is None:
                raise
            return value

    def _note_shared(self, node: Any) -> None:
        """Notes that weights used by several nodes are copied for each. Not for vectors: exporters share those that happen to be equal."""
        for name in node.input:
            if name in self.file.initializers and self.uses[name] > 1 and len(self.file.initializers[name].dims) > 1:
                if name not in self._told:
                    self.graph.shared(plain(name))
                self._told.add(name)

    def _attribute(self, attribute: Any) -> Any:
        kinds = onnx().AttributeProto
        if attribute.type in (kinds.GRAPH, kinds.GRAPHS):
            raise Problem("contains a graph, and branches and loops are not supported")
        if attribute.type == kinds.TENSOR:
            return self.file.array(attribute.t)
        value = onnx().helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return list(value) if attribute.type in (kinds.INTS, kinds.FLOATS) else value


def _open(sizes: Sequence[int | None]) -> str:
    return "×".join("?" if size is None else str(size) for size in sizes)


def _numpy_type(number: int) -> Any:
    return onnx().helper.tensor_dtype_to_np_dtype(number)


def _metadata(file: OnnxFile, outputs: int) -> dict[str, Any]:
    """The model's origin, and the file's metadata: all of it if gpucnn wrote the file, otherwise the class names."""
    found: dict[str, Any] = {"imported_from": file.path.name}
    if sum(len(key) + len(text) for key, text in file.metadata.items()) > LONGEST:
        return found
    for key, text in file.metadata.items():
        try:
            found[key] = json.loads(text)
        except (ValueError, RecursionError):
            found[key] = text
    names = found.get("class_names")
    if not (isinstance(names, list) and len(names) == outputs and all(isinstance(name, str) for name in names)):
        found.pop("class_names", None)
    return found

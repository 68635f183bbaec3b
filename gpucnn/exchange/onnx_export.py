"""Exports a model as an ONNX file, which other runtimes can run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.checks import flag
from gpucnn.errors import CheckpointError
from gpucnn.exchange.onnx_nodes import ACTIVATIONS, Nodes, in_turn
from gpucnn.exchange.packages import onnx
from gpucnn.files import write_atomically
from gpucnn.layers.chain import numbered
from gpucnn.model import Sequential
from gpucnn.text import bytes_text, first_line, shown

OPSET = 21  # it has all operators used here (GELU came in 20), and runtimes support it since the middle of 2024
LARGEST = (1 << 31) - (1 << 20)  # bytes of weights: the format's limit is 2 GiB, and names need some room
INPUT, OUTPUT = "input", "output"


def export_onnx(model: Sequential, path: str | Path, *, logits: bool = False) -> None:
    """Writes a built model as ONNX. The file is written completely or not at all.

    The graph has one input, `input` (batch, C, H, W) or (batch, features) of float32, and one output, `output` (batch, …), for batches of
    any size. Images have their channels first, also for a channels-last model. The graph computes what `model.predict` computes for floats:
    probabilities, even if the last softmax or sigmoid is part of the loss, unless `logits` is set. Integer pixels must be divided by 255
    first. Dropout has no effect on predictions and is left out. Class names and the model's other metadata become metadata of the
    file, as JSON.

    Raises CheckpointError for a layer that ONNX has no nodes for, for NaN, and for over 2 GiB of weights; MissingExtraError without the
    package onnx; OSError from the disk.
    """
    proto = as_onnx(model, logits=logits, where=str(path))
    content = proto.SerializeToString()
    write_atomically(path, lambda file: file.write(content))


def as_onnx(model: Sequential, *, logits: bool = False, where: str = "the model") -> Any:
    """The same model as an `onnx.ModelProto`, checked."""
    package = onnx()
    if not isinstance(model, Sequential):
        raise TypeError(f"export_onnx takes a built model, got {shown(model)}")
    flag(logits, "logits")
    size = model.buffers.values.nbytes + model.buffers.saved.nbytes
    if size > LARGEST:
        raise CheckpointError(f"{where} was not written: the weights have {bytes_text(size)}, and an ONNX file can have 2 GiB")
    for name, array in (model.parameters | model.arrays).items():
        if not bool(model.device.xp.isfinite(array.value).all()):
            raise CheckpointError(f"{where} was not written: {name!r} contains NaN or infinity; train it again")
    nodes = Nodes()
    final = None if model.loss is None else model.loss.final(model.last_activation)
    x = in_turn(nodes, numbered(model.layers), INPUT, logits=logits)
    if final is not None and not logits:
        nodes.layer = "predict"
        x = ACTIVATIONS[final](nodes, x, {})
    nodes.nodes.append(package.helper.make_node("Identity", [x], [OUTPUT], name=OUTPUT))
    proto = _model(package, nodes, model)
    try:
        package.checker.check_model(proto, full_check=True)
    except Exception as error:  # onnx raises several classes: for an array without elements, or shapes that do not fit a layer
        raise CheckpointError(f"{where} was not written: ONNX's own check refuses it ({first_line(error)}); please report it") from None
    return proto


def _model(package: Any, nodes: Nodes, model: Sequential) -> Any:
    from gpucnn import __version__

    helper, numpy_helper = package.helper, package.numpy_helper
    number = package.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes.nodes,
        "gpucnn",
        [helper.make_tensor_value_info(INPUT, number, ["batch", *model.input_shape])],
        [helper.make_tensor_value_info(OUTPUT, number, ["batch", *model.output_shape])],
        [numpy_helper.from_array(array, name) for name, array in nodes.constants.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    proto = helper.make_model(
        graph,
        opset_imports=opset,
        ir_version=helper.find_min_ir_version_for(opset),
        producer_name="gpucnn",
        producer_version=__version__,
        doc_string="Divide pixels 0 … 255 by 255 first; channels come first.",
    )
    if not isinstance(model.metadata, Mapping):
        raise CheckpointError(f"metadata must be a dict, got {shown(model.metadata)}: name what it is under a key")
    helper.set_model_props(proto, _properties(model.metadata))
    return proto


def _properties(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Metadata for ONNX, which maps strings to strings: text unchanged, everything else as JSON."""
    return {str(key): value if isinstance(value, str) else json.dumps(value, default=_number) for key, value in metadata.items()}


def _number(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)

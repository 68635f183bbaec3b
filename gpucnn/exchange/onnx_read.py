"""Reads ONNX files without trusting them.

Nothing is executed. The only files opened are the one that is named and the weight files beside it that it refers to. These must have a
plain name, be in the same folder, be regular files and not links, and be large enough for what is read from them.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.errors import CheckpointError
from gpucnn.exchange.packages import onnx
from gpucnn.exchange.problems import Problem
from gpucnn.files import regular_file
from gpucnn.text import listed, plain, reason_of, shown

LARGEST = 1 << 31  # bytes, the format's limit
MOST_NODES = 100_000
MOST_FILES = 10_000
OPSETS = range(7, 64)
NARROW = {"FLOAT16", "BFLOAT16"}
TYPES = {"FLOAT", "DOUBLE", "INT32", "INT64", "UINT8", "INT8", "BOOL", *NARROW}


@dataclass
class OnnxFile:
    """A parsed file: its graph, the version of the operators, its metadata, and its arrays, each read on access."""

    path: Path
    graph: Any
    opset: int
    metadata: dict[str, str]
    initializers: dict[str, Any]

    def size(self) -> int:
        """The size in bytes of the file and of the weight files beside it."""
        names = {entry.value for tensor in self.initializers.values() for entry in tensor.external_data if entry.key == "location"}
        total = self.path.stat().st_size
        for name in list(names)[:MOST_FILES]:
            if name and name == os.path.basename(name):
                with contextlib.suppress(OSError, ValueError):
                    total += os.lstat(self.path.parent / name).st_size
        return total

    def array(self, tensor: Any) -> NDArray[Any]:
        """The values of a tensor, 16-bit floats as float32. Problem if they are missing or of an unsupported type."""
        name = plain(tensor.name) or "a constant"
        package = onnx()
        kind = package.TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in package.TensorProto.DataType.values() else "?"
        if kind not in TYPES:
            raise Problem(
                f"has weights {name!r}, which are of type {kind}, and only numbers of 16 to 64 bits are supported: export it as float32"
            )
        dims = [int(size) for size in tensor.dims]
        if any(size < 0 for size in dims):
            raise Problem(f"has weights {name!r} with a size below 0, {shown(dims)}: export it again")
        try:
            if tensor.data_location == package.TensorProto.EXTERNAL:
                array = self._outside(tensor, name, dims)
            else:
                array = package.numpy_helper.to_array(tensor)
        except (ValueError, TypeError, OverflowError, MemoryError) as error:
            raise Problem(f"has weights {name!r}, of shape {shown(dims)}, that are incomplete ({reason_of(error)})") from None
        if list(array.shape) != dims:
            raise Problem(f"has weights {name!r} that do not have the declared shape {shown(dims)}: export it again")
        return np.asarray(array, np.float32) if kind in NARROW else np.asarray(array)

    def _outside(self, tensor: Any, name: str, dims: list[int]) -> NDArray[Any]:
        """The part of a file beside this one that holds a tensor."""
        told = {entry.key: entry.value for entry in tensor.external_data}
        location = told.get("location", "")
        if not location or location != os.path.basename(location) or location in (".", "..") or "\\" in location or "\0" in location:
            raise Problem(f"stores {name!r} in {shown(location)}, and only files in the same folder are read: export it as one file")
        beside = self.path.parent / location
        try:
            mode = os.lstat(beside).st_mode
        except (OSError, ValueError) as error:
            raise Problem(
                f"stores its weights in {plain(location)}, which cannot be read ({reason_of(error)}): put it beside the model"
            ) from None
        if not stat.S_ISREG(mode):
            raise Problem(f"stores its weights in {plain(location)}, which is not a regular file: copy the file itself there")
        dtype = np.dtype(onnx().helper.tensor_dtype_to_np_dtype(tensor.data_type)).newbyteorder("<")
        size = math.prod(dims) * dtype.itemsize
        offset, length = (self._number(told.get(key, default), name) for key, default in (("offset", "0"), ("length", str(size))))
        if length != size or offset + length > os.path.getsize(beside):
            raise Problem(
                f"places {name!r} at {offset} to {offset + length} of {plain(location)}, which has "
                f"{os.path.getsize(beside)} bytes, and it needs {size}: get new copies of both"
            )
        with open(beside, "rb") as file:
            file.seek(offset)
            return np.frombuffer(file.read(length), dtype).reshape(dims)

    def _number(self, text: str, name: str) -> int:
        if not text.isdecimal() or len(text) > 18:
            raise Problem(f"has {shown(text)} as the position of {name!r}: export it again")
        return int(text)


def read(path: str | Path) -> OnnxFile:
    """Opens the file at `path`. CheckpointError if it is not an ONNX model, or not a single graph of ONNX's own operators."""
    path = regular_file(path, "an ONNX file", CheckpointError, empty=False)
    package = onnx()
    size = path.stat().st_size
    if size >= LARGEST:
        raise CheckpointError(f"{path} has over 2 GiB, which no ONNX file has: name another")
    proto = package.ModelProto()
    try:
        with open(path, "rb") as file:
            proto.ParseFromString(file.read(size))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({reason_of(error)}): check its permissions") from None
    except Exception:  # protobuf raises several classes
        raise CheckpointError(f"{path} is not an ONNX file, or was cut short: export it again or get a new copy") from None
    if not proto.HasField("graph") or not proto.graph.node:
        raise CheckpointError(f"{path} contains no ONNX graph: export it again or get a new copy")
    if len(proto.graph.node) > MOST_NODES:
        raise CheckpointError(f"{path} has a graph of {len(proto.graph.node):,} nodes; the limit is {MOST_NODES:,}")
    if proto.functions or proto.training_info:
        raise CheckpointError(f"{path} has functions or a training graph of its own: export it for inference, with functions inlined")
    versions = {entry.domain: int(entry.version) for entry in proto.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 0))
    if opset not in OPSETS:
        raise CheckpointError(
            f"{path} is written in version {opset} of ONNX's operators, and only 7 and later are supported: export it again"
        )
    foreign = sorted({node.domain for node in proto.graph.node if node.domain not in ("", "ai.onnx")})
    if foreign:
        raise CheckpointError(f"{path} has operators of {listed(foreign)}, and only ONNX's own are supported: export it without them")
    if proto.graph.sparse_initializer:
        raise CheckpointError(f"{path} has sparse weights, which are not supported: export it with dense ones")
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    return OnnxFile(path, proto.graph, opset, metadata, {tensor.name: tensor for tensor in proto.graph.initializer})

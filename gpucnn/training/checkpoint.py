"""Files that hold a model or a whole run: safetensors with a JSON description, written atomically (gpucnn.files)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.device import to_numpy
from gpucnn.errors import CheckpointError
from gpucnn.files import regular_file, write_atomically
from gpucnn.text import listed, reason_of, shown

KEY = "gpucnn"  # the only metadata entry: safetensors writes several entries in varying order
VERSION = 1
LONGEST = 1 << 24  # characters of a description, which holds no weights
NARROW = {"F16": np.float16, "BF16": None}  # 16-bit floats that other tools store weights as; NumPy has no bfloat16


def save_tensors(path: str | Path, tensors: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Writes arrays and a JSON description. Raises OSError from the disk, and CheckpointError for what could not be loaded again: NaN,
    infinity, and values that JSON cannot hold. NumPy numbers become Python numbers."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(to_numpy(tensor)) for name, tensor in tensors.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path} was not written: {name!r} contains NaN or infinity; lower the learning rate")
    try:
        text = json.dumps({"version": VERSION, "description": as_json(dict(description), "")})
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} was not written: {reason_of(error)}") from None
    if len(text) > LONGEST:
        raise CheckpointError(f"{path} was not written: its description has {len(text):,} characters; the limit is {LONGEST:,}")
    content = save(arrays, {KEY: text})
    write_atomically(path, lambda file: file.write(content))


def load_tensors(path: str | Path) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """(arrays, description) of a file that `save_tensors` wrote. Raises CheckpointError for any other file."""
    with TensorFile(path) as file:
        return {name: file[name] for name in file}, file.description


class TensorFile(Mapping[str, np.ndarray[Any, Any]]):
    """An open file that `save_tensors` wrote: its `description`, and its arrays, each read on access.

    A context manager. Raises CheckpointError for any other file.
    """

    def __init__(self, path: str | Path) -> None:
        from safetensors import safe_open

        self.path = regular_file(path, "a .safetensors file", CheckpointError)
        self._file: Any = self._tried(lambda: safe_open(str(self.path), framework="numpy"))
        metadata = self._tried(self._file.metadata) or {}
        self.description = _description(self.path, metadata)
        slices = {name: self._file.get_slice(name) for name in self._tried(self._file.keys)}
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(part.get_shape()) for name, part in slices.items()}
        self._types: dict[str, str] = {name: part.get_dtype() for name, part in slices.items()}

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file = None  # closes the file

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        if self.narrow(name):
            return self._tried(lambda: self._narrow(name))  # type: ignore[no-any-return]
        return self._tried(lambda: self._file.get_tensor(name))  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def narrow(self, name: str) -> bool:
        """Whether the file stores an array as 16-bit floats."""
        return self._types[name] in NARROW

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises CheckpointError unless the file holds exactly these names and shapes. Reads no array."""
        for name, shape in shapes.items():
            if name not in self.shapes:
                raise CheckpointError(f"{self.path} contains no {name!r}: it belongs to another model")
            if self.shapes[name] != tuple(shape):
                raise CheckpointError(f"{self.path}: {name!r} has shape {self.shapes[name]}, the model needs {tuple(shape)}")
        surplus = sorted(set(self.shapes) - set(shapes))
        if surplus:
            raise CheckpointError(f"{self.path} contains {listed(surplus, 4)}, which the model does not have: it belongs to another model")

    def _narrow(self, name: str) -> np.ndarray[Any, Any]:
        """16-bit floats as float32, which represents each of them exactly."""
        with open(self.path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            begin, end = json.loads(file.read(length))[name]["data_offsets"]
            file.seek(8 + length + begin)
            words = np.frombuffer(file.read(end - begin), np.uint16)
        half = NARROW[self._types[name]]
        wide = (words.astype(np.uint32) << 16).view(np.float32) if half is None else words.view(half).astype(np.float32)
        return wide.reshape(self.shapes[name])

    def _tried(self, read: Any) -> Any:
        from safetensors import SafetensorError

        try:
            return read()
        except SafetensorError as error:
            other = Path(self.path).suffix.lower() in (".onnx", ".keras", ".pt", ".pth")
            mend = "gpucnn import, or gpucnn.exchange.import_model, converts it" if other else "get a new copy or save it again"
            raise CheckpointError(f"{self.path} is not a safetensors file, or was cut short ({reason_of(error)}): {mend}") from None
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read ({reason_of(error)}): check its permissions, or get a new copy") from None
        except (ValueError, TypeError, KeyError, AttributeError, MemoryError) as error:
            raise CheckpointError(
                f"{self.path} contains what gpucnn cannot read ({reason_of(error)}): save its arrays as float32"
            ) from None


def _description(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    text = metadata.get(KEY)
    if text is None:
        raise CheckpointError(f"{path} is a safetensors file, but not one that gpucnn wrote: name a model.safetensors of gpucnn")
    if len(text) > LONGEST:
        raise CheckpointError(
            f"{path} has a description of {len(text):,} characters; the limit is {LONGEST:,}: get a new copy or save it again"
        )
    try:
        content = json.loads(text)
        version, description = content["version"], content["description"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has a broken description ({reason_of(error)}): get a new copy or save it again") from None
    if version != VERSION:
        raise CheckpointError(f"{path} has format version {shown(version)}; this gpucnn reads version {VERSION}: update gpucnn")
    if not isinstance(description, dict):
        raise CheckpointError(f"{path} has a broken description: get a new copy or save it again")
    return description


def as_json(value: Any, path: str) -> Any:
    """`value` as it comes back from JSON: NumPy numbers and arrays as Python's, tuples as lists. TypeError names anything else."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{path or 'the description'} has the key {shown(key)}, and JSON has strings only for keys")
        return {str(key): as_json(item, f"{path}.{key}" if path else key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufU":
        return as_json(value.tolist(), path)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{path} is {shown(value)}, which JSON cannot represent: give numbers, strings, lists and dicts of them")


def take(tensors: Mapping[str, np.ndarray[Any, Any]], arrays: Mapping[str, Any], source: str | Path = "") -> None:
    """Copies each tensor into the array of the same name, on any device. Copies nothing and raises CheckpointError if one is missing,
    unknown, of another shape, or holds NaN or infinity. 16-bit floats are widened."""
    if isinstance(tensors, TensorFile):
        source = tensors.path
    found = {}
    for name, into in arrays.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{source} contains no {name!r}: it belongs to another model")
        if isinstance(tensors, TensorFile) and tensors.narrow(name):
            tensor = tensor.astype(into.dtype)
        if tensor.shape != into.shape or tensor.dtype != into.dtype:
            raise CheckpointError(
                f"{source}: {name!r} has shape {tensor.shape} and dtype {tensor.dtype}, "
                f"the model needs {tuple(into.shape)} and {into.dtype}"
            )
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{source}: {name!r} contains NaN or infinity, which no model can use: get an earlier copy")
        found[name] = tensor
    surplus = sorted(set(tensors) - set(arrays))
    if surplus:
        raise CheckpointError(f"{source} contains {listed(surplus, 4)}, which the model does not have: it belongs to another model")
    for name, into in arrays.items():
        if type(into).__module__.startswith("numpy"):
            into[...] = found[name]
        else:
            into.set(found[name])

"""Files of named tensors from PyTorch: safetensors, and state_dicts written by torch.save."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.errors import CheckpointError
from gpucnn.files import regular_file
from gpucnn.text import plain, reason_of, shown

NARROW = {"F16", "BF16"}
TYPES = {"F32", "F64", "I64", "I32", "I16", "I8", "U8", "BOOL", *NARROW}


@dataclass(frozen=True)
class Tensor:
    """An array in a file: its shape is known, and `read` returns its values, 16-bit floats as float32."""

    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Tensors:
    """All arrays of a file by name. `in_order`: they have the order in which the model created them, rather than that of their names."""

    path: Path
    found: dict[str, Tensor]
    in_order: bool


def widened(words: NDArray[Any], half: bool) -> NDArray[np.float32]:
    """16-bit floats, given as uint16, converted to float32 without loss: IEEE half precision if `half`, otherwise bfloat16."""
    return words.view(np.float16).astype(np.float32) if half else (words.astype(np.uint32) << 16).view(np.float32)


@contextmanager
def read_safetensors(path: str | Path) -> Iterator[Tensors]:
    """The tensors in a .safetensors file, in the order of their names. CheckpointError if it is not one, was cut short, or is a gpucnn
    model."""
    from safetensors import SafetensorError, safe_open

    path = regular_file(path, "a .safetensors file", CheckpointError, empty=False)
    try:
        with safe_open(str(path), framework="numpy") as file:  # which checks sizes and positions against the file
            if "gpucnn" in (file.metadata() or {}):
                raise CheckpointError(f"{path} is already a gpucnn model: use it as it is")
            found = {}
            for name in list(file.keys()):
                part = file.get_slice(name)
                kind = part.get_dtype()
                if kind not in TYPES:
                    raise CheckpointError(
                        f"{path}: {shown(name)} is of type {kind}, and only floats of 16 to 64 bits are supported: convert it"
                    )
                read = _narrow(path, name, kind) if kind in NARROW else _wide(file, name)
                found[name] = Tensor(tuple(part.get_shape()), read)
            yield Tensors(path, found, in_order=False)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a safetensors file, or was cut short ({reason_of(error)}): get a new copy or save it again"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({reason_of(error)}): check its permissions, or get a new copy") from None


def _wide(file: Any, name: str) -> Callable[[], NDArray[Any]]:
    return lambda: np.asarray(file.get_tensor(name))


def _narrow(path: Path, name: str, kind: str) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            told = json.loads(file.read(length))[name]
            begin, end = told["data_offsets"]
            file.seek(8 + length + begin)
            return widened(np.frombuffer(file.read(end - begin), "<u2"), kind == "F16").reshape(told["shape"])

    return read


def checked(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """The array as float32. CheckpointError for NaN and infinity."""
    floats = np.asarray(array, np.float32)
    if not np.isfinite(floats).all():
        raise CheckpointError(f"{path}: {plain(name)} contains NaN or infinity, which no model can use: get an earlier copy")
    return floats

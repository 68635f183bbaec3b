"""Files that hold a model or a whole run: safetensors with a JSON description, written whole or not at all.

A file is written beside its place under another name, flushed to the disk and then renamed: whoever is killed meanwhile leaves the
old file as it was.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.device import to_numpy
from gpucnn.errors import CheckpointError

KEY = "gpucnn"  # of the one entry of metadata: safetensors writes several in an order that differs from file to file
VERSION = 1


def write_atomically(path: str | Path, write: Callable[[Any], Any]) -> None:
    """Calls `write` with a new binary file that takes the place of `path` once it is whole. The folder is made if need be.

    Raises OSError as the system gives it (disk full, no permission); `path` is then as it was before.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(target)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)  # mkstemp gives 0600; a file that is meant to be shared gets what open() would have given
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _clear_leftovers(target: Path) -> None:
    """Removes what a process that was killed while writing `target` has left; an hour, as another one may be writing now."""
    for partial in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > 3600:
                partial.unlink()


def save_tensors(path: str | Path, tensors: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Writes arrays and a JSON description. Raises CheckpointError where an array holds NaN or infinity, OSError from the disk."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(to_numpy(tensor)) for name, tensor in tensors.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path} was not written: {name!r} holds NaN or infinity; lower the learning rate")
    content = save(arrays, {KEY: json.dumps({"version": VERSION, "description": description})})
    write_atomically(path, lambda file: file.write(content))


def load_tensors(path: str | Path) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """(arrays, description) of a file that `save_tensors` wrote. Raises CheckpointError for any other file."""
    from safetensors import SafetensorError, safe_open

    place = Path(path)
    if not place.exists():
        raise CheckpointError(f"{place}: there is no such file")
    if place.is_dir():
        raise CheckpointError(f"{place} is a folder: name a .safetensors file in it")
    try:
        with safe_open(str(place), framework="numpy") as file:
            description = _description(place, file.metadata() or {})  # first: other tools' files may hold what NumPy has no dtype for
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except CheckpointError:
        raise
    except SafetensorError as error:
        raise CheckpointError(f"{place} is no safetensors file, or was cut short ({error}): get or save it again") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, MemoryError) as error:
        raise CheckpointError(f"{place} cannot be read ({error}): check its permissions, or get it again") from None
    return tensors, description


def _description(place: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    text = metadata.get(KEY)
    if text is None:
        raise CheckpointError(f"{place} is a safetensors file, but not one that gpucnn wrote: name a model.safetensors of gpucnn")
    try:
        content = json.loads(text)
        version, description = content["version"], content["description"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{place} has a broken description ({error}): get or save it again") from None
    if version != VERSION:
        raise CheckpointError(f"{place} has format version {version!r}; this gpucnn reads version {VERSION}: update gpucnn")
    if not isinstance(description, dict):
        raise CheckpointError(f"{place} has a broken description: get or save it again")
    return description


def take(tensors: Mapping[str, np.ndarray[Any, Any]], arrays: Mapping[str, Any], source: str | Path) -> None:
    """Copies each tensor into the array of its name, on whatever device: all of them, or none and CheckpointError where one is
    missing or does not fit."""
    for name, into in arrays.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{source} holds no {name!r}: it is of another model")
        if tensor.shape != into.shape or tensor.dtype != into.dtype:
            raise CheckpointError(
                f"{source}: {name!r} has shape {tensor.shape} and dtype {tensor.dtype}, "
                f"the model needs {tuple(into.shape)} and {into.dtype}"
            )
    for name, into in arrays.items():
        if type(into).__module__.startswith("numpy"):
            into[...] = tensors[name]
        else:
            into.set(tensors[name])

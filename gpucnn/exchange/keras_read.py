"""Reads .keras files of Keras 3: a zip archive with a description in JSON and weights in HDF5. Nothing in them is executed.

HDF5 can refer to other places: by links, also to other files, and by arrays that are stored in other files, assembled from several, or
compressed. Keras writes none of these, and none is followed: only direct links in groups are used, and an array must be stored in this
file, uncompressed, with as many bytes as its shape needs.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.errors import CheckpointError, GpucnnError
from gpucnn.exchange.archives import Archive, opened
from gpucnn.exchange.packages import h5py
from gpucnn.exchange.problems import DAMAGE
from gpucnn.text import plain, reason_of, shown

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
LONGEST = 1 << 26  # bytes of a description


class Weights:
    """The arrays of a model, by the paths that Keras gives its layers."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file

    def of(self, path: str, name: str, shapes: list[tuple[int, ...]]) -> list[NDArray[Any]]:
        """The arrays of the layer `name` at `path`, which must have these shapes."""
        group = self._at(f"{path}/vars")
        if group is None:
            raise CheckpointError(f"{self.path} contains no weights of the layer {name!r}: save it again")
        if len(group) != len(shapes):
            raise CheckpointError(f"{self.path} contains {len(group)} arrays of {name!r}, which has {len(shapes)}: save it again")
        return [self._array(group, str(index), name, shape) for index, shape in enumerate(shapes)]

    def _at(self, path: str) -> Any:
        found = self._file
        for part in path.split("/"):
            found = self._child(found, part)
            if found is None:
                return None
        return found

    def _child(self, group: Any, name: str) -> Any:
        package = h5py()
        if not isinstance(group, package.Group) or name not in list(group.keys()):  # `in` by itself follows links
            return None
        if not isinstance(group.get(name, getlink=True), package.HardLink):
            raise CheckpointError(f"{self.path}: {shown(name)} in its weights is a link, and links are not followed: save it again")
        return group[name]

    def _array(self, group: Any, key: str, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        data = self._child(group, key)
        if not isinstance(data, h5py().Dataset):
            raise CheckpointError(f"{self.path} contains no array {key} of {name!r}: save it again")
        if data.shape != shape:
            raise CheckpointError(
                f"{self.path}: array {key} of {name!r} has shape {shown(data.shape)}, and its layer {shape}: save it again"
            )
        if data.dtype.kind != "f":
            raise CheckpointError(
                f"{self.path}: array {key} of {name!r} is of type {data.dtype}, and only floats are supported: save it as float32"
            )
        stored = data.id.get_storage_size()
        if data.external or data.is_virtual or data.chunks is not None or stored != math.prod(shape) * data.dtype.itemsize:
            raise CheckpointError(f"{self.path}: array {key} of {name!r} is not stored directly in the file: save it again with Keras")
        array = np.asarray(data[()])
        if not np.isfinite(array).all():
            raise CheckpointError(f"{self.path}: array {key} of {name!r} contains NaN or infinity, which no model can use")
        return array.astype(np.float32)


@contextmanager
def read(path: str | Path) -> Iterator[tuple[dict[str, Any], Weights]]:
    """The description and the weights of the file at `path`. CheckpointError if Keras 3 did not write it, or it is damaged."""
    package = h5py()
    with opened(path, "a .keras file") as archive:
        config = _config(archive)
        content = archive.read(WEIGHTS)
        try:
            with package.File(io.BytesIO(content), "r") as file:
                yield config, Weights(archive.path, file)
        except GpucnnError:
            raise
        except DAMAGE as error:
            raise CheckpointError(
                f"{archive.path}: its weights cannot be read ({reason_of(error)}): save it again or get a new copy"
            ) from error


def _config(archive: Archive) -> dict[str, Any]:
    if CONFIG not in archive.names and any(name.endswith("saved_model.pb") for name in archive.names):
        raise CheckpointError(f"{archive.path} is a SavedModel of TensorFlow: save it as .keras with Keras 3")
    try:
        config = json.loads(archive.read(CONFIG, LONGEST))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{archive.path}: its description is damaged ({plain(reason_of(error))}): save it again or get a new copy"
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise CheckpointError(f"{archive.path} describes no model: save it again or get a new copy")
    return config

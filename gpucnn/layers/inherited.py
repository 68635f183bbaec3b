"""Weights that layers keep when they move from one model to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucnn.device import to_numpy
from gpucnn.errors import ShapeError
from gpucnn.layers.base import Layer


class Inherited:
    """The arrays of layers that belong to models other than `heir`, copied before `heir` is built, and those models (`owners`)."""

    def __init__(self, layers: Sequence[Layer], heir: Any) -> None:
        self.owners: dict[int, Any] = {}
        self._arrays: list[tuple[Layer, str, np.ndarray[Any, Any]]] = []
        for layer in layers:
            for part in layer.walk().values():
                owner = part._owner() if part._owner is not None else None
                if part._owner is None or owner is heir:
                    continue  # a new layer, or one of this model: its weights are drawn
                if owner is not None:
                    self.owners[id(owner)] = owner
                for array in (*part.parameters, *part.arrays):
                    if array.value is not None:
                        self._arrays.append((part, array.name, to_numpy(array.value).copy()))

    def check(self) -> None:
        """Raises ShapeError if an array does not fit the layer as it is now built."""
        for part, name, values in self._arrays:
            array = _of(part, name)
            if array is None or array.shape != values.shape:
                now = "is not there" if array is None else f"has shape {array.shape}"
                raise ShapeError(
                    f"{part.name!r} keeps the weights of another model, and its {name} of shape {values.shape} {now} here: make a "
                    "new layer, or build the model for the same input"
                )

    def put(self) -> None:
        """Writes the arrays into the layers."""
        for part, name, values in self._arrays:
            _of(part, name).value = values


def _of(part: Layer, name: str) -> Any:
    return next((array for array in (*part.parameters, *part.arrays) if array.name == name), None)

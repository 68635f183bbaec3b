"""Layers, one kind per file; kinds.py lists them all. `LAYERS` maps names to classes, for models read from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpucnn.checks import pick
from gpucnn.layers import kinds
from gpucnn.layers.base import Layer as Layer
from gpucnn.layers.kinds import *
from gpucnn.layers.parameter import Buffers as Buffers
from gpucnn.layers.parameter import Parameter as Parameter
from gpucnn.layers.parameter import SavedArray as SavedArray

LAYERS: dict[str, type[Layer]] = {
    kind.__name__: kind for kind in vars(kinds).values() if isinstance(kind, type) and issubclass(kind, Layer)
}


def layer_from_config(config: dict[str, Any]) -> Layer:
    """The unbuilt layer that `Layer.config()` describes."""
    settings = {name: _made(value) for name, value in config.items()}
    kind, trainable = settings.pop("layer", None), settings.pop("trainable", True)
    layer = pick(kind, LAYERS, "layer").from_settings(settings)
    layer.trainable = trainable
    return layer


def _made(value: Any) -> Any:
    """A setting; layers described in it are built."""
    if isinstance(value, dict) and "layer" in value:
        return layer_from_config(value)
    return [_made(item) for item in value] if isinstance(value, list) else value


if not TYPE_CHECKING:  # type checkers and editors go by the imports above
    __all__ = [
        *(name for name in vars(kinds) if name[0] != "_"),
        "LAYERS",
        "Buffers",
        "Layer",
        "Parameter",
        "SavedArray",
        "layer_from_config",
    ]

"""Layers, one kind per file. `LAYERS` holds them by name, for models that come from a file."""

from __future__ import annotations

from typing import Any

from gpucnn.checks import pick
from gpucnn.layers.activation import ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from gpucnn.layers.base import Layer
from gpucnn.layers.containers import Concat, Residual, Stack
from gpucnn.layers.conv import Conv2D
from gpucnn.layers.dense import Dense
from gpucnn.layers.dropout import Dropout
from gpucnn.layers.flatten import Flatten
from gpucnn.layers.input import Input
from gpucnn.layers.local import LocallyConnected2D
from gpucnn.layers.norm import BatchNorm2D
from gpucnn.layers.pad import ZeroPad2D
from gpucnn.layers.parameter import Buffers, Parameter, SavedArray
from gpucnn.layers.pool import AvgPool2D, GlobalAvgPool2D, GlobalMaxPool2D, MaxPool2D
from gpucnn.layers.separable import DepthwiseConv2D, SeparableConv2D
from gpucnn.layers.transposed import ConvTranspose2D

_KINDS: tuple[type[Layer], ...] = (
    *(Conv2D, MaxPool2D, AvgPool2D, Flatten, Dense, Dropout, BatchNorm2D),
    *(DepthwiseConv2D, SeparableConv2D, ConvTranspose2D, LocallyConnected2D),
    *(GlobalAvgPool2D, GlobalMaxPool2D, ZeroPad2D),
    *(ReLU, Sigmoid, Softmax, Tanh, LeakyReLU, ELU, GELU, SiLU),
    *(Stack, Residual, Concat),
)
# Second names.
AveragePooling2D = AvgPool2D
Conv2DTranspose = ConvTranspose2D
Convolution2D = Conv2D
GlobalAveragePooling2D = GlobalAvgPool2D
GlobalMaxPooling2D = GlobalMaxPool2D
MaxPooling2D = MaxPool2D
ZeroPadding2D = ZeroPad2D

LAYERS: dict[str, type[Layer]] = {kind.__name__: kind for kind in _KINDS}


def layer_from_config(config: dict[str, Any]) -> Layer:
    """The layer that `Layer.config()` came from, unbuilt."""
    settings = {name: _made(value) for name, value in config.items()}
    kind, trainable = settings.pop("layer", None), settings.pop("trainable", True)
    layer = pick(kind, LAYERS, "layer").from_settings(settings)
    layer.trainable = trainable
    return layer


def _made(value: Any) -> Any:
    """A setting, with the layers that were described in it."""
    if isinstance(value, dict) and "layer" in value:
        return layer_from_config(value)
    return [_made(item) for item in value] if isinstance(value, list) else value


__all__ = [
    "ELU",
    "GELU",
    "LAYERS",
    "AveragePooling2D",
    "AvgPool2D",
    "BatchNorm2D",
    "Buffers",
    "Concat",
    "Conv2D",
    "Conv2DTranspose",
    "ConvTranspose2D",
    "Convolution2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "GlobalMaxPooling2D",
    "Input",
    "Layer",
    "LeakyReLU",
    "LocallyConnected2D",
    "MaxPool2D",
    "MaxPooling2D",
    "Parameter",
    "ReLU",
    "Residual",
    "SavedArray",
    "SeparableConv2D",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Stack",
    "Tanh",
    "ZeroPad2D",
    "ZeroPadding2D",
    "layer_from_config",
]

"""Converts a gpucnn network to PyTorch, layer by layer, with PyTorch's own initial values; against_pytorch.py compares every network by
name in this way. Dropout, batch normalization and the padding of each window are the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import gpucnn as gc

ACTIVATIONS = {None: nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh}


class Sum(nn.Module):
    """layers(x) + shortcut(x), then ReLU."""

    def __init__(self, layers: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.layers, self.shortcut, self.activation = layers, shortcut, activation

    def forward(self, x: torch.Tensor) -> Any:
        return self.activation(self.layers(x) + self.shortcut(x))


class Beside(nn.Module):
    """The outputs of all branches, concatenated along the channels."""

    def __init__(self, branches: list[nn.Module], activation: nn.Module) -> None:
        super().__init__()
        self.branches, self.activation = nn.ModuleList(branches), activation

    def forward(self, x: torch.Tensor) -> Any:
        return self.activation(torch.cat([branch(x) for branch in self.branches], dim=1))


def pytorch_of(model: gc.Sequential) -> nn.Sequential:
    """A built network in PyTorch, with its parameters in the order of `model`'s."""
    return nn.Sequential(*(part for layer in model.layers for part in parts(layer)))


def parts(layer: gc.Layer) -> list[nn.Module]:
    """The PyTorch modules for one layer."""
    own: dict[str, Any] = layer.settings()
    activation = ACTIVATIONS[own.get("activation")]
    after = [] if own.get("activation") is None else [activation()]
    match type(layer).__name__:
        case "Conv2D" | "DepthwiseConv2D":
            return [*convolution(layer, own), *after]
        case "MaxPool2D":
            (window, sides), before = padded(layer, float("-inf"))
            return [*before, nn.MaxPool2d(window.kernel, window.stride, sides, window.dilation)]
        case "AvgPool2D":
            return [nn.AvgPool2d(own["pool_size"], own["stride"])]
        case "GlobalAvgPool2D":
            return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        case "BatchNorm2D":
            return [nn.BatchNorm2d((layer.input_shape or ())[0], own["eps"], own["momentum"]), *after]
        case "Flatten":
            return [nn.Flatten()]
        case "Dropout":
            return [nn.Dropout(own["rate"])]
        case "Dense":
            return [nn.Linear((layer.input_shape or ())[0], own["units"], own["use_bias"]), *after]
        case "Stack":
            return [part for each in own["layers"] for part in parts(each)]
        case "Residual":
            shortcut = nn.Identity() if own["shortcut"] is None else nn.Sequential(*parts(own["shortcut"]))
            return [Sum(nn.Sequential(*(part for each in own["layers"] for part in parts(each))), shortcut, activation())]
        case "Concat":
            return [Beside([nn.Sequential(*parts(branch)) for branch in own["branches"]], activation())]
    raise gc.GpucnnError(f"{type(layer).__name__} has no PyTorch version: add it to {__file__}")


def convolution(layer: Any, own: dict[str, Any]) -> list[nn.Module]:
    (window, sides), before = padded(layer, 0.0)
    channels, filters = layer.input_shape[0], layer.output_shape[0]
    groups = own.get("groups", channels)  # a depthwise layer has none of its own
    made = nn.Conv2d(channels, filters, window.kernel, window.stride, sides, window.dilation, groups, bias=own["use_bias"])
    return [*before, made]


def padded(layer: Any, value: float) -> tuple[tuple[Any, tuple[int, int]], list[nn.Module]]:
    """(a layer's window, its padding), and a separate padding layer if the sides differ, which PyTorch's windows cannot express."""
    window = layer.window
    (top, bottom), (left, right) = window.padding
    if (top, left) == (bottom, right):
        return (window, (top, left)), []
    return (window, (0, 0)), [nn.ConstantPad2d((left, right, top, bottom), value)]

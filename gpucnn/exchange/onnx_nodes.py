"""Writes layers as ONNX nodes: one function for each kind of layer, and the table of them.

Sizes and padding are the numbers that the built layer has computed. No node computes them by rules of its own, because these differ
from one version of a runtime to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.device import to_numpy
from gpucnn.errors import CheckpointError
from gpucnn.exchange.packages import onnx
from gpucnn.exchange.value import OWN_FILTERS
from gpucnn.layers import (
    ELU,
    GELU,
    AvgPool2D,
    BatchNorm2D,
    Concat,
    Conv2D,
    ConvTranspose2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    LocallyConnected2D,
    MaxPool2D,
    ReLU,
    ReLU6,
    Residual,
    SeparableConv2D,
    Sigmoid,
    SiLU,
    Softmax,
    Stack,
    Tanh,
    ZeroPad2D,
)
from gpucnn.layers.parameter import SavedArray
from gpucnn.ops.shapes import Sides, Window


class Nodes:
    """The nodes and constants of a graph while it is written."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.layer = ""  # the layer that is being written, for the names of its nodes
        self._names: set[str] = set()

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output, and returns the output's name."""
        name, number = f"{self.layer}.{kind.lower()}", 1
        while name in self._names:
            number += 1
            name = f"{self.layer}.{kind.lower()}_{number}"
        self._names.add(name)
        self.nodes.append(onnx().helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """Adds an array, named after the layer and itself."""
        full = f"{self.layer}.{name}"
        self.constants[full] = np.asarray(to_numpy(value), dtype, order="C")  # a number stays a scalar
        return full

    def saved(self, array: SavedArray | None) -> list[str]:
        """Adds a parameter, if the layer has it."""
        return [] if array is None else [self.constant(array.name, array.value)]


def put(nodes: Nodes, layer: Layer, x: str, path: str, *, logits: bool = False) -> str:
    """Writes a layer whose input is the value `x`, with its activation, and returns the name of its output. `logits` leaves out a softmax
    or sigmoid. CheckpointError for a kind that is not in the table."""
    nodes.layer = path
    write = NODES.get(type(layer))
    if write is None:
        raise CheckpointError(f"{path!r} is a {type(layer).__name__}, which has no ONNX node: export models with gpucnn's own layers only")
    y = write(nodes, layer, x, path)
    nodes.layer = path
    if layer.activation is None or (logits and layer.activation in ("softmax", "sigmoid")):
        return y
    return ACTIVATIONS[layer.activation](nodes, y, layer.options)


def in_turn(nodes: Nodes, layers: Mapping[str, Layer], x: str, path: str = "", *, logits: bool = False) -> str:
    """Writes layers in sequence, given by name. `logits` applies to the last one, or to the last in it, if it is a stack."""
    for left, (name, layer) in zip(range(len(layers) - 1, -1, -1), layers.items(), strict=True):
        here, raw = f"{path}.{name}" if path else name, logits and not left
        x = in_turn(nodes, layer.inner(), x, here, logits=True) if raw and type(layer) is Stack else put(nodes, layer, x, here, logits=raw)
    return x


def _ends(sides: Sides) -> list[int]:
    """((top, bottom), (left, right)) in ONNX's order: all beginnings, then all ends."""
    (top, bottom), (left, right) = sides
    return [top, left, bottom, right]


def _pad(nodes: Nodes, x: str, sides: Sides, value: float = 0.0) -> str:
    if not any(_ends(sides)):
        return x
    top, left, bottom, right = _ends(sides)
    amounts = nodes.constant("pads", [0, 0, top, left, 0, 0, bottom, right], np.int64)
    return nodes.add("Pad", x, amounts, nodes.constant("padding", value), mode="constant")


def _conv(nodes: Nodes, layer: Any, x: str, path: str) -> str:
    window = layer.window
    return nodes.add(
        "Conv",
        x,
        *nodes.saved(layer.weight),
        *nodes.saved(layer.bias),
        kernel_shape=window.kernel,
        strides=window.stride,
        dilations=window.dilation,
        pads=_ends(window.padding),
        group=layer.groups,
    )


def _conv_transpose(nodes: Nodes, layer: Any, x: str, path: str) -> str:
    window: Window = layer.window  # the window of the forward convolution, whose input is this one's output
    more = [
        size - ((count - 1) * step - sum(cut) + extent)
        for size, count, step, cut, extent in zip(window.input, window.output, window.stride, window.padding, window.extent, strict=True)
    ]
    return nodes.add(
        "ConvTranspose",
        x,
        *nodes.saved(layer.weight),
        *nodes.saved(layer.bias),
        kernel_shape=window.kernel,
        strides=window.stride,
        dilations=window.dilation,
        pads=_ends(window.padding),
        output_padding=more,
        group=layer.groups,
    )


def _locally_connected(nodes: Nodes, layer: Any, x: str, path: str) -> str:
    """A convolution that picks the pixels of each window, (N, C·R·S, P, Q), and their products with the filters of each position."""
    k, c, r, s, p, q = layer.weight.shape
    taps = np.tile(np.eye(r * s, dtype=np.float32).reshape(r * s, 1, r, s), (c, 1, 1, 1))
    window = layer.window
    pixels = nodes.add(
        "Conv",
        x,
        nodes.constant("taps", taps),
        kernel_shape=window.kernel,
        strides=window.stride,
        dilations=window.dilation,
        pads=_ends(window.padding),
        group=c,
    )
    weight = nodes.constant("weight", to_numpy(layer.weight.value).reshape(k, c * r * s, p, q))
    y = nodes.add("Einsum", pixels, weight, equation=OWN_FILTERS)
    return y if layer.bias is None else nodes.add("Add", y, nodes.constant("bias", to_numpy(layer.bias.value)[None]))


def _dense(nodes: Nodes, layer: Any, x: str, path: str) -> str:
    return nodes.add("Gemm", x, *nodes.saved(layer.weight), *nodes.saved(layer.bias), transB=1)


def _batch_norm(nodes: Nodes, layer: Any, x: str, path: str) -> str:
    channels = layer.mean.shape
    weight = nodes.saved(layer.weight) or [nodes.constant("weight", np.ones(channels))]
    bias = nodes.saved(layer.bias) or [nodes.constant("bias", np.zeros(channels))]
    statistics = (*nodes.saved(layer.mean), *nodes.saved(layer.variance))
    return nodes.add("BatchNormalization", x, *weight, *bias, *statistics, epsilon=layer.eps, momentum=1 - layer.momentum)


def _over(window: Window) -> Sides:
    """The padding with which the last window just fits, including the pixels past the edge that `ceil_mode` allows."""
    sides = []
    for axis in (0, 1):
        begin, end = window.padding[axis]
        needed = (window.output[axis] - 1) * window.stride[axis] + window.extent[axis] - window.input[axis] - begin
        sides.append((begin, max(end, needed)))
    return sides[0], sides[1]


def _max_pool(nodes: Nodes, layer: Any, x: str, path: str) -> str:
    window, sides = layer.window, _over(layer.window)
    if any(max(pads) >= size for pads, size in zip(sides, window.kernel, strict=True)):  # more than a node can have
        x, sides = _pad(nodes, x, sides, -math.inf), ((0, 0), (0, 0))
    return nodes.add(
        "MaxPool", x, kernel_shape=window.kernel, strides=window.stride, dilations=window.dilation, pads=_ends(sides), ceil_mode=0
    )


def _avg_pool(nodes: Nodes, layer: Any, x: str, path: str) -> str:
    """If the last window extends past the padded image, its sum includes zeros and is divided by the pixels that count."""
    window, sides = layer.window, _over(layer.window)
    counted = layer.count_include_pad and not window.same
    if sides == window.padding:
        return nodes.add(
            "AveragePool", x, kernel_shape=window.kernel, strides=window.stride, pads=_ends(sides), count_include_pad=int(counted)
        )
    counts = []
    for axis in (0, 1):
        (begin, end), size = window.padding[axis], window.input[axis]
        first, last = (-begin, size + end) if counted else (0, size)
        starts = np.arange(window.output[axis]) * window.stride[axis] - begin
        counts.append(np.minimum(starts + window.kernel[axis], last) - np.maximum(starts, first))
    mean = nodes.add("AveragePool", _pad(nodes, x, sides), kernel_shape=window.kernel, strides=window.stride)
    whole = window.kernel[0] * window.kernel[1]
    return nodes.add("Mul", mean, nodes.constant("share", whole / np.outer(*counts)[None, None]))


def _global(kind: str) -> Callable[[Nodes, Layer, str, str], str]:
    return lambda nodes, layer, x, path: nodes.add("Flatten", nodes.add(kind, x), axis=1)


def _residual(nodes: Nodes, layer: Any, x: str, path: str) -> str:
    layers = layer.inner()
    side = layers.pop("shortcut", None)
    y = in_turn(nodes, layers, x, path)
    beside = x if side is None else put(nodes, side, x, f"{path}.shortcut")
    nodes.layer = path
    return nodes.add("Add", y, beside)


def _concat(nodes: Nodes, layer: Any, x: str, path: str) -> str:
    parts = []
    for name, branch in layer.inner().items():
        parts.append(put(nodes, branch, x, f"{path}.{name}"))
    nodes.layer = path
    return nodes.add("Concat", *parts, axis=1)


def _same(nodes: Nodes, layer: Layer, x: str, path: str) -> str:
    """Writes nothing: for dropout, and for activations, which `put` writes."""
    return x


NODES: dict[type[Layer], Callable[[Nodes, Any, str, str], str]] = {
    Conv2D: _conv,
    DepthwiseConv2D: _conv,
    ConvTranspose2D: _conv_transpose,
    LocallyConnected2D: _locally_connected,
    Dense: _dense,
    BatchNorm2D: _batch_norm,
    MaxPool2D: _max_pool,
    AvgPool2D: _avg_pool,
    GlobalAvgPool2D: _global("GlobalAveragePool"),
    GlobalMaxPool2D: _global("GlobalMaxPool"),
    Flatten: lambda nodes, layer, x, path: nodes.add("Flatten", x, axis=1),
    ZeroPad2D: lambda nodes, layer, x, path: _pad(nodes, x, layer.padding),
    Dropout: _same,
    **dict.fromkeys((ReLU, Sigmoid, Softmax, Tanh, LeakyReLU, ELU, GELU, SiLU, ReLU6, HardSigmoid, HardSwish), _same),
    Stack: lambda nodes, layer, x, path: in_turn(nodes, layer.inner(), x, path),
    SeparableConv2D: lambda nodes, layer, x, path: in_turn(nodes, layer.inner(), x, path),
    Residual: _residual,
    Concat: _concat,
}

ACTIVATIONS: dict[str, Callable[[Nodes, str, dict[str, Any]], str]] = {
    "relu": lambda nodes, x, options: nodes.add("Relu", x),
    "sigmoid": lambda nodes, x, options: nodes.add("Sigmoid", x),
    "softmax": lambda nodes, x, options: nodes.add("Softmax", x, axis=-1),
    "tanh": lambda nodes, x, options: nodes.add("Tanh", x),
    "leaky_relu": lambda nodes, x, options: nodes.add("LeakyRelu", x, alpha=options.get("negative_slope", 0.01)),
    "elu": lambda nodes, x, options: nodes.add("Elu", x, alpha=options.get("alpha", 1.0)),
    "gelu": lambda nodes, x, options: nodes.add("Gelu", x, approximate="tanh" if options.get("approximate") else "none"),
    "relu6": lambda nodes, x, options: nodes.add("Clip", x, nodes.constant("least", 0.0), nodes.constant("most", 6.0)),
    "hard_sigmoid": lambda nodes, x, options: nodes.add("HardSigmoid", x, alpha=1 / 6, beta=0.5),
    "hard_swish": lambda nodes, x, options: nodes.add("HardSwish", x),
    "silu": lambda nodes, x, options: nodes.add("Mul", x, nodes.add("Sigmoid", x)),
}

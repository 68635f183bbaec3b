"""Converts Keras's layers: one function for each kind, and the table of them.

Keras's weights are (R, S, C, K); (R, S, C, multiplier) for depthwise convolutions, (R, S, K, C) for transposed ones, and (inputs, outputs)
for dense layers. Keras's momentum of batch normalization is the share of the running values that is kept; here it is that of the new batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.exchange import curves
from gpucnn.exchange.keras_told import Told
from gpucnn.exchange.problems import Problem
from gpucnn.exchange.value import Value
from gpucnn.layers import AvgPool2D, Conv2D, ConvTranspose2D, DepthwiseConv2D, Dropout, MaxPool2D, Softmax, ZeroPad2D
from gpucnn.text import shown


def active(told: Told, value: Value) -> Value:
    """The value after the layer's activation."""
    return activation(told, value, told.config.get("activation"))


def activation(told: Told, value: Value, given: Any) -> Value:
    """An activation, given by its name or its description."""
    settings: dict[str, Any] = {}
    if isinstance(given, dict):
        settings = given.get("config") if isinstance(given.get("config"), dict) else {}  # type: ignore[assignment]
        given = given.get("class_name") if isinstance(given.get("config"), dict) else given.get("config", given.get("class_name"))
    if given is None or given == "linear":
        return value
    if given in LAYERS and given in ("ReLU", "LeakyReLU", "ELU", "Softmax"):
        return LAYERS[given](told.at(settings, value))
    if given in ("softmax", "log_softmax"):
        if value.axes[-1] != len(value.shape) - 1:
            raise Problem("has softmax along the channels of images, and gpucnn's is along the last axis")
        return told.graph.add(Softmax, value, told.where) if given == "softmax" else told.graph.log_softmax(value, told.where)
    if not isinstance(given, str) or given not in CURVES:
        raise Problem(f"has the activation {shown(given)}, which gpucnn does not have")
    return told.graph.settled(told.graph.curved(value, CURVES[given], told.where), told.where)


CURVES: dict[str, curves.Curve] = {
    "relu": curves.relu,
    "sigmoid": curves.sigmoid,
    "tanh": np.tanh,
    "silu": curves.silu,
    "swish": curves.silu,
    "gelu": curves.gelu,
    "elu": curves.elu(1.0),
    "relu6": curves.relu6,
    "hard_sigmoid": curves.hard_sigmoid(),
    "hard_silu": curves.hard_swish,
    "hard_swish": curves.hard_swish,
    "leaky_relu": curves.leaky(0.2),
}


def _with_bias(arrays: list[NDArray[Any]], weight: NDArray[Any], biased: bool) -> dict[str, NDArray[Any]]:
    return {"weight": weight} | ({"bias": arrays[-1]} if biased else {})


def _conv(told: Told) -> Value:
    value, filters, groups = told.image(), told.count("filters"), told.count("groups") if "groups" in told.config else 1
    kernel = told.pair("kernel_size")
    arrays = told.arrays([(*kernel, value.shape[0] // groups, filters), *([(filters,)] if told.biased else [])])
    weights = _with_bias(arrays, arrays[0].transpose(3, 2, 0, 1), told.biased)
    settings = told.window() | {"filters": filters, "kernel_size": kernel, "groups": groups, "use_bias": told.biased}
    return active(told, told.graph.add(Conv2D, value, told.where, weights, **settings))


def _depthwise(told: Told) -> Value:
    value, kernel, multiplier = told.image(), told.pair("kernel_size"), told.count("depth_multiplier")
    c = value.shape[0]
    arrays = told.arrays([(*kernel, c, multiplier), *([(c * multiplier,)] if told.biased else [])])
    weights = _with_bias(arrays, _by_channel(arrays[0]), told.biased)
    settings = told.window() | {"kernel_size": kernel, "multiplier": multiplier, "use_bias": told.biased}
    return active(told, told.graph.add(DepthwiseConv2D, value, told.where, weights, **settings))


def _by_channel(weight: NDArray[Any]) -> NDArray[Any]:
    """(R, S, C, multiplier) as (C · multiplier, 1, R, S)."""
    r, s, c, m = weight.shape
    return weight.transpose(2, 3, 0, 1).reshape(c * m, 1, r, s)


def _separable(told: Told) -> Value:
    value, kernel, multiplier, filters = told.image(), told.pair("kernel_size"), told.count("depth_multiplier"), told.count("filters")
    c = value.shape[0]
    shapes = [(*kernel, c, multiplier), (1, 1, c * multiplier, filters), *([(filters,)] if told.biased else [])]
    first, second, *_ = arrays = told.arrays(shapes)
    middle = told.graph.add(
        DepthwiseConv2D,
        value,
        told.where,
        {"weight": _by_channel(first)},
        kernel_size=kernel,
        multiplier=multiplier,
        use_bias=False,
        **told.window(),
    )
    weights = _with_bias(arrays, second.transpose(3, 2, 0, 1), told.biased)
    return active(told, told.graph.add(Conv2D, middle, told.where, weights, filters=filters, kernel_size=1, use_bias=told.biased))


def _transposed(told: Told) -> Value:
    value, kernel, filters = told.image(), told.pair("kernel_size"), told.count("filters")
    stride, dilation = told.pair("strides"), told.pair("dilation_rate")
    arrays = told.arrays([(*kernel, filters, value.shape[0]), *([(filters,)] if told.biased else [])])
    more: tuple[int, int] = (0, 0)
    padding: Any = told.padding
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if told.config.get("output_padding") is not None:
        cuts = [_cut(extent, end, padding) for extent, end in zip(extents, told.pair("output_padding", least=0), strict=True)]
        padding, more = tuple(sides for sides, _ in cuts), (cuts[0][1], cuts[1][1])
    elif padding == "valid":  # Keras's output has at least as many pixels as the strides give
        more = (max(stride[0] - extents[0], 0), max(stride[1] - extents[1], 0))
    return active(
        told,
        told.graph.add(
            ConvTranspose2D,
            value,
            told.where,
            _with_bias(arrays, arrays[0].transpose(3, 2, 0, 1), told.biased),
            filters=filters,
            kernel_size=kernel,
            stride=stride,
            padding=padding,
            output_padding=more,
            dilation=dilation,
            use_bias=told.biased,
        ),
    )


def _cut(extent: int, end: int, padding: str) -> tuple[tuple[int, int], int]:
    """The pixels cut at the beginning and the end of a transposed convolution along an axis, and those added at the end, if the file's
    output_padding is `end`. "same" follows Keras on JAX and TensorFlow: extent % 2 + end pixels more than the strides give are divided
    between both sides, the beginning first."""
    if padding == "valid":
        return (0, 0), end
    kept = extent + extent % 2 - 2 + end  # of the 2 · (extent − 1) pixels by which the filter extends past the image
    first = min(kept // 2 + kept % 2, extent - 1)
    last = kept - first
    return (extent - 1 - first, max(extent - 1 - last, 0)), max(last - extent + 1, 0)


def _dense(told: Told) -> Value:
    value, units = told.value, told.count("units")
    if not value.is_features:
        raise Problem(f"is dense on a value of shape {value.logical}: only rows of features are supported, so put Flatten before it")
    if told.config.get("quantization_config") or told.config.get("lora_rank"):
        raise Problem("is quantized or has LoRA weights, which are not supported")
    arrays = told.arrays([(value.shape[0], units), *([(units,)] if told.biased else [])])
    return active(told, told.graph.dense(value, arrays[0].T, arrays[1] if told.biased else None, told.where))


def _norm(told: Told) -> Value:
    value = told.value
    axis = told.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if not isinstance(axis, int) or value.axes[axis % (len(value.axes) + 1) - 1] != 0 or not axis:
        raise Problem(f"normalizes along axis {shown(axis)}, and only normalization of channels is supported")
    scale, center = bool(told.config.get("scale", True)), bool(told.config.get("center", True))
    if told.config.get("renorm"):
        raise Problem("uses renormalization, which is not supported")
    *affine, mean, variance = told.arrays([value.shape[:1]] * (2 + scale + center))
    weight = affine.pop(0) if scale else None
    bias = affine.pop(0) if center else None
    numbers = {"eps": told.number("epsilon", 1e-3), "momentum": 1 - told.number("momentum", 0.99)}
    return told.graph.norm(value, weight, bias, (mean, variance), told.where, **numbers)


def _pool(kind: type[MaxPool2D] | type[AvgPool2D]) -> Callable[[Told], Value]:
    def pool(told: Told) -> Value:
        size = told.pair("pool_size", (2, 2))
        stride = size if told.config.get("strides") is None else told.pair("strides")
        return told.graph.add(kind, told.image(), told.where, pool_size=size, stride=stride, padding=told.padding)

    return pool


def _global(kind: type[MaxPool2D] | type[AvgPool2D]) -> Callable[[Told], Value]:
    def pool(told: Told) -> Value:
        value = told.image()
        made = told.graph.add(kind, value, told.where, whole=True, pool_size=value.shape[1:])
        return made if told.config.get("keepdims") else told.graph.flatten(made, told.where)

    return pool


def _zero_pad(told: Told) -> Value:
    return told.graph.add(ZeroPad2D, told.image(), told.where, padding=told.config.get("padding"))


def _flatten(told: Told) -> Value:
    """With channels first, Keras moves the channels to the end before it flattens."""
    value = told.value
    if told.config.get("data_format") == "channels_first" and len(value.axes) > 1:
        value = told.graph.transposed(value, [*range(1, len(value.axes)), 0])
    return told.graph.flatten(value, told.where)


def _reshape(told: Told) -> Value:
    """A reshape that flattens, or that adds the channel of grey images."""
    value, target = told.value, told.config.get("target_shape")
    if not isinstance(target, list) or not all(isinstance(size, int) for size in target):
        raise Problem(f"has target_shape {shown(target)}")
    count = int(np.prod(value.logical))
    if len(target) == 1 and target[0] in (-1, count):
        return told.graph.flatten(value, told.where)
    if 0 not in value.axes and target == [*value.logical, 1]:
        return replace(value, axes=(*value.axes, 0))
    if tuple(target) == value.logical:
        return value
    raise Problem(f"reshapes {value.logical} to {target}, and only flattening is supported")


def _relu(told: Told) -> Value:
    slope = told.number("negative_slope", 0.0) if told.config.get("negative_slope") is not None else 0.0
    most, threshold = told.config.get("max_value"), told.config.get("threshold")
    if threshold:
        raise Problem(f"has threshold {shown(threshold)}, which no activation here has: train it with ReLU")
    if most is not None and (most != 6 or slope):
        raise Problem(f"has max_value {shown(most)}, negative_slope {slope:g}, and here ReLU6 alone has an upper end: train it with that")
    function = curves.relu6 if most else curves.leaky(slope) if slope else curves.relu
    return told.graph.settled(told.graph.curved(told.value, function, told.where), told.where)


def _leaky(told: Told) -> Value:
    function = curves.leaky(told.number("negative_slope", told.config.get("alpha", 0.3)))
    return told.graph.settled(told.graph.curved(told.value, function, told.where), told.where)


def _softmax(told: Told) -> Value:
    if told.config.get("axis", -1) not in (-1, len(told.value.axes), [-1]):
        raise Problem(f"has softmax along axis {shown(told.config.get('axis'))}, and gpucnn's is along the last")
    return activation(told, told.value, "softmax")


def _concat(told: Told) -> Value:
    if not told.values:
        raise Problem("joins nothing")
    axis, rank = told.config.get("axis", -1), len(told.values[0].axes) + 1
    if not isinstance(axis, int) or axis % rank == 0:
        raise Problem(f"joins along axis {shown(axis)}")
    return told.graph.concat(told.values, axis % rank - 1, told.where)


def _rescale(told: Told) -> Value:
    """At the input it refers to pixels 0 … 255, which gpucnn divides by 255 before a model sees them."""
    value = told.value
    scale, offset = told.number("scale"), told.number("offset", 0.0)
    return told.graph.settled(told.graph.scaled(value, scale * (255 if value.node == 0 else 1), offset, told.where), told.where)


LAYERS: dict[str, Callable[[Told], Value]] = {
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "Conv2DTranspose": _transposed,
    "Dense": _dense,
    "BatchNormalization": _norm,
    "MaxPooling2D": _pool(MaxPool2D),
    "AveragePooling2D": _pool(AvgPool2D),
    "GlobalAveragePooling2D": _global(AvgPool2D),
    "GlobalMaxPooling2D": _global(MaxPool2D),
    "ZeroPadding2D": _zero_pad,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Activation": lambda told: active(told, told.value),
    "ReLU": _relu,
    "LeakyReLU": _leaky,
    "ELU": lambda told: told.graph.settled(told.graph.curved(told.value, curves.elu(told.number("alpha", 1.0)), told.where), told.where),
    "Softmax": _softmax,
    "Dropout": lambda told: told.graph.add(Dropout, told.value, told.where, rate=told.number("rate")),
    "Add": lambda told: told.graph.sum(told.values, told.where),
    "Concatenate": _concat,
    "Rescaling": _rescale,
    "Identity": lambda told: told.value,
}

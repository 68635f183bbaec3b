"""Converts ONNX nodes that slide windows over images (convolution and pooling), and the padding before them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.errors import ShapeError
from gpucnn.exchange.onnx_op import Op
from gpucnn.exchange.problems import Problem
from gpucnn.exchange.value import FIRST, NO_PADDING, OWN_FILTERS, Value
from gpucnn.layers import AvgPool2D, Conv2D, ConvTranspose2D, DepthwiseConv2D, LocallyConnected2D, MaxPool2D, ZeroPad2D
from gpucnn.ops.cpu.pool import window_counts
from gpucnn.ops.shapes import Sides, pool_window
from gpucnn.text import shown

LEAST = -1e30  # padding below this is never the maximum in max pooling


def _sides(op: Op, value: Value, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> Any:
    """The padding of a window: numbers, or "same"."""
    auto = op.attributes.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = op.attributes.get("pads", [0, 0, 0, 0])
        if len(pads) != 4:
            raise Problem(f"has pads {shown(pads)}, and images have four sides")
        return (int(pads[0]), int(pads[2])), (int(pads[1]), int(pads[3]))
    if auto == "VALID":
        return NO_PADDING
    if auto == "SAME_UPPER":
        return "same"
    if auto != "SAME_LOWER":
        raise Problem(f"has auto_pad {shown(auto)}")
    sides = []
    for size, k, s, d in zip(value.shape[1:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        sides.append((total - total // 2, total // 2))  # the odd pixel at the top and left
    return sides[0], sides[1]


def _filters(op: Op) -> tuple[dict[str, NDArray[Any]], bool]:
    weight, bias = op.constant(1), op.optional(2)
    if weight.ndim != 4:
        raise Problem(f"is a convolution in {weight.ndim - 2} dimensions, and only those of images are supported")
    if list(op.attributes.get("kernel_shape", weight.shape[2:])) != list(weight.shape[2:]):
        raise Problem("has a kernel_shape that its weight does not have")
    return {"weight": weight} | ({} if bias is None else {"bias": bias}), bias is not None


def conv(op: Op) -> Value:
    value = op.image()
    weights, biased = _filters(op)
    k, _, *kernel = weights["weight"].shape
    stride, dilation, groups = op.pair("strides"), op.pair("dilations"), int(op.attributes.get("group", 1))
    padding = _sides(op, value, (kernel[0], kernel[1]), stride, dilation)
    if isinstance(padding, str):
        value = op.graph.settled(value, op.where)
    else:
        value, padding = op.graph.padding_of(value, padding, op.where)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "use_bias": biased}
    c = value.shape[0]
    if groups == c > 1 and k % c == 0:
        return op.graph.add(DepthwiseConv2D, value, op.where, weights, kernel_size=tuple(kernel), multiplier=k // c, **settings)
    return op.graph.add(Conv2D, value, op.where, weights, filters=k, kernel_size=tuple(kernel), groups=groups, **settings)


def conv_transpose(op: Op) -> Value:
    value = op.graph.settled(op.image(), op.where)
    weights, biased = _filters(op)
    groups = int(op.attributes.get("group", 1))
    _, per_group, *kernel = weights["weight"].shape
    stride, dilation = op.pair("strides"), op.pair("dilations")
    if "output_shape" in op.attributes:
        raise Problem("has an output_shape, and only padding in numbers is supported")
    padding = _sides(op, value, (kernel[0], kernel[1]), stride, dilation)
    if op.attributes.get("auto_pad") == "SAME_LOWER":
        raise Problem("pads with SAME_LOWER, which is not supported for transposed convolutions")
    return op.graph.add(
        ConvTranspose2D,
        value,
        op.where,
        weights,
        filters=per_group * groups,
        kernel_size=tuple(kernel),
        stride=stride,
        padding=padding,
        output_padding=op.pair("output_padding", (0, 0)),
        dilation=dilation,
        groups=groups,
        use_bias=biased,
    )


def einsum(op: Op) -> Value:
    """Convolution without weight sharing, as `onnx_nodes` writes it: a convolution that only picks the pixels of each window,
    (N, C·R·S, P, Q), times weights (K, C·R·S, P, Q)."""
    equation = str(op.attributes.get("equation", "")).replace(" ", "")
    if equation != OWN_FILTERS:
        raise Problem(f"sums by {shown(equation)}, and only filters of each position's own, {OWN_FILTERS}, are supported")
    value, weight = op.graph.settled(op.image(), op.where), op.constant(1)
    picked = op.graph.nodes[value.node]
    taps = picked.weights.get("weight")
    if picked.kind not in (Conv2D, DepthwiseConv2D) or taps is None or "bias" in picked.weights:
        raise Problem("needs the pixels of windows, which no convolution before it picks")
    source = op.graph.nodes[picked.inputs[0]].shape
    r, s = taps.shape[2:]
    if not np.array_equal(taps, np.tile(np.eye(r * s).reshape(r * s, 1, r, s), (source[0], 1, 1, 1))):
        raise Problem("follows a convolution with its own weights, and only one that picks pixels is supported")
    if weight.ndim != 4 or weight.shape[1:] != value.shape:
        raise Problem(f"has a weight of shape {weight.shape} for windows of shape {value.shape}")
    k, _, p, q = weight.shape
    settings = {name: picked.settings[name] for name in ("kernel_size", "stride", "padding", "dilation")}
    weights = {"weight": weight.reshape(k, source[0], r, s, p, q)}
    before = Value(picked.inputs[0], source, value.axes)
    return op.graph.add(LocallyConnected2D, before, op.where, weights, filters=k, use_bias=False, **settings)


def max_pool(op: Op) -> Value:
    value, kernel = op.image(), op.pair("kernel_shape", None)
    stride, dilation = op.pair("strides"), op.pair("dilations")
    padding = _sides(op, value, kernel, stride, dilation)
    more = {"stride": stride, "dilation": dilation, "ceil_mode": bool(op.attributes.get("ceil_mode", 0))}
    return op.graph.max_pool(value, op.where, padding, pool_size=kernel, **more)


def avg_pool(op: Op) -> Value:
    value, kernel = op.graph.settled(op.image(), op.where), op.pair("kernel_shape", None)
    stride, dilation = op.pair("strides"), op.pair("dilations")
    if dilation != (1, 1):
        raise Problem(f"has dilations {dilation}, and average pooling has none in gpucnn")
    return op.graph.add(
        AvgPool2D,
        value,
        op.where,
        pool_size=kernel,
        stride=stride,
        padding=_sides(op, value, kernel, stride, dilation),
        ceil_mode=bool(op.attributes.get("ceil_mode", 0)),
        count_include_pad=bool(op.attributes.get("count_include_pad", 0)),
    )


def over_the_edge(op: Op, value: Value, constant: NDArray[Any]) -> Value | None:
    """Average pooling whose last window extends past the padded image, as `onnx_nodes` writes it: padded until that window fits, averaged
    with all of the padding, times the pixels of a window divided by those that count. None for any other product."""
    pooled = op.graph.nodes[value.node]
    if value.pending or value.axes != FIRST or pooled.kind is not AvgPool2D or constant.shape != (1, 1, *pooled.shape[1:]):
        return None
    padded = op.graph.nodes[pooled.inputs[0]]
    if padded.kind is not ZeroPad2D or pooled.settings["padding"] != NO_PADDING or pooled.settings["ceil_mode"]:
        return None
    before, kernel, stride = padded.inputs[0], pooled.settings["pool_size"], pooled.settings["stride"]
    (top, bottom), (left, right) = padded.settings["padding"]
    shape = op.graph.nodes[before].shape
    for low, most_right, counted in itertools.product(range(_half(bottom, kernel[0])), range(_half(right, kernel[1])), (False, True)):
        padding = ((top, low), (left, most_right))
        with contextlib.suppress(ShapeError):
            window = pool_window(shape[1:], kernel, stride, padding, 1, True)
            if window.output == pooled.shape[1:]:
                share = kernel[0] * kernel[1] / window_counts(window, counted)
                if np.allclose(share, constant[0, 0], rtol=1e-6, atol=0):
                    settings = {"pool_size": kernel, "stride": stride, "padding": padding, "count_include_pad": counted}
                    return op.graph.add(AvgPool2D, Value(before, shape, FIRST), op.where, ceil_mode=True, **settings)
    return None


def _half(pad: int, kernel: int) -> int:
    """The end of the range of paddings that the pooling itself may have, which is at most `pad` pixels."""
    return min(pad, kernel // 2) + 1


def whole(kind: type[AvgPool2D] | type[MaxPool2D]) -> Callable[[Op], Value]:
    def pool(op: Op) -> Value:
        value = op.graph.settled(op.image(), op.where)
        return op.graph.add(kind, value, op.where, whole=True, pool_size=value.shape[1:])

    return pool


def reduce(kind: type[AvgPool2D] | type[MaxPool2D]) -> Callable[[Op], Value]:
    """A mean or maximum over height, width, or both."""

    def reduce(op: Op) -> Value:
        value = op.graph.settled(op.value(), op.where)
        axes = op.numbers(1, "axes")
        rank = len(value.axes) + 1
        over = {value.axes[axis % rank - 1] for axis in axes or [] if axis % rank}
        if not over or not over <= {1, 2} or len(axes or []) != len(over):
            raise Problem(f"reduces axes {shown(axes)}, and only height and width are supported")
        sizes = tuple(value.shape[axis] if axis in over else 1 for axis in (1, 2))
        made = op.graph.add(kind, value, op.where, whole=len(over) == 2, pool_size=sizes)
        left = tuple(axis for axis in made.axes if axis not in over)
        if op.attributes.get("keepdims", 1):
            return made
        return op.graph.flatten(made, op.where) if len(left) == 1 else replace(made, axes=left)

    return reduce


def pad(op: Op) -> Value:
    value = op.graph.settled(op.value(), op.where)
    pads, axes = op.numbers(1, "pads"), op.numbers(3, "axes")
    rank, mode = len(value.axes) + 1, op.attributes.get("mode", "constant")
    fill = op.attributes.get("value", op.optional(2))
    number = 0.0 if fill is None else float(np.asarray(fill).reshape(-1)[0])
    along = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    if pads is None or len(pads) != 2 * len(along):
        raise Problem(f"has pads {shown(pads)} for {len(along)} axes")
    sides: dict[int, tuple[int, int]] = {1: (0, 0), 2: (0, 0)}
    for index, axis in enumerate(along):
        both = (pads[index], pads[index + len(along)])
        ours = value.axes[axis - 1] if axis else None
        if both != (0, 0) and (ours not in sides or len(value.shape) != 3 or min(both) < 0):
            raise Problem(f"has pads {shown(pads)}, and only padding of height and width is supported, without cropping")
        if ours in sides and len(value.shape) == 3:
            sides[ours] = both
    kinds = {"constant": "zero" if number == 0 else "least" if number <= LEAST else "other", "edge": "edge"}
    if mode not in kinds:
        raise Problem(f"pads in mode {shown(mode)}")
    found: Sides = (sides[1], sides[2])
    return value if found == NO_PADDING else replace(value, pad=(found, kinds[mode]))

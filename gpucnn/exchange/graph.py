"""A model during import, from any format: layers with their weights, and the values between them, which record the order of the file's
axes.

Layers here have channels first, and Flatten orders an image channel by channel. Graphs of other libraries may have channels last,
transpose back and forth between the two, and flatten in their own order. No array is moved for that: a `Value` records which axis is which,
and weights are reordered when they are given to a layer.

nodes.py holds the layers, pending.py the arithmetic with constants; here are the layers that depend on the order of axes or features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.errors import ShapeError
from gpucnn.exchange.pending import MOST_FEATURES, Arithmetic
from gpucnn.exchange.problems import Problem
from gpucnn.exchange.value import NO_PADDING, Node, Value
from gpucnn.layers import BatchNorm2D, Concat, Dense, Flatten, MaxPool2D
from gpucnn.layers.base import Shape
from gpucnn.ops.shapes import Sides, pool_window


class Graph(Arithmetic):
    """A model during import, as the importers of all formats fill it."""

    def dense(self, value: Value, weight: NDArray[Any], bias: NDArray[Any] | None, where: str) -> Value:
        """Dense, with a weight (units, features) in the file's order."""
        value = self.settled(value, where)
        if not value.is_features:
            raise Problem(f"is dense on a value of shape {value.logical}: only rows of features are supported, so flatten them first")
        if weight.ndim != 2 or weight.shape[1] != value.shape[0]:
            raise Problem(f"has a weight of shape {weight.shape} for {value.shape[0]} features")
        weights = {"weight": self.of_features(value, weight)}
        if bias is not None:
            weights["bias"] = bias
        made = self.add(Dense, value, where, weights, units=weight.shape[0], use_bias=bias is not None)
        return replace(made, order=None)

    def flatten(self, value: Value, where: str) -> Value:
        """The image flattened to features, in the file's order of axes."""
        value = self.settled(value, where)
        if value.is_features:
            return value
        made = self.add(Flatten, value, where)
        axes = [axis for axis in value.axes if value.shape[axis] > 1]
        if axes == sorted(axes):
            return replace(made, order=None)
        if made.shape[0] > MOST_FEATURES:
            raise Problem(f"flattens {made.shape[0]:,} pixels in another order; the limit is {MOST_FEATURES:,}")
        missing = tuple(axis for axis in range(len(value.shape)) if axis not in value.axes)  # of size 1
        return replace(made, order=np.arange(made.shape[0]).reshape(value.shape).transpose(value.axes + missing).reshape(-1))

    def transposed(self, value: Value, axes: Sequence[int]) -> Value:
        """The value with the file's axes (not counting the batch) in another order."""
        return replace(value, axes=tuple(value.axes[axis] for axis in axes))

    def norm(
        self, value: Value, weight: Any, bias: Any, moments: tuple[NDArray[Any], NDArray[Any]], where: str, *, eps: float, momentum: float
    ) -> Value:
        """Batch normalization with `moments`, mean and variance. momentum is the share of the new batch, as in gpucnn. Without weight
        and bias, ones and zeros are used."""
        value, (mean, variance) = self.settled(value, where), moments
        arrays = {"weight": weight, "bias": bias, "running_mean": mean, "running_variance": variance}
        if weight is None and bias is None:
            del arrays["weight"], arrays["bias"]
        elif weight is None or bias is None:
            arrays["weight"] = np.ones_like(mean) if weight is None else weight
            arrays["bias"] = np.zeros_like(mean) if bias is None else bias
        if any(np.shape(array) != value.shape[:1] for array in arrays.values()):
            raise Problem(f"normalizes {value.shape[0]} channels with arrays of shapes {[np.shape(array) for array in arrays.values()]}")
        weights = {name: self.of_features(value, array) for name, array in arrays.items()}
        affine = "weight" in arrays
        return self.add(BatchNorm2D, value, where, weights, eps=float(eps), momentum=round(float(momentum), 9), affine=affine)

    def max_pool(self, value: Value, where: str, padding: Any = NO_PADDING, **settings: Any) -> Value:
        """Max pooling. Padding before it becomes its own if no padded value can be the maximum."""
        if value.pad is not None and (value.pad[1] == "least" or (value.pad[1] == "edge" and settings.get("dilation", 1) in (1, (1, 1)))):
            around = value.pad[0]  # a repeated edge pixel shares its window with the edge itself
            if isinstance(padding, str) or any(any(side) for side in padding):
                raise Problem("pads an image that is already padded")
            value, padding = replace(value, pad=None), around
        value = self.settled(value, where)
        if not isinstance(padding, str):
            padding, settings = _taken(value.shape[1:], padding, settings)
        return self.add(MaxPool2D, value, where, padding=padding, **settings)

    def padding_of(self, value: Value, padding: Sides, where: str) -> tuple[Value, Sides]:
        """A value and the padding of the convolution after it, which includes zero padding that came before."""
        if value.pad is not None and value.pad[1] == "zero":
            (a, b), (c, d) = value.pad[0]
            (top, bottom), (left, right) = padding
            return replace(value, pad=None), ((a + top, b + bottom), (c + left, d + right))
        return self.settled(value, where), padding

    def concat(self, values: Sequence[Value], axis: int, where: str) -> Value:
        """Values concatenated along the channels; `axis` is the file's, not counting the batch."""
        found = [self.settled(value, where) for value in values]
        first = found[0]
        if any(value.axes != first.axes or value.shape[1:] != first.shape[1:] for value in found) or first.axes[axis] != 0:
            raise Problem(f"joins values of shapes {[value.logical for value in found]} along axis {axis + 1}: only channels are joined")
        if len(found) == 1:
            return first
        count = sum(value.shape[0] for value in found)
        order = None
        if any(value.order is not None for value in found):
            if count > MOST_FEATURES:
                raise Problem(f"joins {count:,} features; the limit is {MOST_FEATURES:,}")
            starts = np.cumsum([0, *(value.shape[0] for value in found)])
            parts = [np.arange(value.shape[0]) if value.order is None else value.order for value in found]
            order = np.concatenate([part + start for part, start in zip(parts, starts, strict=False)])
        self.nodes.append(Node(Concat, {}, {}, [value.node for value in found], (count, *first.shape[1:]), where))
        return Value(len(self.nodes) - 1, (count, *first.shape[1:]), first.axes, order)


def _taken(size: Shape, padding: Sides, settings: dict[str, Any]) -> tuple[Sides | str, dict[str, Any]]:
    """Max pooling whose padding is over half of its window, which gpucnn does not support, written with `ceil_mode` or "same" if that gives
    the same windows; otherwise unchanged."""
    kernel, stride, dilation = settings["pool_size"], settings["stride"], settings["dilation"]
    if settings["ceil_mode"] or all(2 * max(side) <= k for side, k in zip(padding, kernel, strict=True)):
        return padding, settings
    counts = tuple(
        (pixels + sum(side) - d * (k - 1) - 1) // s + 1
        for pixels, side, k, s, d in zip(size, padding, kernel, stride, dilation, strict=True)
    )
    (top, bottom), (left, right) = padding
    ends: Sides = (top, min(bottom, kernel[0] // 2)), (left, min(right, kernel[1] // 2))
    for given, ceil in (("same", False), (ends, True)):
        with contextlib.suppress(ShapeError):
            window = pool_window(size, kernel, stride, given, dilation, ceil)
            if window.output == counts and [first for first, _ in window.padding] == [top, left]:
                return given, settings | {"ceil_mode": ceil}
    return padding, settings

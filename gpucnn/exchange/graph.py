"""A model during import, from any format: layers with their weights, and the values between them, which record the order of the file's
axes.

Layers here have channels first, and Flatten orders an image channel by channel. Graphs of other libraries may have channels last,
transpose back and forth between the two, and flatten in their own order. No array is moved for that: a `Value` records which axis is which,
and weights are reordered when they are given to a layer.

Exporters write biases, batch normalization and activations as arithmetic with constants. Such arithmetic is collected and becomes a
layer when something else needs its result: numbers for each channel become a bias or a BatchNorm2D, and a formula of one number becomes
the activation that has the same values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.errors import ShapeError
from gpucnn.exchange import curves
from gpucnn.exchange.curves import Curve
from gpucnn.exchange.problems import Problem
from gpucnn.exchange.value import FIRST, NO_PADDING, Node, Value, same_order
from gpucnn.layers import BatchNorm2D, Concat, Dense, Flatten, Layer, LocallyConnected2D, MaxPool2D, Residual, Softmax, ZeroPad2D
from gpucnn.layers.base import Shape
from gpucnn.ops.shapes import Sides, pool_window
from gpucnn.text import reason_of

MOST_LAYERS = 10_000
LOGARITHM = "its last layer returned logarithms of probabilities; now it returns the probabilities themselves"
MOST_FEATURES = 1 << 24  # numbers that are enumerated, because a file can declare any size at no cost
EPS = 1e-5  # epsilon of a batch normalization that only scales and shifts: its variance is 1 − EPS


@dataclass
class Graph:
    """All nodes, each after those that it needs. most: the number of elements that all weights together may have, given the size of the
    file, because one array could be used in any number of places. logarithms: softmax layers that were log_softmax in the file, and where.
    notes: messages about the model for the person who imports it."""

    most: int
    nodes: list[Node] = field(default_factory=list)
    logarithms: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def input(self, shape: Shape, axes: tuple[int, ...]) -> Value:
        """The model's input; `shape` is in gpucnn's order of axes."""
        self.nodes.append(Node(None, {}, {}, [], shape, "the input"))
        return Value(0, shape, axes)

    def add(
        self,
        kind: type[Layer],
        value: Value,
        where: str,
        weights: dict[str, NDArray[Any]] | None = None,
        *,
        plain: bool = False,
        whole: bool = False,
        **settings: Any,
    ) -> Value:
        """Appends a layer to a value that has nothing pending. Problem if the layer or its weights do not fit."""
        if len(self.nodes) >= MOST_LAYERS:
            raise Problem(f"is layer {MOST_LAYERS:,}, which is over the limit")
        weights = weights or {}
        try:
            layer = kind(**settings)
            shape = layer.build(value.shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise Problem(f"does not fit: {reason_of(error)}") from None
        for array in (*layer.parameters, *layer.arrays):
            given = weights.get(array.name)
            if given is None:
                raise Problem(f"has no {array.name}")
            if given.shape != array.shape:
                raise Problem(f"has a {array.name} of shape {given.shape} (in gpucnn's order), but its sizes need {array.shape}")
            self.most -= given.size
            if self.most < 0:
                raise Problem("needs more weights than the file has, because several layers share them and each gets its own here")
            if not np.isfinite(given).all():
                raise Problem(f"has NaN or infinity in its {array.name}")
        self.nodes.append(Node(kind, settings, weights, [value.node], shape, where, plain, whole))
        axes = value.axes if len(shape) == len(value.shape) else tuple(range(len(shape)))
        return Value(len(self.nodes) - 1, shape, axes, value.order if len(shape) == 1 and shape == value.shape else None)

    def log_softmax(self, value: Value, where: str) -> Value:
        """The logarithm of softmax, which is imported as softmax if it is the last layer; `ended` checks that it is."""
        made = self.add(Softmax, value, where)
        self.logarithms[made.node] = where
        return made

    def ended(self, output: Value) -> None:
        """Notes about the model that ends in `output`. Problem if a layer that must be the last one is not."""
        for node, where in self.logarithms.items():
            if node != output.node:
                raise Problem(f"continues after {where!r}, a log_softmax, which is supported only as the last layer")
            self.notes.append(LOGARITHM)

    def shared(self, name: str) -> None:
        """Notes weights that the file stores once and uses in several places."""
        self.notes.append(
            f"the weights of {name!r} are used in several places; here each place has its own, and training can make them differ"
        )

    # What is still pending on a value.

    def settled(self, value: Value, where: str) -> Value:
        """The value after everything pending has become a layer."""
        if not value.pending:
            return value
        return replace(self._settle(value, where), axes=value.axes, order=value.order)

    def _settle(self, value: Value, where: str) -> Value:
        bare = replace(value, scale=None, shift=None, curve=None, pad=None, inner=None, step=None, pair=None)
        if value.pad is not None:
            sides, fill = value.pad
            if fill != "zero":
                raise Problem("follows padding with values other than zero, which is supported only before max pooling")
            return self.add(ZeroPad2D, bare, where, padding=sides)
        if value.curve is not None:
            found = curves.match(value.curve)
            if found is not None:
                return self.add(found[0], bare, where, **found[1])
            if value.pair is not None:
                return self.sum(value.pair, where)
            if value.inner is None or value.step is None or not value.inner.pending:
                raise Problem(f"uses what {value.where or where!r} outputs, a formula that no activation of gpucnn computes")
            before = self.settled(value.inner, where)  # one layer, and the last step as another
            if isinstance(value.step, tuple):
                return self._settle(replace(before, scale=value.step[0], shift=value.step[1]), where)
            return self._settle(replace(before, curve=value.step, where=value.where), where)
        assert value.scale is not None and value.shift is not None
        if (value.scale == 1).all() and not value.shift.any():
            return bare
        channels = value.shape[0]
        weights = {
            "weight": value.scale,
            "bias": value.shift,
            "running_mean": np.zeros(channels),
            "running_variance": np.full(channels, 1 - EPS),
        }
        return self.add(BatchNorm2D, bare, where, weights, plain=True, eps=EPS)

    def scaled(self, value: Value, scale: Any, shift: Any, where: str) -> Value:
        """value · scale + shift, for constants in the file's shapes, broadcast."""
        if value.pad is not None:
            value = self.settled(value, where)
        a, b = self._of_channels(value, scale), self._of_channels(value, shift)
        curve = value.curve
        if curve is not None and (a == a[0]).all() and (b == b[0]).all():
            return replace(value, curve=_line(curve, float(a[0]), float(b[0])), inner=value, step=(a, b), pair=None)
        if curve is not None:
            value = self.settled(value, where)
        before = (1.0, 0.0) if value.scale is None or value.shift is None else (value.scale, value.shift)
        return replace(value, scale=before[0] * a, shift=before[1] * a + b)

    def of_positions(self, value: Value, constant: NDArray[Any]) -> Value | None:
        """value + constant, a number for each pixel: the bias of a layer without weight sharing; None after any other layer."""
        node = self.nodes[value.node]
        if value.pending or node.kind is not LocallyConnected2D or node.settings["use_bias"] or constant.ndim > 4:
            return None
        if constant.reshape((1,) * (4 - constant.ndim) + constant.shape).shape != (1, *value.logical):
            return None
        bias = constant.reshape(value.logical).transpose(np.argsort(value.axes))
        before = Value(node.inputs[0], self.nodes[node.inputs[0]].shape, FIRST)
        made = self.add(LocallyConnected2D, before, node.where, node.weights | {"bias": bias}, **node.settings | {"use_bias": True})
        return replace(made, axes=value.axes)

    def curved(self, value: Value, function: Curve, where: str) -> Value:
        """function(value), element by element."""
        before = self._as_curve(value)
        if before is None:
            value = self.settled(value, where)
            return replace(value, curve=function, where=where)
        inner: Curve = before
        made: Curve = lambda x: function(inner(x))  # noqa: E731
        return replace(value, curve=made, scale=None, shift=None, inner=value, step=function, pair=None, where=where)

    def together(self, one: Value, two: Value, function: Callable[[Any, Any], Any]) -> Value | None:
        """function(one, two) if both are formulas of the same value, otherwise None. A sum can also be a layer of its own."""
        first, second = self._as_curve(one), self._as_curve(two)
        if one.node != two.node or one.axes != two.axes or first is None or second is None:
            return None
        a, b, pair = first, second, (one, two) if function is np.add else None
        return replace(one, curve=lambda x: function(a(x), b(x)), scale=None, shift=None, inner=None, pair=pair)

    def _as_curve(self, value: Value) -> Curve | None:
        """The pending arithmetic as a formula of one number; None if channels differ."""
        if value.pad is not None:
            return None
        if value.curve is not None:
            return value.curve
        if value.scale is None or value.shift is None:
            return lambda x: x
        if (value.scale != value.scale[0]).any() or (value.shift != value.shift[0]).any():
            return None
        a, b = float(value.scale[0]), float(value.shift[0])
        return lambda x: x * a + b

    def _of_channels(self, value: Value, constant: Any) -> NDArray[Any]:
        """A constant of the file that is broadcast against the value, as one number for each channel here."""
        if value.shape[0] > MOST_FEATURES:
            raise Problem(f"combines {value.shape[0]:,} channels with a constant; the limit is {MOST_FEATURES:,}")
        array = np.asarray(constant, np.float64)
        rank = len(value.axes) + 1
        if array.ndim > rank:
            raise Problem(f"combines a value of {rank} axes with a constant of {array.ndim}")
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
        channel = value.axes.index(0) + 1 if 0 in value.axes else None
        if any(size != 1 for axis, size in enumerate(array.shape) if axis != channel):
            raise Problem(f"combines a value with a constant of shape {array.shape}, which differs from pixel to pixel")
        if array.size == 1:
            return np.full(value.shape[0], array.reshape(-1)[0])
        if array.size != value.shape[0]:
            raise Problem(f"combines {value.shape[0]} channels with {array.size} numbers")
        return self.of_features(value, array.reshape(-1))

    # Layers that depend on the order of axes or features.

    def of_features(self, value: Value, vector: NDArray[Any]) -> NDArray[Any]:
        """Numbers whose features (the last axis) are in the file's order, reordered to gpucnn's."""
        if value.order is None:
            return vector
        ours = np.empty_like(vector)
        ours[..., value.order] = vector
        return ours

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

    def sum(self, values: Sequence[Value], where: str) -> Value:
        """The sum of two values."""
        found = [self.settled(value, where) for value in values]
        total = found[0]
        for other in found[1:]:
            if other.shape != total.shape or other.axes != total.axes or not same_order(total, other):
                raise Problem(f"adds values of shapes {total.logical} and {other.logical}: only values of one shape are added here")
            self.nodes.append(Node(Residual, {}, {}, [total.node, other.node], total.shape, where))
            total = replace(total, node=len(self.nodes) - 1)
        return total

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


def _line(curve: Curve, factor: float, term: float) -> Curve:
    return lambda x: curve(x) * factor + term

"""Arithmetic with constants, during import: collected for a value, and made a layer when something else needs its result.

Exporters write biases, batch normalization and activations in this way. Numbers for each channel become a bias or a BatchNorm2D, and a
formula of one number becomes the activation that has the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.exchange import curves
from gpucnn.exchange.curves import Curve
from gpucnn.exchange.nodes import Nodes
from gpucnn.exchange.problems import Problem
from gpucnn.exchange.value import FIRST, Node, Value, same_order
from gpucnn.layers import BatchNorm2D, LocallyConnected2D, Residual, ZeroPad2D

MOST_FEATURES = 1 << 24  # numbers that are enumerated, because a file can declare any size at no cost
EPS = 1e-5  # epsilon of a batch normalization that only scales and shifts: its variance is 1 − EPS


class Arithmetic(Nodes):
    """Nodes, and what is still pending on the values between them (`Value`)."""

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

    def of_features(self, value: Value, vector: NDArray[Any]) -> NDArray[Any]:
        """Numbers whose features (the last axis) are in the file's order, reordered to gpucnn's."""
        if value.order is None:
            return vector
        ours = np.empty_like(vector)
        ours[..., value.order] = vector
        return ours

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


def _line(curve: Curve, factor: float, term: float) -> Curve:
    return lambda x: curve(x) * factor + term

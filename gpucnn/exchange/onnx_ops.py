"""ONNX → layer: what each kind of node becomes, one function a kind, and the table of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpucnn.exchange import curves
from gpucnn.exchange.graph import FIRST, NO_PADDING, Graph, Value
from gpucnn.exchange.onnx_fold import BATCH
from gpucnn.exchange.problems import Problem
from gpucnn.layers import AvgPool2D, Conv2D, ConvTranspose2D, DepthwiseConv2D, Dropout, MaxPool2D, Softmax
from gpucnn.ops.shapes import Sides
from gpucnn.text import shown

LEAST = -1e30  # padding with less than this never wins in max pooling


class Walk(Protocol):
    """What an operator needs to know of the graph around it."""

    graph: Graph
    values: dict[str, Value]
    batch: int | None
    file: Any

    def constant(self, name: str) -> NDArray[Any] | None: ...


@dataclass
class Op:
    """A node: its inputs and attributes, asked for as what they have to be."""

    walk: Walk
    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    where: str

    @property
    def graph(self) -> Graph:
        return self.walk.graph

    def has(self, index: int) -> bool:
        """Whether there is such an input."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def value(self, index: int = 0) -> Value:
        """An input that depends on the graph's."""
        if not self.has(index) or self.inputs[index] not in self.walk.values:
            raise Problem(f"has a constant, or nothing, for its input {index + 1}")
        return self.walk.values[self.inputs[index]]

    def constant(self, index: int) -> NDArray[Any]:
        """An input that does not."""
        found = self.walk.constant(self.inputs[index]) if self.has(index) else None
        if found is None:
            raise Problem(f"computes its input {index + 1} where it has to be a constant")
        return found

    def optional(self, index: int) -> NDArray[Any] | None:
        return self.constant(index) if self.has(index) else None

    def image(self) -> Value:
        """The first input, an image with its channels first."""
        value = self.value()
        if len(value.axes) != 3:
            raise Problem(f"works on a value of {len(value.axes) + 1} axes, and only images (N, C, H, W) are taken there")
        if value.axes != FIRST:
            raise Problem("works on images whose axes are not channels, height, width")
        return value

    def pair(self, name: str, default: Sequence[int] | None = (1, 1)) -> tuple[int, int]:
        given = self.attributes.get(name, default)
        if given is None or len(given) != 2:
            raise Problem(f"has {name} {shown(given)}, and works on other than two dimensions: only images are taken")
        return int(given[0]), int(given[1])

    def numbers(self, index: int, name: str) -> list[int] | None:
        """Whole numbers from an attribute or, in later versions, from an input."""
        if name in self.attributes:
            return [int(number) for number in self.attributes[name]]
        found = self.optional(index)
        if found is None:
            return None
        if found.dtype == object or found.dtype.kind not in "iu":
            raise Problem(f"has no whole numbers for {name}")
        return [int(number) for number in np.atleast_1d(found)]


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
        raise Problem(f"is a convolution in {weight.ndim - 2} dimensions, and only those of images are taken")
    if list(op.attributes.get("kernel_shape", weight.shape[2:])) != list(weight.shape[2:]):
        raise Problem("has a kernel_shape that its weight has not")
    return {"weight": weight} | ({} if bias is None else {"bias": bias}), bias is not None


def _conv(op: Op) -> Value:
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


def _conv_transpose(op: Op) -> Value:
    value = op.graph.settled(op.image(), op.where)
    weights, biased = _filters(op)
    groups = int(op.attributes.get("group", 1))
    _, per_group, *kernel = weights["weight"].shape
    stride, dilation = op.pair("strides"), op.pair("dilations")
    if "output_shape" in op.attributes:
        raise Problem("says its output_shape, and only padding in numbers is taken")
    padding = _sides(op, value, (kernel[0], kernel[1]), stride, dilation)
    if op.attributes.get("auto_pad") == "SAME_LOWER":
        raise Problem("pads with SAME_LOWER, which is not taken for transposed convolutions")
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


def _gemm(op: Op) -> Value:
    weight, bias = op.constant(1), op.optional(2)
    if op.attributes.get("transA"):
        raise Problem("transposes its input, which is not taken")
    if weight.ndim != 2:
        raise Problem(f"has a weight of {weight.ndim} axes")
    weight = weight if op.attributes.get("transB") else weight.T
    if bias is not None:
        if bias.size not in (1, weight.shape[0]) or bias.ndim > 2:
            raise Problem(f"adds a constant of shape {bias.shape} to {weight.shape[0]} outputs")
        bias = np.broadcast_to(bias.reshape(-1), weight.shape[:1]) * op.attributes.get("beta", 1.0)
    return op.graph.dense(op.value(), weight * op.attributes.get("alpha", 1.0), bias, op.where)


def _matmul(op: Op) -> Value:
    value, weight = op.value(), op.constant(1)
    if weight.ndim != 2:
        raise Problem(f"multiplies by a constant of shape {weight.shape}, and only by weights (inputs, outputs) is taken")
    return op.graph.dense(value, weight.T, None, op.where)


def _batch_norm(op: Op) -> Value:
    value = op.value()
    if op.attributes.get("training_mode"):
        raise Problem("is in training mode: export the model for inference, in PyTorch after model.eval()")
    if value.axes[0] != 0:
        raise Problem("works on images whose channels do not stand first")
    weight, bias, mean, variance = (op.constant(index) for index in (1, 2, 3, 4))
    share = 1 - op.attributes.get("momentum", 0.9)
    return op.graph.norm(value, weight, bias, mean, variance, op.attributes.get("epsilon", 1e-5), share, op.where)


def _max_pool(op: Op) -> Value:
    value, kernel = op.image(), op.pair("kernel_shape", None)
    stride, dilation = op.pair("strides"), op.pair("dilations")
    padding = _sides(op, value, kernel, stride, dilation)
    more = {"stride": stride, "dilation": dilation, "ceil_mode": bool(op.attributes.get("ceil_mode", 0))}
    return op.graph.max_pool(value, op.where, padding, pool_size=kernel, **more)


def _avg_pool(op: Op) -> Value:
    value, kernel = op.graph.settled(op.image(), op.where), op.pair("kernel_shape", None)
    stride, dilation = op.pair("strides"), op.pair("dilations")
    if dilation != (1, 1):
        raise Problem(f"has dilations {dilation}, and average pooling here has none")
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


def _whole(kind: type[AvgPool2D] | type[MaxPool2D]) -> Callable[[Op], Value]:
    def pool(op: Op) -> Value:
        value = op.graph.settled(op.image(), op.where)
        return op.graph.add(kind, value, op.where, whole=True, pool_size=value.shape[1:])

    return pool


def _reduce(kind: type[AvgPool2D] | type[MaxPool2D]) -> Callable[[Op], Value]:
    """A mean or maximum over height and width."""

    def reduce(op: Op) -> Value:
        value = op.graph.settled(op.value(), op.where)
        axes = op.numbers(1, "axes")
        rank = len(value.axes) + 1
        over = sorted(value.axes[axis % rank - 1] for axis in axes or [] if axis % rank)
        if over != [1, 2] or len(axes or []) != 2:
            raise Problem(f"goes over axes {shown(axes)}, and only height and width together are taken")
        made = op.graph.add(kind, value, op.where, whole=True, pool_size=value.shape[1:])
        return made if op.attributes.get("keepdims", 1) else op.graph.flatten(made, op.where)

    return reduce


def _curve(function: curves.Curve) -> Callable[[Op], Value]:
    return lambda op: op.graph.curved(op.value(), function, op.where)


def _curve_of(make: Callable[[Op], curves.Curve]) -> Callable[[Op], Value]:
    return lambda op: op.graph.curved(op.value(), make(op), op.where)


def _clip(op: Op) -> Value:
    low, high = (op.attributes.get(name, op.optional(index)) for index, name in ((1, "min"), (2, "max")))
    least, most = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    most = math.inf if most >= -LEAST else most
    least = -math.inf if least <= LEAST else least
    return op.graph.curved(op.value(), lambda x: np.clip(x, least, most), op.where)


def _power(op: Op) -> Value:
    exponent = op.constant(1)
    if exponent.size != 1:
        raise Problem("raises to several powers")
    power = float(exponent.reshape(-1)[0])
    return op.graph.curved(op.value(), lambda x: x**power, op.where)


def _extreme(function: Callable[[Any, Any], Any]) -> Callable[[Op], Value]:
    """The maximum or minimum of a value and one constant."""

    def extreme(op: Op) -> Value:
        first = op.inputs[0] in op.walk.values
        bound = op.constant(1 if first else 0)
        if bound.size != 1 or len(op.inputs) != 2:
            raise Problem("compares with more than one number")
        number = float(bound.reshape(-1)[0])
        return op.graph.curved(op.value(0 if first else 1), lambda x: function(x, number), op.where)

    return extreme


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}


def _arithmetic(op: Op) -> Value:
    """A sum, difference, product or quotient: of a value and a constant, or of two values."""
    values = op.walk.values
    if all(name in values for name in op.inputs[:2]):
        one, two = op.value(0), op.value(1)
        formula = op.graph.together(one, two, ARITHMETIC[op.kind])
        if formula is not None:
            return formula
        if op.kind != "Add":
            raise Problem("combines two values, and only their sum is taken")
        return op.graph.sum([one, two], op.where)
    first = op.inputs[0] in values
    value, constant = (op.value(0), op.constant(1)) if first else (op.value(1), op.constant(0))
    constant = np.asarray(constant, np.float64)
    if op.kind == "Add":
        return op.graph.scaled(value, 1.0, constant, op.where)
    if op.kind == "Mul":
        return op.graph.scaled(value, constant, 0.0, op.where)
    if op.kind == "Sub":
        return op.graph.scaled(value, 1.0, -constant, op.where) if first else op.graph.scaled(value, -1.0, constant, op.where)
    if first:
        return op.graph.scaled(value, 1 / constant, 0.0, op.where)
    return op.graph.scaled(op.graph.curved(value, np.reciprocal, op.where), constant, 0.0, op.where)


def _softmax(op: Op) -> Value:
    value = op.graph.settled(op.value(), op.where)
    rank = len(value.axes) + 1
    axis = int(op.attributes.get("axis", -1 if op.walk.file.opset >= 13 else 1)) % rank
    if (op.walk.file.opset < 13 and rank != 2) or axis == 0 or value.axes[axis - 1] != len(value.shape) - 1:
        raise Problem(f"goes along axis {axis} of {rank}, and softmax here along the last one")
    return op.graph.add(Softmax, value, op.where)


def _log_softmax(op: Op) -> Value:
    raise Problem("has no layer here: export the model without it, as raw outputs, which the loss here takes")


def _dropout(op: Op) -> Value:
    training = op.optional(2)
    if training is not None and bool(training.any()):
        raise Problem("is in training mode: export the model for inference, in PyTorch after model.eval()")
    ratio = op.optional(1) if op.walk.file.opset >= 12 else None
    rate = float(op.attributes.get("ratio", 0.5) if ratio is None else ratio.reshape(-1)[0])
    value = op.graph.settled(op.value(), op.where)
    return op.graph.add(Dropout, value, op.where, rate=round(rate, 7)) if rate else value


def _cast(op: Op) -> Value:
    if op.attributes.get("to") not in (1, 10, 11, 16):  # FLOAT, FLOAT16, DOUBLE, BFLOAT16
        raise Problem("makes whole numbers of a value")
    return op.value()


def _flatten(op: Op) -> Value:
    value = op.value()
    rank = len(value.axes) + 1
    if int(op.attributes.get("axis", 1)) % rank != 1:
        raise Problem(f"flattens from axis {op.attributes['axis']} on, and only examples as a whole are flattened")
    return op.graph.flatten(value, op.where)


def _reshape(op: Op) -> Value:
    value, given = op.value(), op.attributes.get("shape")
    target = list(op.constant(1) if given is None else given)
    before = (BATCH, *value.logical)
    if not op.attributes.get("allowzero", 0):
        target = [before[index] if size == 0 and index < len(before) else size for index, size in enumerate(target)]
    if not target or not (target[0] is BATCH or target[0] in (-1, op.walk.batch)):
        raise Problem(f"makes {shown(target)} of {before}, and the batch has to stay as it is")
    if any(size is BATCH for size in target[1:]):
        raise Problem(f"makes {shown(target)} of {before}")
    rest, count = [int(size) for size in target[1:]], math.prod(value.logical)
    if rest.count(-1) == 1 and target[0] != -1:
        others = -math.prod(rest)
        rest = [count // others if size == -1 and others > 0 else size for size in rest]
    return _shaped(op, value, tuple(rest))


def _shaped(op: Op, value: Value, shape: tuple[int, ...]) -> Value:
    """A value whose pixels stay in their order, in another shape."""
    if shape == value.logical:
        return value
    if len(shape) == 1 and shape[0] == math.prod(value.logical):
        return op.graph.flatten(value, op.where)
    if len(value.axes) == 2 and len(shape) == 3 and 0 not in value.axes:  # grey images, whose channel was not there
        for place, axes in ((0, (0, *value.axes)), (2, (*value.axes, 0))):
            if shape[place] == 1 and tuple(value.shape[axis] for axis in axes) == shape:
                return replace(value, axes=axes)
    raise Problem(f"makes {shape} of {value.logical}, and only flattening is taken")


def _squeeze(op: Op) -> Value:
    value, axes = op.value(), op.numbers(1, "axes")
    rank = len(value.axes) + 1
    gone = {axis % rank for axis in axes} if axes is not None else {at for at, size in enumerate(value.logical, 1) if size == 1}
    if any(not at or value.logical[at - 1] != 1 for at in gone):
        raise Problem(f"takes away axes {shown(axes)} of (batch, {value.logical})")
    return _shaped(op, value, tuple(size for at, size in enumerate(value.logical, 1) if at not in gone))


def _unsqueeze(op: Op) -> Value:
    value, axes = op.value(), op.numbers(1, "axes") or []
    rank = len(value.axes) + 1 + len(axes)
    sizes = list(value.logical)
    for axis in sorted(axis % rank for axis in axes):
        if axis == 0:
            raise Problem("puts an axis before the batch")
        sizes.insert(axis - 1, 1)
    return _shaped(op, value, tuple(sizes))


def _transpose(op: Op) -> Value:
    value = op.value()
    rank = len(value.axes) + 1
    perm = [int(axis) for axis in op.attributes.get("perm", range(rank - 1, -1, -1))]
    if sorted(perm) != list(range(rank)) or perm[0] != 0:
        raise Problem(f"has perm {shown(perm)}, and the batch has to stay in front")
    return op.graph.transposed(value, [axis - 1 for axis in perm[1:]])


def _concat(op: Op) -> Value:
    values = [op.value(index) for index in range(len(op.inputs))]
    rank = len(values[0].axes) + 1
    axis = int(op.attributes.get("axis", 1)) % rank
    if axis == 0:
        raise Problem("joins batches")
    return op.graph.concat(values, axis - 1, op.where)


def _sum(op: Op) -> Value:
    return op.graph.sum([op.value(index) for index in range(len(op.inputs))], op.where)


def _pad(op: Op) -> Value:
    value = op.graph.settled(op.value(), op.where)
    pads, axes = op.numbers(1, "pads"), op.numbers(3, "axes")
    rank, mode = len(value.axes) + 1, op.attributes.get("mode", "constant")
    fill = op.attributes.get("value", op.optional(2))
    number = 0.0 if fill is None else float(np.asarray(fill).reshape(-1)[0])
    places = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    if pads is None or len(pads) != 2 * len(places):
        raise Problem(f"has pads {shown(pads)} for {len(places)} axes")
    sides: dict[int, tuple[int, int]] = {1: (0, 0), 2: (0, 0)}
    for index, place in enumerate(places):
        both = (pads[index], pads[index + len(places)])
        ours = value.axes[place - 1] if place else None
        if both != (0, 0) and (ours not in sides or len(value.shape) != 3 or min(both) < 0):
            raise Problem(f"has pads {shown(pads)}, and only height and width are padded here, and not cut")
        if ours in sides and len(value.shape) == 3:
            sides[ours] = both
    kinds = {"constant": "zero" if number == 0 else "least" if number <= LEAST else "other", "edge": "edge"}
    if mode not in kinds:
        raise Problem(f"pads in mode {shown(mode)}")
    found: Sides = (sides[1], sides[2])
    return value if found == NO_PADDING else replace(value, pad=(found, kinds[mode]))


def _hard(op: Op) -> curves.Curve:
    return curves.gelu_by_tanh if op.attributes.get("approximate") == "tanh" else curves.gelu


OPS: dict[str, Callable[[Op], Value]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "MaxPool": _max_pool,
    "AveragePool": _avg_pool,
    "GlobalAveragePool": _whole(AvgPool2D),
    "GlobalMaxPool": _whole(MaxPool2D),
    "ReduceMean": _reduce(AvgPool2D),
    "ReduceMax": _reduce(MaxPool2D),
    "Relu": _curve(curves.relu),
    "Sigmoid": _curve(curves.sigmoid),
    "Tanh": _curve(np.tanh),
    "Erf": _curve(curves.erf),
    "Exp": _curve(np.exp),
    "Neg": _curve(np.negative),
    "Reciprocal": _curve(np.reciprocal),
    "Clip": _clip,
    "Pow": _power,
    "Max": _extreme(np.maximum),
    "Min": _extreme(np.minimum),
    "Elu": _curve_of(lambda op: curves.elu(op.attributes.get("alpha", 1.0))),
    "LeakyRelu": _curve_of(lambda op: curves.leaky(op.attributes.get("alpha", 0.01))),
    "Gelu": _curve_of(_hard),
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Dropout": _dropout,
    "Identity": lambda op: op.value(),
    "Cast": _cast,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Sum": _sum,
    "Pad": _pad,
}

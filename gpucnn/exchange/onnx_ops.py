"""Converts ONNX nodes to layers. Here are dense layers, normalization and arithmetic, and the table of all kinds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn.exchange import curves
from gpucnn.exchange import onnx_shapes as shapes
from gpucnn.exchange import onnx_windows as windows
from gpucnn.exchange.onnx_op import Op
from gpucnn.exchange.problems import Problem
from gpucnn.exchange.value import Value
from gpucnn.layers import AvgPool2D, Dropout, MaxPool2D, Softmax


def _gemm(op: Op) -> Value:
    weight, bias = op.constant(1), op.optional(2)
    if op.attributes.get("transA"):
        raise Problem("transposes its input, which is not supported")
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
        raise Problem(f"multiplies by a constant of shape {weight.shape}, and only by weights (inputs, outputs) is supported")
    return op.graph.dense(value, weight.T, None, op.where)


def _batch_norm(op: Op) -> Value:
    value = op.value()
    if op.attributes.get("training_mode"):
        raise Problem("is in training mode: export the model for inference, in PyTorch after model.eval()")
    if value.axes[0] != 0:
        raise Problem("works on images whose channels are not first")
    weight, bias, mean, variance = (op.constant(index) for index in (1, 2, 3, 4))
    share = 1 - op.attributes.get("momentum", 0.9)
    eps = op.attributes.get("epsilon", 1e-5)
    return op.graph.norm(value, weight, bias, (mean, variance), op.where, eps=eps, momentum=share)


def _curve(function: curves.Curve) -> Callable[[Op], Value]:
    return lambda op: op.graph.curved(op.value(), function, op.where)


def _curve_of(make: Callable[[Op], curves.Curve]) -> Callable[[Op], Value]:
    return lambda op: op.graph.curved(op.value(), make(op), op.where)


def _clip(op: Op) -> Value:
    low, high = (op.attributes.get(name, op.optional(index)) for index, name in ((1, "min"), (2, "max")))
    least, most = (open_ if end is None else float(np.reshape(end, -1)[0]) for end, open_ in ((low, -math.inf), (high, math.inf)))
    most = math.inf if most >= -windows.LEAST else most
    least = -math.inf if least <= windows.LEAST else least
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
    """A sum, difference, product or quotient of a value and a constant, or of two values."""
    values = op.walk.values
    if all(name in values for name in op.inputs[:2]):
        one, two = op.value(0), op.value(1)
        formula = op.graph.together(one, two, ARITHMETIC[op.kind])
        if formula is not None:
            return formula
        if op.kind != "Add":
            raise Problem("combines two values, and only their sum is supported")
        return op.graph.sum([one, two], op.where)
    first = op.inputs[0] in values
    value, constant = (op.value(0), op.constant(1)) if first else (op.value(1), op.constant(0))
    constant = np.asarray(constant, np.float64)
    if op.kind == "Add":
        return op.graph.of_positions(value, constant) or op.graph.scaled(value, 1.0, constant, op.where)
    if op.kind == "Mul":
        return windows.over_the_edge(op, value, constant) or op.graph.scaled(value, constant, 0.0, op.where)
    if op.kind == "Sub":
        return op.graph.scaled(value, 1.0, -constant, op.where) if first else op.graph.scaled(value, -1.0, constant, op.where)
    if first:
        return op.graph.scaled(value, 1 / constant, 0.0, op.where)
    return op.graph.scaled(op.graph.curved(value, np.reciprocal, op.where), constant, 0.0, op.where)


def _softmax(op: Op) -> Value:
    return op.graph.add(Softmax, _along_last(op), op.where)


def _log_softmax(op: Op) -> Value:
    return op.graph.log_softmax(_along_last(op), op.where)


def _along_last(op: Op) -> Value:
    """The input of a softmax, which gpucnn computes along the last axis."""
    value = op.graph.settled(op.value(), op.where)
    rank = len(value.axes) + 1
    axis = int(op.attributes.get("axis", -1 if op.walk.file.opset >= 13 else 1)) % rank
    if (op.walk.file.opset < 13 and rank != 2) or axis == 0 or value.axes[axis - 1] != len(value.shape) - 1:
        raise Problem(f"is along axis {axis} of {rank}, and gpucnn's softmax is along the last")
    return value


def _dropout(op: Op) -> Value:
    training = op.optional(2)
    if training is not None and bool(training.any()):
        raise Problem("is in training mode: export the model for inference, in PyTorch after model.eval()")
    ratio = op.optional(1) if op.walk.file.opset >= 12 else None
    rate = float(op.attributes.get("ratio", 0.5) if ratio is None else ratio.reshape(-1)[0])
    value = op.graph.settled(op.value(), op.where)
    return op.graph.add(Dropout, value, op.where, rate=round(rate, 7)) if rate else value


def _gelu(op: Op) -> curves.Curve:
    return curves.gelu_by_tanh if op.attributes.get("approximate") == "tanh" else curves.gelu


OPS: dict[str, Callable[[Op], Value]] = {
    "Conv": windows.conv,
    "Einsum": windows.einsum,
    "ConvTranspose": windows.conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "MaxPool": windows.max_pool,
    "AveragePool": windows.avg_pool,
    "GlobalAveragePool": windows.whole(AvgPool2D),
    "GlobalMaxPool": windows.whole(MaxPool2D),
    "ReduceMean": windows.reduce(AvgPool2D),
    "ReduceMax": windows.reduce(MaxPool2D),
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
    "Gelu": _curve_of(_gelu),
    "HardSigmoid": _curve_of(lambda op: curves.hard_sigmoid(op.attributes.get("alpha", 0.2), op.attributes.get("beta", 0.5))),
    "HardSwish": _curve(curves.hard_swish),
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Dropout": _dropout,
    "Identity": lambda op: op.value(),
    "Cast": shapes.cast,
    "Flatten": shapes.flatten,
    "Reshape": shapes.reshape,
    "Squeeze": shapes.squeeze,
    "Unsqueeze": shapes.unsqueeze,
    "Transpose": shapes.transpose,
    "Concat": shapes.concat,
    "Sum": shapes.add_all,
    "Pad": windows.pad,
}

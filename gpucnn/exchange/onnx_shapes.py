"""Converts ONNX nodes that change axes and shapes, or join values."""

from __future__ import annotations

import math
from dataclasses import replace

from gpucnn.exchange.onnx_fold import BATCH
from gpucnn.exchange.onnx_op import FLOATS, Op
from gpucnn.exchange.problems import Problem
from gpucnn.exchange.value import FIRST, Value
from gpucnn.text import shown


def cast(op: Op) -> Value:
    if op.attributes.get("to") not in FLOATS:
        raise Problem("casts a value to integers")
    return op.value()


def flatten(op: Op) -> Value:
    value = op.value()
    rank = len(value.axes) + 1
    if int(op.attributes.get("axis", 1)) % rank != 1:
        raise Problem(f"flattens from axis {op.attributes['axis']} on, and only examples as a whole are flattened")
    return op.graph.flatten(value, op.where)


def reshape(op: Op) -> Value:
    value, given = op.value(), op.attributes.get("shape")
    target = list(op.constant(1) if given is None else given)
    before = (BATCH, *value.logical)
    if not op.attributes.get("allowzero", 0):
        target = [before[index] if size == 0 and index < len(before) else size for index, size in enumerate(target)]
    if not target or not (target[0] is BATCH or target[0] in (-1, op.walk.batch)):
        raise Problem(f"reshapes {before} to {shown(target)}, and the batch must stay unchanged")
    if any(size is BATCH for size in target[1:]):
        raise Problem(f"reshapes {before} to {shown(target)}")
    rest, count = [int(size) for size in target[1:]], math.prod(value.logical)
    if rest.count(-1) == 1 and target[0] != -1:
        others = -math.prod(rest)
        rest = [count // others if size == -1 and others > 0 else size for size in rest]
    return _shaped(op, value, tuple(rest))


def _shaped(op: Op, value: Value, shape: tuple[int, ...]) -> Value:
    """A value in another shape, with its pixels in the same order."""
    if shape == value.logical:
        return value
    if len(shape) == 1 and shape[0] == math.prod(value.logical):
        return op.graph.flatten(value, op.where)
    if len(value.axes) == 2 and len(shape) == 3:  # a new axis of size one, such as the channel of grey images
        (away,) = {0, 1, 2}.difference(value.axes)
        orders = [(*value.axes[:index], away, *value.axes[index:]) for index in (0, 2, 1)]
        for axes in sorted(orders, key=lambda axes: axes != FIRST):  # if several are possible, that of images
            if tuple(value.shape[axis] for axis in axes) == shape:
                return replace(value, axes=axes)
    raise Problem(f"reshapes {value.logical} to {shape}, and only flattening is supported")


def squeeze(op: Op) -> Value:
    value, axes = op.value(), op.numbers(1, "axes")
    rank = len(value.axes) + 1
    gone = {axis % rank for axis in axes} if axes is not None else {at for at, size in enumerate(value.logical, 1) if size == 1}
    if any(not at or value.logical[at - 1] != 1 for at in gone):
        raise Problem(f"removes axes {shown(axes)} of (batch, {value.logical})")
    left = tuple(axis for at, axis in enumerate(value.axes, 1) if at not in gone)
    if len(left) > 1:
        return replace(value, axes=left)
    return _shaped(op, value, tuple(value.shape[axis] for axis in left))


def unsqueeze(op: Op) -> Value:
    value, axes = op.value(), op.numbers(1, "axes") or []
    rank = len(value.axes) + 1 + len(axes)
    sizes = list(value.logical)
    for axis in sorted(axis % rank for axis in axes):
        if axis == 0:
            raise Problem("inserts an axis before the batch")
        sizes.insert(axis - 1, 1)
    return _shaped(op, value, tuple(sizes))


def transpose(op: Op) -> Value:
    value = op.value()
    rank = len(value.axes) + 1
    perm = [int(axis) for axis in op.attributes.get("perm", range(rank - 1, -1, -1))]
    if sorted(perm) != list(range(rank)) or perm[0] != 0:
        raise Problem(f"has perm {shown(perm)}, and the batch must stay first")
    return op.graph.transposed(value, [axis - 1 for axis in perm[1:]])


def concat(op: Op) -> Value:
    values = [op.value(index) for index in range(len(op.inputs))]
    rank = len(values[0].axes) + 1
    axis = int(op.attributes.get("axis", 1)) % rank
    if axis == 0:
        raise Problem("joins batches")
    return op.graph.concat(values, axis - 1, op.where)


def add_all(op: Op) -> Value:
    return op.graph.sum([op.value(index) for index in range(len(op.inputs))], op.where)

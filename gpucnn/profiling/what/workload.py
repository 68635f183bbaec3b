"""What is profiled: the training step of a model, or one operation with its gradients."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.checks import integer, pick
from gpucnn.device import Device
from gpucnn.errors import ShapeError, UnknownNameError
from gpucnn.layers import AvgPool2D, Conv2D, Dense, Dropout, Layer, MaxPool2D, ReLU, Sigmoid, Softmax
from gpucnn.model import Sequential, load
from gpucnn.networks import NETWORKS, network
from gpucnn.optimizers import SGD, Adam
from gpucnn.profiling.chip.samples import CONV_SHAPES
from gpucnn.profiling.what.observe import Call, Observer
from gpucnn.profiling.what.operations import KINDS, kind_of

IMAGE = (1, 28, 28)  # what the reference networks were made for


@dataclass
class Workload:
    """A model on the observer's device, and a batch for it. Without a loss, `labels` are the gradient of the output."""

    name: str
    model: Sequential
    observer: Observer
    x: Any
    labels: Any

    @property
    def batch(self) -> int:
        return int(self.x.shape[0])

    def step(self) -> None:
        """Forward, loss, backward, update; of a single operation the first and the third. Waits for nothing."""
        model = self.model
        if model.loss is None or model.optimizer is None:
            model.forward(self.x, training=True)
            model.buffers.forget_gradients()
            model.backward(self.labels, input_grad=True)
            return
        outputs = model.forward(self.x, training=True, logits=model.loss.fused_activation is not None)
        with self.observer.at(model.loss.name, "loss"):
            _, _, doutputs = model.loss(model.device, outputs, self.labels)
        model.optimizer.zero_grad()
        model.backward(doutputs)
        with self.observer.at(type(model.optimizer).__name__.lower(), "update"):
            model.optimizer.step()


@dataclass(frozen=True)
class Selection:
    """The part of a workload that is looked at closely."""

    op: str | None = None
    layer: str | None = None  # its number, counted from 1, or its name

    def check(self, model: Sequential) -> None:
        """UnknownNameError for an operation or a layer that is not there."""
        if self.op is not None:
            pick(self.op, dict.fromkeys(KINDS), "operation")
        if self.layer is not None:
            self.layer_name(model)

    def layer_name(self, model: Sequential) -> str | None:
        """The name of the layer; None for all of them."""
        names = [layer.name for layer in model.layers]
        if self.layer is None or self.layer in names:
            return self.layer
        if self.layer.isdecimal() and 1 <= int(self.layer) <= len(names):
            return names[int(self.layer) - 1]
        raise UnknownNameError(f"there is no layer {self.layer!r}: the layers are 1 to {len(names)}, {', '.join(names)}")

    def takes(self, call: Call, model: Sequential) -> bool:
        """Whether a call belongs to it."""
        name = self.layer_name(model)
        return (self.op is None or kind_of(call.op) == self.op) and (name is None or name in call.layer.split("+"))

    @property
    def words(self) -> str:
        """What it is, for people; "" for everything."""
        return ", ".join(part for part in (f"layer {self.layer}" if self.layer else "", f"only {self.op}" if self.op else "") if part)


def of_model(name: str, batch: int, device: Device, observer: Observer) -> Workload:
    """The training step of a reference network, or of the model in a file. UnknownNameError where `name` is neither."""
    batch = integer(batch, "batch size", 1)
    place = observer.device(device)
    if name in NETWORKS:
        model = network(name).build(IMAGE, seed=0, device=place)
        model.compile(SGD(0.01, momentum=0.9) if name == "lenet5x5" else Adam(1e-3))
    elif name.endswith(".safetensors") or Path(name).exists():
        model = load(name, device=place)
        if model.loss is None or model.optimizer is None:
            model.compile()
    else:
        try:
            pick(name, NETWORKS, "model")
        except UnknownNameError as error:
            raise UnknownNameError(f"{error}; or name a model.safetensors that train wrote") from None
    observer.watch(model)
    assert model.loss is not None
    x = _values((batch, *model.input_shape), device)
    outputs = math.prod(model.output_shape)
    random = np.random.default_rng(1)
    classes = model.loss.name == "categorical_crossentropy"
    labels = random.integers(0, outputs, batch) if classes else random.random((batch, outputs), np.float32).round()
    checked = model.loss.check_labels(labels, batch, outputs, model.dtype)
    return Workload(name, model, observer, device.array(x, model.dtype), device.array(checked))


def of_operation(op: str, shape: str, device: Device, observer: Observer) -> Workload:
    """One operation, forward and backward, on arrays of `shape` as --shape takes it. ShapeError where that does not fit."""
    if op not in SHAPED:
        raise UnknownNameError(f"--shape goes with --op {', '.join(SHAPED)}, got {op!r}")
    form, example, make = SHAPED[op]
    text = NAMED_SHAPES.get(shape, shape) if op == "conv" else shape
    fields = [part.strip() for part in text.replace("×", "x").split(",")]
    least, most = len(form.partition("[")[0].split(",")), len(form.replace("[", "").replace("]", "").split(","))
    expected = f"write {form}, such as {example}"
    if op == "conv":
        expected += f", or one of {', '.join(NAMED_SHAPES)}"
    if not least <= len(fields) <= most:
        raise ShapeError(f"the shape {shape!r} has {len(fields)} parts and does not fit {op!r}: {expected}")
    try:
        numbers = [_field(part) for part in fields]
        batch = integer(numbers[0], "N", 1)
        layer, input_shape = make(numbers[1:])
    except (ValueError, TypeError) as error:
        raise ShapeError(f"the shape {shape!r} does not fit {op!r} ({error}): {expected}") from None
    model = Sequential(layer)
    try:
        model.build(input_shape, seed=0, device=observer.device(device))
    except ShapeError as error:
        raise ShapeError(f"the shape {shape!r} does not fit {op!r}: {error}") from None
    observer.watch(model)
    x, dy = (_values((batch, *sides), device) for sides in (input_shape, model.output_shape))
    return Workload(f"{op} {shape}", model, observer, device.array(x), device.array(dy))


def _values(shape: tuple[int, ...], device: Device) -> np.ndarray[Any, Any]:
    """Numbers to compute on; for a GPU that is not there memory alone, which nobody reads and which so takes no room."""
    if device.kind == "cuda" and device.xp is np:
        return np.empty(shape, np.float32)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _field(text: str) -> Any:
    """A number, two as HxW, or a word ("same")."""
    if re.fullmatch(r"\d+", text):
        return int(text)
    if re.fullmatch(r"\d+x\d+", text):
        rows, _, columns = text.partition("x")
        return int(rows), int(columns)
    if text in ("same", "valid"):
        return text
    raise ValueError(f"{text!r} is neither a number nor HxW")


def _image(c: Any, hw: Any) -> tuple[int, ...]:
    c, sides = integer(c, "C", 1), hw if isinstance(hw, tuple) else (hw, hw)
    return (c, *(integer(side, "HxW", 1) for side in sides))


def _conv(fields: list[Any]) -> tuple[Layer, tuple[int, ...]]:
    c, hw, k, kernel, *rest = fields
    stride, padding, groups = rest + [1, 0, 1][len(rest) :]
    return Conv2D(k, kernel, stride=stride, padding=padding, groups=groups), _image(c, hw)


def _pool(kind: Callable[..., Layer]) -> Callable[[list[Any]], tuple[Layer, tuple[int, ...]]]:
    def make(fields: list[Any]) -> tuple[Layer, tuple[int, ...]]:
        c, hw, kernel, *rest = fields
        stride, padding = rest + [None, 0][len(rest) :]
        return kind(kernel, stride=stride, padding=padding), _image(c, hw)

    return make


def _dense(fields: list[Any]) -> tuple[Layer, tuple[int, ...]]:
    return Dense(fields[1]), (integer(fields[0], "C", 1),)


def _elementwise(layer: Callable[[], Layer]) -> Callable[[list[Any]], tuple[Layer, tuple[int, ...]]]:
    return lambda fields: (layer(), _image(*fields) if len(fields) > 1 else (integer(fields[0], "C", 1),))


# What --op takes with --shape: how to write it, an example, and the layer that it makes.
_WINDOW = "N,C,HxW,RxS[,STRIDE[,PADDING]]"
SHAPED: dict[str, tuple[str, str, Callable[[list[Any]], tuple[Layer, tuple[int, ...]]]]] = {
    "conv": ("N,C,HxW,K,RxS[,STRIDE[,PADDING[,GROUPS]]]", "128,32,14x14,64,5x5,1,same", _conv),
    "pool": (_WINDOW, "256,64,32x32,2x2", _pool(MaxPool2D)),
    "avg_pool": (_WINDOW, "256,64,32x32,2x2", _pool(AvgPool2D)),
    "dense": ("N,C,K", "128,3136,1024", _dense),
    "relu": ("N,C[,HxW]", "128,64,28x28", _elementwise(ReLU)),
    "sigmoid": ("N,C[,HxW]", "128,1024", _elementwise(Sigmoid)),
    "softmax": ("N,C", "128,10", _elementwise(Softmax)),
    "dropout": ("N,C[,HxW]", "128,1024", _elementwise(lambda: Dropout(0.5))),
}
NAMED_SHAPES = {  # the shapes that convolutions are compared on
    item.name: f"{item.n},{item.c},{item.hw[0]}x{item.hw[1]},{item.k},{item.rs[0]}x{item.rs[1]},{item.stride},{item.padding}"
    for item in CONV_SHAPES
}

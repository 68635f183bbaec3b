"""The subject of a profile: the training step of a model, or one operation with its gradients."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.checks import integer, pick
from gpucnn.data.batches import Batches
from gpucnn.device import Device
from gpucnn.errors import DataError, ShapeError, UnknownNameError
from gpucnn.experiment.trained import model_file
from gpucnn.files import exists
from gpucnn.layers import AvgPool2D, Conv2D, Dense, Dropout, Layer, MaxPool2D, ReLU, Sigmoid, Softmax
from gpucnn.model import Sequential, load
from gpucnn.networks import NETWORKS, network, textbook_optimizer
from gpucnn.profiling.what.observe import Call, Observer
from gpucnn.profiling.what.operations import KINDS, kind_of
from gpucnn.profiling.what.shapes import CONV_SHAPES
from gpucnn.surroundings import user_path
from gpucnn.training.feed import feed_for
from gpucnn.training.step import TrainingStep

IMAGE = (1, 28, 28)  # the images of the reference networks
BATCHES, DATA = 64, 64 << 20  # limits: batches of an epoch, and bytes of its images
REPLAYS = 1 << 15  # of a step's launches: each takes a row of the table of learning rates


class Workload(ABC):
    """A model on the observer's device, and a step that can be repeated. `given_bytes`: of the batch and its labels."""

    def __init__(self, name: str, model: Sequential, observer: Observer, batch: int, given_bytes: int) -> None:
        self.name = name
        self.model = model
        self.observer = observer
        self.batch = batch
        self.given_bytes = given_bytes
        self.unobserved: Callable[[], Workload] | None = None  # makes the same, as it runs where nobody observes it

    @abstractmethod
    def step(self) -> None:
        """Runs the step once more, without waiting for it."""


class OneOperation(Workload):
    """A layer's forward and backward on one batch, without a loss and an update."""

    def __init__(self, name: str, model: Sequential, observer: Observer, x: Any, dy: Any) -> None:
        super().__init__(name, model, observer, int(x.shape[0]), int(x.nbytes) + int(dy.nbytes))
        self._x, self._dy = x, dy

    def step(self) -> None:
        """Forward, and backward down to the input."""
        self.model.forward(self._x, training=True)
        self.model.buffers.forget_gradients()
        self.model.backward(self._dy, input_grad=True)


class Training(Workload):
    """The steps of `fit`, one after the other: batch, forward, loss, counters, backward, update. Launched kernel by kernel."""

    def __init__(self, name: str, model: Sequential, observer: Observer, batches: Batches) -> None:
        assert model.loss is not None and model.optimizer is not None
        example = math.prod(model.input_shape) * model.dtype.itemsize + batches.labels.nbytes // len(batches.labels)
        super().__init__(name, model, observer, batches.batch_size, batches.batch_size * example)
        layers = {"batch": "batch", "loss": model.loss.name, "update": type(model.optimizer).__name__.lower()}
        observer.outside = lambda op: (layers.get(kind_of(op), op), kind_of(op))
        self._steps = batches.steps_per_epoch
        trained: Any = model
        self._trainer = TrainingStep(trained, model.loss, model.optimizer, graphs=False)
        self._feed = feed_for(self._trainer.graphs, batches)
        self._trainer.begin(REPLAYS)  # a table of learning rates that is long enough to replay the launches
        with observer.listening(None):
            self._trainer.prepare(self._feed, batches.batch_size)
        self._epoch = 0
        self._sizes: Iterator[int] = iter(())

    def step(self) -> None:
        """The next step of the epoch; after the last one the first of the next, which is made ready as `fit` does it."""
        size = next(self._sizes, None)
        if size is None:
            with self.observer.listening(None):
                self._trainer.begin(self._steps, epoch=self._epoch)
                self._sizes = self._feed.epoch(self._epoch, 0)
                self._epoch += 1
                size = next(self._sizes)
        self._trainer.run(self._feed, size)


@dataclass(frozen=True)
class Selection:
    """The part of a workload that is examined closely."""

    op: str | None = None
    layer: str | None = None  # its number, counted from 1, or its name

    def check(self, model: Sequential) -> None:
        """Raises UnknownNameError for an operation or a layer that does not exist."""
        if self.op is not None:
            pick(self.op, dict.fromkeys(KINDS), "operation")
        if self.layer is not None:
            self.layer_name(model)

    def layer_name(self, model: Sequential) -> str | None:
        """The name of the layer; None for all of them."""
        names = [layer.name for layer in model.layers]
        if self.layer is None or self.layer in names or any(self.layer in layer.walk(layer.name) for layer in model.layers):
            return self.layer
        if self.layer.isdecimal() and 1 <= int(self.layer) <= len(names):
            return names[int(self.layer) - 1]
        raise UnknownNameError(f"there is no layer {self.layer!r}: the layers are 1 to {len(names)}, {', '.join(names)}")

    def takes(self, call: Call, model: Sequential) -> bool:
        """Whether a call belongs to it."""
        name = self.layer_name(model)
        layers = call.layer.split("+")  # layers inside another one have its name before their own
        return (self.op is None or kind_of(call.op) == self.op) and (
            name is None or any(layer == name or layer.startswith(f"{name}.") for layer in layers)
        )

    @property
    def words(self) -> str:
        """The selection in words; "" for everything."""
        return ", ".join(part for part in (f"layer {self.layer}" if self.layer else "", f"only {self.op}" if self.op else "") if part)


def of_model(name: str, batch: int, device: Device, observer: Observer) -> Workload:
    """The training step of a reference network, or of the model in a file or in a run's folder. UnknownNameError for another `name`."""
    batch = integer(batch, "batch size", 1)
    model = _model(name, observer.device(device))
    observer.watch(model)
    batches = _batches(model, batch, device)
    made = Training(name, model, observer, batches)
    made.unobserved = lambda: Training(name, _model(name, device), observer, batches)
    return made


def _model(name: str, device: Device) -> Sequential:
    """A reference network, or the model in a file or in a run's folder, ready to train. UnknownNameError for another `name`."""
    if name in NETWORKS:
        model = network(name).build(IMAGE, seed=0, device=device)
        model.compile(textbook_optimizer(name))
    elif name.endswith(".safetensors") or exists(user_path(name)):
        model = load(model_file(Path(name)), device=device)
        if model.loss is None or model.optimizer is None:
            model.compile()
    else:
        try:
            pick(name, NETWORKS, "model")
        except UnknownNameError as error:
            raise UnknownNameError(f"{error}; or name a model.safetensors that train wrote, or its folder") from None
    return model


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
    return OneOperation(f"{op} {shape}", model, observer, device.array(x), device.array(dy))


def _batches(model: Sequential, size: int, device: Device) -> Batches:
    """A data set of random pixels and labels, as large as some batches."""
    assert model.loss is not None
    count = size * max(1, min(BATCHES, DATA // (size * math.prod(model.input_shape))))
    random, outputs = np.random.default_rng(0), math.prod(model.output_shape)
    shape = (count, *model.input_shape)
    images = np.empty(shape, np.uint8) if _imagined(device) else random.integers(0, 256, shape, np.uint8)
    try:
        checked = model.loss.check_labels(random.integers(0, outputs, count), count, outputs, model.dtype)
    except DataError:  # a loss that takes no class numbers
        checked = model.loss.check_labels(random.random((count, outputs), np.float32).round(), count, outputs, model.dtype)
    return Batches(images, model.targets(checked), size, seed=model.seed, dtype=model.dtype)


def _imagined(device: Device) -> bool:
    """Whether the device is a GPU that is not present: then arrays are never filled, and take no memory."""
    return device.kind == "cuda" and device.xp is np


def _values(shape: tuple[int, ...], device: Device) -> np.ndarray[Any, Any]:
    """Numbers to compute on."""
    if _imagined(device):
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


# The values of --op with --shape: the format, an example, and the layer that it makes.
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

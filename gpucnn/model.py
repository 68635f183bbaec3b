"""Sequential: a stack of layers with one input and one output."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpucnn.checks import integer
from gpucnn.data.batches import Batches, scaled
from gpucnn.device import Device, get_device, to_numpy
from gpucnn.errors import CheckpointError, DataError, GpucnnError, ShapeError
from gpucnn.layers import Layer, layer_from_config
from gpucnn.layers.base import Array, Buffers, Parameter, Shape, Stage
from gpucnn.layers.fused import stages
from gpucnn.losses import Loss, get_loss
from gpucnn.memory import bytes_text, of_step
from gpucnn.metrics import METRICS
from gpucnn.optimizers import Optimizer, get_optimizer
from gpucnn.training import loop
from gpucnn.training.callbacks import Callback, History
from gpucnn.training.checkpoint import load_tensors, save_tensors, take


class Sequential:
    """Layers one after another.

    model = Sequential(Conv2D(32, 3, activation="relu"), MaxPool2D(2), Flatten(), Dense(10))
    model.build((1, 28, 28), seed=0, device="auto")
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=128, epochs=5)
    """

    def __init__(self, *layers: Layer | list[Layer] | tuple[Layer, ...]) -> None:
        flat = [layer for item in layers for layer in (item if isinstance(item, list | tuple) else [item])]
        for layer in flat:
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential takes layers, got {layer!r}")
        if not flat:
            raise ShapeError("Sequential needs at least one layer")
        if len({id(layer) for layer in flat}) < len(flat):
            raise ShapeError("a layer can stand in a model once only: make a second one for the second place")
        self.layers = flat
        self.input_shape: Shape = ()
        self.output_shape: Shape = ()
        self.metadata: dict[str, Any] = {}  # for people and programs: saved and loaded along with the model
        self.dtype: np.dtype[Any] = np.dtype("float32")
        self.seed = 0
        self.loss: Loss | None = None
        self.optimizer: Optimizer | None = None
        self.metrics: list[str] = []
        self._device: Device | None = None
        self._buffers: Buffers | None = None
        self._stages: list[Stage] = []  # the layers, some of them as one
        self._batch = 0  # the size of the batch that backward is due for

    # Building.

    def build(self, input_shape: Sequence[int], *, seed: int = 0, device: str | Device = "auto", dtype: str = "float32") -> Sequential:
        """Fixes all sizes for examples of `input_shape` (C, H, W) or (features,), and draws the parameters from `seed`.

        dtype: float32, or float64 on the CPU for gradient checks. Raises ShapeError where a layer does not fit what comes before it,
        DeviceError where the device cannot be had. Returns the model.
        """
        place = get_device(device)
        self.seed = integer(seed, "seed", 0)
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
        if dtype == "float64" and place.kind == "cuda":
            raise ValueError("the kernels compute in float32: use device='cpu' for float64")
        if isinstance(input_shape, int) or len(input_shape) not in (1, 3):
            raise ShapeError(f"input_shape must be (channels, height, width) or (features,), got {input_shape!r}")
        self.input_shape = shape = tuple(integer(size, "input_shape", 1) for size in input_shape)
        counts: dict[str, int] = {}
        for index, layer in enumerate(self.layers):
            kind = type(layer).__name__.lower()
            counts[kind] = counts.get(kind, 0) + 1
            layer.name = f"{kind}_{counts[kind]}"
            try:
                shape = layer.build(shape)
            except ShapeError as error:
                raise ShapeError(f"layer {index + 1} of {len(self.layers)}, {layer!r}: {error}") from None
            layer.place(place, _layer_seed(self.seed, index))
        self.output_shape = shape
        self._stages = stages(self.layers)
        self.dtype = np.dtype(dtype)
        self._device = place
        self._buffers = Buffers([parameter for layer in self.layers for parameter in layer.parameters], place, self.dtype)
        self._buffers.initialize(self.seed)
        if self.loss is not None and self.optimizer is not None:
            self.compile(self.optimizer, self.loss, self.metrics)
        return self

    @property
    def device(self) -> Device:
        """Where the model runs."""
        self._built()
        assert self._device is not None
        return self._device

    @property
    def buffers(self) -> Buffers:
        """All parameters and gradients, flat."""
        return self._built()

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter under its name, such as "conv2d_1.weight"."""
        self._built()
        return {f"{layer.name}.{parameter.name}": parameter for layer in self.layers for parameter in layer.parameters}

    @property
    def parameter_count(self) -> int:
        """The number of trained values."""
        return sum(parameter.size for parameter in self._built().parameters)

    @property
    def held_bytes(self) -> int:
        """Bytes of parameters, gradients and the optimizer's state."""
        slots = len(self.optimizer.slots) if self.optimizer else 0
        return int(self._built().values.nbytes) * (2 + slots)

    def step_bytes(self, batch_size: int) -> int:
        """Bytes that a training step takes at the most, besides `held_bytes` and the kernels' workspaces."""
        self._built()
        return of_step(self._stages).peak * batch_size * self.dtype.itemsize

    # The loop by hand.

    def forward(self, x: Any, training: bool = False, *, logits: bool = False) -> Array:
        """The model's output for a batch (N, …), an array on the model's device. uint8 pixels are divided by 255, as `fit` does.

        With `training`, what backward needs is kept, and dropout drops. `logits` leaves a final softmax or sigmoid off.
        """
        y = self._input(x)
        self._batch = int(y.shape[0])
        for stage in self._stages:
            y = stage.forward(y, training, logits=logits and stage is self._stages[-1])
        return y

    def backward(self, dy: Array, *, input_grad: bool = False) -> Array | None:
        """Adds the gradient of every parameter, given that of the output; returns that of the input where `input_grad`."""
        self._built()
        dy = self.device.array(dy, self.dtype)
        if dy.ndim == 0 or tuple(dy.shape[1:]) != self.output_shape:
            expected = ", ".join(map(str, self.output_shape))
            raise ShapeError(f"the output's gradient must have shape (batch, {expected}), got {tuple(dy.shape)}")
        if self._batch and dy.shape[0] != self._batch:
            raise ShapeError(f"the last forward had a batch of {self._batch}, the output's gradient is of one of {dy.shape[0]}")
        first = next((index for index, stage in enumerate(self._stages) if stage.parameters), len(self._stages))
        own = False  # the caller's dy is left as it is; gradients made on the way may serve as scratch
        masked = False  # whether dy has ReLU's gradient of this stage already
        for index in reversed(range(len(self._stages))):
            stage = self._stages[index]
            wanted = input_grad or index > first
            relu = self._relu_before(index) if wanted and stage.takes_relu_grad else None
            gradient = stage.backward(dy, input_grad=wanted, overwrite=own, relu=relu, masked=masked)
            if gradient is None:
                for other in self._stages[:index]:
                    other.forget()
                return None
            own = own or not stage.passes_on
            masked = relu is not None or (masked and stage.passes_mask)
            dy = gradient
        return dy

    def _relu_before(self, index: int) -> Array | None:
        """The input of a stage in its shape, where it is ReLU's output, or was before stages that leave zeros where they are."""
        for stage in reversed(self._stages[:index]):
            if not stage.passes_mask:
                y = stage.relu_output
                return None if y is None else y.reshape(y.shape[0], *(self._stages[index].layers[0].input_shape or ()))
        return None

    # Training.

    def compile(
        self,
        optimizer: Optimizer | str = "adam",
        loss: Loss | str = "categorical_crossentropy",
        metrics: Sequence[str] = ("accuracy",),
    ) -> Sequential:
        """Says how the model is trained. `optimizer` starts afresh. Returns the model."""
        buffers = self._built()
        chosen, measured = get_optimizer(optimizer), get_loss(loss)
        for metric in metrics:
            if metric not in METRICS:
                raise ValueError(f"unknown metric {metric!r}: there are {', '.join(METRICS)}")
        measured.check_model(self.output_shape, self.layers[-1].activation)
        chosen.attach(buffers)
        self.optimizer, self.loss, self.metrics = chosen, measured, list(metrics)
        return self

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        batch_size: int = 32,
        epochs: int = 1,
        validation_data: tuple[Any, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        shuffle: bool = True,
        seed: int | None = None,
        augment: Any = None,
        verbose: bool | None = None,
        resume: str | Path | None = None,
    ) -> History:
        """Trains for `epochs` passes over x (N, …) and y, and returns the history.

        x: floating, or uint8 pixels, which are divided by 255. y: as the loss takes it. validation_data: (x, y), measured after each
        epoch. seed: of the order of examples and of augmentation (the model's own unless given). augment: see
        `gpucnn.data.augmentation`. verbose: progress; by default it is shown where the output is a terminal. resume: a checkpoint
        (callback `Checkpoint`) to go on from. Raises DataError for data that do not fit the model or hold NaN, TrainingError where
        the loss becomes NaN.
        """
        loss, optimizer = self._compiled()
        if not optimizer.trains(self.buffers):
            raise GpucnnError("this model's optimizer trains another model by now: compile each model with an optimizer of its own")
        epochs = integer(epochs, "epochs", 1)
        images = self._examples(x)
        labels = loss.check_labels(y, len(images), math.prod(self.output_shape), self.dtype)
        batches = Batches(
            images,
            labels,
            integer(batch_size, "batch_size", 1),
            shuffle=shuffle,
            seed=self.seed if seed is None else seed,
            augment=augment,
            dtype=self.dtype,
        )
        if validation_data is not None:
            xv, yv = validation_data
            xv = self._examples(xv)
            validation_data = xv, loss.check_labels(yv, len(xv), math.prod(self.output_shape), self.dtype)
        return loop.fit(
            self,
            loss,
            optimizer,
            batches,
            epochs=epochs,
            validation=validation_data,
            callbacks=callbacks,
            verbose=verbose,
            accuracy="accuracy" in self.metrics,
            resume=resume,
        )

    def evaluate(self, x: Any, y: Any, *, batch_size: int = 256) -> Any:
        """(loss, accuracy) over all examples; the loss alone where the model was compiled without accuracy."""
        loss, _ = self._compiled()
        examples = self._examples(x)
        labels = loss.check_labels(y, len(examples), math.prod(self.output_shape), self.dtype)
        mean, accuracy = self.evaluate_sums(examples, labels, integer(batch_size, "batch_size", 1))
        return (mean, accuracy) if "accuracy" in self.metrics else mean

    def evaluate_sums(self, x: Any, labels: Any, batch_size: int) -> tuple[float, float]:
        """(mean loss, part of right answers) of checked examples and labels."""
        loss, _ = self._compiled()
        total = correct = answers = 0.0
        for start in range(0, len(x), batch_size):
            part = self.device.array(labels[start : start + batch_size])
            outputs = self.forward(scaled(x[start : start + batch_size], self.dtype), logits=loss.fused_activation is not None)
            value, right, _ = loss(self.device, outputs, part)
            total += float(value) * len(part)
            correct += int(right)
            answers += loss.answers(part)
        return total / len(x), correct / answers

    def predict(self, x: Any, *, batch_size: int = 256) -> np.ndarray[Any, Any]:
        """The model's outputs (N, …) as a NumPy array: probabilities, also where the last softmax or sigmoid is left to the loss."""
        examples = self._examples(x)
        batch_size = integer(batch_size, "batch_size", 1)
        final = self.loss.fused_activation if self.loss and self.layers[-1].activation is None else None
        results = []
        for start in range(0, len(examples), batch_size):
            outputs = self.forward(scaled(examples[start : start + batch_size], self.dtype))
            results.append(to_numpy(getattr(self.device.ops, final)(outputs) if final else outputs))
        return np.concatenate(results)

    # Looking at it, saving and loading.

    def summary(self, batch_size: int = 1, *, file: IO[str] | None = None) -> None:
        """Prints each layer's output shape, parameters, multiply-adds and memory for `batch_size` examples (to stdout, or `file`)."""
        self._built()
        batch_size = integer(batch_size, "batch_size", 1)
        rows = [("layer", "output", "parameters", "multiply-adds", "kept for backward")]
        totals = [0, 0, 0]
        costs, memory = [cost for stage in self._stages for cost in stage.costs()], of_step(self._stages)
        for layer, cost, kept in zip(self.layers, costs, memory.kept, strict=True):
            numbers = [
                sum(parameter.size for parameter in layer.parameters),
                cost.multiply_adds * batch_size,
                kept * batch_size * self.dtype.itemsize,
            ]
            totals = [total + number for total, number in zip(totals, numbers, strict=True)]
            label = layer.name + (f" ({layer.activation})" if layer.activation else "")
            rows.append((label, _shape_text(layer.output_shape), f"{numbers[0]:,}", f"{numbers[1]:,}", bytes_text(numbers[2])))
        rows.append(("total", _shape_text(self.output_shape), f"{totals[0]:,}", f"{totals[1]:,}", bytes_text(totals[2])))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join(f"{text:{'<' if column < 2 else '>'}{widths[column]}}" for column, text in enumerate(row)).rstrip() for row in rows
        ]
        rule = "─" * max(map(len, lines))
        slots = len(self.optimizer.slots) if self.optimizer else 0
        step = memory.peak * batch_size * self.dtype.itemsize
        print(
            "\n".join(
                [
                    f"Sequential on {self.device.name}, input {_shape_text(self.input_shape)}, batch of {batch_size}, {self.dtype}",
                    rule,
                    lines[0],
                    rule,
                    *lines[1:-1],
                    rule,
                    lines[-1],
                    f"a training step takes {bytes_text(self.held_bytes + step)}: {bytes_text(self.held_bytes)} for parameters, gradients"
                    f"{' and optimizer' if slots else ''}, {bytes_text(step)} at the most for the batch on its way",
                ]
            ),
            file=file or sys.stdout,
        )

    def config(self) -> dict[str, Any]:
        """The model without its parameters, as JSON can hold it."""
        return {
            "input_shape": list(self.input_shape),
            "dtype": str(self.dtype),
            "seed": self.seed,
            "layers": [layer.config() for layer in self.layers],
            "loss": self.loss.name if self.loss else None,
            "optimizer": self.optimizer.config() if self.optimizer else None,
            "metrics": self.metrics,
            "metadata": self.metadata,
        }

    def save(self, path: str | Path) -> None:
        """Writes the model, without the optimizer's state, as safetensors: whole or not at all."""
        save_tensors(path, {name: parameter.value for name, parameter in self.parameters.items()}, {"model": self.config()})

    def load_parameters(self, path: str | Path) -> None:
        """Takes the parameters from a file that `save` wrote for a model with the same layers."""
        tensors, _ = load_tensors(path)
        take(tensors, {name: parameter.value for name, parameter in self.parameters.items()}, path)

    def state(self) -> dict[str, Any]:
        """What training changes besides parameters and optimizer: the layers' random state."""
        return {layer.name: state for layer in self.layers if (state := layer.state())}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a `state()` again."""
        for layer in self.layers:
            if layer.name in state:
                layer.restore(state[layer.name])

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    # Checks.

    def _built(self) -> Buffers:
        if self._buffers is None:
            raise GpucnnError("the model is not built yet: call model.build(input_shape) first")
        return self._buffers

    def _compiled(self) -> tuple[Loss, Optimizer]:
        self._built()
        if self.loss is None or self.optimizer is None:
            raise GpucnnError("the model is not compiled yet: call model.compile(optimizer=..., loss=...) first")
        return self.loss, self.optimizer

    def _check_shape(self, shape: Any) -> None:
        if len(shape) < 1 or tuple(shape[1:]) != self.input_shape:
            raise ShapeError(f"the model takes examples of shape (batch, {', '.join(map(str, self.input_shape))}), got {tuple(shape)}")
        if not shape[0]:
            raise ShapeError("an empty batch was given: at least one example is needed")

    def _input(self, x: Any) -> Array:
        self._built()
        x = x if hasattr(x, "shape") and hasattr(x, "dtype") else np.asarray(x)
        self._check_shape(x.shape)
        y = self.device.array(x, self.dtype)
        return y / self.dtype.type(255) if x.dtype == np.uint8 else y

    def _examples(self, x: Any) -> np.ndarray[Any, Any]:
        """A whole set of examples, on the host: uint8 as it is, everything else as the model's dtype, with no NaN."""
        self._built()
        examples = to_numpy(x)
        self._check_shape(examples.shape)
        if examples.dtype == np.uint8:
            return examples  # type: ignore[no-any-return]
        if examples.dtype.kind not in "biuf":
            raise DataError(f"examples must be numbers, got {examples.dtype}")
        examples = np.ascontiguousarray(examples, self.dtype)
        finite = np.isfinite(examples).reshape(len(examples), -1).all(axis=1)
        if not finite.all():
            raise DataError(f"example {int(finite.argmin())} holds NaN or infinity: remove or mend it")
        return examples


def load(path: str | Path, *, device: str | Device = "auto") -> Sequential:
    """The model in a file that `Sequential.save` wrote, built, and compiled where it was. Raises CheckpointError for other files."""
    tensors, description = load_tensors(path)
    config: Any = description.get("model")
    if config is None:
        raise CheckpointError(f"{path} is a checkpoint of a run and no model: name the model.safetensors beside it, or resume the run")
    place = get_device(device)
    try:
        model = Sequential([layer_from_config(layer) for layer in config["layers"]])
        model.build(config["input_shape"], seed=config["seed"], device=place, dtype=config["dtype"])
        if config["loss"] is not None and config["optimizer"] is not None:
            model.compile(get_optimizer(config["optimizer"]), config["loss"], config["metrics"])
        model.metadata = dict(config["metadata"])
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        raise CheckpointError(f"{path} describes a model that this gpucnn cannot make ({error})") from None
    take(tensors, {name: parameter.value for name, parameter in model.parameters.items()}, path)
    return model


def _layer_seed(seed: int, index: int) -> int:
    low, high = np.random.SeedSequence([seed, index]).generate_state(2)
    return int(low) | int(high) << 32


def _shape_text(shape: Shape) -> str:
    return " × ".join(map(str, shape))

"""Sequential: a stack of layers with one input and one output."""

from __future__ import annotations

import copy
import math
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpucnn import optimizers, schedules, summary
from gpucnn.arrays import examples, numbers, on_a_gpu, pixels, scaled
from gpucnn.checks import integer, pick, several
from gpucnn.data.batches import Batches
from gpucnn.device import Device, get_device, simulated, to_numpy, why_no_cuda
from gpucnn.errors import ArgumentError, CheckpointError, GpucnnError, ShapeError, UnknownNameError
from gpucnn.layers import LAYERS, Layer, layer_from_config
from gpucnn.layers.base import Array, Shape, derived_seed, too_many
from gpucnn.layers.chain import Chain, build_in_turn, outputs_of
from gpucnn.layers.containers import Stack, every_layer
from gpucnn.layers.inherited import Inherited
from gpucnn.layers.input import Input
from gpucnn.layers.parameter import Buffers, Parameter, SavedArray
from gpucnn.layout import FIRST, LAST, check_format, hint, image_shape, in_order
from gpucnn.losses import LOSSES, Loss, get_loss
from gpucnn.memory import of_step
from gpucnn.metrics import METRICS
from gpucnn.ops.cpu._engine import compile_for
from gpucnn.ops.shapes import LIMIT
from gpucnn.optimizers import OPTIMIZERS, Optimizer, get_optimizer
from gpucnn.schedules import SCHEDULES
from gpucnn.surroundings import say
from gpucnn.text import message, reason_of, shown
from gpucnn.training import loop
from gpucnn.training.callbacks import Callback, History
from gpucnn.training.checkpoint import TensorFile, save_tensors, take
from gpucnn.training.given import Given, batches_of, example_shape, pair, stream_of, watchers, weighted
from gpucnn.training.step import TrainingStep
from gpucnn.weighted import example_weights

MOST_LAYERS = 10_000  # that a file may describe


class Sequential:
    """Layers one after another.

    model = Sequential(Conv2D(32, 3, activation="relu"), MaxPool2D(2), Flatten(), Dense(10))
    model.build((1, 28, 28), seed=0, device="auto")
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=128, epochs=5)
    """

    def __init__(self, *layers: Layer | Input | Sequential | Sequence[Layer | Input | Sequential]) -> None:
        self.layers: list[Layer] = []
        self.declared: Input | None = None  # what it is for, where that was said
        self.data_format: str | None = None  # of the examples that it is given: where their channels stand
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
        self.chain = Chain()  # the layers, some of them as one, as training runs them
        self._named: dict[str, Parameter] = {}
        self._arrays: dict[str, SavedArray] = {}
        self._batch = 0  # the size of the batch that backward is due for
        self.epochs_begun = 0  # of all calls of `fit` since `build`: the order of examples and augmentation go on from one to the next
        self._unknown = ""  # what the file that it comes from names, and is not known here
        for item in layers:
            several_layers: Any = item if isinstance(item, list | tuple) else [item]
            for layer in several_layers:
                self.add(layer)

    def add(self, layer: Layer | Input | Sequential) -> None:
        """Puts a layer, or a model as one layer, behind those that are there; an Input stands before all of them.

        TypeError for anything else, GpucnnError for a model that is built, ArgumentError for a layer that is there already.
        """
        if self._buffers is not None:
            raise GpucnnError("the model is built already, and cannot grow: make a new one of its layers and the new one")
        if isinstance(layer, Input):
            if self.layers or self.declared is not None:
                raise ArgumentError("an Input stands before all layers, and there is one at the most")
            self.declared = layer
            return
        added: Any = Stack(*layer.layers) if isinstance(layer, Sequential) else layer
        if not isinstance(added, Layer):
            raise TypeError(f"Sequential takes layers, got {shown(layer)}")
        everywhere = [part for each in (*self.layers, added) for part in every_layer(each)]
        if len({id(part) for part in everywhere}) < len(everywhere):
            raise ArgumentError("a layer can stand in a model once only: make a second one for the second place")
        if not self.layers and self.declared is None and added.declared_shape is not None:
            self.declared = Input(added.declared_shape)
        self.layers.append(added)

    # Building.

    def build(
        self,
        input_shape: Sequence[int] | None = None,
        *,
        seed: int = 0,
        device: str | Device = "auto",
        dtype: str = "float32",
        data_format: str | None = None,
    ) -> Sequential:
        """Fixes all sizes for examples of `input_shape` (C, H, W), (H, W) of grey images, or (features,), and draws the parameters from
        `seed`. An `Input` among the layers says the shape as well.

        data_format: "channels_last" for examples (N, H, W, C) and an `input_shape` (H, W, C); the model remembers it. Layers, weights and
        `gpucnn.functional` have their channels first in any case.

        Layers that come from another model that is built, or was loaded, go over to this one with their weights, which are not drawn; the
        other model goes on with a copy of its own. A second build draws everything anew.

        dtype: float32, or float64 on the CPU for gradient checks. Raises ShapeError where a layer does not fit what comes before it,
        DeviceError where the device cannot be had. Returns the model.
        """
        place = get_device(device)
        if dtype == "float64" and place.kind == "cuda":
            raise ValueError("the kernels compute in float32: use device='cpu' for float64")
        if input_shape is None:
            if self.declared is None:
                raise ShapeError("nothing says what the model is for: build(input_shape), or put an Input(shape) before its layers")
            input_shape, data_format = self.declared.shape, data_format or self.declared.data_format
        data_format = check_format(data_format) or self.data_format
        inherited = Inherited(self.layers, self)
        before = [(owner, owner.__getstate__()) for owner in inherited.owners.values()]
        copies = [(owner, copy.deepcopy(owner)) for owner in inherited.owners.values()]
        try:
            self._lay_out(image_shape(input_shape, data_format), integer(seed, "seed", 0), dtype)
            inherited.check()
        except BaseException:
            for owner, kept in before:  # as it was
                owner._lay_out(owner.input_shape, owner.seed, str(owner.dtype))
                owner.__setstate__(kept)
            raise
        self.data_format = data_format
        self._settle(place).initialize(self.seed)
        inherited.put()
        for owner, own in copies:
            owner._go_on_as(own)
        if self.loss is not None and self.optimizer is not None:
            self.compile(self.optimizer, self.loss, self.metrics)
        return self

    def _go_on_as(self, other: Sequential) -> None:
        """Takes everything from a copy of itself: layers, buffers, the optimizer with its state."""
        vars(self).update(vars(other))
        for layer in self.layers:
            for part in layer.walk().values():
                part._owner = weakref.ref(self)

    def _lay_out(self, input_shape: Any, seed: int, dtype: str) -> None:
        """Works all sizes and names out, with no array made yet."""
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64, got {shown(dtype)}")
        if not self.layers:
            raise ShapeError("the model has no layers: add at least one")
        shape = image_shape(input_shape, FIRST)
        if math.prod(shape) >= LIMIT:
            raise ShapeError(f"an example would be {too_many(shape)}")
        self.seed, self.input_shape, self.dtype = seed, shape, np.dtype(dtype)
        self.output_shape = build_in_turn(self.layers, shape)

    def _settle(self, place: Device) -> Buffers:
        """Gives every parameter its place in the memory of the device."""
        parameters, arrays = _by_name(self.layers)
        for layer in self.layers:
            for path, part in layer.walk(layer.name).items():
                part.name, part._owner = path, weakref.ref(self)
        for index, layer in enumerate(self.layers):
            layer.place(place, derived_seed(self.seed, index))
        self._named, self._arrays = parameters, arrays
        for layer in self.layers:
            layer.settle_frozen()
            layer.plan()
        self.chain = Chain(self.layers)
        self._device = place
        self._buffers = Buffers(list(parameters.values()), place, self.dtype, list(arrays.values()))
        self._batch = self.epochs_begun = 0
        return self._buffers

    def freeze_anew(self) -> None:
        """Settles anew which parameters are trained, after a layer's `trainable` was set: all keep their values, and the optimizer has to
        start afresh."""
        if self._buffers is None:
            return
        before = [parameter.frozen for parameter in self._named.values()]
        for layer in self.layers:
            layer.settle_frozen()
            layer.plan()
        self.chain = Chain(self.layers)
        if before == [parameter.frozen for parameter in self._named.values()]:
            return
        values = {name: to_numpy(array) for name, array in self._tensors().items()}
        self._buffers.replaced = True
        self._buffers = Buffers(list(self._named.values()), self.device, self.dtype, list(self._arrays.values()))
        for name, array in self._tensors().items():
            array[...] = self.device.array(values[name])

    @property
    def trainable(self) -> bool:
        """Whether any layer is to be trained; setting it sets all of them."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value

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
        """Every parameter under its name, such as "conv2d_1.weight"; one of a layer within a layer under the path to it."""
        self._built()
        return dict(self._named)

    @property
    def arrays(self) -> dict[str, SavedArray]:
        """Every array that is saved with the parameters but not trained, under its name."""
        self._built()
        return dict(self._arrays)

    @property
    def parameter_count(self) -> int:
        """The number of values in all parameters, those that are frozen included."""
        self._built()
        return sum(parameter.size for parameter in self._named.values())

    @property
    def held_bytes(self) -> int:
        """Bytes of parameters, gradients, the optimizer's state, and arrays that are not trained."""
        slots = len(self.optimizer.slots) if self.optimizer else 0
        return int(self._built().values.nbytes) * (2 + slots) + int(self._built().saved.nbytes)

    def step_bytes(self, batch_size: int) -> int:
        """Bytes that a training step takes at the most, besides `held_bytes` and the kernels' workspaces."""
        self._built()
        return of_step(self.chain.stages).peak * batch_size * self.dtype.itemsize

    # The loop by hand.

    def forward(self, x: Any, training: bool = False, *, logits: bool = False) -> Array:
        """The model's output for a batch (N, …), an array on the model's device. uint8 pixels are divided by 255, as `fit` does.

        With `training`, what backward needs is kept, and dropout drops; without, nothing is kept and nothing is forgotten. `logits` leaves
        a final softmax or sigmoid off.
        """
        y = self._input(x)
        if training:
            self._batch = int(y.shape[0])
        return self.chain.forward(y, training, logits=logits)

    def backward(self, dy: Array, *, input_grad: bool = False) -> Array | None:
        """Adds the gradient of every parameter, given that of the output; returns that of the input where `input_grad`."""
        self._built()
        dy = self.device.array(dy, self.dtype)
        if dy.ndim == 0 or tuple(dy.shape[1:]) != self.output_shape:
            expected = ", ".join(map(str, self.output_shape))
            raise ShapeError(f"the output's gradient must have shape (batch, {expected}), got {tuple(dy.shape)}")
        if self._batch and dy.shape[0] != self._batch:
            raise ShapeError(f"the last forward had a batch of {self._batch}, the output's gradient is of one of {dy.shape[0]}")
        return self.chain.backward(dy, input_grad=input_grad)

    # Training.

    def compile(
        self,
        optimizer: Optimizer | str = "adam",
        loss: Loss | str = "categorical_crossentropy",
        metrics: str | Sequence[str] = ("accuracy",),
    ) -> Sequential:
        """Says how the model is trained, before or after `build`. `optimizer` starts afresh. Returns the model.

        UnknownNameError for names that are not there; ArgumentError and ShapeError where model and loss do not go together, which a model
        that is not built yet says when it is.
        """
        chosen, measured = get_optimizer(optimizer), get_loss(loss)
        wanted = [metrics] if isinstance(metrics, str) else list(several(metrics) or ())
        if not isinstance(metrics, str) and several(metrics) is None:
            raise TypeError(f"metrics must be names in a list, such as ['accuracy'], got {shown(metrics)}")
        wanted = list(dict.fromkeys(METRICS.first(metric) for metric in wanted))
        if self._buffers is not None:
            measured.check_model(self.output_shape, self.layers[-1].activation)
            chosen.attach(self._buffers)
        self.optimizer, self.loss, self.metrics = chosen, measured, wanted
        return self

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        epochs: int = 1,
        *,
        validation_data: Any = None,
        validation_split: float = 0.0,
        callbacks: Sequence[Callback] | None = (),
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        steps_per_epoch: int | None = None,
        seed: int | None = None,
        augment: Any = None,
        verbose: bool | int | str | None = None,
        data_format: str | None = None,
        resume: str | Path | None = None,
    ) -> History:
        """Trains for `epochs` passes over x (N, …) and y, and returns the history. Called again, it goes on: five calls of one epoch are
        one call of five, to the bit. A model that is not built yet is built for these examples.

        x: floating, or whole pixels 0 … 255, which are divided by 255; without y, batches (x, y) one after another, from a list, a data
            loader or a generator, which needs `steps_per_epoch`.
        y: as the loss takes it.
        validation_data: (x, y), or batches, measured after each epoch. validation_split: the last part of x and y, held back for that.
        class_weight, sample_weight: how much an example counts, by its class {0: 1.0, 1: 5.0}, and each by itself (N,).
        seed: of the order of examples and of augmentation (the model's own unless given).
        augment: a name, or what `gpucnn.data.augmentation` takes besides.
        verbose: progress, a bar for 1, a line for each epoch for 2; by default a bar where the output is a terminal.
        data_format: as in `build`; the model remembers it.
        resume: a checkpoint (callback `Checkpoint`) to go on from.

        Raises DataError for data that do not fit the model or hold NaN, ArgumentError for options that contradict each other,
        TrainingError where the loss becomes NaN.
        """
        epochs = integer(epochs, "epochs", 1)
        self.data_format = check_format(data_format) or self.data_format
        given = Given(
            batch_size=integer(batch_size, "batch_size", 1),
            shuffle=shuffle,
            seed=self.seed if seed is None else integer(seed, "seed", 0),
            augment=augment,
            validation_data=validation_data,
            validation_split=validation_split,
            class_weight=class_weight,
            sample_weight=sample_weight,
            steps_per_epoch=steps_per_epoch,
        )
        if y is None:
            x = stream_of(x, given)
        elif steps_per_epoch is not None:
            raise ArgumentError("steps_per_epoch goes with batches in place of x; of arrays an epoch is one pass over them")
        loss, optimizer = self._ready(x)
        if optimizer.outdated:
            raise GpucnnError("which layers are trained has changed since the model was compiled: compile it again")
        if not optimizer.trains(self.buffers):
            raise GpucnnError("this model's optimizer trains another model by now: compile each model with an optimizer of its own")
        loss, batches, validation = batches_of(self, loss, x, y, given)
        found, shows = watchers(callbacks, verbose)
        if self.device.kind == "cpu" and self.dtype == np.float32 and isinstance(batches, Batches):
            compile_for(lambda: self._rehearse(loss, batches.labels[:1]))
        return loop.fit(
            self,
            loss,
            optimizer,
            batches,
            epochs=epochs,
            validation=validation,
            callbacks=found,
            verbose=shows,
            metrics=self.metrics,
            resume=resume,
        )

    def train_on_batch(self, x: Any, y: Any, *, class_weight: Mapping[int, float] | None = None, sample_weight: Any = None) -> Any:
        """One step of training on one batch, as it is; (loss, accuracy) of it before the step, the loss alone without that metric."""
        loss, optimizer = self._ready(x)
        images, labels = self.checked(x, y)
        loss, labels = weighted(loss, labels, example_weights(labels, sample_weight, class_weight, self.dtype))
        mean, correct = TrainingStep(self, loss, optimizer, graphs=False)(scaled(images, self.dtype), labels)  # type: ignore[arg-type]
        return (mean, correct / loss.answers(labels)) if "accuracy" in self.metrics else mean

    def _rehearse(self, loss: Loss, labels: Any) -> None:
        """A step of one example on a copy, for the sake of what it calls."""
        model = copy.deepcopy(self)
        _, optimizer = model._compiled()
        outputs = model.forward(np.zeros((1, *self.input_shape), self.dtype), training=True, logits=loss.fused_activation is not None)
        _, _, doutputs = loss(model.device, outputs, labels)
        model.backward(doutputs)
        optimizer.update(np.ones(4, self.dtype))

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 256,
        *,
        verbose: Any = None,
        return_dict: bool = False,
        data_format: str | None = None,
    ) -> Any:
        """(loss, accuracy) over all examples: the loss and what the model was compiled with; the loss alone where that is nothing.

        x without y: batches (x, y). return_dict: the same by name. verbose: nothing is shown, whatever it says.
        """
        self._measured()
        inputs, labels = self.checked(*pair(x if y is None else (x, y), "data"), data_format)
        found = self.measure(inputs, labels, integer(batch_size, "batch_size", 1))
        if return_dict:
            return found
        return tuple(found.values()) if self.metrics else found["loss"]

    def measure(self, x: Any, labels: Any, batch_size: int) -> dict[str, float]:
        """The mean loss and the metrics by name, of checked examples and labels.

        The loss counts right answers along the way; every other metric gets the scores of all examples, as `predict` gives them.
        """
        loss = self._measured()
        others = [name for name in self.metrics if name != "accuracy"]
        scores: list[np.ndarray[Any, Any]] = []
        total = correct = answers = 0.0
        for start in range(0, len(x), batch_size):
            part = self.device.array(labels[start : start + batch_size])
            outputs = self.forward(scaled(x[start : start + batch_size], self.dtype), logits=loss.fused_activation is not None)
            value, right, _ = loss(self.device, outputs, part)
            total += float(value) * len(part)
            correct += int(right)
            answers += loss.answers(part)
            if others:
                final = loss.fused_activation
                scores.append(to_numpy(getattr(self.device.ops, final)(outputs) if final else outputs))
        found = {"loss": total / len(x)}
        for name in self.metrics:
            found[name] = float(METRICS[name](np.concatenate(scores), labels)) if name in others else correct / answers
        return found

    def predict(self, x: Any, batch_size: int = 256, *, verbose: Any = None, data_format: str | None = None) -> np.ndarray[Any, Any]:
        """The model's outputs (N, …) as a NumPy array: probabilities, also where the last softmax or sigmoid is left to the loss.

        verbose: nothing is shown, whatever it says.
        """
        inputs = self._examples(x, data_format)
        batch_size = integer(batch_size, "batch_size", 1)
        final = self.loss.fused_activation if self.loss and self.layers[-1].activation is None else None
        results = []
        for start in range(0, len(inputs), batch_size):
            outputs = self.forward(scaled(inputs[start : start + batch_size], self.dtype))
            results.append(to_numpy(getattr(self.device.ops, final)(outputs) if final else outputs))
        return np.concatenate(results)

    # Looking at it, saving and loading.

    def __getitem__(self, name: str) -> Layer:
        """The layer called `name`, such as model["conv2d_1"]; one within another by its path, model["residual_1.conv2d_1"]."""
        self._built()
        if not isinstance(name, str):
            raise TypeError(f"layers are asked for by name, such as model['conv2d_1'], got {shown(name)}: model.layers has them in order")
        return pick(name, {path: part for layer in self.layers for path, part in layer.walk(layer.name).items()}, "layer")

    def features(self, x: Any, name: str) -> Array:
        """The output of the layer called `name` for a batch x, as `forward` takes it: an array on the model's device."""
        return outputs_of(self[name], self.layers, self._input(x))

    def summary(self, batch_size: int = 1, *, file: IO[str] | None = None) -> None:
        """Prints each layer's output shape, parameters, multiply-adds and memory for `batch_size` examples (to stdout, or `file`); layers
        within others stand below them."""
        self._built()
        say(summary.text_of(self, integer(batch_size, "batch_size", 1)), file)

    def config(self) -> dict[str, Any]:
        """The model without its parameters, as JSON can hold it."""
        return {
            "input_shape": list(self.input_shape),
            "dtype": str(self.dtype),
            "seed": self.seed,
            "layers": [layer.config() for layer in self.layers],
            "loss": self.loss.config() if self.loss else None,
            "optimizer": self.optimizer.config() if self.optimizer else None,
            "metrics": self.metrics,
            "metadata": self._metadata(),
            **({"data_format": LAST} if self.data_format == LAST else {}),
        }

    def _metadata(self) -> dict[str, Any]:
        if not isinstance(self.metadata, Mapping):
            raise CheckpointError(f"metadata must be a dict, got {shown(self.metadata)}: name what it is under a key")
        return dict(self.metadata)

    def save(self, path: str | Path) -> None:
        """Writes the model, without the optimizer's state, as safetensors: whole or not at all.

        CheckpointError for what `load` would refuse: layers of one's own that are not registered (`gpucnn.register`), metadata that JSON
        does not hold, NaN. OSError from the disk.
        """
        self._built()
        for layer in self.layers:
            for name, part in layer.walk(layer.name).items():
                if LAYERS.get(type(part).__name__) is not type(part):
                    kind = type(part).__name__
                    raise CheckpointError(
                        f"{path} was not written: {name!r} is a {kind}, which no file can name: gpucnn.register({kind}) first"
                    )
        if self.loss is not None and LOSSES.get(self.loss.name) is not type(self.loss):
            kind = type(self.loss).__name__
            raise CheckpointError(f"{path} was not written: its loss is a {kind}, which no file can name: gpucnn.register({kind}) first")
        config = self.config()
        if self.optimizer is not None:  # one that is not registered is named, and left out when the model is loaded
            name, schedule = optimizers.name_of(self.optimizer), self.optimizer.schedule
            if OPTIMIZERS.get(name) is not type(self.optimizer):
                config["optimizer"] = {"optimizer": name}
            elif SCHEDULES.get(schedules.name_of(schedule)) is not type(schedule):
                config["optimizer"]["learning_rate"] = {"schedule": schedules.name_of(schedule)}
        save_tensors(path, self._tensors(), {"model": config})

    def _tensors(self) -> dict[str, Array]:
        """All that a file holds of the model."""
        return {name: array.value for name, array in (self._named | self._arrays).items()}

    def load_parameters(self, path: str | Path) -> None:
        """Takes the parameters, and the arrays saved with them, from a file that `save` wrote for a model with the same layers."""
        self._built()
        with TensorFile(path) as file:
            take(file, self._tensors())

    def state(self) -> dict[str, Any]:
        """What training changes besides parameters and optimizer: the layers' random state."""
        return {name: state for layer in self.layers for name, part in layer.walk(layer.name).items() if (state := part.state())}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a `state()` again."""
        for layer in self.layers:
            for name, part in layer.walk(layer.name).items():
                if name in state:
                    part.restore(state[name])

    def __copy__(self) -> Sequential:
        return copy.deepcopy(self)  # a shallow one would share its layers, and with them its weights

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle, from any device to any other: everything, the optimizer's state and gradients included."""
        kept: dict[str, Any] = {**vars(self), "chain": Chain(), "_named": {}, "_arrays": {}, "_device": None, "_buffers": None}
        if self._buffers is not None:
            kept["_kept"] = {
                "device": self.device.kind,
                "values": to_numpy(self._buffers.values),
                "saved": to_numpy(self._buffers.saved),
                "gradients": to_numpy(self._buffers.all_gradients()),
                "has_grad": [parameter.has_grad for parameter in self._buffers.parameters],
                "random": self.state(),
                "trained": self.optimizer is not None and self.optimizer.trains(self._buffers),
            }
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = state.pop("_kept", None)
        vars(self).update(state)
        if kept is None:
            return
        epochs = self.epochs_begun
        usable = kept["device"] == "cpu" or why_no_cuda() is None or simulated()
        buffers = self._settle(get_device(kept["device"] if usable else "cpu"))
        self.epochs_begun = epochs
        buffers.values[...] = self.device.array(kept["values"])
        buffers.saved[...] = self.device.array(kept["saved"])
        buffers.all_gradients()[...] = self.device.array(kept["gradients"])
        for parameter, has_grad in zip(buffers.parameters, kept["has_grad"], strict=True):
            parameter.has_grad = has_grad
        self.restore(kept["random"])
        if self.optimizer is not None and kept["trained"]:
            self.optimizer.attached_again(buffers)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    # Checks.

    def _built(self) -> Buffers:
        if self._buffers is None and self.declared is not None:
            self.build()
        if self._buffers is None:
            raise GpucnnError("the model is not built yet: call model.build(input_shape) first")
        return self._buffers

    def _measured(self, *, built: bool = True) -> Loss:
        if built:
            self._built()
        if self.loss is None:
            raise GpucnnError(f"the model is not compiled yet: call model.compile(optimizer=..., loss=...) first{self._unknown}")
        return self.loss

    def _compiled(self, *, built: bool = True) -> tuple[Loss, Optimizer]:
        loss = self._measured(built=built)
        if self.optimizer is None:
            raise GpucnnError(f"the model has no optimizer yet: call model.compile(optimizer=..., loss=...) first{self._unknown}")
        return loss, self.optimizer

    def _ready(self, x: Any) -> tuple[Loss, Optimizer]:
        """How the model is trained. It is built for these examples where it is not built yet."""
        if self._buffers is None:
            self._compiled(built=False)
            self.build(None if self.declared is not None else example_shape(x))
        return self._compiled()

    def checked(self, x: Any, y: Any, data_format: str | None = None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Examples and labels as training and measuring take them. DataError and ShapeError where they do not fit the model or the loss."""
        inputs = self._examples(x, data_format)
        return inputs, self._measured().check_labels(y, len(inputs), math.prod(self.output_shape), self.dtype)

    def _check_shape(self, shape: Any) -> None:
        if len(shape) < 1 or tuple(shape[1:]) != self.input_shape:
            more = hint(tuple(shape), self.input_shape)
            raise ShapeError(
                f"the model takes examples of shape (batch, {', '.join(map(str, self.input_shape))}), got {tuple(shape)}{more}"
            )
        if not shape[0]:
            raise ShapeError("an empty batch was given: at least one example is needed")

    def _input(self, x: Any) -> Array:
        self._built()
        if not on_a_gpu(x):  # what is there stays there
            x = numbers(x, "examples")
        x = in_order(x, self.input_shape, FIRST)
        self._check_shape(x.shape)
        if x.dtype.kind in "iu":
            return self.device.array(pixels(x, "examples"), self.dtype) / self.dtype.type(255)
        return self.device.array(x, self.dtype)

    def _examples(self, x: Any, data_format: str | None = None) -> np.ndarray[Any, Any]:
        """A whole set of examples, on the host, channels first: pixels as uint8, everything else as the model's dtype, with no NaN."""
        self._built()
        given = in_order(numbers(x, "examples"), self.input_shape, check_format(data_format) or self.data_format)
        self._check_shape(given.shape)
        return examples(given, self.dtype)


def load(path: str | Path, *, device: str | Device = "auto") -> Sequential:
    """The model in a file that `Sequential.save` wrote, built, and compiled where it was. Raises CheckpointError for other files.

    An optimizer or a schedule of somebody's own that is not registered here (`gpucnn.register`) is left out, with a warning: the
    weights are there all the same. Sizes are held against the file before memory is taken for them.
    """
    with TensorFile(path) as file:
        config: Any = file.description.get("model")
        if config is None:
            raise CheckpointError(
                f"{file.place} is a checkpoint of a run and no model: name the model.safetensors beside it, or resume the run"
            )
        place = get_device(device)
        try:
            layers = list(config["layers"])
            if len(layers) > MOST_LAYERS:
                raise CheckpointError(f"{file.place} describes a model of {len(layers):,} layers, and {MOST_LAYERS:,} are the most")
            model = Sequential([layer_from_config(layer) for layer in layers])
            if config["dtype"] == "float64" and place.kind == "cuda":
                raise ValueError("the kernels compute in float32: use device='cpu' for float64")
            model._lay_out(config["input_shape"], integer(config["seed"], "seed", 0), config["dtype"])
            held = [found for layer in model.layers for found in (*layer.named_parameters(layer.name), *layer.named_arrays(layer.name))]
            file.check({name: array.shape for name, array in held})
            model._settle(place)
            model.data_format = check_format(config.get("data_format"))
            model.metadata = dict(config["metadata"])
            _compile(model, config, file.place)
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RecursionError) as error:
            raise CheckpointError(f"{file.place} describes a model that this gpucnn cannot make ({reason_of(error)})") from None
        take(file, model._tensors())
    return model


def _compile(model: Sequential, config: dict[str, Any], place: Path) -> None:
    """Compiles a model as its file says. What only its maker knows is left out, and said."""
    loss = None if config["loss"] is None else get_loss(config["loss"])
    unknown = ""
    try:
        optimizer = None if config["optimizer"] is None else get_optimizer(config["optimizer"])
    except UnknownNameError as error:
        rate = dict(config["optimizer"]).get("learning_rate")
        names = config["optimizer"]["optimizer"], rate["schedule"] if isinstance(rate, dict) else ""
        if not all(isinstance(name, str) for name in names):
            raise
        optimizer, unknown = None, str(error)
    if loss is not None and optimizer is not None:
        model.compile(optimizer, loss, config["metrics"])
    elif loss is not None:
        loss.check_model(model.output_shape, model.layers[-1].activation)
        model.loss, model.metrics = loss, list(config["metrics"])
    if unknown:
        model._unknown = f" (its file: {unknown})"
        warnings.warn(
            message(
                f"{place} was loaded without the means to train on: {unknown}; gpucnn.register(...) the class before loading, "
                "or compile the model anew"
            ),
            stacklevel=3,
        )


def _by_name(layers: Sequence[Layer]) -> tuple[dict[str, Parameter], dict[str, SavedArray]]:
    """The parameters of layers and what else is saved, by their paths, each array once. ShapeError where two have one name."""
    parameters: dict[str, Parameter] = {}
    arrays: dict[str, SavedArray] = {}
    known: set[int] = set()
    for layer in layers:
        for name, array in (*layer.named_parameters(layer.name), *layer.named_arrays(layer.name)):
            other = parameters.get(name) or arrays.get(name) or array
            if other is not array:
                both = f"two {array.kind}s" if other.kind == array.kind else "a parameter and an array"
                raise ShapeError(f"layer {layer.name!r} has {both} called {name!r}: give each a name of its own")
            if id(array) not in known:
                known.add(id(array))
                if isinstance(array, Parameter):
                    parameters[name] = array
                else:
                    arrays[name] = array
    return parameters, arrays

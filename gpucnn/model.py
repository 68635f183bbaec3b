"""Sequential: a stack of layers with one input and one output."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpucnn import saving, summary
from gpucnn.arrays import quiet, scaled
from gpucnn.checks import COUNT, flag, integer, positive, several
from gpucnn.data.batches import Batches
from gpucnn.data.stream import is_stream
from gpucnn.device import Device
from gpucnn.errors import ArgumentError, DataError, GpucnnError, ShapeError
from gpucnn.layered import Layered
from gpucnn.layers import AvgPool2D, BatchNorm2D, Dropout, Flatten, GlobalAvgPool2D, GlobalMaxPool2D, Layer, MaxPool2D
from gpucnn.layers.base import ALIKE
from gpucnn.layers.input import Input
from gpucnn.layout import check_format
from gpucnn.losses import Loss, get_loss
from gpucnn.memory import of_step
from gpucnn.metrics import METRICS
from gpucnn.names import told
from gpucnn.ops.cpu._engine import compile_for
from gpucnn.optimizers import Optimizer, get_optimizer
from gpucnn.signatures import DataFormat
from gpucnn.surroundings import say
from gpucnn.text import shown
from gpucnn.training import loop
from gpucnn.training.alike import same_to_measure
from gpucnn.training.callbacks import Callback, History
from gpucnn.training.checkpoint import TensorFile, take
from gpucnn.training.communicator import Communicator
from gpucnn.training.given import Given, batches_of, example_shape, pair, stream_of, watchers, weighted
from gpucnn.training.measuring import measured, predicted
from gpucnn.training.parallel import join
from gpucnn.training.step import TrainingStep
from gpucnn.weighted import example_weights

_MANY = 1024  # examples: a rehearsal takes as long for any number of them, but for what NumPy computes
_PASSING = (Flatten, Dropout, AvgPool2D, GlobalAvgPool2D, MaxPool2D, GlobalMaxPool2D)  # probabilities behind them are probabilities
_NOT_CALLED = ("forward", "backward", "__call__", "call", "train_step", "test_step", "predict_step", "training_step")  # by fit and predict
_FEW = 4  # examples: the smallest part of a batch that a thread may take through the whole network (gpucnn_loops.chunks.LEAST)


def _rehearsed(count: int, batch_size: int, ranks: int) -> tuple[int, ...]:
    """The sizes of batches that a rehearsal runs: of most of an epoch, and of the last, as one of the ranks has them."""
    sizes = [-(-size // ranks) for size in (min(count, batch_size), count % batch_size) if size]
    return tuple(sorted({min(size, _MANY) for size in sizes}))


class Sequential(Layered):
    """Layers in sequence.

    model = Sequential(Conv2D(32, 3, activation="relu"), MaxPool2D(2), Flatten(), Dense(10))
    model.build((1, 28, 28), seed=0, device="auto")
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=128, epochs=5)
    """

    _in_fit = False  # whether `fit` is training it: it counts its steps alone, and the steps of others would be lost in its count

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in filter(vars(cls).__contains__, _NOT_CALLED):
            raise TypeError(
                f"fit and predict run the layers of a model and would never call {cls.__name__}.{name}: write a Layer, whose _forward and "
                "_backward they do call, and put it into a Sequential"
            )

    def __init__(self, *layers: Layer | Input | Sequential | Sequence[Layer | Input | Sequential]) -> None:
        self.metadata: dict[str, Any] = {}  # free for users: saved and loaded with the model
        self.loss: Loss | None = None
        self.optimizer: Optimizer | None = None
        self.metrics: list[str] = []
        self._unknown = ""  # names in its file that this process does not know, for error messages
        super().__init__(*layers)

    def __setattr__(self, name: str, value: Any) -> None:
        """Checks what `compile` sets, and refuses names that are meant to be `trainable`."""
        if name in ALIKE:
            raise AttributeError(f"a model has no {name!r}, and setting it would do nothing: set model.trainable = False to freeze it")
        kind = {"loss": Loss, "optimizer": Optimizer}.get(name)
        if kind is not None and not isinstance(value, kind | None):
            raise TypeError(f"model.{name} is an object of a class derived from {kind.__name__}, got {shown(value)}: compile takes names")
        super().__setattr__(name, [METRICS.first(metric) for metric in value] if name == "metrics" else value)

    # Inspecting it.

    @property
    def held_bytes(self) -> int:
        """Bytes of parameters, gradients, optimizer state and arrays that are not trained."""
        slots = len(self.optimizer.slots) if self.optimizer else 0
        return int(self._built().values.nbytes) * (2 + slots) + int(self._built().saved.nbytes)

    def step_bytes(self, batch_size: int) -> int:
        """Peak memory of a training step in bytes, without `held_bytes` and the kernels' workspaces."""
        self._built()
        return of_step(self.chain.stages).peak * integer(batch_size, "batch_size", 1) * self.dtype.itemsize

    def summary(self, batch_size: int = 1, *, file: IO[str] | None = None) -> None:
        """Prints each layer's output shape, parameters, multiply-adds and memory for `batch_size` examples (to stdout, or `file`). Nested
        layers are listed below the layer that holds them."""
        self._built()
        for line in summary.text_of(self, integer(batch_size, "batch_size", 1, most=COUNT)).split("\n"):
            say(line, file)

    # Training and measuring.

    def _repr_html_(self) -> str:
        """The layers as a picture and a table, for notebooks."""
        return summary.html_of(self)

    def _after_build(self) -> None:
        if self.loss is not None and self.optimizer is not None:
            self.compile(self.optimizer, self.loss, self.metrics)

    @told
    def compile(
        self,
        optimizer: Optimizer | str = "adam",
        loss: Loss | str = "categorical_crossentropy",
        metrics: str | Sequence[str] = ("accuracy",),
    ) -> Sequential:
        """Sets optimizer, loss and metrics, before or after `build`. The optimizer starts from scratch. Returns the model.

        Raises UnknownNameError for unknown names, and ArgumentError or ShapeError if the loss does not fit the model; if the model is not
        built yet, `build` raises the latter two.
        """
        chosen, measured = get_optimizer(optimizer), get_loss(loss)
        wanted = [metrics] if isinstance(metrics, str) else list(several(metrics) or ())
        if not isinstance(metrics, str) and several(metrics) is None:
            raise TypeError(f"metrics must be a list of names, such as ['accuracy'], got {shown(metrics)}")
        for metric in wanted:
            if callable(metric):
                raise TypeError(f"metrics are names, got {shown(metric)}: register a function as one, @gpucnn.register(metric='mine')")
        wanted = list(dict.fromkeys(METRICS.first(metric) for metric in wanted))
        if self._buffers is not None:
            measured.check_model(self.output_shape, self.last_activation)
            self._check_end(measured)
            chosen.attach(self._buffers)
        self.optimizer, self.loss, self.metrics = chosen, measured, wanted
        return self

    def _check_last(self, count: int, batch_size: int) -> None:
        """ShapeError if a batch of `count` examples, the last in particular, is too small to be normalized."""
        last = count % batch_size or batch_size
        for layer in self.layers:
            for name, part in layer.walk(layer.name).items():
                if not isinstance(part, BatchNorm2D) or part.frozen or part.input_shape is None:
                    continue
                if last * math.prod(part.input_shape[1:]) < 2:
                    whole = min(count, batch_size)
                    why = (
                        f"batches of {whole}" if last == whole else f"{count:,} examples in batches of {batch_size:,} leave a last one of 1"
                    )
                    raise ShapeError(f"{why}, and {name!r} needs at least two numbers in each channel to train on: change batch_size")

    def _check_end(self, loss: Loss) -> None:
        """ArgumentError if the loss, which includes an activation, would apply one to the outputs of another that a layer hides."""
        *_, end = [None, *(layer for each in self.layers for layer in each.layers if type(layer) not in _PASSING)]
        if loss.fused_activation and self.last_activation is None and end is not None and end.activation in ("softmax", "sigmoid"):
            raise ArgumentError(
                f"loss {loss.name!r} takes raw outputs, or those of a {loss.fused_activation} at the end, and here the {end.activation} of "
                f"{end.name!r} has other layers after it: put them before it, or leave it out"
            )

    @told
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
        data_format: DataFormat | None = None,
        resume: str | Path | None = None,
        parallel: str | Communicator | None = None,
    ) -> History:
        """Trains for `epochs` passes over x (N, …) and y, and returns the history. A further call continues: five calls of one epoch are
        bit-identical to one call of five. A model that is not yet built is built for these examples.

        x: floating point, or integer pixels 0 … 255, which are divided by 255. Without y: batches (x, y) from a list, a data loader or a
            generator; a generator needs `steps_per_epoch`.
        y: labels in the form that the loss takes.
        validation_data: (x, y), or batches, evaluated after each epoch.
        validation_split: the fraction at the end of x and y to hold out instead. Mix examples that are sorted by class before.
        class_weight, sample_weight: the weights of examples, by class {0: 1.0, 1: 5.0}, or one per example (N,).
        seed: for the order of examples and for augmentation (default: the model's own).
        augment: "shift", "crop-flip", "cutout", "affine", "elastic", one of gpucnn.data's classes of these names with its settings, or a
            function (x, rng) -> x of images (N, C, H, W).
        verbose: 0 for no progress, 1 for a bar, 2 for a line per epoch; by default a bar where the output is a terminal.
        data_format: as in `build`; the model remembers it.
        resume: a checkpoint to continue from. There may be none yet if the callback `Checkpoint` writes to the same path.
        parallel: "mpi" if every rank of MPI calls this with the same data and options: they train together, each on its part of every
            batch. "auto": the same if mpiexec or srun has started several processes. By default each process trains by itself.

        Raises DataError for data that do not fit the model or contain NaN, ArgumentError for options that contradict each other, and
        TrainingError if the loss becomes NaN.
        """
        epochs = integer(epochs, "epochs", 1, most=COUNT)
        given = Given(
            batch_size=integer(batch_size, "batch_size", 1, most=COUNT),
            shuffle=shuffle,
            seed=self.seed if seed is None else integer(seed, "seed", 0),
            augment=augment,
            validation_data=validation_data,
            validation_split=0.0 if validation_split is None else positive(validation_split, "validation_split", zero=True),
            class_weight=class_weight,
            sample_weight=sample_weight,
            steps_per_epoch=steps_per_epoch,
        )
        loss, optimizer, batches, validation = self._taken(x, y, given, data_format)
        found, shows = watchers(callbacks, verbose)
        ranks = join(parallel).on(self.device)
        if isinstance(batches, Batches):
            self._check_last(len(batches.images), batches.batch_size)
        if self.device.kind == "cpu" and self.dtype == np.float32:
            if isinstance(batches, Batches):
                labels, size, count = batches.labels, batches.batch_size, len(batches.images)
            else:
                first, labels = self.prepared(*batches.first())
                size, count = len(first), batches.examples(len(first))
                self._check_last(count, size)
            sizes = _rehearsed(count, size, ranks.size)
            after = _rehearsed(len(validation[0]), batches.batch_size, 1) if validation else ()
            told = validation[1][:1] if validation else None
            # Other layers trained, another optimizer, or other labels: other loops.
            forms = labels.shape[1:], None if told is None else told.shape
            key = self, (id(self.chain), id(optimizer), type(loss), sizes, after, *self.metrics, *forms)
            ranks.in_turn(lambda: compile_for(lambda: self._rehearse(loss, labels, sizes, told, after), self.buffers.values.nbytes, key))
        self._in_fit = True
        try:
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
                ranks=ranks,
            )
        finally:
            self._in_fit = False

    def _taken(self, x: Any, y: Any, given: Given, data_format: DataFormat | None) -> tuple[Loss, Optimizer, Any, Any]:
        """(loss, optimizer, batches, validation data) for `fit`. If any of it is refused, the model reads examples as before."""
        before = self.data_format
        self.data_format = check_format(data_format) or before
        try:
            if y is None:
                x = stream_of(x, given)
            elif given.steps_per_epoch is not None:
                raise ArgumentError("steps_per_epoch is for batches instead of x; with arrays, an epoch is one pass over them")
            loss, optimizer = self._ready(x)
            loss, batches, validation = batches_of(self, loss, x, y, given)
        except BaseException:
            self.data_format = before
            raise
        return loss, optimizer, batches, validation

    @told
    def train_on_batch(self, x: Any, y: Any, *, class_weight: Mapping[int, float] | None = None, sample_weight: Any = None) -> Any:
        """One training step on one batch, unshuffled. Returns (loss, accuracy) before the step, or only the loss without that metric."""
        loss, optimizer = self._ready(x)
        images, labels = self.checked(x, y)
        weights = example_weights(loss, labels, sample_weight, class_weight, self.dtype, self.output_shape[-1])
        loss, labels = weighted(loss, self.targets(labels), weights)
        mean, correct = TrainingStep(self, loss, optimizer, graphs=False)(scaled(images, self.dtype), labels)  # type: ignore[arg-type]
        return (mean, correct / loss.answers(labels)) if "accuracy" in self.metrics else mean

    @quiet  # loops are compiled and not run, so layers of the user's see numbers that are none
    def _rehearse(self, loss: Loss, labels: Any, sizes: Sequence[int], told: Any = None, validated: Sequence[int] = ()) -> None:
        """Runs a step for batches of these sizes on a copy, so that everything that the steps call is compiled; and measures batches of the
        sizes `validated`, with labels as `told`."""
        model = copy.deepcopy(self)
        _, optimizer = model._compiled()
        for size in sizes:
            optimizer.zero_grad()
            x = np.zeros((size, *self.input_shape), self.dtype)
            outputs = model.forward(x, training=True, logits=loss.fused_activation is not None)
            _, _, doutputs = loss.of_batch(model.device, outputs, np.repeat(labels[:1], size, axis=0))
            model.backward(doutputs)
            optimizer.update(np.ones(4, self.dtype))
        for size in {*validated, min(_FEW, *validated)} if validated else ():
            with contextlib.suppress(Exception):  # metrics need not be able to do anything with scores of zeros
                x = np.zeros((size, *self.input_shape), self.dtype)
                measured(model, model._measured(), model.metrics, x, np.repeat(told, size, axis=0), size)

    @told
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 256,
        *,
        verbose: Any = None,
        return_dict: bool = False,
        data_format: DataFormat | None = None,
        parallel: str | Communicator | None = None,
    ) -> Any:
        """(loss, accuracy) over all examples, or the loss and whatever metrics the model was compiled with; only the loss if it has none.

        x: with y, all examples; without y, batches (x, y).
        return_dict: return the same values by name.
        verbose: ignored, nothing is shown.
        parallel: as in `fit`; the result of all ranks is bit-identical to that of one process.
        """
        self._measured()
        return_dict = flag(return_dict, "return_dict")
        inputs, labels = self.checked(*pair(x if y is None else (x, y), "data"), data_format)
        size, ranks = integer(batch_size, "batch_size", 1), join(parallel)
        same_to_measure(ranks, self, size, examples=inputs, labels=labels)
        found = self.measure(inputs, labels, size, ranks)
        if return_dict:
            return found
        return tuple(found.values()) if self.metrics else found["loss"]

    def measure(self, x: Any, labels: Any, batch_size: int, ranks: Communicator | None = None) -> dict[str, float]:
        """The mean loss and the metrics by name, of checked examples and labels.

        The loss counts right answers along the way; every other metric gets the scores of all examples, as `predict` gives them. With
        `ranks` each measures some of the batches.
        """
        return measured(self, self._measured(), self.metrics, x, labels, batch_size, ranks)

    @told
    def predict(
        self,
        x: Any,
        batch_size: int = 256,
        *,
        verbose: Any = None,
        data_format: DataFormat | None = None,
        parallel: str | Communicator | None = None,
    ) -> np.ndarray[Any, Any]:
        """The model's outputs (N, …) as a NumPy array: probabilities, even if the final softmax or sigmoid is left to the loss.

        verbose: ignored, nothing is shown.
        parallel: as in `fit`; every rank returns all outputs.
        """
        final = self.loss.final(self.last_activation) if self.loss else None
        try:
            examples = self._examples(x, data_format)
        except DataError:
            if not is_stream(x):
                raise
            raise DataError(
                f"predict takes examples (N, …), got a {type(x).__name__} that is not an array of numbers: of batches predict each, "
                "np.concatenate([model.predict(x) for x, _ in batches])"
            ) from None
        size, ranks = integer(batch_size, "batch_size", 1), join(parallel)
        same_to_measure(ranks, self, size, examples=examples)
        return predicted(self, examples, size, final, ranks)

    # Saving, copying.

    def config(self) -> dict[str, Any]:
        """A description of the model without its parameters, ready for JSON."""
        return saving.config_of(self)

    def save(self, path: str | Path) -> None:
        """Writes the model, without the optimizer's state, as safetensors. The file is written completely or not at all.

        Raises CheckpointError for anything that `load` would refuse or make with other arguments: custom layers that are not registered
        (`gpucnn.register`) or whose `settings()` leave out an argument, layers whose sizes or strides were changed after `build`, metadata
        that JSON cannot hold, NaN. Errors of the disk are OSError. An optimizer that could not be made again is left out, with a warning.
        """
        self._built()
        saving.write(self, path)

    def load_parameters(self, path: str | Path) -> None:
        """Loads the parameters and the arrays saved with them from a file that `save` wrote for a model with the same layers."""
        self._built()
        with TensorFile(path) as file:
            take(file, self._tensors())

    def __copy__(self) -> Sequential:
        return copy.deepcopy(self)  # a shallow one would share its layers, and with them its weights

    def __getstate__(self) -> dict[str, Any]:
        return saving.kept(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        saving.take_up(self, state)

    # Checks.

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
        """(loss, optimizer). Builds the model for these examples if it is not built yet."""
        if self._buffers is None:
            self._compiled(built=False)
            self.build(None if self.declared is not None else example_shape(x))
        loss, optimizer = self._compiled()
        if optimizer.outdated:
            raise GpucnnError("which layers are trained has changed since the model was compiled: compile it again")
        if not optimizer.trains(self.buffers):
            raise GpucnnError("this model's optimizer trains another model, or none yet: compile each model with its own optimizer")
        if self._in_fit:
            raise GpucnnError("fit is training this model at this moment: train a copy of it, copy.copy(model)")
        return loss, optimizer

    def checked(self, x: Any, y: Any, data_format: DataFormat | None = None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Examples and labels, checked, as metrics take them. DataError or ShapeError if they do not fit the model or the loss."""
        inputs = self._examples(x, data_format)
        return inputs, self._measured().check_labels(y, len(inputs), math.prod(self.output_shape), self.dtype)

    def targets(self, labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Checked labels as the loss takes them."""
        return self._measured().targets(labels, math.prod(self.output_shape), self.dtype)

    def prepared(self, x: Any, y: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Examples and labels of a batch, checked, as a training step takes them."""
        if getattr(y, "ndim", None) == 0 or np.isscalar(y):
            raise DataError(
                f"a batch must be a pair (x, labels) with a label for each example, got the label {shown(y)}: is this one example?"
            )
        inputs, labels = self.checked(x, y)
        return inputs, self.targets(labels)


def load(path: str | Path, *, device: str | Device = "auto") -> Sequential:
    """Loads a model that `Sequential.save` wrote: built, and compiled if it was. Raises CheckpointError for other files.

    A custom optimizer or schedule that is not registered (`gpucnn.register`) is left out, with a warning; the weights are still
    loaded. Sizes are checked against the file before memory is allocated.
    """
    model: Sequential = saving.read(Sequential, path, device)
    return model


load_model = load

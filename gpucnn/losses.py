"""Losses, by name or as objects. Each takes a model's raw output and returns the mean loss, the number of correct answers and the gradient.

Categorical and binary cross-entropy are computed from logits and include the softmax or sigmoid: a model's final
`activation="softmax"` is skipped in training, so that the logarithm of a rounded softmax is never taken.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from gpucnn.arrays import class_numbers, numbers, quiet
from gpucnn.checks import flag, fraction
from gpucnn.device import Device
from gpucnn.errors import ArgumentError, DataError, ShapeError
from gpucnn.layers.base import Array, Shape, what_is
from gpucnn.names import Registry, Worded, made_of
from gpucnn.text import shown

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Hinge",
    "Loss",
    "MeanSquaredError",
    "RootMeanSquaredError",
    "SparseCategoricalCrossentropy",
]


_IMPLEMENTED = "and a loss implements check_labels(labels, count, outputs, dtype) and __call__(device, outputs, labels)"


class Loss(Worded):
    """Base class of losses. A loss of your own has a `name` and implements two methods, or is derived from one that does.

    check_labels: of (labels, count, outputs, dtype), returns the labels of `count` examples as an array, which metrics get too, or raises
        DataError if they do not fit a model of `outputs` outputs.
    __call__: of (device, outputs, labels), returns (loss, correct, doutputs) of a batch: the mean loss, the number of correct answers, and
        the gradient of the mean loss, with the shape of the outputs. `device.xp` is NumPy or CuPy. It may write to both arrays.
    each: of the same arguments, returns the loss of each example (N,); only needed where examples are weighted.

    Outputs have passed the model's last activation, unless it is the loss's `fused_activation`, "softmax" or "sigmoid": then `__call__`
    gets what it would be applied to, and `predict` applies it even if the model does not.
    """

    name: ClassVar[str]  # the registered name
    fused_activation: ClassVar[str | None] = None  # included in the loss when it is the model's final activation
    replays: ClassVar[bool] = False  # of class numbers, it calls only operations; a class derived from such a one says so again

    def check_model(self, output_shape: Shape, last_activation: str | None) -> None:
        """Raises ShapeError or ValueError if a model with such an output cannot be trained with this loss."""
        if len(output_shape) != 1:
            raise ShapeError(
                f"loss {self.name!r} needs one row of outputs per example, got {output_shape}: end with Flatten() and Dense(...)"
            )
        if self.fused_activation and last_activation in ("softmax", "sigmoid") and last_activation != self.fused_activation:
            raise ArgumentError(f"loss {self.name!r} needs a last activation {self.fused_activation!r} or none, got {last_activation!r}")

    def final(self, last_activation: str | None) -> str | None:
        """The activation that this loss includes and that a model with this last activation lacks: predictions are made with it."""
        return None if last_activation in ("softmax", "sigmoid") else self.fused_activation

    def check_labels(self, labels: Any, count: int, outputs: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """The `labels` of `count` examples as an array, as metrics take them; DataError if they do not fit `outputs` outputs."""
        raise NotImplementedError(f"{type(self).__name__} has no method check_labels, {_IMPLEMENTED}")

    def targets(self, labels: np.ndarray[Any, Any], outputs: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Checked labels as the array that `__call__` takes: the same, unless the loss moves them."""
        return labels

    def config(self) -> Any:
        """A description from which `get_loss` makes the same loss: its name, and the arguments of its constructor if there are any, as the
        attributes of their names hold them, or of their names behind an underscore."""
        given = made_of(self)
        return {"loss": self.name, **given} if given else self.name

    def answers(self, labels: Array) -> int:
        """The number of answers in a batch, of which `correct` are right."""
        return int(labels.shape[0])

    def each(self, device: Device, outputs: Array, labels: Array) -> Array:
        """The loss of each example (N,), for weighted examples; a loss without this method does not accept weights."""
        raise NotImplementedError

    def of_batch(self, device: Device, outputs: Array, labels: Array) -> tuple[Array, Array, Array]:
        """What `__call__` returns.

        A loss of the user's gets arrays of its own, which it may write to: the last layer needs its outputs for its gradient, and labels
        may be the caller's. Of what it returns the gradient gets the outputs' dtype and the order of C, which operations expect, and
        Python's numbers become arrays. TypeError or ShapeError for anything else: a gradient of another shape would be broadcast, or
        loops would read memory behind its end.
        """
        if self._of_gpucnn:
            return self(device, outputs, labels)
        returned = self(device, outputs.copy(), labels.copy())
        if not isinstance(returned, list | tuple) or len(returned) != 3:
            raise TypeError(f"loss {self.name!r} must return (loss, correct, doutputs), got {shown(returned)}")
        mean, correct, doutputs = returned
        if getattr(doutputs, "shape", None) != outputs.shape:
            raise ShapeError(
                f"loss {self.name!r} must return a gradient of the shape of the outputs, {tuple(outputs.shape)}, got {what_is(doutputs)}"
            )
        if isinstance(mean, int | float) or isinstance(correct, int):
            mean, correct = device.xp.asarray(mean, outputs.dtype), device.xp.asarray(correct, "int32")
        return mean, correct, device.array(doutputs, outputs.dtype)

    def each_of_batch(self, device: Device, outputs: Array, labels: Array) -> Array:
        """What `each` returns. A loss of the user's gets arrays of its own."""
        return self.each(device, outputs, labels) if self._of_gpucnn else self.each(device, outputs.copy(), labels.copy())

    def of_dense(
        self, device: Device, x: Array, weight: Array, bias: Array | None, labels: Array, **wanted: bool
    ) -> tuple[Array, Array, Array, Array | None] | None:
        """(losses, correct, doutputs, dx) of the outputs x·weightᵀ + bias, the first two for each example (N), if the last layer and the
        loss are faster together; otherwise None. wanted: `input_grad` and `relu` of `ops.dense_cross_entropy`, which decide about dx."""
        return None

    def __call__(self, device: Device, outputs: Array, labels: Array) -> tuple[Array, Array, Array]:
        """(loss, correct, doutputs): the mean loss and the number of correct answers as 0-d arrays, and the gradient."""
        raise NotImplementedError(f"{type(self).__name__} has no method __call__, {_IMPLEMENTED}")


_FEW = 32  # classes: a GPU's warp has a thread for each

LOSSES: Registry[type[Loss]] = Registry("loss")


def _known(kind: type[Loss]) -> type[Loss]:
    return LOSSES.add(kind.name)(kind)


class _OfLogits(Loss):
    """A loss computed from logits, with label smoothing."""

    def __init__(self, *, from_logits: bool | None = None, label_smoothing: float = 0.0) -> None:
        self.from_logits = from_logits if from_logits is None else flag(from_logits, "from_logits")
        self.label_smoothing = fraction(label_smoothing, "label_smoothing")

    def config(self) -> Any:
        usual = {"from_logits": None, "label_smoothing": 0.0}
        settings = {name: value for name, value in made_of(self).items() if name not in usual or value != usual[name]}
        return {"loss": self.name, **settings} if settings else self.name

    def check_model(self, output_shape: Shape, last_activation: str | None) -> None:
        super().check_model(output_shape, last_activation)
        if self.from_logits and last_activation is not None:
            raise ArgumentError(
                f"loss {self.name!r} was told from_logits=True, but the model ends in {last_activation!r}: leave out one of them"
            )


@_known
class CategoricalCrossentropy(_OfLogits):
    """−log of the probability of the correct class, after softmax. Labels are class numbers (N) or rows of probabilities (N, K).

    label_smoothing: the part of a label that is distributed evenly over all classes, as in PyTorch and Keras.
    from_logits: states that the model's last layer has no activation, as in Keras; this is detected in any case.
    """

    name = "categorical_crossentropy"
    fused_activation = "softmax"
    replays = True

    def check_model(self, output_shape: Shape, last_activation: str | None) -> None:
        super().check_model(output_shape, last_activation)
        if output_shape == (1,):
            raise ShapeError(
                f"loss {self.name!r} needs an output for each class, and the model has one, whose softmax is always 1: end with Dense(2), "
                "or use loss 'binary_crossentropy'"
            )

    def check_labels(self, labels: Any, count: int, outputs: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        return check_class_labels(labels, count, outputs, dtype)

    def targets(self, labels: np.ndarray[Any, Any], outputs: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        if not self.label_smoothing:
            return labels
        rows = np.eye(outputs, dtype=dtype)[labels] if labels.ndim == 1 else labels
        return (rows * (1 - self.label_smoothing) + self.label_smoothing / outputs).astype(dtype, copy=False)

    def __call__(self, device: Device, outputs: Array, labels: Array) -> tuple[Array, Array, Array]:
        return device.ops.softmax_cross_entropy(outputs, labels)  # type: ignore[no-any-return]

    def of_dense(
        self, device: Device, x: Array, weight: Array, bias: Array | None, labels: Array, **wanted: bool
    ) -> tuple[Array, Array, Array, Array | None] | None:
        # A class derived from this one may do something else.
        as_one = type(self) is CategoricalCrossentropy and device.kind == "cuda" and labels.ndim == 1 and weight.shape[0] <= _FEW
        return device.ops.dense_cross_entropy(x, weight, bias, labels, **wanted) if as_one else None

    def each(self, device: Device, outputs: Array, labels: Array) -> Array:
        xp = device.xp
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        logarithms = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
        if labels.ndim == 1:
            labels = labels[:, None] == xp.arange(outputs.shape[1], dtype=labels.dtype)
        return -(labels * logarithms).sum(axis=1)


@_known
class BinaryCrossentropy(_OfLogits):
    """−t·log p − (1 − t)·log(1 − p), after a sigmoid, averaged over all outputs. Targets t in [0, 1]: (N) or (N, K).

    label_smoothing: the part of a target that is moved towards ½.
    from_logits: states that the model's last layer has no activation, as in Keras; this is detected in any case.
    """

    name = "binary_crossentropy"
    fused_activation = "sigmoid"

    def check_labels(self, labels: Any, count: int, outputs: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        targets = _rows(labels, count, outputs, dtype, self.name)
        if targets.min() < 0 or targets.max() > 1:
            raise DataError(f"targets of binary cross-entropy must lie in 0..1, got {targets.min():g}..{targets.max():g}")
        return targets

    def targets(self, labels: np.ndarray[Any, Any], outputs: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        if not self.label_smoothing:
            return labels
        return (labels * (1 - self.label_smoothing) + self.label_smoothing / 2).astype(dtype, copy=False)

    def answers(self, labels: Array) -> int:
        return int(labels.size)

    def __call__(self, device: Device, outputs: Array, labels: Array) -> tuple[Array, Array, Array]:
        return device.ops.binary_cross_entropy(outputs, labels)  # type: ignore[no-any-return]

    def each(self, device: Device, outputs: Array, labels: Array) -> Array:
        xp = device.xp
        return (xp.maximum(outputs, 0) - outputs * labels + xp.log1p(xp.exp(-abs(outputs)))).mean(axis=1)


@_known
class MeanSquaredError(Loss):
    """(y − t)², averaged over all outputs. Targets t: (N) or (N, K); if K > 1, integer class numbers (N) stand for one-hot rows."""

    name = "mean_squared_error"

    def check_labels(self, labels: Any, count: int, outputs: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        given = numbers(labels, "labels")
        if given.ndim == 2 and given.shape[1] == 1 and given.dtype.kind in "iu" and outputs > 1:
            given = given[:, 0]
        if given.ndim == 1 and given.dtype.kind in "iu" and outputs > 1:
            return np.eye(outputs, dtype=dtype)[check_class_labels(given, count, outputs, dtype)]  # type: ignore[no-any-return]
        return _rows(given, count, outputs, dtype, self.name)

    def __call__(self, device: Device, outputs: Array, labels: Array) -> tuple[Array, Array, Array]:
        return device.ops.mean_squared_error(outputs, labels)  # type: ignore[no-any-return]

    def each(self, device: Device, outputs: Array, labels: Array) -> Array:
        return ((outputs - labels) ** 2).mean(axis=1)


@_known
class RootMeanSquaredError(MeanSquaredError):
    """√mean (y − t)², the root of the mean squared error of a batch. Targets as in `MeanSquaredError`. The loss of an epoch is the mean
    over its batches, and so is the result of `evaluate`."""

    name = "root_mean_squared_error"

    def __call__(self, device: Device, outputs: Array, labels: Array) -> tuple[Array, Array, Array]:
        return device.ops.root_mean_squared_error(outputs, labels)  # type: ignore[no-any-return]

    each = Loss.each  # a root is not a mean over examples


@_known
class Hinge(MeanSquaredError):
    """max(0, 1 − t·y), averaged over all outputs: a margin between right and wrong. Targets t (N) or (N, K) are −1 and 1; 0 and 1 stand
    for them. If K > 1, integer class numbers (N) stand for rows with 1 at the class and −1 elsewhere."""

    name = "hinge"

    def check_labels(self, labels: Any, count: int, outputs: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        targets = super().check_labels(labels, count, outputs, dtype)
        if not np.isin(targets, (-1, 0, 1)).all():
            raise DataError(f"targets of the hinge loss must be −1 and 1, or 0 and 1, got {targets.min():g}..{targets.max():g}")
        if (targets == -1).any() and (targets == 0).any():
            raise DataError("targets of the hinge loss must be −1 and 1, or 0 and 1, got all three")
        return targets if (targets == -1).any() else 2 * targets - 1

    def __call__(self, device: Device, outputs: Array, labels: Array) -> tuple[Array, Array, Array]:
        return device.ops.hinge(outputs, labels)  # type: ignore[no-any-return]

    def each(self, device: Device, outputs: Array, labels: Array) -> Array:
        return device.xp.maximum(1 - labels * outputs, 0).mean(axis=1)


SparseCategoricalCrossentropy = CategoricalCrossentropy  # Keras's name where labels are class numbers


@quiet
def check_class_labels(labels: Any, count: int, classes: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Class numbers as int32 (count,), or rows of probabilities as `dtype` (count, classes). DataError for anything else."""
    numbered = class_numbers(labels, count, classes)
    if numbered is not None:
        return numbered
    rows = _rows(labels, count, classes, dtype, "categorical_crossentropy")
    if rows.min() < 0 or not np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        raise DataError("rows of labels must be probabilities: at least 0, with each row's sum 1")
    return rows


@quiet
def _rows(labels: Any, count: int, outputs: int, dtype: np.dtype[Any], loss: str) -> np.ndarray[Any, Any]:
    given = numbers(labels, "labels")
    if given.ndim == 1 and outputs == 1:
        given = given[:, None]
    if given.shape != (count, outputs):
        raise DataError(f"loss {loss!r} expects labels of shape {(count, outputs)}, got {given.shape}")
    rows = np.ascontiguousarray(given, dtype)
    if not np.isfinite(rows).all():
        raise DataError("labels contain NaN or infinity: remove those examples")
    return rows


def get_loss(value: Any) -> Loss:
    """A Loss unchanged; the loss of a name or class with its defaults; or the loss of a `config()`."""
    if isinstance(value, Loss):
        return value
    if isinstance(value, dict) and "loss" in value:
        settings = dict(value)
        return LOSSES.pick(settings.pop("loss"))(**settings)
    if callable(value) and not isinstance(value, type):
        raise TypeError(f"a loss is a name or an object of a class derived from gpucnn.losses.Loss, got {shown(value)}")
    return (value if isinstance(value, type) and issubclass(value, Loss) else LOSSES.pick(value))()

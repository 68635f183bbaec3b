"""Prepares the arguments of `fit`, `evaluate` and `train_on_batch`: checks, batches, weights, and the split for validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.arrays import numbers
from gpucnn.checks import flag, integer, proportion
from gpucnn.data.augment import augmentation
from gpucnn.data.batches import Batches
from gpucnn.data.stream import Stream, gathered, is_stream
from gpucnn.errors import ArgumentError, DataError
from gpucnn.losses import Loss
from gpucnn.text import shown
from gpucnn.training.callbacks import Callback, Progress
from gpucnn.weighted import Weighted, example_weights

Checked = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Given:
    """The arguments of `Sequential.fit` that determine the batches."""

    batch_size: int
    shuffle: bool
    seed: int
    augment: Any = None
    validation_data: Any = None
    validation_split: float = 0.0
    class_weight: Mapping[int, float] | None = None
    sample_weight: Any = None
    steps_per_epoch: int | None = None


def stream_of(x: Any, given: Given) -> Stream:
    """Wraps batches that the user supplies instead of arrays."""
    if not is_stream(x):
        parts = x[0] if isinstance(x, list | tuple) and x else None
        if isinstance(parts, list | tuple) and parts and hasattr(parts[0], "shape") and parts[0].shape:
            raise ArgumentError(f"batches must be pairs (x, y), got a first one of {len(parts)}")
        raise ArgumentError(f"labels are missing: give fit(x, y), or batches (x, y) one after another, got {shown(x)}")
    if given.sample_weight is not None or given.class_weight is not None or given.augment is not None or given.validation_split:
        raise ArgumentError("class_weight, sample_weight, augment and validation_split go with arrays x and y, not with batches")
    flag(given.shuffle, "shuffle")  # batches keep their order, but an argument that is none is still refused
    return Stream(x, given.steps_per_epoch, seed=given.seed, batch_size=given.batch_size)


def example_shape(x: Any) -> tuple[int, ...]:
    """The shape of one example, given arrays or batches."""
    return tuple(numbers(x.first()[0] if isinstance(x, Stream) else x, "examples").shape[1:])


def batches_of(model: Any, loss: Loss, x: Any, y: Any, given: Given) -> tuple[Loss, Any, Checked | None]:
    """(loss, batches, validation data) for a built model and its loss."""
    validation = None if given.validation_data is None else _checked(model, given.validation_data)
    if isinstance(x, Stream):
        x.prepared, x.dtype = model.prepared, model.dtype
        return loss, x, validation
    images, labels = model.checked(x, y)
    weights = example_weights(loss, labels, given.sample_weight, given.class_weight, model.dtype, model.output_shape[-1])
    if given.validation_split:
        if validation is not None:
            raise ArgumentError("validation_data and validation_split mean the same: give only one")
        cut = len(images) - round(len(images) * proportion(given.validation_split, "validation_split"))
        if not 0 < cut < len(images):
            raise ArgumentError(
                f"validation_split {given.validation_split} of {len(images)} examples leaves none on one side: choose one nearer to 0.5"
            )
        validation, images, labels = (images[cut:], labels[cut:]), images[:cut], labels[:cut]
        weights = None if weights is None else weights[:cut]
    loss, labels = weighted(loss, model.targets(labels), weights)
    augment = augmentation(given.augment) if isinstance(given.augment, str | Mapping) else given.augment
    return (
        loss,
        Batches(images, labels, given.batch_size, shuffle=given.shuffle, seed=given.seed, augment=augment, dtype=model.dtype),
        validation,
    )


def _checked(model: Any, validation_data: Any) -> Checked:
    """The data for validation; an error about them says that it is not about those for training."""
    x, y = pair(validation_data, "validation_data")
    try:
        return model.checked(x, y)  # type: ignore[no-any-return]
    except (ArgumentError, DataError) as error:
        raise type(error)(f"validation_data: {error}") from None


def weighted(loss: Loss, labels: NDArray[Any], weights: NDArray[Any] | None) -> tuple[Loss, NDArray[Any]]:
    """Loss and labels that carry the weights; both unchanged if there are none."""
    if weights is None:
        return loss, labels
    heavy = Weighted(loss)
    return heavy, heavy.rows(labels, weights)


def pair(given: Any, name: str) -> tuple[Any, Any]:
    """(x, y) from a pair of arrays, or from batches (x, y), which are concatenated."""
    parts = tuple(given) if isinstance(given, list | tuple) else ()
    if (len(parts) != 2 or isinstance(given, list)) and is_stream(given):
        return gathered(given)
    if len(parts) != 2:
        weighted = ": weights of examples are for training alone" if len(parts) == 3 and isinstance(given, tuple) else ""
        raise ArgumentError(f"{name} must be a pair (x, y), got {shown(given)}{f' of {len(parts)}' if parts else ''}{weighted}")
    return parts[0], parts[1]


EVENTS = ("on_train_begin", "on_step_end", "on_epoch_end", "on_train_end")
NO_EVENTS = (  # of Keras's and Lightning's callbacks
    *(
        f"on_{what}_{when}"
        for what in ("batch", "train_batch", "test_batch", "predict_batch", "test")
        for when in ("begin", "start", "end")
    ),
    *("on_epoch_begin", "on_epoch_start", "on_step_begin", "on_train_start", "on_train_epoch_end", "on_validation_end"),
)


def _check_events(callback: Callback) -> None:
    """TypeError for a callback as other libraries have them, which would wait for events in vain, or take the run for something else."""
    kind = type(callback)
    for name in NO_EVENTS:
        if hasattr(kind, name):
            raise TypeError(f"{kind.__name__} has {name}, which is never called: the events are {', '.join(EVENTS)}")
    for name in EVENTS:
        code = getattr(getattr(kind, name), "__code__", None)
        if code is not None and "logs" in code.co_varnames[: code.co_argcount]:
            raise TypeError(
                f"{kind.__name__}.{name} takes logs, and is called with the run alone: {name}(self, run); run.history has the rows"
            )


def watchers(callbacks: Any, verbose: Any) -> tuple[list[Callback], bool | None]:
    """(callbacks, whether to show progress unless one of them does). verbose: 0, 1 (a bar), 2 (one line per epoch), a bool, "auto".

    Raises TypeError for anything but a list of callbacks.
    """
    found = [] if callbacks is None else callbacks
    if isinstance(found, Callback | str | np.ndarray) or not isinstance(found, Iterable):
        raise TypeError(f"callbacks must be a list of callbacks, got {shown(callbacks)}")
    found = list(found)
    for callback in found:
        if not isinstance(callback, Callback):
            made = "; call the class, to make one" if isinstance(callback, type) else ""
            raise TypeError(f"callbacks must be gpucnn.Callback objects, got {shown(callback)}{made}")
        _check_events(callback)
    if verbose is None or (isinstance(verbose, str) and verbose == "auto"):
        return found, None
    if isinstance(verbose, bool | np.bool_):
        return found, bool(verbose)
    level = integer(verbose, "verbose", 0)
    if level > 2:
        raise ArgumentError(f"verbose must be 0, 1, 2, True, False or 'auto', got {shown(verbose)}")
    lines = level == 2 and not any(isinstance(callback, Progress) for callback in found)
    return [*found, Progress(bar=False)] if lines else found, level > 0

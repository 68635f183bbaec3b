"""Predictions and metrics over many examples, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

from gpucnn.arrays import scaled
from gpucnn.device import to_numpy
from gpucnn.layers.base import Array
from gpucnn.losses import Loss
from gpucnn.metrics import METRICS
from gpucnn.text import shown
from gpucnn.training.ahead import as_in_batches_of, compile_ahead
from gpucnn.training.communicator import Communicator
from gpucnn.training.parallel import each_batch

T = TypeVar("T")


def output(model: Any, x: Any, *, logits: bool = False) -> Array:
    """The model's output for a batch of checked examples."""
    return model.forward(scaled(x, model.dtype), logits=logits)


def finished(model: Any, outputs: Array, final: str | None) -> np.ndarray[Any, Any]:
    """Outputs on the host, after the final activation that was left out."""
    array: np.ndarray[Any, Any] = to_numpy(getattr(model.device.ops, final)(outputs) if final else outputs)
    return array


def measured(
    model: Any, loss: Loss, metrics: Sequence[str], x: Any, labels: Any, batch_size: int, ranks: Communicator | None = None
) -> dict[str, float]:
    """The mean loss and the metrics by name; see `Sequential.measure`."""
    others = [name for name in metrics if name != "accuracy"]
    final = loss.fused_activation

    def work(batch: slice) -> tuple[float, int, int, Any]:
        part = model.device.array(model.targets(labels[batch]))
        if others:
            outputs = output(model, x[batch], logits=final is not None)
            value, right, _ = loss.of_batch(model.device, outputs, part)
            return float(value) * len(part), int(right), loss.answers(part), finished(model, outputs, final)
        values = model.device.array(scaled(x[batch], model.dtype), model.dtype)
        found, right, _ = model.chain.forward_with_loss(values, loss, part, training=False)
        if not found.ndim:
            return float(found) * len(part), int(right), loss.answers(part), None
        # For each example, if the last layer and the loss are computed together, as in a training step.
        return float(to_numpy(found).sum(dtype=np.float64)), int(to_numpy(right).sum()), loss.answers(part), None

    key = "measure", x.shape[1:], labels.shape[1:], batch_size, loss.name, bool(others)
    losses, correct, answers, scores = zip(*_by_batches(model, key, len(x), batch_size, work, ranks), strict=True)
    found = {"loss": sum(losses) / len(x)}
    for name in metrics:  # each with arrays of its own, which it may write to
        found[name] = _value(name, METRICS[name](np.concatenate(scores), labels.copy())) if name in others else sum(correct) / sum(answers)
    return found


def _value(name: str, value: Any) -> float:
    """What a metric has returned. It may be NaN, or a number of any library."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):  # the last from PyTorch
        raise TypeError(f"the metric {name!r} must return a number, got {shown(value)}") from None


def predicted(model: Any, x: Any, batch_size: int, final: str | None, ranks: Communicator | None = None) -> np.ndarray[Any, Any]:
    """The outputs for all of x; see `Sequential.predict`."""

    def work(batch: slice) -> np.ndarray[Any, Any]:
        return finished(model, output(model, x[batch]), final)

    return np.concatenate(_by_batches(model, ("predict", x.shape[1:], batch_size, final), len(x), batch_size, work, ranks))


def _by_batches(model: Any, key: Hashable, count: int, batch_size: int, work: Callable[[slice], T], ranks: Communicator | None) -> list[T]:
    """The results of `work` for each batch. On a GPU all kernels are compiled before the first, and the last batch needs no others."""
    whole = min(batch_size, count)
    compile_ahead(model, key, lambda: work(slice(0, whole)))
    with as_in_batches_of(whole, model):
        return each_batch(ranks or Communicator(), count, batch_size, work)

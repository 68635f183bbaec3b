"""Predictions and metrics over many examples, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucnn.arrays import scaled
from gpucnn.device import to_numpy
from gpucnn.layers.base import Array
from gpucnn.losses import Loss
from gpucnn.metrics import METRICS
from gpucnn.training.communicator import Communicator
from gpucnn.training.parallel import each_batch


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
        outputs, part = output(model, x[batch], logits=final is not None), model.device.array(labels[batch])
        value, right, _ = loss(model.device, outputs, part)
        return float(value) * len(part), int(right), loss.answers(part), finished(model, outputs, final) if others else None

    losses, correct, answers, scores = zip(*each_batch(ranks or Communicator(), len(x), batch_size, work), strict=True)
    found = {"loss": sum(losses) / len(x)}
    for name in metrics:
        found[name] = float(METRICS[name](np.concatenate(scores), labels)) if name in others else sum(correct) / sum(answers)
    return found


def predicted(model: Any, x: Any, batch_size: int, final: str | None, ranks: Communicator | None = None) -> np.ndarray[Any, Any]:
    """The outputs for all of x; see `Sequential.predict`."""
    work = lambda batch: finished(model, output(model, x[batch]), final)  # noqa: E731
    return np.concatenate(each_batch(ranks or Communicator(), len(x), batch_size, work))

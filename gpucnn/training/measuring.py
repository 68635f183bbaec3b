"""Predictions and metrics over many examples, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpucnn.arrays import scaled
from gpucnn.device import to_numpy
from gpucnn.layers.base import Array
from gpucnn.losses import Loss
from gpucnn.metrics import METRICS


def outputs_of(model: Any, x: Any, batch_size: int, *, logits: bool = False) -> Iterator[Array]:
    """The model's outputs, a batch at a time."""
    for start in range(0, len(x), batch_size):
        yield model.forward(scaled(x[start : start + batch_size], model.dtype), logits=logits)


def finished(model: Any, outputs: Array, final: str | None) -> np.ndarray[Any, Any]:
    """Outputs on the host, after the final activation that was left out."""
    array: np.ndarray[Any, Any] = to_numpy(getattr(model.device.ops, final)(outputs) if final else outputs)
    return array


def measured(model: Any, loss: Loss, metrics: Sequence[str], x: Any, labels: Any, batch_size: int) -> dict[str, float]:
    """The mean loss and the metrics by name; see `Sequential.measure`."""
    others = [name for name in metrics if name != "accuracy"]
    scores: list[np.ndarray[Any, Any]] = []
    final = loss.fused_activation
    total = correct = answers = 0.0
    for start, outputs in zip(range(0, len(x), batch_size), outputs_of(model, x, batch_size, logits=final is not None), strict=True):
        part = model.device.array(labels[start : start + batch_size])
        value, right, _ = loss(model.device, outputs, part)
        total += float(value) * len(part)
        correct += int(right)
        answers += loss.answers(part)
        if others:
            scores.append(finished(model, outputs, final))
    found = {"loss": total / len(x)}
    for name in metrics:
        found[name] = float(METRICS[name](np.concatenate(scores), labels)) if name in others else correct / answers
    return found


def predicted(model: Any, x: Any, batch_size: int, final: str | None) -> np.ndarray[Any, Any]:
    """The outputs for all of x; see `Sequential.predict`."""
    return np.concatenate([finished(model, outputs, final) for outputs in outputs_of(model, x, batch_size)])

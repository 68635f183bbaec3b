"""Cross-entropy by compiled loops."""

from __future__ import annotations

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import loss as reference
from gpucnn.ops.cpu._engine import loops
from gpucnn.ops.cpu._threads import Array, empty
from gpucnn.ops.cpu.roads._plans import integers

__all__ = ["softmax_cross_entropy"]


def softmax_cross_entropy(logits: Array, labels: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    classes = logits.shape[1]  # an invalid label would read out of bounds: NumPy reports it
    if labels.ndim != 1 or not (integers(labels) and loops(logits, out)) or labels.min() < 0 or labels.max() >= classes:
        return reference.softmax_cross_entropy(logits, labels, out=out)
    dlogits = empty(logits.shape) if out is None else out
    loss, correct = _engine.modules().loss.softmax_cross_entropy(logits, labels, dlogits)
    return loss, correct, dlogits

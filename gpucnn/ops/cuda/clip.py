"""Clipping gradients by the norm of all of them together, in place over a flat buffer."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn_kernels import clip as kernels

__all__ = ["clip_norm"]


def clip_norm(gradients: Array, most: float) -> None:
    """g ← g · most / ‖g‖ where the Euclidean norm ‖g‖ is above `most` (Pascanu, Mikolov and Bengio 2013, algorithm 1); otherwise, and where
    it is NaN, nothing changes."""
    kernels.clip_norm(gradients, most, empty(gradients, (kernels.blocks(gradients.size),)), stream(gradients))

"""Clipping gradients by the norm of all of them together, in place over a flat buffer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from gpucnn.ops.cpu._threads import SLAB, Array, share, slabs

__all__ = ["clip_norm"]


def clip_norm(gradients: Array, most: float) -> None:
    """g ← g · most / ‖g‖ where the Euclidean norm ‖g‖ is above `most` (Pascanu, Mikolov and Bengio 2013, algorithm 1); otherwise, and where
    it is NaN, nothing changes."""
    sums = np.zeros(-(-gradients.size // SLAB))

    def add(pieces: Iterable[int]) -> None:
        for piece in pieces:
            part = gradients[piece * SLAB : (piece + 1) * SLAB].astype(np.float64)
            sums[piece] = np.dot(part, part)

    share(len(sums), add, work=gradients.size, blas=True)
    norm = math.sqrt(sums.sum())
    if norm > most:
        factor = gradients.dtype.type(most / norm)
        slabs(lambda part: np.multiply(gradients[part], factor, out=gradients[part]), gradients.size)

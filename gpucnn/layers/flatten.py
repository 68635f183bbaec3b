"""Flatten."""

from __future__ import annotations

import math

from gpucnn.layers.base import Array, Layer, Shape

__all__ = ["Flatten"]


class Flatten(Layer):
    """(C, H, W) → (C·H·W,): a new view; no data are copied."""

    replays = True
    passes_on = True
    keeps_relu = True
    is_view = True

    def __init__(self) -> None:
        super().__init__()

    def _build(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def _forward(self, x: Array, training: bool) -> Array:
        return x.reshape(x.shape[0], *self.output_shape)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return dy.reshape(dy.shape[0], *(self.input_shape or ())) if input_grad else None

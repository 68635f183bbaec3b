"""Activations as layers of their own; `activation="relu"` of a layer does the same."""

from __future__ import annotations

from gpucnn.layers.base import Array, Layer, Shape


class _Activation(Layer):
    """Passes its input on; the base class applies the activation."""

    passes_on = True

    kind: str

    def __init__(self) -> None:
        super().__init__(self.kind)

    def _build(self, input_shape: Shape) -> Shape:
        return input_shape

    def _forward(self, x: Array, training: bool) -> Array:
        return x

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return dy


class ReLU(_Activation):
    """max(x, 0)."""

    kind = "relu"


class Sigmoid(_Activation):
    """1 / (1 + e⁻ˣ). As the last layer under binary cross-entropy the pair is computed as one, from logits."""

    kind = "sigmoid"


class Softmax(_Activation):
    """eˣ / Σ eˣ along the last axis. As the last layer under categorical cross-entropy the pair is computed as one, from logits."""

    kind = "softmax"

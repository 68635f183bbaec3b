"""Activations as layers of their own; `activation="relu"` of a layer does the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from gpucnn.checks import flag, positive
from gpucnn.layers.activations import ACTIVATIONS
from gpucnn.layers.base import Array, Cost, Layer, Shape

__all__ = ["ELU", "GELU", "HardSigmoid", "HardSwish", "LeakyReLU", "ReLU", "ReLU6", "SiLU", "Sigmoid", "Softmax", "Tanh"]


class _Activation(Layer):
    """The identity; the base class applies the activation."""

    passes_on = True

    kind: str

    def __init__(self) -> None:
        super().__init__(self.kind)

    @property
    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.checks if name not in Layer.checks}

    def settings(self) -> dict[str, Any]:
        return self.options

    def _build(self, input_shape: Shape) -> Shape:
        return input_shape

    def _forward(self, x: Array, training: bool) -> Array:
        return x

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return dy

    def cost(self) -> Cost:
        of_input = ACTIVATIONS[self.kind].of_input  # which was its input
        return replace(super().cost(), kept=0, keeps_input=of_input)


class ReLU(_Activation):
    """max(x, 0)."""

    replays = True

    kind = "relu"

    def __init__(self) -> None:
        super().__init__()


class Sigmoid(_Activation):
    """1 / (1 + e⁻ˣ). As the last layer with binary cross-entropy, both are computed together from the logits."""

    replays = True

    kind = "sigmoid"

    def __init__(self) -> None:
        super().__init__()


class Softmax(_Activation):
    """eˣ / Σ eˣ along the last axis. As the last layer with categorical cross-entropy, both are computed together from the logits."""

    replays = True

    kind = "softmax"

    def __init__(self) -> None:
        super().__init__()


class Tanh(_Activation):
    """The hyperbolic tangent."""

    replays = True

    kind = "tanh"

    def __init__(self) -> None:
        super().__init__()


class LeakyReLU(_Activation):
    """x, or negative_slope · x where x is not positive. The default slope is PyTorch's, 0.01; Keras's is 0.3."""

    replays = True

    kind = "leaky_relu"

    checks: ClassVar = {**Layer.checks, "negative_slope": lambda value, name: positive(value, name, zero=True)}

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope


class ELU(_Activation):
    """x, or alpha · (eˣ − 1) where x is not positive (Clevert, Unterthiner and Hochreiter, ICLR 2016)."""

    replays = True

    kind = "elu"

    checks: ClassVar = {**Layer.checks, "alpha": positive}

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha


class GELU(_Activation):
    """x · Φ(x), with Φ the normal distribution (Hendrycks and Gimpel 2016). approximate: use the hyperbolic tangent, as GPT-2 and BERT
    do."""

    replays = True

    kind = "gelu"

    checks: ClassVar = {**Layer.checks, "approximate": flag}

    def __init__(self, approximate: bool = False) -> None:
        super().__init__()
        self.approximate = approximate


class SiLU(_Activation):
    """x / (1 + e⁻ˣ), also called swish."""

    replays = True

    kind = "silu"

    def __init__(self) -> None:
        super().__init__()


class ReLU6(_Activation):
    """min(max(x, 0), 6), as in MobileNet (Howard and others 2017)."""

    replays = True

    kind = "relu6"

    def __init__(self) -> None:
        super().__init__()


class HardSigmoid(_Activation):
    """x / 6 + 1/2, no less than 0 and no more than 1, as PyTorch and Keras 3 have it; Keras 2 had x / 5 + 1/2."""

    replays = True

    kind = "hard_sigmoid"

    def __init__(self) -> None:
        super().__init__()


class HardSwish(_Activation):
    """x · HardSigmoid(x), as in MobileNetV3 (Howard and others, ICCV 2019)."""

    replays = True

    kind = "hard_swish"

    def __init__(self) -> None:
        super().__init__()

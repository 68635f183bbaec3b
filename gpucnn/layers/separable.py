"""Depthwise and separable convolutions."""

from __future__ import annotations

from typing import Any

from gpucnn.checks import integer
from gpucnn.initializers import Given
from gpucnn.layers.base import Layer, Shape
from gpucnn.layers.containers import Stack
from gpucnn.layers.conv import Conv2D, check_image
from gpucnn.signatures import ActivationName, Padding, Size

__all__ = ["DepthwiseConv2D", "SeparableConv2D"]


class DepthwiseConv2D(Conv2D):
    """Convolution of each channel separately: (C, H, W) → (C · multiplier, P, Q). It is a Conv2D with as many groups as channels. The
    weight is (C · multiplier, 1, R, S); outputs c · multiplier to (c + 1) · multiplier − 1 belong to channel c. The arguments are
    Conv2D's."""

    replays = True

    def __init__(
        self,
        kernel_size: Size,
        *,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        multiplier: int = 1,
        activation: ActivationName | None = None,
        use_bias: bool = True,
        initializer: Given | None = None,
    ) -> None:
        self.multiplier = integer(multiplier, "multiplier", 1)
        super().__init__(
            self.multiplier,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            activation=activation,
            use_bias=use_bias,
            initializer=initializer,
        )

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        del settings["filters"], settings["groups"]
        return settings | {"multiplier": self.multiplier}

    def _build(self, input_shape: Shape) -> Shape:
        self.groups = check_image(self, input_shape)[0]
        self.filters = self.groups * self.multiplier
        return super()._build(input_shape)


class SeparableConv2D(Stack):
    """A convolution of each channel separately, then a 1 × 1 convolution that mixes them: (C, H, W) → (filters, P, Q) (Chollet, "Xception",
    CVPR 2017). It has C · R · S + C · filters weights instead of C · R · S · filters.

    Bias and activation belong to the second convolution, as in Keras. multiplier: outputs of the first convolution per channel. The other
    arguments are Conv2D's and apply to the first. In a model, the layer runs as its two parts, `depthwise` and `pointwise`.
    """

    replays = True

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        *,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        multiplier: int = 1,
        activation: ActivationName | None = None,
        use_bias: bool = True,
        initializer: Given | None = None,
    ) -> None:
        self.depthwise = DepthwiseConv2D(
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            multiplier=multiplier,
            use_bias=False,
            initializer=initializer,
        )
        self.pointwise = Conv2D(filters, 1, activation=activation, use_bias=use_bias, initializer=initializer)
        self._given = initializer
        super().__init__(self.depthwise, self.pointwise)

    def settings(self) -> dict[str, Any]:
        first, second = self.depthwise.settings(), self.pointwise.settings()
        return {
            "filters": second["filters"],
            **{name: first[name] for name in ("kernel_size", "stride", "padding", "dilation", "multiplier")},
            **{name: second[name] for name in ("activation", "use_bias")},
            "initializer": self._given,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Layer:
        return cls(**settings)

    def inner(self) -> dict[str, Layer]:
        return {"depthwise": self.depthwise, "pointwise": self.pointwise}

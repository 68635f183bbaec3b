"""Convolution."""

from __future__ import annotations

import math
from typing import Any

from gpucnn.checks import flag, integer, pair
from gpucnn.errors import ShapeError
from gpucnn.initializers import Given, as_text, get_initializer
from gpucnn.layers.activations import ACTIVATIONS, named
from gpucnn.layers.base import Array, Cost, Layer, Shape
from gpucnn.layers.beside import beside
from gpucnn.layers.parameter import Parameter, gradients
from gpucnn.ops.cpu.conv import scratch
from gpucnn.ops.shapes import Window, conv_window, normalize_padding
from gpucnn.precision import InPrecision, bits
from gpucnn.signatures import ActivationName, Padding, Precision, Size

__all__ = ["Conv2D", "Convolution2D"]


def check_image(layer: Layer, input_shape: Shape) -> tuple[int, int, int]:
    """`input_shape` as (C, H, W); ShapeError for anything else."""
    if len(input_shape) != 3:
        raise ShapeError(f"{type(layer).__name__} works on images (channels, height, width), got an input of shape {input_shape}")
    return input_shape[0], input_shape[1], input_shape[2]


def weight_initializer(name: Given | None, activation: str | None) -> Given:
    """The default initializer: He's before ReLU and similar activations, whose zeros it compensates for, and Glorot's otherwise."""
    if name is not None:
        get_initializer(name)
        return name if callable(name) else as_text(name)
    return "he_uniform" if (name := named(activation)) is not None and ACTIVATIONS[name].like_relu else "glorot_uniform"


class Conv2D(InPrecision, Layer):
    """Convolution of images: (C, H, W) → (filters, P, Q).

    kernel_size, stride, dilation: a number or (vertical, horizontal).
    padding: a number, (vertical, horizontal), ((top, bottom), (left, right)), "valid" (none) or "same".
    initializer: that of the weight (filters, C/groups, R, S), a name or a function; by default "he_uniform" with an activation that is zero
        for about half of its inputs, such as ReLU, and "glorot_uniform" otherwise. The bias starts at zero.
    precision: that of its products, if not what `set_float32_matmul_precision` has set.
    """

    replays = True
    fuses_relu = True
    takes_relu_grad = True

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        *,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        activation: ActivationName | None = None,
        use_bias: bool = True,
        initializer: Given | None = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__(activation)
        self.filters = integer(filters, "filters", 1)
        self.groups = integer(groups, "groups", 1)
        self.kernel_size = pair(kernel_size, "kernel_size", 1)
        self.stride = pair(stride, "stride", 1)
        self.padding = normalize_padding(padding)
        self.dilation = pair(dilation, "dilation", 1)
        self.use_bias = flag(use_bias, "use_bias")
        self.initializer = weight_initializer(initializer, activation)
        self.precision = precision
        if self.filters % self.groups:
            raise ShapeError(f"filters must be divisible by groups, got {self.filters} filters in {self.groups} groups")
        self._x: Array | None = None

    def settings(self) -> dict[str, Any]:
        return {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "initializer": self.initializer,
            **({} if self.precision is None else {"precision": self.precision}),
        }

    def _build(self, input_shape: Shape) -> Shape:
        c, h, w = check_image(self, input_shape)
        if c % self.groups:
            raise ShapeError(f"channels must be divisible by groups, got {c} channels in {self.groups} groups")
        self.window: Window = conv_window((h, w), self.kernel_size, self.stride, self.padding, self.dilation)
        self.weight = Parameter("weight", (self.filters, c // self.groups, *self.window.kernel), self.initializer, groups=self.groups)
        self.bias = Parameter("bias", (self.filters,), "zeros") if self.use_bias else None
        self.parameters = [self.weight, self.bias] if self.bias else [self.weight]
        return (self.filters, *self.window.output)

    @property
    def takes_part(self) -> bool:
        return self._own_forward and type(self)._backward is Conv2D._backward and self.activation in (None, "relu")

    @property
    def is_linear(self) -> bool:
        """Whether the output is that of the convolution, without an activation."""
        return self._own_forward and self.activation is None

    @property
    def _own_forward(self) -> bool:  # classes derived from it may do something else
        return type(self)._forward is Conv2D._forward and type(self).forward is Layer.forward

    def _forward(self, x: Array, training: bool, out: Array | None = None) -> Array:
        if training:
            self._x = x
        bias, relu = self.bias.value if self.bias else None, self.activation == "relu"
        return self.device.ops.conv2d(x, self.weight.value, bias, self.window, self.groups, relu=relu, out=out, bits=bits(self.precision))

    def _backward(self, dy: Array, input_grad: bool, relu: bool = False) -> Array | None:
        ops, x = self.device.ops, self._x
        with beside(input_grad) as apart:
            if not self.frozen:
                with apart, gradients(self.weight, self.bias) as (out, dbias):
                    ops.conv2d_weight_grad(dy, x, self.window, self.groups, out=out, dbias=dbias, bits=bits(self.precision))
            if not input_grad:
                return None
            relu_output = x if relu else None
            return ops.conv2d_input_grad(dy, self.weight.value, self.window, self.groups, relu=relu_output, bits=bits(self.precision))

    def forget(self) -> None:
        super().forget()
        self._x = None

    def scratch(self, batch_size: int) -> tuple[int, int]:
        return scratch(batch_size, self.filters, self.weight.shape[1] * self.groups, self.window, self.groups)

    def cost(self) -> Cost:
        multiply_adds = math.prod(self.output_shape) * math.prod(self.weight.shape[1:])
        return self.costing(multiply_adds, keeps_input=True)


# Second names.
Convolution2D = Conv2D

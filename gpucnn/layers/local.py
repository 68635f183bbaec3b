"""Convolution without weight sharing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpucnn.checks import flag, integer, pair
from gpucnn.initializers import Given, get_initializer
from gpucnn.layers.base import Array, Cost, Layer, Shape
from gpucnn.layers.beside import beside
from gpucnn.layers.conv import check_image, weight_initializer
from gpucnn.layers.parameter import Parameter, gradients
from gpucnn.ops.shapes import Window, conv_window, normalize_padding
from gpucnn.signatures import ActivationName, Padding, Size

__all__ = ["LocallyConnected2D"]


class _Filters(Parameter):
    """The filters of all positions, (K, C, R, S, P, Q), each initialized like those of a convolution."""

    def draw(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        k, c, r, s, p, q = self.shape
        drawn = get_initializer(self.initializer)((k * p * q, c, r, s), rng, p * q)
        return np.ascontiguousarray(drawn.reshape(k, p, q, c, r, s).transpose(0, 3, 4, 5, 1, 2))


class LocallyConnected2D(Layer):
    """A convolution without weight sharing: every position of the output has its own filters, (C, H, W) → (filters, P, Q).

    It has P · Q times the parameters of Conv2D. On images of 32 × 32 × 3, 20 filters of 8 × 8 with stride 2 and padding 1 have 756,560
    parameters; Conv2D has 3,860. The weight is (filters, C, R, S, P, Q), the bias (filters, P, Q). The arguments are Conv2D's.
    """

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
        activation: ActivationName | None = None,
        use_bias: bool = True,
        initializer: Given | None = None,
    ) -> None:
        super().__init__(activation)
        self.filters = integer(filters, "filters", 1)
        self.kernel_size = pair(kernel_size, "kernel_size", 1)
        self.stride = pair(stride, "stride", 1)
        self.padding = normalize_padding(padding)
        self.dilation = pair(dilation, "dilation", 1)
        self.use_bias = flag(use_bias, "use_bias")
        self.initializer = weight_initializer(initializer, activation)
        self._x: Array | None = None

    def settings(self) -> dict[str, Any]:
        names = ("filters", "kernel_size", "stride", "padding", "dilation", "activation", "use_bias", "initializer")
        return {name: getattr(self, name) for name in names}

    def _build(self, input_shape: Shape) -> Shape:
        c, h, w = check_image(self, input_shape)
        self.window: Window = conv_window((h, w), self.kernel_size, self.stride, self.padding, self.dilation)
        shape = (self.filters, *self.window.output)
        self.weight = _Filters("weight", (self.filters, c, *self.window.kernel, *self.window.output), self.initializer)
        self.bias = Parameter("bias", shape, "zeros") if self.use_bias else None
        self.parameters = [self.weight, self.bias] if self.bias else [self.weight]
        return shape

    def _forward(self, x: Array, training: bool) -> Array:
        if training:
            self._x = x
        bias = self.bias.value if self.bias else None
        return self.device.ops.locally_connected2d(x, self.weight.value, bias, self.window, relu=self.activation == "relu")

    def _backward(self, dy: Array, input_grad: bool, relu: bool = False) -> Array | None:
        ops, x = self.device.ops, self._x
        with beside(input_grad) as apart:
            if not self.frozen:
                with apart, gradients(self.weight, self.bias) as (out, dbias):
                    ops.locally_connected2d_weight_grad(dy, x, self.window, out=out, dbias=dbias)
            return ops.locally_connected2d_input_grad(dy, self.weight.value, self.window, relu=x if relu else None) if input_grad else None

    def forget(self) -> None:
        super().forget()
        self._x = None

    def scratch(self, batch_size: int) -> tuple[int, int]:
        c = (self.input_shape or (0,))[0]
        positions = self.window.output[0] * self.window.output[1]
        room = positions * (batch_size * (c + self.filters) + c * self.filters)
        return room, 2 * room

    def cost(self) -> Cost:
        return self.costing(math.prod(self.weight.shape), keeps_input=True)

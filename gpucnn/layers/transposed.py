"""Transposed convolution."""

from __future__ import annotations

import math
from typing import Any

from gpucnn.checks import flag, integer, pair
from gpucnn.errors import ShapeError
from gpucnn.initializers import Given
from gpucnn.layers.base import Array, Cost, Layer, Shape
from gpucnn.layers.beside import beside
from gpucnn.layers.conv import check_image, weight_initializer
from gpucnn.layers.parameter import Parameter, gradients
from gpucnn.ops.cpu.conv import scratch
from gpucnn.ops.shapes import Window, normalize_padding, transposed_window
from gpucnn.precision import InPrecision, bits
from gpucnn.signatures import ActivationName, Padding, Precision, Size

__all__ = ["Conv2DTranspose", "ConvTranspose2D"]


class ConvTranspose2D(InPrecision, Layer):
    """The gradient of a convolution as a layer, which enlarges images: (C, H, W) → (filters, P, Q). Keras calls it Conv2DTranspose.

    P = (H − 1) · stride − top − bottom + dilation · (R − 1) + 1 + output_padding, and likewise Q; padding="same" makes it H · stride.
    output_padding, less than the stride or the dilation, selects one of the sizes that a convolution would reduce to H. It adds rows and
    columns at the bottom and right, which are computed like all others. The weight is (C, filters / groups, R, S), as in PyTorch.
    precision: as Conv2D's.
    """

    fuses_relu = True

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        *,
        stride: Size = 1,
        padding: Padding = 0,
        output_padding: Size = 0,
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
        self.output_padding = pair(output_padding, "output_padding", 0)
        self.dilation = pair(dilation, "dilation", 1)
        self.use_bias = flag(use_bias, "use_bias")
        self.initializer = weight_initializer(initializer, activation)
        self.precision = precision
        if self.filters % self.groups:
            raise ShapeError(f"filters must be divisible by groups, got {self.filters} filters in {self.groups} groups")
        # This refuses settings that never fit.
        transposed_window(1, 1, self.stride, "same" if self.padding == "same" else 0, self.output_padding, self.dilation)
        self._x: Array | None = None

    def settings(self) -> dict[str, Any]:
        names = ("filters", "kernel_size", "stride", "padding", "output_padding", "dilation", "groups", "activation", "use_bias")
        precision = {} if self.precision is None else {"precision": self.precision}
        return {name: getattr(self, name) for name in (*names, "initializer")} | precision

    def _build(self, input_shape: Shape) -> Shape:
        c, *sizes = check_image(self, input_shape)
        if c % self.groups:
            raise ShapeError(f"channels must be divisible by groups, got {c} channels in {self.groups} groups")
        # The window of the forward convolution.
        self.window: Window = transposed_window(sizes, self.kernel_size, self.stride, self.padding, self.output_padding, self.dilation)
        self.weight = Parameter("weight", (c, self.filters // self.groups, *self.kernel_size), self.initializer, groups=self.groups)
        self.bias = Parameter("bias", (self.filters,), "zeros") if self.use_bias else None
        self.parameters = [self.weight, self.bias] if self.bias else [self.weight]
        return (self.filters, *self.window.input)

    def _forward(self, x: Array, training: bool) -> Array:
        if training:
            self._x = x
        ops, relu = self.device.ops, self.activation == "relu"
        y = ops.conv2d_input_grad(x, self.weight.value, self.window, self.groups, bits=bits(self.precision))
        if self.bias:
            return ops.add_bias(y, self.bias.value, relu=relu, out=y)
        return ops.relu(y, out=y) if relu else y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        ops = self.device.ops
        with beside(input_grad) as apart:
            if not self.frozen:
                with apart, gradients(self.weight, self.bias) as (dweight, dbias):
                    ops.conv2d_weight_grad(self._x, dy, self.window, self.groups, out=dweight, bits=bits(self.precision))
                    if dbias is not None:
                        ops.bias_grad(dy, out=dbias)
            if not input_grad:
                return None
            return ops.conv2d(dy, self.weight.value, None, self.window, self.groups, bits=bits(self.precision))

    def forget(self) -> None:
        super().forget()
        self._x = None

    def scratch(self, batch_size: int) -> tuple[int, int]:
        room = scratch(batch_size, self.weight.shape[0], self.filters, self.window, self.groups)
        return max(room), max(room)

    def cost(self) -> Cost:
        return self.costing(math.prod(self.input_shape or ()) * math.prod(self.weight.shape[1:]), keeps_input=True)


# Second names.
Conv2DTranspose = ConvTranspose2D

"""Dense (fully connected) layers."""

from __future__ import annotations

from typing import Any

from gpucnn.checks import flag, integer
from gpucnn.errors import ShapeError
from gpucnn.initializers import Given
from gpucnn.layers.base import Array, Cost, Layer, Shape
from gpucnn.layers.beside import Apart, beside, later
from gpucnn.layers.conv import weight_initializer
from gpucnn.layers.parameter import Parameter, gradients
from gpucnn.precision import InPrecision, bits
from gpucnn.signatures import ActivationName, Precision

__all__ = ["Dense"]


class Dense(InPrecision, Layer):
    """y = x·weightᵀ + bias: (features,) → (units,). The weight is (units, features); its initializer and the bias are as
    Conv2D's.

    precision: that of its products, if not what `set_float32_matmul_precision` has set.
    """

    replays = True
    fuses_relu = True
    takes_relu_grad = True

    def __init__(
        self,
        units: int,
        *,
        activation: ActivationName | None = None,
        use_bias: bool = True,
        initializer: Given | None = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__(activation)
        self.units = integer(units, "units", 1)
        self.use_bias = flag(use_bias, "use_bias")
        self.initializer = weight_initializer(initializer, activation)
        self.precision = precision
        self._x: Array | None = None
        self._made: tuple[Array, Array] | None = None  # dy, and what backward returns for it, if forward has computed that

    def settings(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "initializer": self.initializer,
            **({} if self.precision is None else {"precision": self.precision}),
        }

    def _build(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(f"Dense works on rows of features, got an input of shape {input_shape}: put a Flatten() before it")
        self.weight = Parameter("weight", (self.units, input_shape[0]), self.initializer)
        self.bias = Parameter("bias", (self.units,), "zeros") if self.use_bias else None
        self.parameters = [self.weight, self.bias] if self.bias else [self.weight]
        return (self.units,)

    def _forward(self, x: Array, training: bool) -> Array:
        if training:
            self._x = x
        bias = self.bias.value if self.bias else None
        return self.device.ops.dense(x, self.weight.value, bias, relu=self.activation == "relu", bits=bits(self.precision))

    def _backward(self, dy: Array, input_grad: bool, relu: bool = False) -> Array | None:
        ops, x = self.device.ops, self._x
        if self._made is not None and self._made[0] is dy:
            self._add_gradients(dy, later(x, dy))
            return self._made[1]
        with beside(input_grad) as apart:
            self._add_gradients(dy, apart)
            if not input_grad:
                return None
            return ops.dense_input_grad(dy, self.weight.value, relu=x if relu else None, bits=bits(self.precision))

    def _add_gradients(self, dy: Array, apart: Apart) -> None:
        if not self.frozen:
            with apart, gradients(self.weight, self.bias) as (out, dbias):
                self.device.ops.dense_weight_grad(dy, self._x, out=out, dbias=dbias, bits=bits(self.precision))

    def forward_with_loss(
        self, x: Array, loss: Any, labels: Array, training: bool = True, *, input_grad: bool = False, relu: bool = False
    ) -> tuple[Array, Array, Array] | None:
        # A class derived from this one may do something else.
        if type(self) is not Dense or self.activation not in (None, loss.fused_activation):
            return None
        bias = self.bias.value if self.bias else None
        found = loss.of_dense(self.device, x, self.weight.value, bias, labels, input_grad=input_grad, relu=relu)
        if found is None:
            return None
        losses, correct, doutputs, dx = found
        if training:
            self._x, self._around, self._applied, self._ready = x, None, None, True
            self._made = None if dx is None else (doutputs, dx)
        return losses, correct, doutputs

    def forget(self) -> None:
        super().forget()
        self._x = self._made = None

    def cost(self) -> Cost:
        return self.costing(self.weight.size, keeps_input=True)

"""Batch normalization."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from gpucnn.checks import flag, positive
from gpucnn.device import Device
from gpucnn.errors import ArgumentError, ShapeError
from gpucnn.layers import shared
from gpucnn.layers.base import Array, Cost, Layer, Shape
from gpucnn.layers.parameter import Parameter, SavedArray, gradients
from gpucnn.ops.cpu.pool import scratch

__all__ = ["BatchNorm2D"]


def share(momentum: float) -> float:
    """`momentum` as a float from 0 to 1; ArgumentError for any other number."""
    number = positive(momentum, "momentum", zero=True)
    if number > 1:
        raise ArgumentError(f"momentum must be at most 1, got {momentum!r}: it is the new batch's share (Keras's 0.99 is 0.01 here)")
    return number


class BatchNorm2D(Layer):
    """Normalizes every channel to mean 0 and variance 1, then scales and shifts it: (C, H, W) → (C, H, W). For rows of features,
    (features,), each feature is a channel.

    In training, mean and variance are those of the batch, and the running ones are updated: `running += momentum · (batch − running)`.
    Otherwise the running ones are used; they are saved with the model but not trained. weight starts at 1 and bias at 0; without `affine`
    there are none. activation="relu" runs in the same kernel. A frozen layer uses its running statistics in training too, and does not
    change them.

    eps and momentum have PyTorch's meaning and defaults, and so does the running variance (n − 1). Keras's momentum is the complement: 0.99
    there is 0.01 here; its epsilon is 0.001, and its running variance divides by n.

    If several ranks share a batch, mean and variance are those of the whole batch, which takes two small sums over all ranks forward and
    one backward. Without `sync` they are those of each rank's part, and the running ones are updated with the average over all ranks.
    This takes only one sum, but the training depends on the number of ranks.
    """

    replays = True

    fuses_relu = True
    takes_relu_grad = True
    checks: ClassVar = {**Layer.checks, "eps": positive, "momentum": lambda value, name: share(value)}

    def __init__(
        self, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, activation: str | None = None, sync: bool = True
    ) -> None:
        super().__init__(activation)
        self.eps, self.momentum = eps, momentum
        self.affine = flag(affine, "affine")
        self.sync = flag(sync, "sync")
        self._x: Array | None = None
        self._kept: tuple[Array, Array] | None = None  # the batch's mean and rstd; None where the running ones were used
        self._ones: Array = None
        self._zeros: Array = None

    def settings(self) -> dict[str, Any]:
        settings = {"eps": self.eps, "momentum": self.momentum, "affine": self.affine, "activation": self.activation}
        return settings if self.sync else {**settings, "sync": False}

    def _build(self, input_shape: Shape) -> Shape:
        if len(input_shape) not in (1, 3):
            raise ShapeError(f"BatchNorm2D works on images (channels, height, width) or rows of features, got {input_shape}")
        channels = input_shape[:1]
        self.weight = Parameter("weight", channels, "ones") if self.affine else None
        self.bias = Parameter("bias", channels, "zeros") if self.affine else None
        self.mean, self.variance = SavedArray("running_mean", channels), SavedArray("running_variance", channels, 1.0)
        self.parameters = [each for each in (self.weight, self.bias) if each]
        self.arrays = [self.mean, self.variance]
        return input_shape

    def to_device(self, device: Device, seed: int) -> None:
        super().to_device(device, seed)
        self._ones = self._zeros = None

    @property
    def takes_part(self) -> bool:
        return type(self) is BatchNorm2D and self.activation in (None, "relu")  # classes derived from it may do something else

    def _forward(self, x: Array, training: bool, out: Array | None = None) -> Array:
        ops, (weight, bias), running = self.device.ops, self.weight_and_bias(x), (self.mean.value, self.variance.value)
        relu, kept = self.activation == "relu", None
        if training and self.frozen:
            y = ops.batch_norm_apply(x, weight, bias, running, eps=self.eps, relu=relu, out=out)
        elif training:
            examples = x.shape[0] if self.part is None else self.part.size if self.sync else self.part.least
            if examples * math.prod(x.shape[2:]) < 2:
                raise ShapeError("batch normalization needs at least two numbers in each channel to train on: use a larger batch")
            if self.part is not None and self.sync:
                return self._shared_forward(x, weight, bias, running, out)
            y, *found = ops.batch_norm(x, weight, bias, running, momentum=self.momentum, eps=self.eps, relu=relu, out=out)
            kept = (found[0], found[1])
            if self.part is not None:
                shared.average(running, self.part, self.device.xp)
        else:
            return ops.batch_norm_apply(x, weight, bias, running, eps=self.eps, relu=relu, out=out)
        self._x, self._kept = x, kept
        return y

    def _backward(self, dy: Array, input_grad: bool, relu: bool = False) -> Array | None:
        ops, x, (weight, _) = self.device.ops, self._x, self.weight_and_bias(dy)
        if self._kept is None:  # the running statistics are constants
            if not input_grad:
                return None
            dx = ops.batch_norm_apply(dy, weight, self._zeros, (self._zeros, self.variance.value), eps=self.eps)
            return ops.relu_grad(dx, x, out=dx) if relu else dx
        if self.part is not None and self.sync:
            return self._shared_backward(dy, x, weight, input_grad, relu)
        with gradients(self.weight, self.bias) as (dweight, dbias):
            return ops.batch_norm_grad(dy, x, weight, self._kept, input_grad=input_grad, relu=relu, dweight=dweight, dbias=dbias)

    def _shared_forward(self, x: Array, weight: Array, bias: Array, running: tuple[Array, Array], out: Array | None) -> Array:
        """Normalizes with the statistics of a batch that several ranks share."""
        mean, variance = shared.moments(x, self.part, self.device.xp)
        relu = self.activation == "relu"
        y = self.device.ops.batch_norm_apply(x, weight, bias, (mean, variance), eps=self.eps, relu=relu, out=out)
        shared.move(running, (mean, variance), self.part.size * math.prod(x.shape[2:]), self.momentum, self.device.xp)
        self._x, self._kept = x, (mean, 1 / self.device.xp.sqrt(variance + x.dtype.type(self.eps)))
        return y

    def _shared_backward(self, dy: Array, x: Array, weight: Array, input_grad: bool, relu: bool) -> Array | None:
        assert self._kept is not None
        xp = self.device.xp
        with gradients(self.weight, self.bias) as sums:
            dweight, dbias = (xp.empty_like(weight) if own is None else own for own in sums)
            self.device.ops.batch_norm_grad(dy, x, weight, self._kept, input_grad=False, dweight=dweight, dbias=dbias)
        if not input_grad:
            return None
        dx = shared.input_gradient(dy, x, weight, self._kept, (dweight, dbias), self.part, xp)
        return self.device.ops.relu_grad(dx, x, out=dx) if relu else dx

    def weight_and_bias(self, like: Array) -> tuple[Array, Array]:
        """Weight and bias; ones and zeros if the layer has none."""
        if self._zeros is None or self._zeros.dtype != like.dtype:
            channels = (self.input_shape or ())[:1]
            self._ones, self._zeros = self.device.xp.ones(channels, like.dtype), self.device.xp.zeros(channels, like.dtype)
        return (self.weight.value, self.bias.value) if self.weight and self.bias else (self._ones, self._zeros)

    def constants(self) -> list[Array]:
        return [array for array in (self._ones, self._zeros) if array is not None]

    def forget(self) -> None:
        super().forget()
        self._x = self._kept = None

    def scratch(self, batch_size: int) -> tuple[int, int]:
        room = scratch(math.prod(self.output_shape) * batch_size)
        return room, 2 * room

    def cost(self) -> Cost:
        return self.costing(keeps_input=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_ones": None, "_zeros": None}

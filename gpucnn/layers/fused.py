"""Layers that run faster together and become one stage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpucnn.errors import GpucnnError
from gpucnn.layers.base import Array, Cost, Layer, Plan
from gpucnn.layers.beside import beside
from gpucnn.layers.conv import Conv2D
from gpucnn.layers.norm import BatchNorm2D
from gpucnn.layers.parameter import gradients
from gpucnn.layers.pool import MaxPool2D
from gpucnn.layers.stage import ALONE, Forward, Stage
from gpucnn.precision import bits


def stages(layers: Sequence[Layer]) -> list[Stage]:
    """The stages of layers in sequence. Stacks are unpacked; a convolution with ReLU and the max pooling after it become one stage."""
    found: list[Stage] = []
    for layer in [part for each in layers for part in each.layers]:
        before = found[-1] if found else None
        # Classes derived from these may do something else.
        if type(layer) is MaxPool2D and isinstance(before, Conv2D) and type(before) is Conv2D and before.activation == "relu":
            found[-1] = ConvReluMaxPool(before, layer)
        else:
            found.append(layer)
    return found


def for_predictions(found: Sequence[Stage]) -> list[Forward]:
    """The same stages as a forward pass for predictions runs them: a convolution and the batch normalization after it are one."""
    made: list[Forward] = []
    for stage in found:
        before = made[-1] if made else None
        if type(stage) is BatchNorm2D and stage.activation in (None, "relu") and isinstance(before, Conv2D) and before.is_linear:
            made[-1] = ConvBatchNorm(before, stage)
        else:
            made.append(stage)
    return made


class ConvBatchNorm:
    """Conv2D without an activation, then BatchNorm2D with its running statistics, which are constants. The result is bit-identical to
    that of one after the other; on a CPU, normalizing takes no pass over memory of its own. In training the statistics are known only when
    the convolution is done."""

    def __init__(self, conv: Conv2D, norm: BatchNorm2D) -> None:
        self.conv = conv
        self.norm = norm

    @property
    def layers(self) -> Sequence[Layer]:
        return (self.conv, self.norm)

    def forward(
        self,
        x: Array,
        training: bool = False,
        *,
        logits: bool = False,
        out: Array | None = None,
        added: Array | None = None,
        relu: bool = False,
    ) -> Array:
        """added: what is added to the output; relu: whether ReLU comes then. These are for a `Residual` that ends in this stage."""
        conv, norm = self.conv, self.norm
        bias = conv.bias.value if conv.bias else None
        affine, running = norm.weight_and_bias(x), (norm.mean.value, norm.variance.value)
        relu = relu or norm.activation == "relu"
        options = {"eps": norm.eps, "relu": relu, "added": added, "out": out, "bits": bits(conv.precision)}
        y: Array = conv.device.ops.conv2d_batch_norm_apply(x, conv.weight.value, bias, conv.window, conv.groups, affine, running, **options)
        return y


class ConvReluMaxPool:
    """Conv2D with ReLU, then MaxPool2D. The convolution's output is not kept for backward and, where one kernel does both, never
    written."""

    passes_on = False
    keeps_relu = False
    takes_relu_grad = True
    ends_in_relu = True
    masks_itself = True  # on a GPU the gradient of its weight reads the mask at no cost; that of a layer behind it would take longer
    takes_part = True

    def __init__(self, conv: Conv2D, pool: MaxPool2D) -> None:
        self.conv = conv
        self.pool = pool
        self._kept: tuple[Array, Array, Array] | None = None  # input, output and the indices of the maxima

    @property
    def layers(self) -> Sequence[Layer]:
        return (self.conv, self.pool)

    @property
    def trained(self) -> bool:
        return self.conv.trained

    def forward(self, x: Array, training: bool = False, *, logits: bool = False, out: Array | None = None) -> Array:
        conv, ops = self.conv, self.conv.device.ops
        bias = conv.bias.value if conv.bias else None
        options = {"out": out, "places": training, "bits": bits(conv.precision)}
        y, indices = ops.conv2d_relu_max_pool2d(x, conv.weight.value, bias, conv.window, self.pool.window, conv.groups, **options)
        if training:
            self._kept = (x, y, indices)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True, plan: Plan = ALONE) -> Array | None:
        if self._kept is None:
            raise GpucnnError(f"backward of layer {self.pool.name!r} needs a forward with training=True before it, once for each backward")
        conv, ops, (x, y, indices) = self.conv, self.conv.device.ops, self._kept
        window, pool_window, groups, relu = conv.window, self.pool.window, conv.groups, None if plan.relu_taken else y
        self.forget()
        if not input_grad:
            if conv.frozen:
                return None
            with gradients(conv.weight, conv.bias) as (out, dbias):
                ops.conv2d_relu_max_pool2d_weight_grad(
                    dy, indices, x, window, pool_window, groups, relu=relu, out=out, dbias=dbias, bits=bits(conv.precision)
                )
            return None
        dconv = ops.max_pool2d_grad(dy, indices, pool_window, relu=relu)
        with beside() as apart:
            if not conv.frozen:
                with apart, gradients(conv.weight, conv.bias) as (out, dbias):
                    ops.conv2d_weight_grad(dconv, x, window, groups, out=out, dbias=dbias, bits=bits(conv.precision))
            relu_output = x if plan.takes_relu else None
            return ops.conv2d_input_grad(dconv, conv.weight.value, window, groups, relu=relu_output, bits=bits(conv.precision))

    def forget(self) -> None:
        self._kept = None

    def scratch(self, batch_size: int) -> tuple[int, int]:
        conv, pool = self.conv.scratch(batch_size), self.pool.scratch(batch_size)
        return max(conv[0], pool[0]), max(conv[1], pool[1])

    def costs(self) -> list[Cost]:
        indices = math.prod(self.pool.output_shape)
        return [Cost(self.conv.cost().multiply_adds, keeps_input=True), Cost(kept=indices, keeps_output=True)]

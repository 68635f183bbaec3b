"""Pooling."""

from __future__ import annotations

import math
from typing import Any

from gpucnn.checks import flag, pair
from gpucnn.layers.base import Array, Cost, Layer, Shape
from gpucnn.layers.conv import check_image
from gpucnn.ops.cpu.pool import scratch
from gpucnn.ops.shapes import normalize_padding, pool_window
from gpucnn.signatures import Padding, Size

__all__ = [
    "AveragePooling2D",
    "AvgPool2D",
    "GlobalAveragePooling2D",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "GlobalMaxPooling2D",
    "MaxPool2D",
    "MaxPooling2D",
]


class _Pool2D(Layer):
    def __init__(self, pool_size: Size = 2, stride: Size | None = None, *, padding: Padding = 0, ceil_mode: bool = False) -> None:
        super().__init__()
        self.pool_size = pair(pool_size, "pool_size", 1)
        self.stride = self.pool_size if stride is None else pair(stride, "stride", 1)
        self.padding = normalize_padding(padding)
        self.ceil_mode = flag(ceil_mode, "ceil_mode")

    def settings(self) -> dict[str, Any]:
        return {"pool_size": self.pool_size, "stride": self.stride, "padding": self.padding, "ceil_mode": self.ceil_mode}

    def _build(self, input_shape: Shape) -> Shape:
        c, h, w = check_image(self, input_shape)
        dilation = getattr(self, "dilation", 1)
        self.window = pool_window((h, w), self.pool_size, self.stride, self.padding, dilation, self.ceil_mode)
        return (c, *self.window.output)

    @property
    def takes_part(self) -> bool:
        return type(self) in (MaxPool2D, AvgPool2D)  # classes derived from them may do something else

    def scratch(self, batch_size: int) -> tuple[int, int]:
        room = scratch(math.prod(self.input_shape or ()) * batch_size)
        return room, room


class MaxPool2D(_Pool2D):
    """The largest pixel of each window: (C, H, W) → (C, P, Q). `stride` defaults to the size of the window.

    Of equal values the first wins; NaN wins over numbers; padding never wins. The arguments are PyTorch's, plus padding "valid" and "same".
    """

    replays = True

    def __init__(
        self, pool_size: Size = 2, stride: Size | None = None, *, padding: Padding = 0, dilation: Size = 1, ceil_mode: bool = False
    ) -> None:
        super().__init__(pool_size, stride=stride, padding=padding, ceil_mode=ceil_mode)
        self.dilation = pair(dilation, "dilation", 1)
        self._indices: Array | None = None

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "dilation": self.dilation}

    def _forward(self, x: Array, training: bool, out: Array | None = None) -> Array:
        y, indices = self.device.ops.max_pool2d(x, self.window, out=out, places=training)
        if training:
            self._indices = indices
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return self.device.ops.max_pool2d_grad(dy, self._indices, self.window) if input_grad else None

    def forget(self) -> None:
        super().forget()
        self._indices = None

    def cost(self) -> Cost:
        return Cost(kept=math.prod(self.output_shape))


class AvgPool2D(_Pool2D):
    """The mean of each window: (C, H, W) → (C, P, Q). Explicit padding counts unless `count_include_pad` is False; "same" never counts."""

    replays = True

    def __init__(
        self,
        pool_size: Size = 2,
        stride: Size | None = None,
        *,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(pool_size, stride=stride, padding=padding, ceil_mode=ceil_mode)
        self.count_include_pad = flag(count_include_pad, "count_include_pad")

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "count_include_pad": self.count_include_pad}

    def _forward(self, x: Array, training: bool, out: Array | None = None) -> Array:
        return self.device.ops.avg_pool2d(x, self.window, self.count_include_pad, out=out)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return self.device.ops.avg_pool2d_grad(dy, self.window, self.count_include_pad) if input_grad else None


class GlobalAvgPool2D(Layer):
    """The mean of each channel: (C, H, W) → (C,)."""

    replays = True

    def __init__(self) -> None:
        super().__init__()

    def _build(self, input_shape: Shape) -> Shape:
        return check_image(self, input_shape)[:1]

    def _forward(self, x: Array, training: bool) -> Array:
        return self.device.ops.global_avg_pool2d(x)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return self.device.ops.global_avg_pool2d_grad(dy, (self.input_shape or ())[1:]) if input_grad else None


class GlobalMaxPool2D(Layer):
    """The largest pixel of each channel: (C, H, W) → (C,). Of equal values the first wins; NaN wins over numbers."""

    def __init__(self) -> None:
        super().__init__()
        self._indices: Array | None = None

    def _build(self, input_shape: Shape) -> Shape:
        return check_image(self, input_shape)[:1]

    def _forward(self, x: Array, training: bool) -> Array:
        y, indices = self.device.ops.global_max_pool2d(x)
        if training:
            self._indices = indices
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return self.device.ops.global_max_pool2d_grad(dy, self._indices, (self.input_shape or ())[1:]) if input_grad else None

    def forget(self) -> None:
        super().forget()
        self._indices = None

    def cost(self) -> Cost:
        return Cost(kept=math.prod(self.output_shape))


# Second names.
AveragePooling2D = AvgPool2D
GlobalAveragePooling2D = GlobalAvgPool2D
GlobalMaxPooling2D = GlobalMaxPool2D
MaxPooling2D = MaxPool2D

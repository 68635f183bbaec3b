"""Dropout."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from gpucnn.checks import fraction
from gpucnn.device import Device, to_numpy
from gpucnn.layers.base import Array, Layer, Shape

__all__ = ["Dropout"]


class Dropout(Layer):
    """In training, sets elements to zero with probability `rate` and divides the others by 1 − rate; otherwise returns x unchanged.

    TensorFlow 1 takes the probability of keeping an element: its keep_prob 0.75 is a rate of 0.25 here.

    The mask is a function of (seed, number of the call). Only that number is kept for backward, and a resumed run draws the same masks as
    an uninterrupted one. The number is in the device's memory, so that a recorded step can count.
    """

    replays = True
    passes_on = True
    keeps_relu = True
    checks: ClassVar = {**Layer.checks, "rate": fraction}

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        self.rate = rate
        self._seed = 0
        self._calls: Array = None

    def settings(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def to_device(self, device: Device, seed: int) -> None:
        super().to_device(device, seed)
        self._seed, self._calls = seed, device.xp.zeros(2, "uint32")

    def _build(self, input_shape: Shape) -> Shape:
        return input_shape

    def _forward(self, x: Array, training: bool) -> Array:
        if not training or self.rate == 0:
            return x
        self.device.ops.next_call(self._calls)
        return self.device.ops.dropout(x, self._calls, self.rate, self._seed, **self._before())

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        if not input_grad or self.rate == 0:
            return dy if input_grad else None
        return self.device.ops.dropout(dy, self._calls, self.rate, self._seed, **self._before())

    def _before(self) -> dict[str, int]:
        """The number of elements of the ranks before this one if they share a batch, because the mask depends on an element's index."""
        return {} if self.part is None else {"first": self.part.first * math.prod(self.output_shape)}

    def scratch(self, batch_size: int) -> tuple[int, int]:
        words = 8 * math.prod(self.output_shape) * batch_size  # of the generator, which uses 64 bits
        return words, words

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_calls": None}  # on the layer's device; `state` says how many there were

    def state(self) -> dict[str, int]:
        low, high = to_numpy(self._calls).tolist()
        return {"calls": low | high << 32}

    def counters(self) -> list[Array]:
        return [self._calls]

    def restore(self, state: dict[str, int]) -> None:
        calls = int(state["calls"])
        self._calls[...] = self.device.array([calls & 0xFFFFFFFF, calls >> 32], "uint32")

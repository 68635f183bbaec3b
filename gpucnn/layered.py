"""The forward and backward passes of a model, and the checks of what it is given. This module knows nothing about training."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.arrays import examples, numbers, on_a_gpu, pixels
from gpucnn.built import Built
from gpucnn.checks import flag
from gpucnn.errors import ShapeError
from gpucnn.layers.base import Array
from gpucnn.layers.chain import outputs_of
from gpucnn.layout import FIRST, LAST, check_format, hint, in_order
from gpucnn.signatures import DataFormat


class Layered(Built):
    """Layers that can be run. `Sequential` adds training."""

    def forward(self, x: Any, training: bool = False, *, logits: bool = False) -> Array:
        """The model's output for a batch (N, …), an array on the model's device. uint8 pixels are divided by 255, as `fit` does.

        With `training`, dropout is active and what backward needs is kept; without, nothing is kept, and what an earlier call kept stays.
        `logits` leaves out a final softmax or sigmoid.
        """
        y = self._input(x)
        if flag(training, "training"):
            self._batch = int(y.shape[0])
        return self.chain.forward(y, training, logits=flag(logits, "logits"))

    def __call__(self, x: Any, training: bool = False) -> Array:
        """model(x) is `model.forward(x)`."""
        return self.forward(x, training)

    def backward(self, dy: Array, *, input_grad: bool = False) -> Array | None:
        """Adds to the gradient of every parameter, given the gradient of the output. Returns the gradient of the input if `input_grad`."""
        self._built()
        dy = self.device.array(dy if on_a_gpu(dy) else numbers(dy, "the output's gradient"), self.dtype)
        if dy.ndim == 0 or tuple(dy.shape[1:]) != self.output_shape:
            expected = ", ".join(map(str, self.output_shape))
            raise ShapeError(f"the output's gradient must have shape (batch, {expected}), got {tuple(dy.shape)}")
        if self._batch and dy.shape[0] != self._batch:
            raise ShapeError(f"the last forward had a batch of {self._batch}, the output's gradient has {dy.shape[0]}")
        return self.chain.backward(dy, input_grad=flag(input_grad, "input_grad"))

    def features(self, x: Any, name: str) -> Array:
        """The output of the layer called `name` for a batch x (see `forward`), an array on the model's device."""
        return outputs_of(self[name], self.layers, self._input(x))

    # Checks.

    def _check_shape(self, shape: Any, *mend: str, given: tuple[int, ...] | None = None) -> None:
        """given: the shape with the channels last, as the caller had it; errors then use that order."""
        if len(shape) < 1 or tuple(shape[1:]) != self.input_shape:
            takes = self.input_shape if given is None else (*self.input_shape[1:], self.input_shape[0])
            found = tuple(shape) if given is None else given
            more = hint(found, self.input_shape, *mend, last=given is not None)
            raise ShapeError(f"the model takes examples of shape (batch, {', '.join(map(str, takes))}), got {found}{more}")
        if not shape[0]:
            raise ShapeError("the batch is empty: give at least one example")

    def _input(self, x: Any) -> Array:
        self._built()
        plain = self.device.kind == "cpu" and type(x) is np.ndarray and x.dtype == self.dtype and x.flags.c_contiguous
        if plain and x.shape[1:] == self.input_shape and len(x):  # as most are, and one image feels the time that the rest takes
            return x
        if not on_a_gpu(x):  # an array on the GPU stays there
            x = numbers(x, "examples")
        x = in_order(x, self.input_shape, FIRST)
        self._check_shape(x.shape, "forward takes channels first, x.transpose(0, 3, 1, 2)")
        if x.dtype.kind in "iu":
            return self.device.array(pixels(x, "examples"), self.dtype) / self.dtype.type(255)
        return self.device.array(x, self.dtype)

    def _examples(self, x: Any, data_format: DataFormat | None = None) -> np.ndarray[Any, Any]:
        """A whole set of examples on the host, checked, channels first: pixels as uint8, everything else with the model's dtype."""
        self._built()
        array, order = numbers(x, "examples"), check_format(data_format) or self.data_format
        given = in_order(array, self.input_shape, order)
        last = order == LAST and len(self.input_shape) == 3 and array.ndim == 4
        self._check_shape(given.shape, given=tuple(array.shape) if last else None)
        return examples(given, self.dtype)

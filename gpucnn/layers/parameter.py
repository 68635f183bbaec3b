"""The arrays of layers: trained parameters, arrays that are saved but not trained, and the flat buffers that hold both.

Parameters and gradients of all layers of a model lie in two flat buffers, so that an optimizer step is one operation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeAlias, TypeVar

import numpy as np

from gpucnn.arrays import numbers, on_a_gpu
from gpucnn.device import Device, of
from gpucnn.errors import GpucnnError, ShapeError
from gpucnn.initializers import Given, get_initializer
from gpucnn.text import listed, plain, shown

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray
Shape: TypeAlias = tuple[int, ...]  # of one example: (C, H, W) or (features,), without the batch

TAIL = 32  # elements behind the gradients, for what several ranks sum along with them (training/team.py)
Held = TypeVar("Held", bound="SavedArray")

ALIGNMENT = 32  # elements: an array starts at a multiple of 128 bytes, so that kernels can load 16 bytes at a time


class SavedArray:
    """An array of a layer that is saved and restored but not trained, such as a running mean; `fill` is its initial value. It is a view
    into a flat buffer of the model, and assigning to it writes there."""

    kind = "array"

    def __init__(self, name: str, shape: Shape, fill: float = 0.0) -> None:
        if not isinstance(shape, list | tuple) or not all(isinstance(size, int | np.integer) and size > 0 for size in shape):
            raise ShapeError(f"{self.kind} {name!r} must have a shape of integers of at least 1, got {shown(shape)}")
        self.name = name
        self.shape = tuple(map(int, shape))
        self.fill = fill
        self._value: Array = None

    def __repr__(self) -> str:
        state = "not built" if self.value is None else str(self.value.dtype)
        frozen = ", frozen" if getattr(self, "frozen", False) else ""
        return f"<{type(self).__name__} {plain(self.name)} {tuple(self.shape)}, {state}{frozen}>"

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def value(self) -> Array:
        """The array; None before the model is built."""
        return self._value

    @value.setter
    def value(self, array: Any) -> None:
        self._write(self._value, array)

    def bind(self, value: Array) -> None:
        """Sets the array, for `Buffers`, which holds it."""
        self._value = value

    def _write(self, into: Array, array: Any) -> None:
        if into is None:
            raise GpucnnError(f"{self.kind} {self.name!r} has no array yet: call model.build(input_shape) first, then assign")
        if array is into:  # the assignment in `value += 1`, which has already happened in place
            return
        given = array if on_a_gpu(array) else numbers(array, f"values of {self.name!r}")
        if tuple(given.shape) not in ((), self.shape):
            raise ShapeError(f"{self.kind} {self.name!r} has shape {self.shape}, got an array of shape {tuple(given.shape)}")
        into[...] = of(into).array(given, into.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_value": None}  # `Buffers` holds it


class Parameter(SavedArray):
    """A trained array: `value`, and `grad` of the same shape. Both are views into the model's flat buffers, and assigning to them writes
    there. groups: for the weight of a grouped convolution, whose outputs read only a part of the inputs."""

    kind = "parameter"

    def __init__(self, name: str, shape: Shape, initializer: Given, *, groups: int = 1) -> None:
        super().__init__(name, shape)
        get_initializer(initializer)
        self.initializer = initializer
        self.groups = groups
        self.frozen = False  # of a layer that is not trained (Layer.trainable): it has no gradient
        self.has_grad = False
        self._grad: Array = None

    @property
    def grad(self) -> Array:
        """The gradient, summed over all backward passes since the last `zero_grad`; zeros if there were none. Writable. None for a
        frozen parameter and before the model is built."""
        if not self.has_grad and self._grad is not None:
            self._grad[...] = 0
            self.has_grad = True  # from now on the contents count: they may be written by hand, and backward adds to them
        return self._grad

    @grad.setter
    def grad(self, array: Any) -> None:
        if self.frozen:
            raise GpucnnError(f"parameter {self.name!r} is frozen and has no gradient: set its layer's trainable to True first")
        self._write(self._grad, array)
        self.has_grad = True

    @property
    def gradient_room(self) -> Array:
        """The array of the gradient, whatever it holds: it counts from the next `has_grad` on."""
        return self._grad

    def draw(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """The initial value."""
        return get_initializer(self.initializer)(self.shape, rng, self.groups)

    def bind(self, value: Array, grad: Array = None) -> None:
        """Sets the arrays of the parameter, for `Buffers`, which holds them."""
        self._value, self._grad, self.has_grad = value, grad, False

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_grad": None}

    def add_grad(self, gradient: Array | Callable[[Array | None], Array]) -> None:
        """Adds an array to the gradient. A frozen parameter has none, and nothing is done.

        gradient: the array, or a function that computes it, which is called unless the parameter is frozen. It gets an array that it may
            write the gradient to, or None, and returns the gradient.
        """
        if self.frozen:
            return
        if self.has_grad:
            self._grad += self._fitting(gradient(None) if callable(gradient) else gradient)
            return
        found = gradient(self._grad) if callable(gradient) else gradient
        if found is not self._grad and not (found is None and callable(gradient)):  # a function that has written may return nothing
            self._grad[...] = self._fitting(found)
        self.has_grad = True

    def _fitting(self, gradient: Any) -> Array:
        """A gradient of the parameter's shape; a number for a parameter that is one. ShapeError for others, which might be broadcast."""
        shape = tuple(getattr(gradient, "shape", ()))
        if shape != self.shape and not (shape == () and self.size == 1):
            raise ShapeError(
                f"the gradient of parameter {self.name!r} must have its shape, {self.shape}, got {shape}: sum over the other axes"
            )
        return gradient


@contextmanager
def gradients(*parameters: Parameter | None) -> Iterator[list[Array | None]]:
    """The arrays that the block must fill with the gradients of these parameters: their own buffers the first time after `zero_grad`,
    otherwise temporary arrays, which are added when the block ends. None for None, a missing bias."""
    targets = [None if each is None else each._grad.copy() if each.has_grad else each._grad for each in parameters]
    yield targets
    for parameter, target in zip(parameters, targets, strict=True):
        if parameter is not None and parameter.has_grad:
            parameter._grad += target
        elif parameter is not None:
            parameter.has_grad = True


class ByName(dict[str, Held]):
    """Parameters or other arrays by name. Assigning to a name writes to its array."""

    def __setitem__(self, name: str, array: Any) -> None:
        if name not in self:
            raise KeyError(f"there is no {name!r}: the names are {listed(list(self))}")
        if array is not self[name]:
            self[name].value = array

    def __missing__(self, name: Any) -> NoReturn:
        raise KeyError(f"there is no {shown(name)}: the names are {listed(list(self))}")

    def __call__(self) -> NoReturn:
        """For users of PyTorch, where `parameters` is a method."""
        raise TypeError(
            "parameters are a dict by name, not a method: compile(optimizer) trains all of them, and so does an optimizer after "
            "optimizer.attach(model.buffers)"
        )


class View:
    """A part of the flat buffer of values, for optimizers that treat each number by itself."""

    def __init__(self, values: Array, device: Device) -> None:
        self._values, self.device = values, device

    @property
    def values(self) -> Array:
        """All values, flat. Assigning to it writes to the buffer, which the parameters are views of."""
        return self._values

    @values.setter
    def values(self, array: Array) -> None:
        write(array, self._values, "values")


class Buffers(View):
    """The flat buffers behind the arrays of a model, on one device: `values` and gradients of the trained parameters, and `saved`,
    everything that is not trained: other arrays and frozen parameters."""

    def __init__(self, parameters: Sequence[Parameter], device: Device, dtype: np.dtype[Any], arrays: Sequence[SavedArray] = ()) -> None:
        self._drawn = list(parameters)
        self.parameters = [each for each in parameters if not each.frozen]
        self.arrays = [*arrays, *(each for each in parameters if each.frozen)]
        size = sum(map(_room, self.parameters))
        super().__init__(device.xp.zeros(size, dtype), device)
        self.replaced = False  # by newer buffers for the same arrays: an optimizer of these would have no effect
        self.summed = device.xp.zeros(size + TAIL, dtype)  # gaps between parameters stay zero forever
        self._gradients, self.tail = self.summed[:size], self.summed[size:]
        self.offsets = list(itertools.accumulate(map(_room, self.parameters), initial=0))[:-1]  # where each parameter begins
        self.saved = device.xp.zeros(sum(map(_room, self.arrays)), dtype)
        for parameter, value, grad in zip(
            self.parameters, _views(self.values, self.parameters), _views(self._gradients, self.parameters), strict=True
        ):
            parameter.bind(value, grad)
        for array, value in zip(self.arrays, _views(self.saved, self.arrays), strict=True):
            array.bind(value)

    def initialize(self, seed: int) -> None:
        """Initializes every parameter again and resets the other arrays; parameter i depends only on (seed, i)."""
        for index, parameter in enumerate(self._drawn):
            rng = np.random.default_rng([seed, index])
            parameter.value[...] = self.device.xp.asarray(parameter.draw(rng).astype(self.values.dtype))
        for array in self.arrays:
            if not isinstance(array, Parameter):
                array.value[...] = array.fill

    @property
    def size(self) -> int:
        """The length of `copy()`."""
        return int(self.values.size + self.saved.size)

    def copy(self) -> Array:
        """A copy of a model's parameters and saved arrays, flat."""
        return self.device.xp.concatenate([self.values, self.saved])

    def put(self, flat: Array) -> None:
        """Restores a `copy()`."""
        self.values[...], self.saved[...] = flat[: self.values.size], flat[self.values.size :]

    def all_gradients(self, part: slice = slice(None)) -> Array:
        """All gradients, flat, in the order of `values`; or those of a part, which begins and ends where a parameter does."""
        first, last, _ = part.indices(self.values.size)
        for parameter, offset in zip(self.parameters, self.offsets, strict=True):
            if first <= offset < last and not parameter.has_grad:
                parameter._grad[...] = 0
        return self._gradients[part]

    def view(self, part: slice) -> View:
        """A part of the values."""
        return View(self.values[part], self.device)

    def forget_gradients(self) -> None:
        """Makes the next backward write gradients instead of adding to them."""
        for parameter in self.parameters:
            parameter.has_grad = False


def write(array: Array, into: Array, name: str) -> None:
    """Writes an array to a buffer, in place of which it was assigned. ShapeError for one of another shape, which might be broadcast."""
    if array is into:  # the assignment in `values -= 1`, which has already happened in place
        return
    if tuple(getattr(array, "shape", ())) != tuple(into.shape):
        raise ShapeError(f"{name} has shape {tuple(into.shape)}, got {tuple(getattr(array, 'shape', ()))}")
    into[...] = array


def _room(array: SavedArray) -> int:
    """The distance in elements from the start of an array to the start of the next."""
    return -(-array.size // ALIGNMENT) * ALIGNMENT


def _views(flat: Array, arrays: Sequence[SavedArray]) -> Iterator[Array]:
    """The slice of a flat buffer for each array, in its shape."""
    offset = 0
    for array in arrays:
        yield flat[offset : offset + array.size].reshape(array.shape)
        offset += _room(array)

"""What every layer is, and where its parameters live.

A layer is built once, for one shape of input: it checks its sizes there, declares its parameters, and from then on only computes.
Parameters and gradients of all layers of a model lie in two flat buffers, so that an optimizer step is one operation.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

from gpucnn.arrays import numbers, on_a_gpu
from gpucnn.checks import pick
from gpucnn.device import Device, of
from gpucnn.errors import GpucnnError, ShapeError
from gpucnn.initializers import get_initializer
from gpucnn.ops.shapes import LIMIT
from gpucnn.text import shown

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray
Shape: TypeAlias = tuple[int, ...]  # of one example: (C, H, W) or (features,), without the batch

ACTIVATIONS = {"relu": "relu_grad", "sigmoid": "sigmoid_grad", "softmax": "softmax_grad"}
ALIGNMENT = 32  # elements: a parameter starts at a multiple of 128 bytes, so that kernels can load 16 bytes at a time


class Parameter:
    """A trained array: `value`, and `grad` of the same shape; both are views into the model's flat buffers, and what is assigned to them
    is written there. groups: of a grouped convolution's weight, whose outputs see a part of the inputs."""

    def __init__(self, name: str, shape: Shape, initializer: str, *, groups: int = 1) -> None:
        self.name = name
        self.shape = shape
        self.initializer = initializer
        self.groups = groups
        self.has_grad = False
        self._value: Array = None
        self._grad: Array = None

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

    @property
    def grad(self) -> Array:
        """The gradient, summed over all backward passes since the last `zero_grad`; zeros where there were none. May be written to."""
        if not self.has_grad:
            self._grad[...] = 0
            self.has_grad = True  # from now on what is there counts: it may be written by hand, and backward adds to it
        return self._grad

    @grad.setter
    def grad(self, array: Any) -> None:
        self._write(self._grad, array)
        self.has_grad = True

    def bind(self, value: Array, grad: Array) -> None:
        """Makes these arrays the parameter's: for `Buffers`, which holds them."""
        self._value, self._grad, self.has_grad = value, grad, False

    def _write(self, into: Array, array: Any) -> None:
        if into is None:
            raise GpucnnError(f"parameter {self.name!r} has no array yet: call model.build(input_shape) first, then assign")
        if array is into:  # of `value += 1`, which has been done
            return
        given = array if on_a_gpu(array) else numbers(array, f"values of {self.name!r}")
        if tuple(given.shape) not in ((), self.shape):
            raise ShapeError(f"parameter {self.name!r} has shape {self.shape}, got an array of shape {tuple(given.shape)}")
        into[...] = of(into).array(given, into.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_value": None, "_grad": None}  # `Buffers` holds them

    def add_grad(self, compute: Callable[[Array | None], Array]) -> None:
        """Adds `compute(out)` to the gradient; the first time after `zero_grad` it is written in place, with no sum."""
        if self.has_grad:
            self._grad += compute(None)
        else:
            compute(self._grad)
            self.has_grad = True


def add_grads(weight: Parameter, bias: Parameter | None, compute: Callable[[Array | None, Array | None], Array]) -> None:
    """`Parameter.add_grad` for a weight and its bias, whose gradients are computed together: `compute(out, dbias)`."""
    if bias is None:
        weight.add_grad(lambda out: compute(out, None))
        return
    dbias = bias._grad.copy() if bias.has_grad else bias._grad
    weight.add_grad(lambda out: compute(out, dbias))
    if bias.has_grad:
        bias._grad += dbias
    bias.has_grad = True


class Buffers:
    """The flat buffers behind the parameters of a model: `values` and gradients, 1-D, on one device."""

    def __init__(self, parameters: Sequence[Parameter], device: Device, dtype: np.dtype[Any]) -> None:
        self.parameters = list(parameters)
        self.device = device
        size = sum(-(-parameter.size // ALIGNMENT) * ALIGNMENT for parameter in self.parameters)
        self.values = device.xp.zeros(size, dtype)
        self._gradients = device.xp.zeros(size, dtype)  # gaps between parameters stay zero for ever
        offset = 0
        for parameter in self.parameters:
            part = slice(offset, offset + parameter.size)
            parameter.bind(self.values[part].reshape(parameter.shape), self._gradients[part].reshape(parameter.shape))
            offset += -(-parameter.size // ALIGNMENT) * ALIGNMENT

    def initialize(self, seed: int) -> None:
        """Draws every parameter anew; parameter i depends on (seed, i) alone."""
        for index, parameter in enumerate(self.parameters):
            rng = np.random.default_rng([seed, index])
            drawn = get_initializer(parameter.initializer)(parameter.shape, rng, parameter.groups)
            parameter.value[...] = self.device.xp.asarray(drawn.astype(self.values.dtype))

    def all_gradients(self) -> Array:
        """All gradients, flat, in the order of `values`."""
        for parameter in self.parameters:
            if not parameter.has_grad:
                parameter._grad[...] = 0
        return self._gradients

    def forget_gradients(self) -> None:
        """The next backward writes gradients instead of adding to them."""
        for parameter in self.parameters:
            parameter.has_grad = False


def too_many(shape: Shape) -> str:
    """What is wrong with an array of so many elements."""
    return f"an array of shape {shown(shape)}, which has more than 2³¹ − 1 numbers: use smaller sizes"


def _config(value: Any) -> Any:
    """A setting as it is; the layers in it as their `config()`."""
    if isinstance(value, Layer):
        return value.config()
    return type(value)(map(_config, value)) if type(value) in (list, tuple) else value


def derived_seed(seed: int, index: int) -> int:
    """The seed, of 64 bits, of the part `index` of something that has the seed `seed`."""
    low, high = np.random.SeedSequence([seed, index]).generate_state(2)
    return int(low) | int(high) << 32


@dataclass(frozen=True)
class Cost:
    """What one example costs in a layer."""

    multiply_adds: int = 0
    kept: int = 0  # elements kept from forward for backward, besides
    keeps_input: bool = False
    keeps_output: bool = False


class Stage(Protocol):
    """What a model runs: a layer, or several as one (conv/pooled.py). Its methods are described at `Layer`."""

    @property
    def passes_on(self) -> bool: ...
    @property
    def passes_mask(self) -> bool: ...
    @property
    def takes_relu_grad(self) -> bool: ...
    @property
    def layers(self) -> Sequence[Layer]: ...
    @property
    def trained(self) -> bool: ...
    @property
    def relu_output(self) -> Array | None: ...
    def forward(self, x: Array, training: bool = False, *, logits: bool = False) -> Array: ...
    def backward(
        self, dy: Array, *, input_grad: bool = True, overwrite: bool = False, relu: Array | None = None, masked: bool = False
    ) -> Array | None: ...
    def forget(self) -> None: ...
    def scratch(self, batch_size: int) -> tuple[int, int]: ...
    def costs(self) -> list[Cost]: ...


class Layer:
    """Base of all layers.

    A layer implements `_build`, `_forward` and `_backward`; an activation that follows, `activation="relu"` and the like, is handled
    here for all of them. x, y, dx and dy have the batch first. A layer whose `_backward` may return dy itself or a view of it says so
    with `passes_on = True`: what backward returns is used as scratch otherwise. One whose `_backward` has a keyword `relu`, and takes
    the gradient of the ReLU before the layer along with its own, says `takes_relu_grad = True`.
    """

    fuses_relu: ClassVar[bool] = False  # `_forward` applies ReLU itself
    passes_on: ClassVar[bool] = False  # `_backward` may return dy itself, or a view of it
    takes_relu_grad: ClassVar[bool] = False  # `_backward` has a keyword `relu`
    is_view: ClassVar[bool] = False  # the output is the input's memory
    passes_mask: ClassVar[bool] = False  # `_backward` leaves zeros where they are: ReLU's gradient may as well be taken before it

    def __init__(self, activation: str | None = None) -> None:
        if activation is not None:
            pick(activation, ACTIVATIONS, "activation")
        self.activation = activation
        self.name = type(self).__name__.lower()
        self.parameters: list[Parameter] = []
        self.input_shape: Shape | None = None
        self.output_shape: Shape = ()
        self.device: Device
        self._output: Array | None = None  # the activation's output, kept for backward
        self._applied: str | None = None
        self._ready = False
        self._owner: weakref.ref[Any] | None = None  # the model that was built with this layer

    # What a layer implements.

    def _build(self, input_shape: Shape) -> Shape:
        """Checks that the layer fits, declares its parameters and returns the shape of its output."""
        raise NotImplementedError

    def _forward(self, x: Array, training: bool) -> Array:
        raise NotImplementedError

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        return {}

    def cost(self) -> Cost:
        """Multiply-adds of one example in forward, and what is kept for its backward."""
        return Cost(keeps_output=self.activation is not None)

    # What a model calls.

    def build(self, input_shape: Shape) -> Shape:
        """Fixes the layer's sizes for inputs of `input_shape` (without the batch). Raises ShapeError where they do not fit."""
        self.forget()
        self.parameters = []
        self.input_shape = input_shape
        self.output_shape = self._build(input_shape)
        for parameter in self.parameters:
            if parameter.size >= LIMIT:
                raise ShapeError(f"its {parameter.name} would be {too_many(parameter.shape)}")
        if math.prod(self.output_shape) >= LIMIT:
            raise ShapeError(f"its output for an example would be {too_many(self.output_shape)}")
        return self.output_shape

    def place(self, device: Device, seed: int) -> None:
        """Tells the layer where it runs; `seed` is its own, for layers that draw random numbers."""
        self.device = device
        for index, inner in enumerate(self.inner().values()):
            inner.place(device, derived_seed(seed, index))

    def inner(self) -> dict[str, Layer]:
        """The layers that this one is made of, by the names of its attributes, with a number or a key where one holds several."""
        found: dict[str, Layer] = {}
        for name, value in vars(self).items():
            parts: dict[str, Any] = {name: value}
            if isinstance(value, list | tuple):
                parts = {f"{name}.{index}": part for index, part in enumerate(value)}
            elif isinstance(value, dict):
                parts = {f"{name}.{key}": part for key, part in value.items()}
            found |= {path: part for path, part in parts.items() if isinstance(part, Layer)}
        return found

    def walk(self, path: str = "") -> dict[str, Layer]:
        """The layer itself as `path`, and all that it is made of by their paths, each once."""
        found: dict[str, Layer] = {path: self}
        seen, ahead = {id(self)}, [(path, self)]
        while ahead:
            above, layer = ahead.pop(0)
            for name, inner in layer.inner().items():
                if id(inner) not in seen:
                    seen.add(id(inner))
                    ahead.append((f"{above}.{name}" if above else name, inner))
                    found[ahead[-1][0]] = inner
        return found

    def named_parameters(self, path: str = "") -> list[tuple[str, Parameter]]:
        """Every parameter of the layer, and of the layers that it is made of, with its path. None is there twice."""
        found: dict[int, tuple[str, Parameter]] = {}
        for name, layer in reversed(self.walk(path).items()):  # a layer may list what belongs to one within it: it has the longer path
            for parameter in layer.parameters:
                found.setdefault(id(parameter), (f"{name}.{parameter.name}" if name else parameter.name, parameter))
        order = {id(parameter): None for layer in self.walk().values() for parameter in layer.parameters}
        return [found[key] for key in order]

    @property
    def trained(self) -> bool:
        """Whether anything in the layer is trained."""
        return any(layer.parameters for layer in self.walk().values())

    def forward(self, x: Array, training: bool = False, *, logits: bool = False) -> Array:
        """The layer's output; with `training`, what backward needs is kept. `logits` leaves a final softmax or sigmoid off."""
        y = self._forward(x, training)
        applied = None if logits and self.activation != "relu" else self.activation
        if applied and not (applied == "relu" and self.fuses_relu):
            y = getattr(self.device.ops, applied)(y)
        if training:  # a forward for an answer keeps nothing, and leaves what is kept for a backward alone
            self._applied, self._output, self._ready = applied, y if applied else None, True
        return y

    @property
    def layers(self) -> Sequence[Layer]:
        """The layer itself, as a stage of a model (conv/pooled.py)."""
        return (self,)

    @property
    def relu_output(self) -> Array | None:
        """The output of the last forward, where ReLU made it and `backward` is due."""
        return self._output if self._applied == "relu" else None

    def backward(
        self, dy: Array, *, input_grad: bool = True, overwrite: bool = False, relu: Array | None = None, masked: bool = False
    ) -> Array | None:
        """Adds the parameters' gradients and returns that of the input (None where `input_grad` is False).

        `overwrite` allows `dy` to be used as scratch, which saves an allocation of its size. A kernel that writes a gradient can take
        the gradient of the ReLU before it along, for one more reading of memory and no launch: `relu` is the input, where ReLU made
        it and this layer, which says `takes_relu_grad`, is to do so. `masked`: the layer behind has done so for this one.
        """
        if not self._ready:
            raise GpucnnError(f"backward of layer {self.name!r} needs a forward with training=True before it, once for each backward")
        if self._applied and not masked:
            dy = getattr(self.device.ops, ACTIVATIONS[self._applied])(dy, self._output, out=dy if overwrite else None)
        more = {} if relu is None else {"relu": relu}
        dx = self._backward(dy, input_grad, **more)
        self.forget()
        return dx

    def forget(self) -> None:
        """Lets go of what forward kept."""
        self._output = None
        self._ready = False
        for layer in self.inner().values():
            layer.forget()

    def scratch(self, batch_size: int) -> tuple[int, int]:
        """Elements that a CPU takes besides inputs and outputs while the layer is at work, forward and backward."""
        parts = [layer.scratch(batch_size) for layer in self.inner().values()]
        return max((ahead for ahead, _ in parts), default=0), max((back for _, back in parts), default=0)

    def costs(self) -> list[Cost]:
        """The cost of each of `layers`."""
        return [self.cost()]

    def state(self) -> dict[str, int]:
        """What training changes besides parameters: needed to resume to the bit."""
        return {}

    def restore(self, state: dict[str, int]) -> None:
        """Takes up a `state()` again."""

    def config(self) -> dict[str, Any]:
        """What `layer_from_config` needs to make the same layer again, unbuilt."""
        return {"layer": type(self).__name__} | {name: _config(value) for name, value in self.settings().items()}

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: what the layer is, without what a forward kept, and without its place."""
        alone = object.__new__(type(self))
        vars(alone).update(vars(self), _owner=None, inner=dict)  # with nothing within: what is there forgets for itself
        alone.forget()
        del vars(alone)["inner"]
        if "device" in vars(alone):
            vars(alone)["device"] = None
        return vars(alone)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings().items())})"

"""The layers of a model: their sizes, names and memory. layered.py has the forward and backward passes."""

from __future__ import annotations

import copy
import math
import operator
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gpucnn.checks import integer, pick
from gpucnn.device import Device, check_dtype, get_device, to_numpy
from gpucnn.errors import ArgumentError, GpucnnError, ShapeError
from gpucnn.layers import Layer
from gpucnn.layers.base import Array, Shape, derived_seed, too_many
from gpucnn.layers.chain import Chain, build_in_turn
from gpucnn.layers.containers import Stack, every_layer
from gpucnn.layers.inherited import Inherited
from gpucnn.layers.input import Input
from gpucnn.layers.parameter import Buffers, ByName, Parameter, SavedArray
from gpucnn.layers.replayed import Replayed
from gpucnn.layout import FIRST, check_format, image_shape
from gpucnn.names import no_attribute
from gpucnn.ops.shapes import LIMIT
from gpucnn.signatures import DataFormat
from gpucnn.text import shown


class Built:
    """Layers in sequence, built for examples of one shape on one device."""

    def __init__(self, *layers: Layer | Input | Built | Sequence[Layer | Input | Built]) -> None:
        self.layers: list[Layer] = []
        self.declared: Input | None = None  # the input shape, where the user declared one
        self.data_format: DataFormat | None = None  # where the channels are in the examples that users pass in
        self.input_shape: Shape = ()
        self.output_shape: Shape = ()
        self.dtype: np.dtype[Any] = np.dtype("float32")
        self.seed = 0
        self._device: Device | None = None
        self._buffers: Buffers | None = None
        self.chain = Chain()  # the layers as training runs them: some are fused into one stage
        self._named: dict[str, Parameter] = {}
        self._arrays: dict[str, SavedArray] = {}
        self._standing: tuple[Layer, ...] = ()  # the layers that it was built of
        self._batch = 0  # batch size of the last training forward, which backward must match
        self.epochs_begun = 0  # by all calls of `fit` since `build`: the next call continues the order of examples and the augmentation
        for item in layers:
            several_layers: Any = item if isinstance(item, list | tuple) else [item]
            for layer in several_layers:
                self.add(layer)

    def add(self, layer: Layer | Input | Built) -> None:
        """Appends a layer, or a whole model as one layer. An Input must come before all layers.

        Raises TypeError for anything else, GpucnnError if the model is already built, ArgumentError if the layer is already in it.
        """
        if self._buffers is not None:
            raise GpucnnError("the model is already built and cannot be extended: make a new one from its layers and the new layer")
        if isinstance(layer, Input):
            if self.layers or self.declared is not None:
                raise ArgumentError("a model has at most one Input, before all layers")
            self.declared = layer
            return
        added: Any = Stack(*layer.layers) if isinstance(layer, Built) else layer
        if not isinstance(added, Layer):
            raise TypeError(f"Sequential takes layers, got {shown(layer)}")
        everywhere = [part for each in (*self.layers, added) for part in every_layer(each)]
        if len({id(part) for part in everywhere}) < len(everywhere):
            raise ArgumentError("a layer can be in a model only once: create a second one")
        if not self.layers and self.declared is None:
            self.declared = _declared_by(layer, added)
        self.layers.append(added)

    # Building.

    def build(
        self,
        input_shape: Sequence[int] | None = None,
        *,
        seed: int = 0,
        device: str | Device = "auto",
        dtype: str | type | np.dtype[Any] = "float32",
        data_format: DataFormat | None = None,
    ) -> Self:
        """Fixes all sizes for examples of `input_shape`, which is (C, H, W), (H, W) for grey images, or (features,), and initializes the
        parameters from `seed`. An `Input` layer may give the shape instead.

        data_format: "channels_last" for examples (N, H, W, C) and an `input_shape` (H, W, C); the model remembers it. Layers, weights and
            `gpucnn.functional` always have channels first.
        dtype: float32, or float64 on the CPU for gradient checks.

        Layers taken from another model that is built or loaded move to this one and keep their weights; the other model keeps a copy. A
        layer that was copied by itself has no weights and is initialized like a new one. A second build of the same model initializes
        everything again. If `build` raises an error, the model stays as it was.

        Returns the model. Raises ShapeError if a layer does not fit the one before it, DeviceError if the device is not available.
        """
        chosen, real = get_device(device), _named(dtype)
        check_dtype(real, chosen)
        if input_shape is None:
            if self.declared is None:
                raise ShapeError("the input shape is unknown: call build(input_shape), or put an Input(shape) before the layers")
            input_shape, data_format = self.declared.shape, data_format or self.declared.data_format
        data_format = check_format(data_format) or self.data_format
        inherited = Inherited(self.layers, self)
        copies = [(owner, copy.deepcopy(owner)) for owner in inherited.owners.values()]
        changed = [self, *(part for layer in self.layers for part in layer.walk().values())]
        before = [dict(vars(each)) for each in changed]
        try:
            self._lay_out(image_shape(input_shape, data_format), integer(seed, "seed", 0), real)
            inherited.check()
            self.data_format = data_format
            self._settle(chosen).initialize(self.seed)
            inherited.put()
        except BaseException:  # this model, and those that the layers belong to, stay as they were: their arrays are other objects
            for each, attributes in zip(changed, before, strict=True):
                vars(each).clear()
                vars(each).update(attributes)
            raise
        for owner, own in copies:
            owner._go_on_as(own)
        self._after_build()
        return self

    def _after_build(self) -> None:
        """Called at the end of `build`, for everything that depends on the sizes."""

    def _go_on_as(self, other: Self) -> None:
        """Takes over everything from a copy of this model: layers, buffers, the optimizer and its state."""
        vars(self).update(vars(other))
        for layer in self.layers:
            for part in layer.walk().values():
                part._owner = weakref.ref(self)

    def _lay_out(self, input_shape: Any, seed: int, dtype: str) -> None:
        """Computes all sizes and names. Allocates nothing."""
        if not self.layers:
            raise ShapeError("the model has no layers: add at least one")
        shape = image_shape(input_shape, FIRST)
        if math.prod(shape) >= LIMIT:
            raise ShapeError(f"an example would be {too_many(shape)}")
        self.seed, self.input_shape, self.dtype = seed, shape, np.dtype(dtype)
        self.output_shape = build_in_turn(self.layers, shape)

    def _settle(self, device: Device) -> Buffers:
        """Allocates all parameters and saved arrays on the device."""
        parameters, arrays = _by_name(self.layers)
        for layer in self.layers:
            for path, part in layer.walk(layer.name).items():
                part.name, part._owner = path, weakref.ref(self)
        for index, layer in enumerate(self.layers):
            layer.to_device(device, derived_seed(self.seed, index))
        self._named, self._arrays = parameters, arrays
        for layer in self.layers:
            layer.settle_frozen()
            layer.plan()
        self._device = device
        self._form_chain()
        self._standing = tuple(self.layers)
        self._buffers = Buffers(list(parameters.values()), device, self.dtype, list(arrays.values()))
        self._batch = self.epochs_begun = 0
        return self._buffers

    def freeze_anew(self) -> None:
        """Recomputes which parameters are trained after a layer's `trainable` has changed. All values are kept; the model must be
        compiled again."""
        if self._buffers is None:
            return
        before = [parameter.frozen for parameter in self._named.values()]
        for layer in self.layers:
            layer.settle_frozen()
            layer.plan()
        self._form_chain()
        if before == [parameter.frozen for parameter in self._named.values()]:
            return
        values = {name: to_numpy(array) for name, array in self._tensors().items()}
        self._buffers.replaced = True
        self._buffers = Buffers(list(self._named.values()), self.device, self.dtype, list(self._arrays.values()))
        for name, array in self._tensors().items():
            array[...] = self.device.array(values[name])

    def _form_chain(self) -> None:
        self.chain = Chain(self.layers)
        if self._device is not None and self._device.kind == "cpu" and self.dtype == np.float32:
            self.chain.replayed = Replayed()

    def layer_changed(self, *, planned: bool) -> None:
        """Called when an attribute of a layer has been set. planned: whether stages depend on it."""
        if planned and self._buffers is not None:
            for layer in self.layers:
                layer.plan()
            self._form_chain()
        if self.chain.replayed is not None:
            self.chain.replayed.forget()

    @property
    def trainable(self) -> bool:
        """Whether any layer is trained; setting it sets all of them."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value

    # Contents.

    @property
    def device(self) -> Device:
        """The device that the model runs on."""
        self._built()
        assert self._device is not None
        return self._device

    @property
    def buffers(self) -> Buffers:
        """All parameters and gradients, as flat arrays."""
        return self._built()

    @property
    def parameters(self) -> ByName[Parameter]:
        """All parameters by name, such as "conv2d_1.weight"; those of nested layers by path. Assigning to a name writes to its array, as
        assigning to `value` does."""
        self._built()
        return ByName(self._named)

    @property
    def arrays(self) -> ByName[SavedArray]:
        """All arrays that are saved with the parameters but not trained, by name."""
        self._built()
        return ByName(self._arrays)

    @property
    def last_activation(self) -> str | None:
        """The activation of the last layer, or of the last in it, if it is a stack: the one that `forward` leaves off for raw outputs."""
        return self.layers[-1].layers[-1].activation

    @property
    def parameter_count(self) -> int:
        """The number of values in all parameters, including frozen ones."""
        self._built()
        return sum(parameter.size for parameter in self._named.values())

    def __iter__(self) -> Iterator[Layer]:
        """The layers in order, whether the model is built or not."""
        return iter(self.layers)

    def __getitem__(self, name: str) -> Layer:
        """The layer called `name`, such as model["conv2d_1"]; a nested layer by its path, model["residual_1.conv2d_1"]."""
        self._built()
        if not isinstance(name, str):
            raise TypeError(
                f"model[...] takes a layer's name, such as model['conv2d_1'], got {shown(name)}: model.layers has them in order"
            )
        return pick(name, {path: part for layer in self.layers for path, part in layer.walk(layer.name).items()}, "layer")

    def _tensors(self) -> dict[str, Array]:
        """All arrays that a model file holds, by name."""
        return {name: array.value for name, array in (self._named | self._arrays).items()}

    def state(self) -> dict[str, Any]:
        """The state that training changes besides parameters and the optimizer's: the random state of layers."""
        return {name: state for layer in self.layers for name, part in layer.walk(layer.name).items() if (state := part.state())}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores what `state()` returned."""
        for layer in self.layers:
            for name, part in layer.walk(layer.name).items():
                if name in state:
                    part.restore(state[name])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.layers))})"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(no_attribute(self, name))

    # Checks.

    def _built(self) -> Buffers:
        if self._buffers is None and self.declared is not None:
            self.build()
        if self._buffers is None:
            raise GpucnnError("the model is not built yet: call model.build(input_shape) first")
        if len(self.layers) != len(self._standing) or any(map(operator.is_not, self.layers, self._standing)):
            raise GpucnnError("model.layers was changed after the model was built: make a new model from the layers")
        return self._buffers


def _named(dtype: Any) -> str:
    """A type of numbers by its name, if it is NumPy's."""
    known = isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic))
    return np.dtype(dtype).name if known else dtype  # type: ignore[no-any-return]


def _by_name(layers: Sequence[Layer]) -> tuple[dict[str, Parameter], dict[str, SavedArray]]:
    """The parameters and other saved arrays of layers by path, each once. ShapeError if two have the same name."""
    parameters: dict[str, Parameter] = {}
    arrays: dict[str, SavedArray] = {}
    known: set[int] = set()
    for layer in layers:
        for name, array in (*layer.named_parameters(layer.name), *layer.named_arrays(layer.name)):
            other = parameters.get(name) or arrays.get(name) or array
            if other is not array:
                both = f"two {array.kind}s" if other.kind == array.kind else "a parameter and an array"
                raise ShapeError(f"layer {layer.name!r} has {both} called {name!r}: give each its own name")
            if id(array) not in known:
                known.add(id(array))
                if isinstance(array, Parameter):
                    parameters[name] = array
                else:
                    arrays[name] = array
    return parameters, arrays


def _declared_by(given: Any, layer: Layer) -> Input | None:
    """The input shape that the first layer declares, by its own argument or as a model that is built or has an Input."""
    if layer.declared_shape is not None:
        return Input(layer.declared_shape)
    if not isinstance(given, Built) or given.declared is not None or given._buffers is None:
        return given.declared if isinstance(given, Built) else None
    shape = given.input_shape
    if given.data_format == "channels_last":
        return Input((*shape[1:], shape[0]), "channels_last")
    return Input(shape, "channels_first" if len(shape) == 3 else None)

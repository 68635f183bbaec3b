"""The base class of all layers.

A layer is built once, for one shape of input: it checks its sizes there, declares its arrays (parameter.py), and from then on only
computes.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gpucnn.checks import flag
from gpucnn.device import Device
from gpucnn.errors import GpucnnError, ShapeError
from gpucnn.initializers import as_text
from gpucnn.layers.activations import ACTIVATIONS, Activation, named
from gpucnn.layers.parameter import Array, Parameter, SavedArray, Shape
from gpucnn.layers.stage import ALONE, Cost, Plan
from gpucnn.names import Worded, made_of, no_attribute
from gpucnn.ops.shapes import LIMIT
from gpucnn.text import shown

__all__ = ["Array", "Cost", "Layer", "Parameter", "Plan", "SavedArray", "Shape"]


ALIKE = {  # other names for it, and common mistakes
    *("requires_grad", "freeze", "is_frozen", "trained", "is_trainable"),
    *("trainble", "traniable", "trainabel", "trainabe", "traineable", "Trainable"),
}


_IMPLEMENTED = "and a layer implements _build(input_shape), _forward(x, training) and _backward(dy, input_grad)"


def too_many(shape: Shape) -> str:
    """The message about an array with too many elements."""
    return f"an array of shape {shown(shape)}, which has more than 2³¹ − 1 numbers: use smaller sizes"


def what_is(array: Any) -> str:
    """An array's shape, or what is there instead of an array, for error messages."""
    return f"an array of shape {tuple(array.shape)}" if hasattr(array, "shape") else shown(array)


def _lent(array: Array) -> Array:
    """An array for a layer of the user's, which must not write to it: the layer before needs it, and it may be the caller's. CuPy has no
    arrays that are read-only."""
    if not isinstance(array, np.ndarray):
        return array
    lent = array.view()
    lent.flags.writeable = False
    return lent


def _config(value: Any) -> Any:
    """A setting as JSON can hold it: layers become their `config()`, functions their description."""
    if isinstance(value, Layer):
        return value.config()
    if callable(value):
        return as_text(value)
    return type(value)(map(_config, value)) if type(value) in (list, tuple) else value


def derived_seed(seed: int, index: int) -> int:
    """The 64-bit seed of part `index` of something with the seed `seed`."""
    low, high = np.random.SeedSequence([seed, index]).generate_state(2)
    return int(low) | int(high) << 32


class Layer(Worded):
    """Base class of all layers. A layer of your own implements three methods; the activation after it, such as `activation="relu"`, is
    applied by this class. x, y, dx and dy have the batch first, and shapes leave it out.

    _build: of (input_shape), returns the shape of the output. It lists trained arrays, each a `Parameter`, in `self.parameters`, and arrays
        that are saved but not trained, each a `SavedArray`, in `self.arrays`.
    _forward: of (x, training), returns y. With `training`, it keeps what `_backward` needs. It must not write to x, which others need.
    _backward: of (dy, input_grad), adds to the gradient of each parameter, `self.weight.add_grad(...)`, and returns dx, or None without
        `input_grad`. It may write to dy, or return it.

    `self.device.xp` is NumPy or CuPy, as the model's device needs it. A file stores what `settings()` returns: the arguments of the
    constructor, by default as attributes of their names hold them. The parameters of a `frozen` layer have no gradient.

    A layer that sets `passes_on = True` promises not to write to dy, though it may return it or a view of it: then no copy is made where
    something else needs dy too. A layer whose `_backward` has a third argument, whether to include the gradient of the ReLU that produced
    its input, sets `takes_relu_grad = True`.
    """

    beside: ClassVar[dict[str, str]] = {"input_shape": "declared_shape"}
    declared_shape: Any = None  # of an example, in the first layer of a model: equivalent to an Input before it

    fuses_relu: ClassVar[bool] = False  # `_forward` applies ReLU itself
    passes_on: ClassVar[bool] = False  # `_backward` may return dy itself, or a view of it
    takes_relu_grad: ClassVar[bool] = False  # `_backward` has the argument `relu`
    # Of settings that are heeded in each pass, whenever they are assigned.
    checks: ClassVar[dict[str, Callable[[Any, str], Any]]] = {"activation": lambda value, name: named(value)}
    part: Any = None  # of a batch that several ranks share, which is this one's (training/team.py); None for a whole batch

    replays: ClassVar[bool] = False  # its passes call only operations; a class derived from one of which that is true must say so again
    is_view: ClassVar[bool] = False  # the output is the input's memory
    masks_itself: ClassVar[bool] = False  # as a stage that passes no gradient on, it includes that of its ReLU: the next one leaves it
    keeps_relu: ClassVar[bool] = False  # the output is positive where the input is, or passes no gradient on: ReLU can use it for its own

    def __init__(self, activation: str | None = None) -> None:
        self.activation = activation
        self.name = type(self).__name__.lower()
        self.parameters: list[Parameter] = []
        self.arrays: list[SavedArray] = []
        self.input_shape: Shape | None = None
        self.output_shape: Shape = ()
        self.device: Device
        self._inside: tuple[Layer, ...] | None = None  # what `inner` found, which each step would search for
        self._around: Array | None = None  # the activation's output, or its input, kept for backward
        self._applied: Activation | None = None
        self._ready = False
        self._chains: list[Any] = []
        self._trainable = True
        self.frozen = False  # set by the layer itself or by one around it, when a model is built
        self._owner: weakref.ref[Any] | None = None  # the model that was built with this layer

    # Implemented by each kind of layer.

    def _build(self, input_shape: Shape) -> Shape:
        """Checks that the layer fits, declares its parameters and returns the shape of its output."""
        raise NotImplementedError(f"{type(self).__name__} has no method _build, {_IMPLEMENTED}")

    def _forward(self, x: Array, training: bool) -> Array:
        raise NotImplementedError(f"{type(self).__name__} has no method _forward, {_IMPLEMENTED}")

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        raise NotImplementedError(f"{type(self).__name__} has no method _backward, {_IMPLEMENTED}")

    @property
    def options(self) -> dict[str, Any]:
        """The activation's own settings; only layers that are an activation have any."""
        return {}

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them: by default the attributes of their names, or of their names behind an
        underscore."""
        given = made_of(self, Layer)
        return {} if type(self).__init__ is Layer.__init__ and self.activation is None else given

    def cost(self) -> Cost:
        """The multiply-adds of one example in forward, and what is kept for its backward pass."""
        return self.costing()

    def costing(self, multiply_adds: int = 0, *, keeps_input: bool = False) -> Cost:
        """The cost of a layer with this many multiply-adds, its activation included."""
        of_input = self.activation is not None and ACTIVATIONS[self.activation].of_input
        before = math.prod(self.output_shape) if of_input else 0
        return Cost(multiply_adds, before, keeps_input=keeps_input, keeps_output=self.activation is not None and not of_input)

    # Called by models.

    def build(self, input_shape: Shape) -> Shape:
        """Fixes the layer's sizes for inputs of `input_shape` (without the batch). Raises ShapeError if they do not fit."""
        self.forget()
        self.parameters, self.arrays = [], []
        self.input_shape = input_shape
        self.output_shape = self._sized(self._build(input_shape))
        self._inside = None  # there may be other layers inside now
        self._check_arrays()
        for array in (*self.parameters, *self.arrays):
            if array.size >= LIMIT:
                raise ShapeError(f"its {array.name} would be {too_many(array.shape)}")
        if math.prod(self.output_shape) >= LIMIT:
            raise ShapeError(f"its output for an example would be {too_many(self.output_shape)}")
        return self.output_shape

    def _sized(self, shape: Any) -> Shape:
        """What `_build` has returned, as a shape. TypeError for anything else."""
        if not isinstance(shape, list | tuple) or not shape or not all(isinstance(size, int | np.integer) and size > 0 for size in shape):
            raise TypeError(f"{type(self).__name__}._build must return the shape of an output without the batch, got {shown(shape)}")
        return tuple(map(int, shape))

    def _check_arrays(self) -> None:
        """TypeError for arrays of a layer of the user's that no model would hold: they would be neither trained nor saved."""
        for array in (*self.parameters, *self.arrays):
            if not isinstance(array, SavedArray):
                raise TypeError(
                    f"parameters and arrays of {type(self).__name__} must list Parameters and SavedArrays, got {what_is(array)}"
                )
        listed = {id(array) for part in self.walk().values() for array in (*part.parameters, *part.arrays)}
        for name, value in vars(self).items():
            if isinstance(value, SavedArray) and id(value) not in listed:
                where = "self.parameters" if isinstance(value, Parameter) else "self.arrays"
                raise TypeError(f"{type(self).__name__}._build makes {name!r} and does not list it in {where}: no model would hold it")

    def _returned(self, array: Any, like: Array, shape: Shape | None, method: str) -> Array:
        """What a layer of the user's has returned, with the dtype of an array and in the order of C, which operations expect. ShapeError
        unless it is as many arrays of this shape: others would fail in the next layer, be broadcast there, or have loops read memory behind
        their end."""
        count = like.shape[0]
        if shape is not None and tuple(getattr(array, "shape", ())) != (count, *shape):
            batch = count if hasattr(array, "shape") and tuple(array.shape[1:]) == shape else "batch"
            expected = f"({batch}, {', '.join(map(str, shape))})"
            raise ShapeError(f"{type(self).__name__}.{method} of layer {self.name!r} must return {expected}, got {what_is(array)}")
        return self.device.array(array, like.dtype)

    def to_device(self, device: Device, seed: int) -> None:
        """Moves the layer to a device. `seed` is the layer's own, for layers that draw random numbers."""
        self.device = device
        for index, inner in enumerate(self.inner().values()):
            inner.to_device(device, derived_seed(seed, index))

    def inner(self) -> dict[str, Layer]:
        """The layers inside this one by attribute name, with a number or key where an attribute holds several."""
        found: dict[str, Layer] = {}
        for name, value in vars(self).items():
            if isinstance(value, Layer):
                found[name] = value
            elif isinstance(value, list | tuple):
                if name != "_inside":
                    found |= {f"{name}.{index}": part for index, part in enumerate(value) if isinstance(part, Layer)}
            elif isinstance(value, dict):
                found |= {f"{name}.{key}": part for key, part in value.items() if isinstance(part, Layer)}
        return found

    def chains(self) -> Sequence[Any]:
        """The chains (chain.py) that this layer runs, for the library's own layers made of layers."""
        return self._chains

    def shares_output(self, chain: Any) -> bool:
        """Whether the output of one of its chains is a slice of its own output rather than a separate array."""
        return False

    def plan(self) -> None:
        """Plans how the layers inside are run, for layers that need it."""
        for inner in self.inner().values():
            inner.plan()

    def walk(self, path: str = "") -> dict[str, Layer]:
        """The layer itself under `path`, and all layers inside it under theirs, each once."""
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
        """Every parameter of the layer and of the layers inside it, with its path, each once."""
        return [(name, array) for name, array in self._named("parameters", path)]

    def named_arrays(self, path: str = "") -> list[tuple[str, SavedArray]]:
        """Every array that is saved but not trained, in the same way."""
        return self._named("arrays", path)

    def _named(self, kind: str, path: str) -> list[tuple[str, Any]]:
        found: dict[int, tuple[str, Any]] = {}
        for name, layer in reversed(self.walk(path).items()):  # a layer may list arrays of a layer inside it, which have the longer path
            for array in getattr(layer, kind):
                found.setdefault(id(array), (f"{name}.{array.name}" if name else array.name, array))
        order = {id(array): None for layer in self.walk().values() for array in getattr(layer, kind)}
        return [found[key] for key in order]

    @property
    def trained(self) -> bool:
        """Whether anything in the layer is trained."""
        return any(layer.parameters and not layer.frozen for layer in self.walk().values())

    @property
    def trainable(self) -> bool:
        """Whether to train the layer and everything in it. False freezes it: no gradient is computed and nothing is updated, running
        statistics included. A frozen layer is still saved with the model. After a change, compile a compiled model again."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = flag(value, "trainable")
        if self._owner is not None and (owner := self._owner()) is not None:
            owner.freeze_anew()

    def settle_frozen(self, above: bool = False) -> None:
        """Applies `trainable` to everything inside. above: whether a layer around this one is frozen."""
        self.frozen = above or not self._trainable
        for parameter in self.parameters:
            parameter.frozen = self.frozen
        for layer in self.inner().values():
            layer.settle_frozen(self.frozen)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ALIKE:
            raise AttributeError(f"a layer has no {name!r}, and setting it would do nothing: set layer.trainable = False to freeze it")
        if name[:1] != "_" and (check := type(self).checks.get(name)) is not None:
            value = check(value, name)
        held = vars(self).get(name)
        if isinstance(held, SavedArray) and value is not held and any(array is held for array in (*self.parameters, *self.arrays)):
            raise AttributeError(f"{name!r} is the layer's {held.kind}, which the model holds: assign numbers to layer.{name}.value")
        object.__setattr__(self, name, value)
        if name[:1] == "_" and name not in ("_forward", "_backward"):
            return
        if (owner := vars(self).get("_owner")) is not None and (model := owner()) is not None:
            model.layer_changed(planned=name == "activation")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            later = name in ("bias", "device", "mean", "variance", "weight") and "device" not in vars(self)
            if "_owner" not in vars(self):
                raise AttributeError(f"{no_attribute(self, name)}: call super().__init__() in its __init__")
            raise AttributeError(no_attribute(self, name) + (": a layer has one when a model is built with it" if later else ""))

    @property
    def takes_part(self) -> bool:
        """Whether the layer can write its output to a slice of larger images (the argument `out` of its `forward` and `_forward`), and
        its `_backward` can read dy from such a slice."""
        return False

    def forward(self, x: Array, training: bool = False, *, logits: bool = False, out: Array | None = None) -> Array:
        """The layer's output; with `training`, keeps what the backward pass needs. `logits` leaves off a final softmax or sigmoid. out:
        where to write it, for a layer that `takes_part`."""
        if not x.flags.c_contiguous:  # from a layer of the user's that calls this one
            x = self.device.array(x)
        given = x if self._of_gpucnn else _lent(x)
        y = z = self._forward(given, training) if out is None else self._forward(given, training, out)  # type: ignore[call-arg]
        if not self._of_gpucnn and self.input_shape is not None and out is None:
            y = z = self._returned(x if y is given else y, x, self.output_shape, "_forward")
        applied = None if self.activation is None else ACTIVATIONS[self.activation]
        if logits and self.activation in ("softmax", "sigmoid"):
            applied = None
        if applied and not (self.fuses_relu and self.activation == "relu"):
            z = getattr(self.device.ops, applied.apply)(y, **self.options)
        if training:  # a forward pass for predictions keeps nothing, and does not touch what is kept for backward
            self._around = None if applied is None else y if applied.of_input else z
            self._applied, self._ready = applied, True
        return z

    def forward_with_loss(
        self, x: Array, loss: Any, labels: Array, training: bool = True, *, input_grad: bool = False, relu: bool = False
    ) -> tuple[Array, Array, Array] | None:
        """Forward together with the loss of the output, for a layer that computes both at once: (losses, correct, doutputs) as in
        `Loss.of_dense`. Other layers do nothing and return None. input_grad: whether backward, given doutputs, will return the gradient
        of x, which may then be computed at once; relu: whether that includes the gradient of the ReLU that produced x."""
        return None

    @property
    def layers(self) -> Sequence[Layer]:
        """The layer itself as a stage (fused.py), or the stages that replace it."""
        return (self,)

    @property
    def ends_in_relu(self) -> bool:
        """Whether a ReLU produces the output."""
        return self.activation == "relu"

    def backward(self, dy: Array, *, input_grad: bool = True, plan: Plan = ALONE) -> Array | None:
        """Adds the gradients of the parameters and returns the gradient of the input (None if `input_grad` is False). For a layer on its
        own, nothing is planned and dy stays unchanged."""
        if not self._ready:
            raise GpucnnError(f"backward of layer {self.name!r} needs a forward with training=True before it, once for each backward")
        if plan is ALONE:
            dy = self.device.array(dy)
        overwrites = plan.overwrites
        if self._applied and not plan.relu_taken:
            grad = getattr(self.device.ops, self._applied.grad)
            dy, overwrites = grad(dy, self._around, **self.options, out=dy if overwrites else None), True
        if not (overwrites or self.passes_on or self._of_gpucnn):
            dy = dy.copy()  # a layer of the user's may write to dy, or return it, and others need it
        more = (plan.takes_relu,) if self.takes_relu_grad else ()
        dx = self._backward(dy, input_grad, *more)
        if input_grad and not self._of_gpucnn:
            dx = self._returned(dx, dy, self.input_shape, "_backward")
        self.forget()
        return dx

    def forget(self) -> None:
        """Releases what the forward pass kept."""
        self._around = None
        self._ready = False
        if self._inside is None:
            self._inside = tuple(self.inner().values())
        for layer in self._inside:
            layer.forget()

    def scratch(self, batch_size: int) -> tuple[int, int]:
        """Elements that a CPU needs, besides inputs and outputs, while the layer runs forward and backward."""
        parts = [layer.scratch(batch_size) for layer in self.inner().values()]
        return max((ahead for ahead, _ in parts), default=0), max((back for _, back in parts), default=0)

    def costs(self) -> list[Cost]:
        """The cost of each of `layers`."""
        return [self.cost()]

    def state(self) -> dict[str, int]:
        """The state that training changes besides parameters, needed for a resumed run to be bit-identical."""
        return {}

    def counters(self) -> list[Array]:
        """The arrays that a training pass changes, besides gradients."""
        return [array.value for array in self.arrays]

    def constants(self) -> list[Array]:
        """The arrays that passes read besides `parameters` and `arrays`."""
        return []

    def restore(self, state: dict[str, int]) -> None:
        """Restores a `state()`."""

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Layer:
        """The layer with these `settings()`."""
        return cls(**settings)

    def config(self) -> dict[str, Any]:
        """The settings from which `layer_from_config` builds the same layer, unbuilt."""
        frozen = {} if self._trainable else {"trainable": False}
        return {"layer": type(self).__name__} | frozen | {name: _config(value) for name, value in self.settings().items()}

    def __getstate__(self) -> dict[str, Any]:
        """The layer for copy and pickle, without its device and without what a forward pass kept."""
        alone = object.__new__(type(self))
        vars(alone).update(vars(self), _owner=None, part=None, inner=dict, _chains=[])  # with no layers inside: those drop their own state
        alone.forget()
        del vars(alone)["inner"]
        vars(alone).pop("device", None)
        return vars(alone)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings().items())})"

"""Optimizers: one operation on all parameters of a model, which lie in one flat buffer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from gpucnn.arrays import quiet, to_numpy
from gpucnn.checks import flag, fraction, positive
from gpucnn.errors import ArgumentError, GpucnnError
from gpucnn.layers.parameter import Array, Buffers, write
from gpucnn.names import Registry, Worded, made_of, no_attribute
from gpucnn.schedules import Constant, Rate, as_rate, get_schedule
from gpucnn.text import shown

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]


def _at_least_zero(value: Any, name: str) -> float:
    return positive(value, name, zero=True)


def _norm(value: Any, name: str) -> float | None:
    return None if value is None else positive(value, name)


class _State(dict[str, Array]):
    """The buffers of an optimizer's state, by slot. Assigning to a slot writes to its buffer, which a recorded step goes on to use."""

    def __setitem__(self, slot: str, array: Array) -> None:
        if slot in self:
            write(array, self[slot], f"the state {slot!r}")
        else:
            super().__setitem__(slot, array)


class Optimizer(Worded):
    """Base class of optimizers. `attach` connects it to a model's parameters; `step()` applies their gradients.

    learning_rate: a number, a `Schedule`, or a function of the step, counted from 0. It may be assigned between two steps of a loop by
        hand, or between two epochs of `fit`.
    global_clipnorm: if the Euclidean norm of all gradients together is above this, each step first divides all of them by the same
        number, so that the norm is this.

    One of your own implements `_update(buffers, gradients, rates)`, which changes `buffers.values`, all parameters in one flat array;
    `rates[0]` is the learning rate. Each name in `slots` is an array as long, of zeros at first, in `self.state`. What is assigned to
    any of these arrays is written to it.
    """

    slots: tuple[str, ...] = ()  # names of the buffers of state, each as long as the parameters
    peak: ClassVar[float] = 1e-3  # the highest learning rate of `gpucnn train`, where none is given
    _running: ClassVar[tuple[str, ...]] = ("schedule", "steps", "state", "continues", "_buffers")  # attributes that are not settings
    recipe: ClassVar[dict[str, Any]] = {}  # further settings of `gpucnn train`
    elementwise: ClassVar[bool] = False  # whether `_update` treats each number by itself; to be said by each class that has an `_update`
    checks: ClassVar[dict[str, Callable[[Any, str], Any]]] = {"global_clipnorm": _norm}  # of each setting, whenever it is assigned
    global_clipnorm: float | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        kind, check = type(self), type(self).checks.get(name)
        # Such an attribute would do nothing, and a model's file would hold it as a setting. A class of the user's may have any.
        if check is None and kind.__module__ == __name__ and name not in kind._running and not hasattr(kind, name):
            raise AttributeError(f"{no_attribute(self, name)}: it has {', '.join(['learning_rate', *kind.checks])}")
        object.__setattr__(self, name, value if check is None else check(value, name))

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "_update" in vars(cls) and "elementwise" not in vars(cls):
            cls.elementwise = False

    def __init__(self, learning_rate: Rate, *, global_clipnorm: float | None = None) -> None:
        if global_clipnorm is not None:  # an attribute, and with it a setting in files, only where it is given
            self.global_clipnorm = global_clipnorm
        self.schedule = get_schedule(learning_rate)
        self.steps = 0
        self.state: dict[str, Any] = {}
        self.continues: dict[str, Any] | None = None  # config() of another, whose checkpoints this one takes up: with a schedule of its own
        self._buffers: Buffers | None = None

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step. A number, a schedule or a function that is assigned to it replaces the schedule. Callbacks of
        `fit` assign it between two epochs; a checkpoint holds a number or a registered schedule, and no function."""
        return self._rate(self.steps)

    @learning_rate.setter
    def learning_rate(self, value: Rate) -> None:
        self.schedule = get_schedule(value)

    lr = learning_rate  # PyTorch's name

    def attach(self, buffers: Buffers) -> None:
        """Connects to these parameters, with a step count of 0 and all state zero."""
        if not isinstance(buffers, Buffers):
            raise TypeError(f"attach takes the parameters of a model, model.buffers, got {shown(buffers)}")
        self._buffers = buffers
        self.steps = 0
        self.state = _State({slot: buffers.device.xp.zeros_like(buffers.values) for slot in self.slots})

    def attached_again(self, buffers: Buffers) -> None:
        """Connects to these parameters and keeps its state, for use after both were copied."""
        self._buffers = buffers
        self.state = _State({slot: buffers.device.array(array) for slot, array in self.state.items()})

    def __getstate__(self) -> dict[str, Any]:
        """The state for copy and pickle, without the parameters, which belong to the model."""
        return {**vars(self), "_buffers": None, "state": {slot: to_numpy(array) for slot, array in self.state.items()}}

    def trains(self, buffers: Buffers) -> bool:
        """Whether `step` updates these parameters."""
        return self._buffers is buffers

    @property
    def outdated(self) -> bool:
        """Whether layers of the model were frozen or unfrozen since `attach`."""
        return self._buffers is not None and self._buffers.replaced

    @quiet
    def step(self) -> None:
        """Updates every parameter from its gradient. A parameter without a gradient is updated as if its gradient were zero."""
        buffers = self._attached()
        self.update(buffers.device.array(np.append(self.rates(1)[0], 1), buffers.values.dtype))
        self.steps += 1

    def update(self, rates: Array, part: slice | None = None) -> None:
        """Like `step`, but reads the values that change from step to step from device memory: a row of `rates`, and whether to go on
        (4). part: of the flat buffers, if only its parameters are updated now, which must be `divisible`."""
        buffers = self._attached()
        if part is not None:
            self._update_part(buffers, rates, part)
            return
        gradients = buffers.all_gradients()
        if self.global_clipnorm is not None:
            buffers.device.ops.clip_norm(gradients, self.global_clipnorm)
        self._update(buffers, gradients, rates)

    @property
    def divisible(self) -> bool:
        """Whether some parameters may be updated before the others."""
        return self.elementwise and self.global_clipnorm is None and type(self).update is Optimizer.update

    def _update_part(self, buffers: Buffers, rates: Array, part: slice) -> None:
        gradients, whole = buffers.all_gradients(part), self.state
        values: Any = buffers.view(part)  # as much of the buffers as an elementwise update needs
        self.state = _State({slot: array[part] for slot, array in whole.items()})
        try:
            self._update(values, gradients, rates)
        finally:
            self.state = whole

    def rates(self, count: int) -> np.ndarray[Any, Any]:
        """The values that change in the next `count` steps, (count, 3): the learning rate and everything else that depends on the step."""
        return np.array([self._rates(step) for step in range(self.steps, self.steps + count)], np.float64)

    def zero_grad(self) -> None:
        """Resets all gradients, so that the next backward starts from zero."""
        self._attached().forget_gradients()

    def config(self) -> dict[str, Any]:
        """A description from which `get_optimizer` makes the same optimizer, without its state: the arguments of its constructor, as the
        attributes of their names hold them, or of their names behind an underscore."""
        return {"optimizer": name_of(self), "learning_rate": self.schedule.config(), **made_of(self)}

    def __repr__(self) -> str:
        rate = self.schedule.learning_rate if isinstance(self.schedule, Constant) else self.schedule
        settings = {name: value for name, value in self.config().items() if name not in ("optimizer", "learning_rate")}
        return f"{type(self).__name__}({', '.join([f'learning_rate={rate}', *(f'{name}={value}' for name, value in settings.items())])})"

    def _rate(self, step: int) -> float:
        try:
            rate = self.schedule(step)
        except OverflowError:  # of a factor above 1, after many steps
            rate = math.inf
        return as_rate(rate, step)  # checked, because a schedule may be the user's own

    def _rates(self, step: int) -> tuple[float, float, float]:
        return self._rate(step), 1.0, 1.0

    def _update(self, buffers: Buffers, gradients: Array, rates: Array) -> None:
        raise NotImplementedError(
            f"{type(self).__name__} has no method _update, and an optimizer implements it: (buffers, gradients, rates)"
        )

    def _attached(self) -> Buffers:
        if self._buffers is None:
            raise GpucnnError(
                "this optimizer has no parameters yet: call model.compile(optimizer=...) first, or optimizer.attach(model.buffers)"
            )
        if self._buffers.replaced:
            raise GpucnnError("which layers are trained has changed since this optimizer was attached: compile the model again")
        for slot in self.slots:
            if slot not in self.state:  # a setting was assigned that needs it
                raise GpucnnError(f"this optimizer keeps a {slot} now, and did not when it was attached: compile the model again")
        return self._buffers


OPTIMIZERS: Registry[type[Optimizer]] = Registry("optimizer")


@OPTIMIZERS.add("sgd")
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch defines it; `weight_decay` is added to the gradient (L2)."""

    peak = 0.05
    elementwise = True
    recipe: ClassVar[dict[str, Any]] = {"momentum": 0.9, "nesterov": True}
    checks: ClassVar = {**Optimizer.checks, "momentum": fraction, "nesterov": flag, "weight_decay": _at_least_zero}

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        *,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, global_clipnorm=global_clipnorm)
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        if self.nesterov and not self.momentum:
            raise ArgumentError("nesterov needs a momentum above 0, got momentum 0")

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("velocity",) if self.momentum else ()

    def _update(self, buffers: Buffers, gradients: Array, rates: Array) -> None:
        buffers.device.ops.sgd_update(
            buffers.values,
            gradients,
            self.state.get("velocity"),
            rates=rates,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )


@OPTIMIZERS.add("adam")
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015); `weight_decay` is added to the gradient (L2)."""

    peak = 2e-3
    slots = ("mean", "variance")
    elementwise = True
    _decoupled = False
    checks: ClassVar = {**Optimizer.checks, "beta1": fraction, "beta2": fraction, "epsilon": positive, "weight_decay": _at_least_zero}

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, global_clipnorm=global_clipnorm)
        self.beta1, self.beta2, self.epsilon, self.weight_decay = beta1, beta2, epsilon, weight_decay

    def _rates(self, step: int) -> tuple[float, float, float]:
        rate, count = self._rate(step), step + 1
        shrink = 1 - rate * self.weight_decay if self._decoupled else 1.0
        return rate / (1 - self.beta1**count), 1 / math.sqrt(1 - self.beta2**count), shrink

    def _update(self, buffers: Buffers, gradients: Array, rates: Array) -> None:
        buffers.device.ops.adam_update(
            buffers.values,
            gradients,
            self.state["mean"],
            self.state["variance"],
            rates=rates,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay,
            decoupled=self._decoupled,
        )


@OPTIMIZERS.add("adamw")
class AdamW(Adam):
    """Adam with weight decay applied to the parameters instead of the gradient (Loshchilov and Hutter 2019)."""

    _decoupled = True

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, epsilon, weight_decay, global_clipnorm=global_clipnorm)


@OPTIMIZERS.add("rmsprop")
class RMSprop(Optimizer):
    """The gradient divided by the root of its running mean square (Hinton, Tieleman and Swersky 2012, lecture 6e):
    v = rho·v + (1 − rho)·g²; p −= rate·g / (√v + epsilon). `weight_decay` is added to the gradient (L2).

    The formula is PyTorch's without momentum, whose alpha is rho, 0.99 by default, with a rate of 0.01; these defaults are Keras's, whose
    epsilon is under the root.
    """

    slots = ("mean", "variance")
    elementwise = True
    checks: ClassVar = {**Optimizer.checks, "rho": fraction, "epsilon": positive, "weight_decay": _at_least_zero}

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        rho: float = 0.9,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, global_clipnorm=global_clipnorm)
        self.rho, self.epsilon, self.weight_decay = rho, epsilon, weight_decay

    def _update(self, buffers: Buffers, gradients: Array, rates: Array) -> None:
        buffers.device.ops.adam_update(  # whose mean is the gradient itself where beta1 is 0; `_rates` corrects no bias
            buffers.values,
            gradients,
            self.state["mean"],
            self.state["variance"],
            rates=rates,
            beta1=0.0,
            beta2=self.rho,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay,
        )


def name_of(optimizer: Optimizer) -> str:
    """The registered name of an optimizer's class, or the class's own name."""
    return OPTIMIZERS.name_of(type(optimizer)) or type(optimizer).__qualname__


def get_optimizer(value: Any) -> Optimizer:
    """An Optimizer unchanged; the optimizer of a name or a class with its defaults; or the optimizer of a `config()`."""
    if isinstance(value, Optimizer):
        return value
    if isinstance(value, dict):
        settings = dict(value)
        return OPTIMIZERS.pick(settings.pop("optimizer", None))(**settings)
    known = isinstance(value, type) and issubclass(value, Optimizer)
    make: Any = value if known else OPTIMIZERS.pick(value)  # each has a default of its own for everything
    return make()  # type: ignore[no-any-return]

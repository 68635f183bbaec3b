"""Learning rates as functions of the step. Step 0 is the first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from gpucnn.checks import SMALLEST, fraction, integer, positive
from gpucnn.names import Registry, Worded, made_of

__all__ = ["Constant", "Cosine", "OneCycle", "Schedule", "StepDecay"]


class Schedule(Worded):
    """A learning rate for each step. One of your own implements `__call__(step)`; steps are counted from 0."""

    @classmethod
    def over(cls, learning_rate: float, steps: int) -> Schedule:
        """The schedule for a run of `steps` steps with the peak `learning_rate`, as `gpucnn train` uses it."""
        return cls(learning_rate, steps)  # type: ignore[call-arg]

    def __call__(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        raise NotImplementedError(f"{type(self).__name__} has no method __call__, and a schedule implements it: (step)")

    def config(self) -> dict[str, Any]:
        """A description from which `get_schedule` makes the same schedule: the arguments of its constructor, as the attributes of their
        names hold them, or of their names behind an underscore."""
        return {"schedule": name_of(self), **made_of(self)}


SCHEDULES: Registry[type[Schedule]] = Registry("schedule")


@SCHEDULES.add("constant")
class Constant(Schedule):
    """The same learning rate at every step."""

    @classmethod
    def over(cls, learning_rate: float, steps: int) -> Schedule:
        return cls(learning_rate)

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = positive(learning_rate, "learning_rate", zero=True)

    def __call__(self, step: int) -> float:
        return self.learning_rate


@SCHEDULES.add("step")
class StepDecay(Schedule):
    """Multiplied by `factor` after every `every` steps."""

    @classmethod
    def over(cls, learning_rate: float, steps: int) -> Schedule:
        return cls(learning_rate, every=max(1, steps // 3))

    def __init__(self, learning_rate: float, every: int, factor: float = 0.1) -> None:
        self.learning_rate = positive(learning_rate, "learning_rate")
        self.every = integer(every, "every", 1)
        self.factor = positive(factor, "factor")

    def __call__(self, step: int) -> float:
        return self.learning_rate * self.factor ** (step // self.every)


@SCHEDULES.add("cosine")
class Cosine(Schedule):
    """Half a cosine from `learning_rate` down to `final` over `steps` steps, then `final` (Loshchilov and Hutter 2017, one period)."""

    def __init__(self, learning_rate: float, steps: int, final: float = 0.0) -> None:
        self.learning_rate = positive(learning_rate, "learning_rate")
        self.steps = integer(steps, "steps", 1)
        self.final = positive(final, "final", zero=True)

    def __call__(self, step: int) -> float:
        return _cosine(self.learning_rate, self.final, step / self.steps)


@SCHEDULES.add("one-cycle")
class OneCycle(Schedule):
    """Up from `learning_rate / start_factor` in a half cosine for the first `warmup` of all steps, then down to
    `learning_rate / end_factor` in another (Smith and Topin 2019, with cosines as is common)."""

    def __init__(self, learning_rate: float, steps: int, warmup: float = 0.25, start_factor: float = 25.0, end_factor: float = 1e4) -> None:
        self.learning_rate = positive(learning_rate, "learning_rate")
        self.steps = integer(steps, "steps", 1)
        self.warmup = fraction(warmup, "warmup")
        self.start_factor = positive(start_factor, "start_factor")
        self.end_factor = positive(end_factor, "end_factor")

    def __call__(self, step: int) -> float:
        top = self.warmup * self.steps
        if step < top:
            return _cosine(self.learning_rate / self.start_factor, self.learning_rate, step / top)
        return _cosine(self.learning_rate, self.learning_rate / self.end_factor, (step - top) / (self.steps - top))


class Computed(Schedule):
    """A function of the step. Files cannot store functions, so a loaded model has to be compiled again."""

    def __init__(self, function: Callable[[int], float]) -> None:
        self.function = function

    def __call__(self, step: int) -> float:
        return as_rate(self.function(step), step)

    def config(self) -> dict[str, Any]:
        kind = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        return {"schedule": type(self).__name__, "function": f"{kind.__module__}.{kind.__qualname__}"}


Rate: TypeAlias = float | Schedule | Callable[[int], float]  # a learning rate as an argument: a number, a schedule, a function of the step


def as_rate(value: Any, step: int) -> float:
    """What a schedule has returned for a step, as a finite number of at least 0. It may be too small for float32: a rate that is multiplied
    by a factor again and again becomes so in the end."""
    if isinstance(value, float) and 0 < value < SMALLEST:
        return float(value)
    return positive(value, f"the learning rate of step {step}", zero=True)


def _cosine(begin: float, end: float, progress: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def name_of(schedule: Schedule) -> str:
    """The registered name of a schedule's class, or the class's own name."""
    return SCHEDULES.name_of(type(schedule)) or type(schedule).__qualname__


def get_schedule(value: Any) -> Schedule:
    """A Schedule from a Schedule, a number, a function of the step, or the `config()` of a schedule."""
    if isinstance(value, Schedule):
        return value
    if isinstance(value, dict):
        settings = dict(value)
        return SCHEDULES.pick(settings.pop("schedule", None))(**settings)
    return Computed(value) if callable(value) and not isinstance(value, type) else Constant(value)

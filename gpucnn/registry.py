"""Classes of one's own that files may name: layers, losses, optimizers, schedules."""

from __future__ import annotations

from typing import Any, TypeVar

from gpucnn.errors import UnknownNameError
from gpucnn.layers import LAYERS, Layer
from gpucnn.losses import LOSSES, Loss
from gpucnn.optimizers import OPTIMIZERS, Optimizer
from gpucnn.schedules import SCHEDULES, Schedule
from gpucnn.text import shown

Class = TypeVar("Class", bound=type)
KINDS: tuple[tuple[type, dict[str, Any]], ...] = ((Layer, LAYERS), (Loss, LOSSES), (Optimizer, OPTIMIZERS), (Schedule, SCHEDULES))


def register(kind: Class) -> Class:
    """Makes a class derived from Layer, Loss, Optimizer or Schedule known by name, so that a model that has one can be saved and loaded.

    A decorator. A loss is known by its `name`, the others by the name of the class. They are made again from what they say they are: a
    layer from its `settings()`, an optimizer from its `config()`, a schedule from its attributes. UnknownNameError where another class
    has the name; the same one, defined anew, takes its own place.
    """
    for base, known in KINDS:
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base:
            name = kind.name if issubclass(kind, Loss) else kind.__name__
            before = known.get(name)
            if before is not None and (before.__module__, before.__qualname__) != (kind.__module__, kind.__qualname__):
                raise UnknownNameError(f"the name {name!r} is taken by {before.__module__}.{before.__qualname__}: give the class another")
            known[name] = kind
            return kind
    raise TypeError(f"register takes a class derived from {', '.join(base.__name__ for base, _ in KINDS)}, got {shown(kind)}")

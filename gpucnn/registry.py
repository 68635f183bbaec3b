"""Registration of custom classes and functions, so that the command line, arguments and files can refer to them by name."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar, overload

from gpucnn.checks import pick
from gpucnn.data.augment import AUGMENTATIONS, RandomChange
from gpucnn.data.dataset import DATASETS
from gpucnn.errors import ArgumentError
from gpucnn.initializers import INITIALIZERS
from gpucnn.layers import LAYERS, Layer
from gpucnn.losses import LOSSES, Loss
from gpucnn.metrics import METRICS
from gpucnn.names import Registry, put
from gpucnn.networks import NETWORKS
from gpucnn.optimizers import OPTIMIZERS, Optimizer
from gpucnn.schedules import SCHEDULES, Schedule
from gpucnn.text import shown

Class = TypeVar("Class", bound=type)
Thing = TypeVar("Thing")

CLASSES: dict[type, tuple[str, MutableMapping[str, Any]]] = {
    Layer: ("layer", LAYERS),
    Loss: ("loss", LOSSES),
    Optimizer: ("optimizer", OPTIMIZERS),
    Schedule: ("schedule", SCHEDULES),
}
NAMED: dict[str, Registry[Any]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "metric": METRICS,
    "initializer": INITIALIZERS,
    "augmentation": AUGMENTATIONS,
    "dataset": DATASETS,
    "network": NETWORKS,
}
BASES: dict[str, type] = {"optimizer": Optimizer, "schedule": Schedule, "augmentation": RandomChange}


@overload
def register(kind: Class, /) -> Class: ...
@overload
def register(**name: str) -> Callable[[Thing], Thing]: ...
def register(kind: Any = None, /, **name: str) -> Any:
    """Registers a custom class or function under a name. A decorator with two forms.

    @gc.register above a class derived from Layer, Loss, Optimizer or Schedule: models that use it can be saved and loaded. A loss is
    registered under its `name`, the others under the name of the class. Loading calls the class with the arguments that attributes of the
    same names hold, or of these names behind an underscore; a layer's `settings()`, and `config()` of the others, may say something else.

    @gc.register(network="mine") above the object that gets the name "mine":
        network         a function of the number of classes that returns a list of layers ending in raw outputs
        dataset         a function of a `gpucnn.data.Request` that returns a `gpucnn.data.Dataset`
        metric          a function (scores, labels) -> float
        initializer     a function (shape, rng, groups) -> array
        augmentation    a class derived from `gpucnn.data.RandomChange`
        optimizer, schedule     classes derived from these bases, as above

    Raises ArgumentError if the name is taken by something else. Defining the same thing again replaces it.
    """
    if name:
        if kind is not None or len(name) != 1:
            raise ArgumentError(f"register takes a class or one name, such as network='mine', got {shown(name)}")
        ((what, called),) = name.items()
        known = pick(what, NAMED, "kind of thing to register")
        base = BASES.get(what)

        def added(thing: Any) -> Any:
            if not callable(thing) or (base is not None and not (isinstance(thing, type) and issubclass(thing, base))):
                wanted = "function" if base is None else f"class derived from {base.__name__}"
                raise TypeError(f"register({what}=...) must be above a {wanted}, got {shown(thing)}")
            return known.add(called)(thing)

        return added
    for base, (what, classes) in CLASSES.items():
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base:
            put(classes, kind.name if issubclass(kind, Loss) else kind.__name__, kind, what)
            return kind
    raise TypeError(f"register takes a class derived from {', '.join(base.__name__ for base in CLASSES)}, got {shown(kind)}")

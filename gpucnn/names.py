"""Lookup by name: one registry per kind, from which choices, help texts and error messages are generated; and second names.

The second names themselves are in gpucnn.words.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from gpucnn.checks import pick
from gpucnn.errors import ArgumentError
from gpucnn.text import plain, shown

T = TypeVar("T")
V = TypeVar("V")
F = TypeVar("F", bound=Callable[..., Any])


class Registry(dict[str, T]):
    """All things of one kind (optimizers, data sets, …) by name, in the order in which they were added.

    OPTIMIZERS = Registry("optimizer")

    @OPTIMIZERS.add("sgd")
    class SGD: ...
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.seconds: dict[str, str] = {}  # second name, in lower case without signs -> name

    def add(self, name: str) -> Callable[[V], V]:
        """A decorator that registers a class or function as `name`. ArgumentError if the name is taken."""

        def added(thing: V) -> V:
            put(self, name, thing, self.kind)
            return thing

        return added

    def also(self, seconds: Mapping[str, str]) -> None:
        """Adds second names for registered names."""
        for second, first in seconds.items():
            pick(first, self, self.kind)
            self.seconds[_bare(second)] = first

    def meant(self, name: object) -> str | None:
        """The registered name for `name`, ignoring case and punctuation; second names count. None if there is none."""
        if not isinstance(name, str):
            return None
        if name in self:
            return name
        bare = _bare(name)
        return next((known for known in self if _bare(known) == bare), self.seconds.get(bare))

    def first(self, name: object) -> str:
        """The registered name for `name`. Raises UnknownNameError if there is none."""
        meant = self.meant(name)
        pick(name if meant is None else meant, self, self.kind)
        return str(meant)

    def pick(self, name: object) -> T:
        """The object registered for `name`. Raises UnknownNameError, which lists all names and the nearest, if there is none."""
        return self[self.first(name)]

    def name_of(self, thing: object) -> str | None:
        """The name under which this object itself is registered; None if it is not."""
        return next((name for name, known in self.items() if known is thing), None)

    def __str__(self) -> str:
        return ", ".join(self)


ARGUMENTS: dict[str, str] = {}
"""Second name of an argument -> its name."""

NO_ARGUMENT: dict[str, str] = {}
"""An argument that other libraries have -> what to do instead."""

NO_ATTRIBUTE: dict[str, str] = {}
"""An attribute that other libraries' models, layers and optimizers have -> what to do instead."""


class Worded:
    """Base of classes whose constructors also accept second names of arguments, and that know what others call their attributes.

    beside: arguments that every constructor accepts in addition to its own, and the attributes that store them.
    """

    beside: ClassVar[dict[str, str]] = {}
    _of_gpucnn: ClassVar[bool]  # whether the class is not one of the user's

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls._of_gpucnn = cls.__module__.startswith("gpucnn.")
        if "__init__" in vars(cls):
            cls.__init__ = _worded(cls.__init__)  # type: ignore[method-assign]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(no_attribute(self, name))

    def __repr__(self) -> str:
        """The constructor call, with the arguments that still exist."""
        names = _arguments(type(self).__init__)
        values = {name: getattr(self, name) for name in names if getattr(self, name, None) is not None}
        return f"{type(self).__name__}({', '.join(f'{name}={shown(value)}' for name, value in values.items())})"


def made_of(thing: object, *kinds: type) -> dict[str, Any]:
    """The arguments of an object's constructor that JSON can hold, or that are of these kinds, as far as attributes have their names, or
    their names behind an underscore."""
    return {name: value for name, value in _held(thing).items() if _storable(value, kinds)}


def differing(one: object, other: object) -> str | None:
    """The first argument of the constructor that two objects were made with different values of, where attributes tell; else None."""
    first, second = _held(one), _held(other)
    return next((name for name in first if name in second and not _alike(first[name], second[name])), None)


def _held(thing: object) -> dict[str, Any]:
    """The attributes behind `made_of`. `**more` stands for the arguments of the class before it."""
    names: dict[str, None] = {}
    for kind in type(thing).__mro__:
        if (init := vars(kind).get("__init__")) is not None:
            names |= dict.fromkeys(_arguments(init))
            if not _takes_more(init):
                break
    held = vars(thing)
    found = {name: held[each] for name in names for each in (name, f"_{name}") if each in held}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in found.items()}


def _storable(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, list | tuple):
        return all(_storable(each, kinds) for each in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _storable(each, ()) for key, each in value.items())
    return value is None or isinstance(value, (bool, int, float, str, *kinds))


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are equal. Of layers and other objects only the types are compared; a function may have become its name."""
    one, other = (value.tolist() if isinstance(value, np.ndarray) else value for value in (one, other))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if callable(one) and not isinstance(one, Worded):
        return one is other or isinstance(other, str)
    plain = bool | int | float | str | None
    return one == other if isinstance(one, plain) or isinstance(other, plain) else type(one) is type(other)


def _code(init: Any) -> Any:
    return getattr(getattr(init, "__wrapped__", init), "__code__", None)


def _takes_more(init: Any) -> bool:
    return (code := _code(init)) is not None and bool(code.co_flags & inspect.CO_VARKEYWORDS)


def _arguments(init: Any) -> tuple[str, ...]:
    code = _code(init)
    return () if code is None else code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]


def _worded(init: Any) -> Any:
    if _takes_more(init):  # which goes to another constructor, and that handles the names
        return init
    code, own = init.__code__, frozenset(_arguments(init))

    @functools.wraps(init)
    def worded(self: Any, *values: Any, **named: Any) -> None:
        kept = {}
        if not named.keys() <= own:
            kept = {name: named.pop(name) for name in named.keys() & type(self).beside.keys() - own}
            for second in named.keys() - own:
                first = ARGUMENTS.get(second)
                if first is not None and first in own:
                    if first in named or first in code.co_varnames[1 : len(values) + 1]:
                        raise ArgumentError(f"{first} and {second} are two names of one argument of {type(self).__name__}: give only one")
                    named[first] = named.pop(second)
            if unknown := sorted(named.keys() - own):
                raise TypeError(no_argument(type(self).__name__, unknown[0], _arguments(init)))
        init(self, *values, **named)
        for name, value in kept.items():
            setattr(self, type(self).beside[name], value)

    return worded


def told(method: F) -> F:
    """A decorator for methods: an argument that they do not have is an error that says what there is instead."""
    own = frozenset(_arguments(method))

    @functools.wraps(method)
    def checked(*values: Any, **named: Any) -> Any:
        if not named.keys() <= own:
            raise TypeError(no_argument(method.__qualname__, min(named.keys() - own), _arguments(method)))
        return method(*values, **named)

    return checked  # type: ignore[return-value]


def no_argument(function: str, name: str, known: Sequence[str]) -> str:
    """The message about an argument that a constructor or a method does not have."""
    import difflib  # needed for errors only

    near = difflib.get_close_matches(name[:100], known, n=1)
    hint = NO_ARGUMENT.get(name) or (f"did you mean {near[0]}?" if near else "")
    takes = f"it takes {', '.join(known) or 'none'}{f'; {hint}' if hint else ''}"
    return f"{function}() got an unexpected keyword argument {plain(name)!r}: {takes}"


def no_attribute(owner: object, name: str) -> str:
    """The message about an attribute that does not exist."""
    hint = f": {NO_ATTRIBUTE[name]}" if name in NO_ATTRIBUTE else ""
    return f"{type(owner).__name__!r} object has no attribute {name!r}{hint}"


def modules_in(package: str) -> list[ModuleType]:
    """Imports the modules in a package's folder, in the order of their names. Modules that begin with _ only help the others."""
    folder = importlib.import_module(package).__path__
    names = sorted(found.name for found in pkgutil.iter_modules(folder) if not found.name.startswith("_"))
    return [importlib.import_module(f"{package}.{name}") for name in names]


def put(known: MutableMapping[str, Any], name: Any, thing: Any, kind: str) -> None:
    """known[name] = thing. Raises ArgumentError if the name is taken; defining the same thing again replaces it."""
    if not isinstance(name, str) or not name or plain(name) != name:
        raise ArgumentError(f"the name of a {kind} must be a printable word, got {shown(name)}")
    before = known.get(name)
    if before is not None and _origin(before) != _origin(thing):
        raise ArgumentError(f"the name {name!r} is taken by {'.'.join(_origin(before))}: give the {kind} another")
    known[name] = thing


def _bare(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def _origin(thing: Any) -> tuple[str, str]:
    owner = thing if hasattr(thing, "__qualname__") else type(thing)
    return owner.__module__, owner.__qualname__

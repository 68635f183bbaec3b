"""Things asked for by name: one registry for each kind, from which choices, help texts and errors follow."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

from gpucnn.checks import pick
from gpucnn.errors import ArgumentError
from gpucnn.text import plain, shown

T = TypeVar("T")
V = TypeVar("V")


class Registry(dict[str, T]):
    """All of one kind, by name, in the order in which they were added: an optimizer, a data set and the like.

    OPTIMIZERS = Registry("optimizer")

    @OPTIMIZERS.add("sgd")
    class SGD: ...
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def add(self, name: str) -> Callable[[V], V]:
        """A decorator that makes a class or a function known as `name`. ArgumentError where another one has the name."""

        def added(thing: V) -> V:
            put(self, name, thing, self.kind)
            return thing

        return added

    def pick(self, name: object) -> T:
        """What is called `name`; UnknownNameError, with all names and the nearest, for any other."""
        return pick(name, self, self.kind)

    def name_of(self, thing: object) -> str | None:
        """The name under which just this thing is known; None where it is not."""
        return next((name for name, known in self.items() if known is thing), None)

    def __str__(self) -> str:
        return ", ".join(self)


def put(known: MutableMapping[str, Any], name: Any, thing: Any, kind: str) -> None:
    """known[name] = thing. ArgumentError where another one has the name; the same one, defined anew, takes its own place."""
    if not isinstance(name, str) or not name or plain(name) != name:
        raise ArgumentError(f"the name of a {kind} must be a word that can be printed, got {shown(name)}")
    before = known.get(name)
    if before is not None and _origin(before) != _origin(thing):
        raise ArgumentError(f"the name {name!r} is taken by {'.'.join(_origin(before))}: give the {kind} another")
    known[name] = thing


def _origin(thing: Any) -> tuple[str, str]:
    owner = thing if hasattr(thing, "__qualname__") else type(thing)
    return owner.__module__, owner.__qualname__

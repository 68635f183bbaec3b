"""The language of loops: kinds of arguments, records of several, helpers and intrinsics.

Numba compiles (`_numba.py`), but is imported only when there is something to compile. Until then a `Late` stands for each name from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import llvmlite.ir

__all__ = [
    "PACKED",
    "WORDS",
    "Declared",
    "Helper",
    "Intrinsic",
    "Late",
    "cgutils",
    "floats",
    "helper",
    "intrinsic",
    "intrinsics",
    "ir",
    "kinds_of",
    "record",
    "types",
    "vector",
    "words",
]

Record = TypeVar("Record", bound=type)
PACKED = ".packed"  # behind a loop's symbol: its way in from Python, which takes the address of the arguments, eight bytes each
WORDS = {"i": "q", "f": "d", "d": "d", "u": "Q"}  # how a number becomes eight bytes, in `struct`'s letters; addresses are integers


class Late:
    """Stands for a name of `_numba` in a module that writes instructions; `_numba` replaces it when it is imported."""

    def __init__(self, name: str) -> None:
        self.name = name


ir: Any = llvmlite.ir
types: Any = Late("types")
cgutils: Any = Late("cgutils")
floats: Any = Late("floats")  # addresses of numbers
words: Any = Late("words")
vector: Any = Late("vector")

_RECORDS: dict[type, list[str]] = {}


def record(kinds: str) -> Callable[[Record], Record]:
    """Makes a NamedTuple an argument of loops, which read its fields by name. kinds: those of its fields in order, as for `loop`.

    Python passes a loop the fields one by one, as `*record`; a loop passes another one the whole, which costs nothing.
    """

    def register(kind: Record) -> Record:
        _RECORDS[kind] = kinds.split()
        return kind

    return register


def kinds_of(kind: Any) -> list[str] | None:
    """The kinds of a record's fields; None if `kind` is not a record."""
    return _RECORDS.get(kind)


class Declared:
    """A function, the symbol that its machine code has, and the kinds of its arguments."""

    def __init__(self, function: Callable[..., Any], given: Sequence[str | type]) -> None:
        self.function = function
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.symbol = f"gpucnn_loops.{self.name}"
        self.source = function.__code__.co_filename
        self.given: list[Any] = [kind for part in given for kind in (part.split() if isinstance(part, str) else [part])]
        self.arguments = [field for kind in self.given for field in (kinds_of(kind) or [kind])]

    def whole(self, fields: Iterator[Any]) -> list[Any]:
        """The arguments as the function takes them, made of one value for each kind in `arguments`."""
        return [next(fields) if own is None else kind(*(next(fields) for _ in own)) for kind in self.given for own in [kinds_of(kind)]]

    def signature(self) -> str:
        """The kinds of its arguments in words. The machine code of its callers depends on them."""
        return " ".join(kind if isinstance(kind, str) else f"{kind._fields}:{kinds_of(kind)}" for kind in self.given)


class Helper:
    """A function that becomes a part of each loop that calls it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.py_func = function


class Intrinsic:
    """A function that writes instructions: it takes types, and returns a signature and the function that writes them."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.function, self.options = function, options
        intrinsics.append(self)


intrinsics: list[Intrinsic] = []


def helper(function: Callable[..., Any]) -> Any:
    """Makes a function a `Helper`."""
    return Helper(function)


def intrinsic(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Makes a function an `Intrinsic`. options: those of Numba's."""
    return Intrinsic(function, options) if function is not None else lambda given: Intrinsic(given, options)

"""Checks of plain arguments: numbers in a range, and things asked for by name. One sentence where they fail."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from gpucnn.errors import ShapeError, UnknownNameError

T = TypeVar("T")
Pair: TypeAlias = tuple[int, int]


def pick(name: object, choices: Mapping[str, T], kind: str) -> T:
    """choices[name]; UnknownNameError, which says which names there are, for any other."""
    if isinstance(name, str) and name in choices:
        return choices[name]
    import difflib  # for mistakes alone

    near = difflib.get_close_matches(name, choices, n=1) if isinstance(name, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownNameError(f"unknown {kind} {name!r}: there are {', '.join(choices)}{hint}")


def integer(value: Any, name: str, least: int) -> int:
    """`value` as an int of at least `least`; a bool, a float or anything else that is no whole number is refused."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if number < least:
        raise ShapeError(f"{name} must be at least {least}, got {number}")
    return number


def pair(value: Any, name: str, least: int) -> Pair:
    """A whole number, or two of them for the vertical and the horizontal axis."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise ShapeError(f"{name} must be one whole number or two (vertical, horizontal), got {value!r}")
        return integer(value[0], name, least), integer(value[1], name, least)
    number = integer(value, name, least)
    return number, number


def positive(value: Any, name: str, *, zero: bool = False) -> float:
    """`value` as a finite float above zero (or zero, where `zero`)."""
    if isinstance(value, str | bytes | bool):  # float() takes all of them
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    except OverflowError:
        raise ValueError(f"{name} must be a finite number, got one over 1e308") from None
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} must be a finite number {'of at least' if zero else 'above'} 0, got {value!r}")
    return number


def fraction(value: Any, name: str) -> float:
    """`value` as a float in [0, 1)."""
    number = positive(value, name, zero=True)
    if number >= 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value!r}")
    return number

"""Checks of plain arguments: numbers in a range, and names. Each error is one sentence.

Numbers are Python's and NumPy's alike, and so are pairs of them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from gpucnn.errors import ArgumentError, ShapeError, UnknownNameError
from gpucnn.text import shown

T = TypeVar("T")
Pair: TypeAlias = tuple[int, int]
COUNT = 2**31 - 1  # the most epochs, and examples in a batch: a kernel's integers have 32 bits


def pick(name: object, choices: Mapping[str, T], kind: str) -> T:
    """choices[name]; UnknownNameError, which lists the names, for any other."""
    if isinstance(name, str) and name in choices:
        return choices[name]
    import difflib  # needed for errors only

    near = difflib.get_close_matches(name, choices, n=1) if isinstance(name, str) and len(name) < 100 else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownNameError(f"unknown {kind} {shown(name)}: there are {', '.join(choices)}{hint}")


def integer(value: Any, name: str, least: int, error: type[ValueError] = ArgumentError, *, most: int | None = None) -> int:
    """`value` as an int from `least` to `most`; anything that is not an integer, bools and floats included, is refused."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {shown(value)}") from None
    if number < least:
        raise error(f"{name} must be at least {least}, got {shown(number)}")
    if most is not None and number > most:
        raise error(f"{name} must be at most {most:,}, got {shown(number)}")
    return number


def flag(value: Any, name: str) -> bool:
    """`value` as a bool. TypeError for anything but True and False, because the string "no" would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def several(value: Any) -> tuple[Any, ...] | None:
    """The items of a sequence, including arrays of one axis and more; None for a single value and for text."""
    if isinstance(value, np.ndarray) and value.ndim:
        return tuple(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(value)
    return None


def pair(value: Any, name: str, least: int) -> Pair:
    """One integer, or two for the vertical and the horizontal axis."""
    items = several(value)
    if items is not None and isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be one integer or a tuple of two, got {shown(value)}")
    if items is None:
        number = integer(value, name, least, ShapeError)
        return number, number
    if len(items) != 2:
        raise ShapeError(f"{name} must be one integer or two (vertical, horizontal), got {shown(value)}")
    return integer(items[0], name, least, ShapeError), integer(items[1], name, least, ShapeError)


def positive(value: Any, name: str, *, zero: bool = False, error: type[ValueError] = ArgumentError) -> float:
    """`value` as a finite float above zero (or at least zero, if `zero`) that stays so in float32."""
    if isinstance(value, str | bytes | bool | np.bool_) or getattr(value, "shape", ()) != ():  # float() takes all of them
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {shown(value)}") from None
    except OverflowError:
        raise error(f"{name} must be a finite number, got one above 1e308") from None
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise error(f"{name} must be a finite number {'of at least' if zero else 'above'} 0, got {shown(value)}")
    if number and not SMALLEST <= number <= LARGEST:
        what = "zero" if number < SMALLEST else "infinite"
        raise error(f"{name} is {number:g}, which is {what} in float32: give a number from {SMALLEST:.2g} to {LARGEST:.2g}")
    return number


def fraction(value: Any, name: str) -> float:
    """`value` as a float in [0, 1) that stays below 1 in float32."""
    number = positive(value, name, zero=True)
    if number >= 1:
        raise ArgumentError(f"{name} must be at least 0 and below 1, got {shown(value)}")
    if number > BELOW_ONE:
        raise ArgumentError(f"{name} is {number!r}, which is 1 in float32: give at most {BELOW_ONE:.8g}")
    return number


def proportion(value: Any, name: str) -> float:
    """`value` as a float between 0 and 1, both excluded."""
    number = positive(value, name, zero=True)
    if not 0 < number < 1:
        raise ArgumentError(f"{name} must lie between 0 and 1, both excluded, got {shown(value)}: for example 0.2")
    return number


SMALLEST, LARGEST = 2.0**-149, (2 - 2.0**-23) * 2.0**127  # of float32, subnormal numbers included
BELOW_ONE = 1 - 2.0**-24  # the largest float32 under 1

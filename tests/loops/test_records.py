"""Records: arguments of a loop that belong together, read by name and given on as a whole."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
import pytest

from gpucnn_loops.language import Declared, record
from gpucnn_loops.loops import loop
from gpucnn_loops.threads import address


@record("f* i f")
class Line(NamedTuple):
    numbers: int
    size: int
    slope: float


@loop("i", Line, "f*")
def scaled(first: Any, line: Any, y: Any) -> None:
    for i in range(first, line.size):
        y[i] = line.numbers[i] * line.slope


@loop("i", Line, Line, "f*")
def twice(first: Any, a: Any, b: Any, y: Any) -> None:
    scaled(first, a, y)
    start, size, slope = b
    scaled(first, b, y)
    y[0] = slope * size + start[0]


def test_a_loop_reads_fields_by_name_and_gives_a_record_on(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal(7, dtype=np.float32), np.full(7, 9, np.float32)
    first, second = Line(address(x), 7, 2.0), Line(address(x), 4, 3.0)
    twice(2, *first, *second, address(y))
    np.testing.assert_array_equal(y[2:], np.concatenate([x[2:4] * 3, x[4:] * 2]))
    assert y[0] == np.float32(12) + x[0] and y[1] == 9


def test_python_gives_one_value_for_each_field() -> None:
    assert twice.arguments == ["i", "f*", "i", "f", "f*", "i", "f", "f*"]
    assert twice.whole(iter(range(8))) == [0, Line(1, 2, 3), Line(4, 5, 6), 7]
    with pytest.raises(struct.error, match="expected 8 items"):
        twice(0, 0)


def test_fields_in_another_order_are_other_machine_code() -> None:
    @record("f* f i")
    class Other(NamedTuple):
        numbers: int
        slope: float
        size: int

    assert Declared(scaled.function, ["i", Other, "f*"]).signature() != scaled.signature()

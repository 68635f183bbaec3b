"""A layer as a Keras file describes it: its settings, checked as they are read, its inputs and its arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from gpucnn.checks import integer, pair
from gpucnn.exchange.graph import Graph
from gpucnn.exchange.problems import Problem
from gpucnn.exchange.value import FIRST, LAST, Value
from gpucnn.ops.shapes import LIMIT
from gpucnn.text import shown

Shapes = list[tuple[int, ...]]


@dataclass
class Told:
    """A layer as the file describes it, its inputs, and a function that reads its arrays, given their shapes."""

    graph: Graph
    config: dict[str, Any]
    values: list[Value]
    where: str
    arrays: Callable[[Shapes], list[NDArray[Any]]]

    @property
    def value(self) -> Value:
        if len(self.values) != 1:
            raise Problem(f"takes {len(self.values)} values, and one is expected")
        return self.graph.settled(self.values[0], self.where)

    def image(self) -> Value:
        """The input, an image whose axes are in the layer's order."""
        value = self.value
        axes = LAST if self.config.get("data_format", "channels_last") != "channels_first" else FIRST
        if value.axes != axes:
            raise Problem(f"needs images in the layer's own order of axes: its input has shape {value.logical}")
        return value

    def pair(self, name: str, default: Any = (1, 1), least: int = 1) -> tuple[int, int]:
        given = self.config.get(name, default)
        try:
            return pair(given, name, least)
        except (TypeError, ValueError):
            raise Problem(f"has {name} {shown(given)}, and two integers of at least {least} are expected") from None

    def number(self, name: str, default: float | None = None) -> float:
        given = self.config.get(name, default)
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise Problem(f"has {name} {shown(given)}, and a number is expected")
        return given

    def count(self, name: str) -> int:
        given = self.config.get(name)
        try:
            if (number := integer(given, name, 1)) < LIMIT:
                return number
        except (TypeError, ValueError):
            pass
        raise Problem(f"has {name} {shown(given)}, and an integer above 0 is expected")

    @property
    def padding(self) -> str:
        given = self.config.get("padding", "valid")
        if given not in ("valid", "same"):
            raise Problem(f"has padding {shown(given)}, and only valid and same are supported")
        return str(given)

    @property
    def biased(self) -> bool:
        return bool(self.config.get("use_bias", True))

    def at(self, config: dict[str, Any], value: Value) -> Told:
        """Another layer with the arrays of this one: its description, and its input."""
        return replace(self, config=config, values=[value])

    def window(self) -> dict[str, Any]:
        return {"stride": self.pair("strides"), "padding": self.padding, "dilation": self.pair("dilation_rate")}

"""A node of an ONNX graph, whose inputs and attributes are checked when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpucnn.exchange.graph import Graph
from gpucnn.exchange.problems import Problem
from gpucnn.exchange.value import FIRST, Value
from gpucnn.text import shown

FLOATS = (1, 10, 11, 16)  # FLOAT, FLOAT16, DOUBLE and BFLOAT16 by ONNX's numbers


class Walk(Protocol):
    """The graph, as far as its operators need to know it."""

    graph: Graph
    values: dict[str, Value]
    batch: int | None
    file: Any

    def constant(self, name: str) -> NDArray[Any] | None: ...


@dataclass
class Op:
    """A node: its inputs and attributes, asked for as what they have to be."""

    walk: Walk
    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    where: str

    @property
    def graph(self) -> Graph:
        return self.walk.graph

    def has(self, index: int) -> bool:
        """Whether the node has this input."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def value(self, index: int = 0) -> Value:
        """An input that depends on the input of the graph."""
        if not self.has(index) or self.inputs[index] not in self.walk.values:
            raise Problem(f"has a constant, or nothing, for its input {index + 1}")
        return self.walk.values[self.inputs[index]]

    def constant(self, index: int) -> NDArray[Any]:
        """An input that is constant."""
        found = self.walk.constant(self.inputs[index]) if self.has(index) else None
        if found is None:
            raise Problem(f"computes its input {index + 1}, which must be a constant")
        return found

    def optional(self, index: int) -> NDArray[Any] | None:
        return self.constant(index) if self.has(index) else None

    def image(self) -> Value:
        """The first input, an image with its channels first."""
        value = self.value()
        if len(value.axes) != 3:
            raise Problem(f"works on a value of {len(value.axes) + 1} axes, and only images (N, C, H, W) are supported")
        if value.axes != FIRST:
            raise Problem("works on images whose axes are not channels, height, width")
        return value

    def pair(self, name: str, default: Sequence[int] | None = (1, 1)) -> tuple[int, int]:
        given = self.attributes.get(name, default)
        if given is None or len(given) != 2:
            raise Problem(f"has {name} {shown(given)}, and works on other than two dimensions: only images are supported")
        return int(given[0]), int(given[1])

    def numbers(self, index: int, name: str) -> list[int] | None:
        """Integers from an attribute or, in later versions, from an input."""
        if name in self.attributes:
            return [int(number) for number in self.attributes[name]]
        found = self.optional(index)
        if found is None:
            return None
        if found.dtype == object or found.dtype.kind not in "iu":
            raise Problem(f"has no integers for {name}")
        return [int(number) for number in np.atleast_1d(found)]

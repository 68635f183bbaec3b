"""What goes from layer to layer while a model is on its way in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gpucnn.checks import integer, several
from gpucnn.errors import ArgumentError
from gpucnn.exchange.curves import Curve
from gpucnn.layers import Layer
from gpucnn.layers.base import Shape
from gpucnn.ops.shapes import Sides
from gpucnn.text import shown

FIRST, LAST = (0, 1, 2), (1, 2, 0)  # which of our axes each axis of the file is, without the batch
NO_PADDING: Sides = ((0, 0), (0, 0))
OWN_FILTERS = "nfpq,kfpq->nkpq"  # how ONNX spells filters of each position's own: pixels of windows, and weights for each


@dataclass
class Node:
    """A layer to be. `plain`: it scales and shifts, with no statistics of its own; `whole`: it pools all of an image."""

    kind: type[Layer] | None  # None: the model's input
    settings: dict[str, Any]
    weights: dict[str, NDArray[Any]]
    inputs: list[int]
    shape: Shape
    where: str
    plain: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Value:
    """What a node gives, as the file sees it.

    axes: for each axis of the file's, without the batch, which of ours it is. order: of features, for each of the file's the number that
    it has here; None where they are the same. scale, shift: numbers for each channel that are still to be applied; curve: a formula that
    is; pad: padding that is still to be put around, and what with.
    """

    node: int
    shape: Shape  # ours
    axes: tuple[int, ...]
    order: NDArray[Any] | None = None
    scale: NDArray[Any] | None = None
    shift: NDArray[Any] | None = None
    curve: Curve | None = None
    pad: tuple[Sides, str] | None = None
    inner: Value | None = None  # what the curve's last step was done to,
    step: Curve | tuple[NDArray[Any], NDArray[Any]] | None = None  # and that step, a formula or (scale, shift)
    pair: tuple[Value, Value] | None = None  # or what was added up in it
    place: str = ""  # of the node that the curve's last formula is

    @property
    def logical(self) -> Shape:
        """The file's shape, without the batch."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def is_features(self) -> bool:
        return len(self.shape) == 1

    @property
    def pending(self) -> bool:
        return self.scale is not None or self.curve is not None or self.pad is not None


def sizes_given(given: Any) -> tuple[int, ...]:
    """The shape of an example, as somebody gives it."""
    sizes = several(given)
    if sizes is None:
        raise ArgumentError(f"input_shape must be integers, such as (28, 28, 1), got {shown(given)}")
    return tuple(integer(size, "input_shape", 1) for size in sizes)


def goes_with(given: Sequence[int], declared: Sequence[int | None]) -> bool:
    """Whether a shape is one that the file, which may leave sizes open, declares."""
    return len(given) == len(declared) and all(size in (None, want) for size, want in zip(declared, given, strict=True))


def same_order(one: Value, two: Value) -> bool:
    if one.order is None or two.order is None:
        return one.order is two.order
    return bool((one.order == two.order).all())

"""The values between layers while a model is imported."""

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

FIRST, LAST = (0, 1, 2), (1, 2, 0)  # for each axis of the file, without the batch, the axis here
NO_PADDING: Sides = ((0, 0), (0, 0))
OWN_FILTERS = "nfpq,kfpq->nkpq"  # how ONNX writes convolution without weight sharing: the pixels of windows, and weights for each


@dataclass
class Node:
    """A layer that will be created. `plain`: it only scales and shifts, without statistics; `whole`: it pools a whole image."""

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
    """The output of a node, as the file describes it.

    axes: for each axis of the file, without the batch, the axis here. order: for each of the file's features, its number here; None if
    they are equal. scale, shift: numbers for each channel that are still to be applied; curve: a formula that is still to be applied;
    pad: padding that is still to be added, and its value.
    """

    node: int
    shape: Shape  # ours
    axes: tuple[int, ...]
    order: NDArray[Any] | None = None
    scale: NDArray[Any] | None = None
    shift: NDArray[Any] | None = None
    curve: Curve | None = None
    pad: tuple[Sides, str] | None = None
    inner: Value | None = None  # the value to which the curve's last step was applied,
    step: Curve | tuple[NDArray[Any], NDArray[Any]] | None = None  # and that step, a formula or (scale, shift)
    pair: tuple[Value, Value] | None = None  # or the values that were added
    where: str = ""  # of the node that gave the curve's last formula

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
    """The shape of an example, as the user gave it."""
    sizes = several(given)
    if sizes is None:
        raise ArgumentError(f"input_shape must be integers, such as (28, 28, 1), got {shown(given)}")
    return tuple(integer(size, "input_shape", 1) for size in sizes)


def goes_with(given: Sequence[int], declared: Sequence[int | None]) -> bool:
    """Whether a shape matches the one that the file declares, which may leave sizes open."""
    return len(given) == len(declared) and all(size in (None, want) for size, want in zip(declared, given, strict=True))


def same_order(one: Value, two: Value) -> bool:
    if one.order is None or two.order is None:
        return one.order is two.order
    return bool((one.order == two.order).all())

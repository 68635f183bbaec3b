"""Layers one after another: what models and the layers made of layers run. How their gradients are taken is settled once, here."""

from __future__ import annotations

from collections.abc import Sequence

from gpucnn.errors import ShapeError
from gpucnn.layers.base import Array, Layer, Plan, Shape, Stage
from gpucnn.layers.fused import stages
from gpucnn.text import shown


def build_in_turn(layers: Sequence[Layer], shape: Shape) -> Shape:
    """Builds layers that stand one after another, names each by its kind and number, and returns the shape of the last one's output.
    ShapeError says which of them does not fit."""
    counts: dict[str, int] = {}
    for index, layer in enumerate(layers):
        kind = type(layer).__name__.lower()
        counts[kind] = counts.get(kind, 0) + 1
        layer.name = f"{kind}_{counts[kind]}"
        try:
            shape = layer.build(shape)
        except ShapeError as error:
            raise ShapeError(f"layer {index + 1} of {len(layers)}, {shown(layer)}: {error}") from None
    return shape


def planned(found: Sequence[Stage]) -> list[Plan]:
    """What backward of each stage does besides its own work."""
    takes = {index for index, stage in enumerate(found) if stage.takes_relu_grad and _relu_before(found, index) is not None}
    taken = {_relu_before(found, index) for index in takes}
    last = max((index for index, stage in enumerate(found) if not stage.passes_on), default=0)  # what it hands down is new
    return [Plan(overwrites=index < last, takes_relu=index in takes, relu_taken=index in taken) for index in range(len(found))]


def _relu_before(found: Sequence[Stage], index: int) -> int | None:
    """The stage whose ReLU has made the input of the one at `index`, if ReLU has: stages between keep its zeros."""
    for before in range(index - 1, -1, -1):
        if not found[before].keeps_relu:
            return before if found[before].ends_in_relu else None
    return None


class Stack:
    """The stages of layers that are built, forward and backward."""

    def __init__(self, layers: Sequence[Layer] = ()) -> None:
        self.stages = stages(layers)
        self.plans = planned(self.stages)
        self._first = next((index for index, stage in enumerate(self.stages) if stage.trained), len(self.stages) - 1)

    def forward(self, x: Array, training: bool = False, *, logits: bool = False) -> Array:
        """The last stage's output; `logits` leaves a final softmax or sigmoid off."""
        *before, last = self.stages
        for stage in before:
            x = stage.forward(x, training)
        return last.forward(x, training, logits=logits)

    def backward(self, dy: Array, *, input_grad: bool = False) -> Array | None:
        """Adds the gradient of every parameter, given that of the output, which is left as it is; returns that of the input where
        `input_grad`. Stages before the first one that is trained have nothing to do otherwise."""
        first = 0 if input_grad else self._first
        for index in range(len(self.stages) - 1, first - 1, -1):
            dy = self.stages[index].backward(dy, input_grad=input_grad or index > first, plan=self.plans[index])
        for stage in self.stages[:first]:
            stage.forget()
        return dy if input_grad else None

    def forget(self) -> None:
        """Lets go of what forward kept."""
        for stage in self.stages:
            stage.forget()

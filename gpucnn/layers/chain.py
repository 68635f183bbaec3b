"""Layers in sequence, as models and layers made of layers run them. The backward pass is planned once, here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from gpucnn.errors import GpucnnError, ShapeError
from gpucnn.layers.base import Array, Layer, Plan, Shape
from gpucnn.layers.fused import ConvBatchNorm, for_predictions, stages
from gpucnn.layers.replayed import Replayed
from gpucnn.layers.stage import Forward, Stage
from gpucnn.text import shown


def numbered(layers: Iterable[Layer]) -> dict[str, Layer]:
    """Layers by their names in a stack, kind and number: conv2d_1, conv2d_2, dense_1."""
    counts: dict[str, int] = {}
    named = {}
    for layer in layers:
        kind = type(layer).__name__.lower()
        counts[kind] = counts.get(kind, 0) + 1
        named[f"{kind}_{counts[kind]}"] = layer
    return named


def build_in_turn(layers: Sequence[Layer], shape: Shape) -> Shape:
    """Builds layers in sequence, names them, and returns the shape of the last one's output. ShapeError names the layer that does not
    fit."""
    for index, (name, layer) in enumerate(numbered(layers).items()):
        layer.name = name
        try:
            shape = layer.build(shape)
        except ShapeError as error:
            raise ShapeError(f"layer {index + 1} of {len(layers)}, {shown(layer)}: {error}") from None
    return shape


def planned(found: Sequence[Stage], own: bool = False, first: int = 0) -> list[Plan]:
    """The plan of each stage's backward pass. own: nothing else needs the gradient passed to the last stage. first: the first stage
    that is trained, where backward usually ends: it passes no gradient on."""
    relus = {index: relu_before(found, index) for index, stage in enumerate(found) if stage.takes_relu_grad}
    takes = {index for index, relu in relus.items() if relu is not None and not (relu <= first and found[relu].masks_itself)}
    taken = {relus[index] for index in takes}
    last = len(found) if own else max((index for index, stage in enumerate(found) if not stage.passes_on), default=0)
    return [Plan(overwrites=index < last, takes_relu=index in takes, relu_taken=index in taken) for index in range(len(found))]


def relu_before(found: Sequence[Stage], index: int) -> int | None:
    """The stage whose ReLU produced the input of stage `index`, if there is one; the stages between must preserve its zeros."""
    for before in range(index - 1, -1, -1):
        if not found[before].keeps_relu:
            return before if found[before].ends_in_relu else None
    return None


class Chain:
    """The stages of built layers, forward and backward. own: the chain may overwrite the gradient that it receives."""

    def __init__(self, layers: Sequence[Layer] = (), own: bool = False) -> None:
        self.stages = stages(layers)
        self.ahead = for_predictions(self.stages)
        self._first = next((index for index, stage in enumerate(self.stages) if stage.trained), len(self.stages) - 1)
        self.plans = planned(self.stages, own, self._first)
        self.trained = any(stage.trained for stage in self.stages)
        self.passes_on = all(stage.passes_on for stage in self.stages)
        self.replayed: Replayed | None = None  # what a model's passes for predictions on a CPU go through
        self.done: Callable[[int], None] | None = None  # called with each stage that backward has completed
        # For the layer around it: its last ReLU, and the stage that can include the gradient of a ReLU before it.
        self._last_relu = relu_before(self.stages, len(self.stages))
        entry = next((index for index, stage in enumerate(self.stages) if not stage.keeps_relu), None)
        self._entry = entry if entry is not None and self.stages[entry].takes_relu_grad else None

    @property
    def ends_in_relu(self) -> bool:
        """Whether a ReLU produced the output."""
        return self._last_relu is not None

    @property
    def takes_part(self) -> bool:
        """Whether the last stage can write to, and read from, a slice of larger images."""
        return self.stages[-1].takes_part

    @property
    def takes_relu_grad(self) -> bool:
        """Whether backward can include the gradient of the ReLU that produced the input."""
        return self._entry is not None

    @property
    def takes_sum(self) -> bool:
        """Whether `forward_with_sum` can be called, for predictions."""
        last = self.ahead[-1]
        return isinstance(last, ConvBatchNorm) and last.norm.activation is None

    def forward_with_sum(self, x: Array, added: Array, relu: bool) -> Array:
        """The last stage's output plus `added`, then ReLU if `relu`."""
        *before, last = self.ahead
        for stage in before:
            x = stage.forward(x)
        assert isinstance(last, ConvBatchNorm)
        return last.forward(x, added=added, relu=relu)

    def forward(self, x: Array, training: bool = False, *, logits: bool = False, out: Array | None = None) -> Array:
        """The last stage's output, written to `out` if given; `logits` leaves off a final softmax or sigmoid."""
        left: Sequence[Forward] = self.stages if training else self.ahead
        if self.replayed is not None and not training:
            x, left = self.replayed(x, left, logits)
            if not left:
                return x
        *before, last = left
        for stage in before:
            x = stage.forward(x, training)
        return last.forward(x, training, logits=logits) if out is None else last.forward(x, training, logits=logits, out=out)

    def forward_with_loss(self, x: Array, loss: Any, labels: Array, training: bool = True) -> tuple[Array, Array, Array]:
        """Forward, and the loss of the output: (loss, correct, doutputs) as `Loss.__call__` has them, or the first two of each example (N)
        where the last stage and the loss are one."""
        logits = loss.fused_activation is not None
        if self.replayed is not None and not training:
            outputs = self.forward(x, logits=logits)
        else:
            *before, last = self.stages if training else self.ahead
            for stage in before:
                x = stage.forward(x, training)
            if isinstance(last, Layer):
                passes = training and len(before) > self._first
                found = last.forward_with_loss(x, loss, labels, training, input_grad=passes, relu=passes and self.plans[-1].takes_relu)
                if found is not None:
                    return found
            outputs = last.forward(x, training, logits=logits)
        return loss.of_batch(self.stages[-1].layers[-1].device, outputs, labels)  # type: ignore[no-any-return]

    def backward(self, dy: Array, *, input_grad: bool = False, takes_relu: bool = False, relu_taken: bool = False) -> Array | None:
        """Adds the gradient of every parameter, given that of the output, and returns that of the input if `input_grad`. Otherwise stages
        before the first trained one are skipped.

        takes_relu, relu_taken: as in a stage's plan, where the chain is a part of something.
        """
        plans = self._within(takes_relu, relu_taken) if takes_relu or relu_taken else self.plans
        first = 0 if input_grad else self._first
        for index in range(len(self.stages) - 1, first - 1, -1):
            dy = self.stages[index].backward(dy, input_grad=input_grad or index > first, plan=plans[index])
            if self.done is not None:
                self.done(index)
        for stage in self.stages[:first]:
            stage.forget()
        return dy if input_grad else None

    def _within(self, takes_relu: bool, relu_taken: bool) -> list[Plan]:
        plans = list(self.plans)
        if takes_relu and self._entry is not None:
            plans[self._entry] = replace(plans[self._entry], takes_relu=True)
        if relu_taken and self._last_relu is not None:
            plans[self._last_relu] = replace(plans[self._last_relu], relu_taken=True)
        return plans

    def forget(self) -> None:
        """Releases what the forward pass kept."""
        for stage in self.stages:
            stage.forget()


def outputs_of(target: Layer, layers: Sequence[Layer], x: Array) -> Array:
    """The output of one of the layers, or of one inside them, for the input x. Each layer runs separately, without fusion."""
    found: list[Array] = []
    last, forward = target.layers[-1], target.layers[-1].forward
    chains = [chain for layer in layers for part in layer.walk().values() for chain in part.chains()]
    before = [(chain.stages, chain.ahead) for chain in chains]

    def kept(*args: Any, **options: Any) -> Array:
        found.append(forward(*args, **options))
        return found[-1]

    last.forward = kept  # type: ignore[method-assign]
    try:
        for chain in chains:
            chain.stages = chain.ahead = [layer for stage in chain.stages for layer in stage.layers]
        for layer in [part for each in layers for part in each.layers]:
            x = layer.forward(x)
            if found:
                return found[0]
    finally:
        del last.forward
        for chain, (stages_before, ahead_before) in zip(chains, before, strict=True):
            chain.stages, chain.ahead = stages_before, ahead_before
    raise GpucnnError(f"layer {target.name!r} is not run: {', '.join(layer.name for layer in layers)} do not call it")

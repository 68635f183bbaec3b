"""Layers made of layers: a stack, a residual connection, and branches side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gpucnn.errors import ArgumentError, ShapeError
from gpucnn.layers.base import Array, Cost, Layer, Plan, Shape
from gpucnn.layers.chain import Chain, build_in_turn, numbered
from gpucnn.layers.stage import ALONE
from gpucnn.signatures import ActivationName
from gpucnn.text import shown

__all__ = ["Concat", "Residual", "Stack"]


def one_layer(value: Any, where: str) -> Layer:
    """A layer as it is; a list of layers as a `Stack`. TypeError for anything else."""
    if isinstance(value, Layer):
        return value
    if isinstance(value, list | tuple):
        return Stack(*some_layers(value, f"a list in {where}"))
    raise TypeError(f"{where} takes layers, or lists of them, got {shown(value)}")


def some_layers(values: Sequence[Any], where: str) -> list[Layer]:
    """Checks for at least one layer, each a different object."""
    layers = [one_layer(value, where) for value in values]
    if not layers:
        raise ArgumentError(f"{where} needs at least one layer")
    if len({id(layer) for layer in layers}) < len(layers):
        raise ArgumentError(f"a layer can be in {where} only once: create a second one")
    return layers


def every_layer(layer: Layer) -> list[Layer]:
    """A layer and everything inside its containers, as often as it occurs."""
    within = layer.inner().values() if isinstance(layer, _Container) else ()
    return [layer, *(part for each in within for part in every_layer(each))]


class _Container(Layer):
    """Base class of layers made of layers. Their chains are planned again whenever a layer inside has changed."""

    def plan(self) -> None:
        super().plan()
        self._chains = self._planned()

    def _planned(self) -> list[Chain]:
        raise NotImplementedError

    def forget(self) -> None:
        super().forget()
        for chain in self._chains:
            chain.forget()

    def cost(self) -> Cost:
        """Multiply-adds of everything inside; memory.py finds what is kept for backward."""
        within = [part for each in self.inner().values() for part in each.layers]
        return self.costing(sum(part.cost().multiply_adds for part in within))


class Stack(_Container):
    """Layers in sequence, as one layer: (input of the first) → (output of the last). They are run, fused and named as if they were not
    in a stack, with the stack's name before their own."""

    replays = True

    def __init__(self, *layers: Layer | Sequence[Layer]) -> None:
        super().__init__()
        self._layers = some_layers(layers, "Stack")

    def settings(self) -> dict[str, Any]:
        return {"layers": list(self._layers)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Layer:
        return cls(*settings["layers"])

    @property
    def layers(self) -> Sequence[Layer]:
        return [layer for each in self._layers for layer in each.layers]

    def inner(self) -> dict[str, Layer]:
        return numbered(self._layers)

    def _planned(self) -> list[Chain]:
        return [Chain(self._layers)]

    def _build(self, input_shape: Shape) -> Shape:
        return build_in_turn(self._layers, input_shape)

    def _forward(self, x: Array, training: bool) -> Array:
        return self._chains[0].forward(x, training)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return self._chains[0].backward(dy, input_grad=input_grad)


class Residual(_Container):
    """y = layers(x) + shortcut(x), then the activation (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016).

    shortcut: a layer or a list of layers, such as Conv2D(64, 1, stride=2), needed if the layers change the shape; by default x itself. The
    sum and the ReLU are one kernel, and so are the sum of the gradients and the gradient of the preceding ReLU.
    """

    replays = True
    fuses_relu = True
    takes_relu_grad = True

    def __init__(
        self, *layers: Layer | Sequence[Layer], shortcut: Layer | Sequence[Layer] | None = None, activation: ActivationName | None = None
    ) -> None:
        super().__init__(activation)
        self._layers = some_layers(layers, "Residual")
        self.shortcut = None if shortcut is None else one_layer(shortcut, "Residual's shortcut")
        if any(self.shortcut is layer for layer in self._layers):
            raise ArgumentError("a layer can be in Residual only once: create a second one for the shortcut")
        self._x: Array | None = None

    def settings(self) -> dict[str, Any]:
        return {"layers": list(self._layers), "shortcut": self.shortcut, "activation": self.activation}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Layer:
        return cls(*settings.pop("layers"), **settings)

    def inner(self) -> dict[str, Layer]:
        return numbered(self._layers) | ({} if self.shortcut is None else {"shortcut": self.shortcut})

    def _planned(self) -> list[Chain]:
        return [Chain(self._layers), *([] if self.shortcut is None else [Chain([self.shortcut])])]

    def _build(self, input_shape: Shape) -> Shape:
        shape = build_in_turn(self._layers, input_shape)
        side = input_shape
        if self.shortcut is not None:
            try:
                side = self.shortcut.build(input_shape)
            except ShapeError as error:
                raise ShapeError(f"the shortcut, {shown(self.shortcut)}: {error}") from None
        if shape != side:
            what = "the shortcut returns" if self.shortcut else "the input, which is the shortcut, has"
            raise ShapeError(
                f"its layers return the shape {shape} and {what} {side}: give a shortcut with the same output shape, such as "
                "Conv2D(filters, 1, stride=...)"
            )
        return shape

    def _forward(self, x: Array, training: bool) -> Array:
        if training:
            self._x = x
        main, *shortcut = self._chains
        relu = self.activation == "relu"
        if not training and main.takes_sum:
            return main.forward_with_sum(x, shortcut[0].forward(x) if shortcut else x, relu)
        y, *side = (chain.forward(x, training) for chain in self._chains)
        return self.device.ops.add(y, side[0] if side else x, relu=relu)

    def _backward(self, dy: Array, input_grad: bool, relu: bool = False) -> Array | None:
        main, *side = (chain.backward(dy, input_grad=input_grad) for chain in self._chains)
        if not input_grad:
            return None
        own = None if self._chains[0].passes_on else main
        return self.device.ops.add(main, side[0] if side else dy, mask=self._x if relu else None, out=own)

    def forget(self) -> None:
        super().forget()
        self._x = None

    def cost(self) -> Cost:
        return replace(super().cost(), keeps_input=True)


class Concat(_Container):
    """Branches side by side, their outputs concatenated along the channels: (C, H, W) → (ΣC, P, Q), or (features,) → (Σ,).

    A branch is a layer, or a list of layers. All branches must return images of the same size.

    A branch writes directly to its slice of the output, and reads its slice of the gradient, if it ends in a convolution, pooling or batch
    normalization, with ReLU or without an activation, or in another Concat. The outputs and gradients of other branches are copied: Dense
    may cut its sums into slices that are added up into one array; other activations and the sum of a Residual are kernels that need
    contiguous arrays; and so do depthwise convolutions on a CPU. A branch that ends in ReLU beside one that does not is copied too, because
    the gradient of its ReLU covers its channels only. If all branches end in ReLU, the next layer computes that gradient if it can;
    otherwise it is computed for all channels at once.
    """

    replays = True
    takes_relu_grad = True

    def __init__(self, *branches: Layer | Sequence[Layer], activation: ActivationName | None = None) -> None:
        super().__init__(activation)
        self.branches = some_layers(branches, "Concat")
        if len(self.branches) < 2:
            raise ArgumentError("Concat needs at least two branches; for one, use the layer itself or a Stack")
        self._counts: list[int] = []
        self._x: Array | None = None
        self._y: Array | None = None  # whether its ReLU is computed by the branches
        self._plan = ALONE

    def settings(self) -> dict[str, Any]:
        return {"branches": list(self.branches), "activation": self.activation}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Layer:
        return cls(*settings.pop("branches"), **settings)

    def inner(self) -> dict[str, Layer]:
        return {f"branch_{index}": branch for index, branch in enumerate(self.branches, 1)}

    @property
    def ends_in_relu(self) -> bool:
        return self.activation == "relu" or (self.activation is None and self._branches_end_in_relu)

    @property
    def _branches_end_in_relu(self) -> bool:
        return all(chain.ends_in_relu for chain in self._chains)

    @property
    def takes_part(self) -> bool:
        return type(self) is Concat and self.activation is None  # classes derived from it may do something else

    def shares_output(self, chain: Chain) -> bool:
        """Whether a branch writes to its slice of the output. It then cannot include the gradient of a ReLU of its own."""
        return chain.takes_part and (self._branches_end_in_relu or not chain.ends_in_relu)

    def _planned(self) -> list[Chain]:
        return [Chain([branch], own=True) for branch in self.branches]

    def _build(self, input_shape: Shape) -> Shape:
        shapes = []
        for index, branch in enumerate(self.branches, 1):
            try:
                shapes.append(branch.build(input_shape))
            except ShapeError as error:
                raise ShapeError(f"branch {index}, {shown(branch)}: {error}") from None
            if shapes[-1][1:] != shapes[0][1:] or len(shapes[-1]) != len(shapes[0]):
                raise ShapeError(
                    f"branch 1 returns the shape {shapes[0]} and branch {index} {shapes[-1]}: only channels may differ, so give them the "
                    'same strides and padding="same"'
                )
        self._counts = [shape[0] for shape in shapes]
        return (sum(self._counts), *shapes[0][1:])

    def _forward(self, x: Array, training: bool, out: Array | None = None) -> Array:
        if training:
            self._x = x
        y, first = self.device.empty((x.shape[0], *self.output_shape), x.dtype) if out is None else out, 0
        for chain, count in zip(self._chains, self._counts, strict=True):
            part = y[:, first : first + count]
            if self.shares_output(chain):
                chain.forward(x, training, out=part)
            else:
                self.device.ops.copied(chain.forward(x, training), out=part)
            first += count
        if training and self._branches_end_in_relu:
            self._y = y
        return y

    def backward(self, dy: Array, *, input_grad: bool = True, plan: Plan = ALONE) -> Array | None:
        self._plan = plan
        return super().backward(dy, input_grad=input_grad, plan=plan)

    def _backward(self, dy: Array, input_grad: bool, relu: bool = False) -> Array | None:
        ops, total, first, own = self.device.ops, None, 0, False
        taken = self._plan.relu_taken and self.activation is None
        if self._branches_end_in_relu and not taken:
            overwrites = self._plan.overwrites or self.activation is not None  # whose gradient nothing else uses
            dy, taken = ops.relu_grad(dy, self._y, out=dy if overwrites else None), True
        for index, (chain, count) in enumerate(zip(self._chains, self._counts, strict=True)):
            part = dy[:, first : first + count]
            part = chain.backward(part if self.shares_output(chain) else ops.copied(part), input_grad=input_grad, relu_taken=taken)
            first += count
            if part is None:
                continue
            last = index == len(self._chains) - 1
            total = part if total is None else ops.add(total, part, mask=self._x if relu and last else None, out=total if own else None)
            own = True  # the gradient that a branch returns came from its own part of dy
        return total

    def forget(self) -> None:
        super().forget()
        self._x = self._y = None

    def cost(self) -> Cost:
        own = super().cost()
        if not self._branches_end_in_relu:
            return replace(own, keeps_input=True)
        before = math.prod(self.output_shape) if own.keeps_output else 0  # its own activation
        return replace(own, keeps_input=True, keeps_output=True, kept=own.kept + before)

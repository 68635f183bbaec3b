"""The stages that a chain runs (chain.py): a layer, or several fused layers; their cost, and the plan of their backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gpucnn.layers.parameter import Array


@dataclass(frozen=True)
class Cost:
    """The cost of one example in a layer."""

    multiply_adds: int = 0
    kept: int = 0  # elements kept from forward for backward, besides
    keeps_input: bool = False
    keeps_output: bool = False


@dataclass(frozen=True)
class Plan:
    """The plan of one stage's backward pass, made when the stages are formed (chain.py)."""

    overwrites: bool = False  # nothing else needs dy afterwards: it may be overwritten
    takes_relu: bool = False  # a ReLU produced the stage's input, and this stage includes its gradient: dx is 0 where x is not positive
    relu_taken: bool = False  # the next stage has included the gradient of this one's ReLU


ALONE = Plan()


class Forward(Protocol):
    """A step of a forward pass that keeps nothing for a backward pass: a stage, or several fused layers."""

    @property
    def layers(self) -> Sequence[Any]: ...
    def forward(self, x: Array, training: bool = False, *, logits: bool = False, out: Array | None = None) -> Array: ...


class Stage(Forward, Protocol):
    """A step of a chain: a layer, or several fused layers (fused.py). `Layer` documents its methods."""

    @property
    def passes_on(self) -> bool: ...
    @property
    def keeps_relu(self) -> bool: ...
    @property
    def takes_relu_grad(self) -> bool: ...
    @property
    def ends_in_relu(self) -> bool: ...
    @property
    def masks_itself(self) -> bool: ...
    @property
    def trained(self) -> bool: ...
    @property
    def takes_part(self) -> bool: ...
    def backward(self, dy: Array, *, input_grad: bool = True, plan: Plan = ALONE) -> Array | None: ...
    def forget(self) -> None: ...
    def scratch(self, batch_size: int) -> tuple[int, int]: ...
    def costs(self) -> list[Cost]: ...

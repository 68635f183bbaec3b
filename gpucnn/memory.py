"""What a training step takes in memory, worked out from the sizes of its layers: no array is counted twice, and none is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpucnn.layers.base import Stage


@dataclass(frozen=True)
class StepMemory:
    """Elements for one example: what each layer keeps for backward, and the most that is there at one time, forward or backward."""

    kept: list[int]
    peak: int
    stages: list[tuple[int, int]]  # the most while a stage is at work, forward and backward


def of_step(stages: Sequence[Stage], *, apart: bool = False) -> StepMemory:
    """Of built layers. An array that one layer keeps as its output and the next as its input is the first one's.

    apart: what lies between the layers of a stage is written in any case, as on a CPU.
    """
    kept: list[int] = []
    each: list[tuple[int, int]] = []
    peak = total = 0
    counted = False  # whether the array between two layers is kept already
    trained = False  # whether a gradient is handed further down
    for stage in stages:
        before = counted
        inputs = math.prod(stage.layers[0].input_shape or ())
        outputs = math.prod(stage.layers[-1].output_shape)
        widest = 0  # between the layers of a stage
        for layer, cost in zip(stage.layers, stage.costs(), strict=True):
            own = cost.kept
            if cost.keeps_input and not counted:
                own += math.prod(layer.input_shape or ())
                counted = before = True
            if not layer.is_view:
                counted = False
            if cost.keeps_output:
                own += math.prod(layer.output_shape)
                counted = True
            if layer is not stage.layers[-1]:
                widest = max(widest, math.prod(layer.output_shape))
            kept.append(own)
            total += own
        view = all(layer.is_view for layer in stage.layers)
        forward = total + (0 if before or view else inputs) + (0 if counted or view else outputs) + (widest if apart else 0)
        backward = total + (0 if view else outputs + (inputs if trained else 0) + (widest if trained or apart else 0))
        peak = max(peak, forward, backward)
        each.append((forward, backward))
        trained = trained or stage.trained
    return StepMemory(kept, peak, each)


def on_cpu(stages: Sequence[Stage], batch_size: int) -> int:
    """The most elements that are there at one time in a step on a CPU, with those that the operations take for themselves."""
    found = of_step(stages, apart=True).stages
    room = [stage.scratch(batch_size) for stage in stages]
    return max(
        max(forward * batch_size + ahead, backward * batch_size + back)
        for (forward, backward), (ahead, back) in zip(found, room, strict=True)
    )

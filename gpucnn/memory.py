"""The memory of a training step, computed from the sizes of its layers. Each array is counted once, and none is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpucnn.layers.base import Layer
from gpucnn.layers.stage import Stage
from gpucnn.ops.cpu._engine import expected


@dataclass(frozen=True)
class StepMemory:
    """Elements for one example: what each layer keeps for backward, and the largest number alive at one time, forward or backward."""

    kept: list[int]
    peak: int
    most: list[tuple[int, int]]  # of each stage: the largest number while it runs, forward and backward
    keeps_input: bool = False  # the input is among what is kept


def of_step(stages: Sequence[Stage], *, apart: bool = False) -> StepMemory:
    """The memory of built layers. An array that one layer keeps as its output and the next as its input is counted for the first.

    apart: arrays between the layers of a stage are written in any case, as on a CPU. For layers made of layers, the largest number at one
    time is an upper bound: the largest inside, plus the outputs of all branches.
    """
    kept: list[int] = []
    each: list[tuple[int, int]] = []
    peak = total = 0
    counted = False  # whether the array between two layers is kept already
    trained = False  # whether a gradient is passed to earlier layers
    keeps_input, at_input = False, True
    for stage in stages:
        before = counted
        inputs = math.prod(stage.layers[0].input_shape or ())
        outputs = math.prod(stage.layers[-1].output_shape)
        widest = ahead = back = 0  # between the layers of a stage, and within them
        for layer, cost in zip(stage.layers, stage.costs(), strict=True):
            within, ahead, back = _within(layer, apart)
            own = cost.kept + within
            if cost.keeps_input and not counted:
                own += math.prod(layer.input_shape or ())
                counted = before = True
                keeps_input = keeps_input or at_input
            if not layer.is_view:
                counted = at_input = False
            if cost.keeps_output:
                own += math.prod(layer.output_shape)
                counted = True
            if layer is not stage.layers[-1]:
                widest = max(widest, math.prod(layer.output_shape))
            kept.append(own)
            total += own
        view = all(layer.is_view for layer in stage.layers)
        forward = total + ahead + (0 if before or view else inputs) + (0 if counted or view else outputs) + (widest if apart else 0)
        backward = total + back + (0 if view else outputs + (inputs if trained else 0) + (widest if trained or apart else 0))
        peak = max(peak, forward, backward)
        each.append((forward, backward))
        trained = trained or stage.trained
    return StepMemory(kept, peak, each, keeps_input)


def _within(layer: Layer, apart: bool) -> tuple[int, int, int]:
    """Elements that the chains inside a layer keep besides its input, and the most that they need in addition, forward and backward."""
    kept = ahead = back = between = 0
    inputs = math.prod(layer.input_shape or ())
    for chain in layer.chains():
        found = of_step(chain.stages, apart=apart)
        own = sum(found.kept)
        outputs, shared = math.prod(chain.stages[-1].layers[-1].output_shape), layer.shares_output(chain)
        kept += own - (inputs if found.keeps_input else 0) - (outputs if shared and chain.stages[-1].costs()[-1].keeps_output else 0)
        ahead = max(ahead, max(forward for forward, _ in found.most) - own)
        back = max(back, max(backward for _, backward in found.most) - own)
        between += inputs if shared else max(outputs, inputs)
    return kept, ahead + between, back + between


def kept_by_layer(stages: Sequence[Stage]) -> dict[int, int]:
    """Elements kept for the backward pass of one example, by the layer's `id`, those inside other layers included."""
    layers = [layer for stage in stages for layer in stage.layers]
    found = {id(layer): kept for layer, kept in zip(layers, of_step(stages).kept, strict=True)}
    for layer in layers:
        for chain in layer.chains():
            found |= kept_by_layer(chain.stages)
    return found


def on_cpu(stages: Sequence[Stage], batch_size: int) -> int:
    """The largest number of elements alive at one time in a step on a CPU, including those that the operations allocate."""
    found = of_step(stages, apart=not expected()).most
    room = [stage.scratch(batch_size) for stage in stages]
    return max(
        max(forward * batch_size + ahead, backward * batch_size + back)
        for (forward, backward), (ahead, back) in zip(found, room, strict=True)
    )

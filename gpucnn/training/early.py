"""Updates that do not wait for the end of the backward pass. It ends with the first layer, which has few parameters; all others have their
gradients by then. On a GPU their update, which waits for memory, runs beside the first layer's gradient, which waits for arithmetic.

It would be possible earlier, beside the gradients of more layers: predicted for an H100, it then delays these by more than it saves.
"""

from __future__ import annotations

import itertools
from typing import Any

from gpucnn.optimizers import Optimizer

LEAST = 1 << 18  # fewer numbers are updated in the time of a launch


def starts_of(model: Any) -> dict[int, int]:
    """For each stage with trained parameters, where the first of them lies in the flat buffers."""
    buffers, starts = model.buffers, {}
    for index, stage in enumerate(model.chain.stages):
        inside = {id(array) for layer in stage.layers for part in layer.walk().values() for array in part.parameters}
        offsets = [offset for parameter, offset in zip(buffers.parameters, buffers.offsets, strict=True) if id(parameter) in inside]
        if offsets:
            starts[index] = min(offsets)
    return starts


def early(model: Any, optimizer: Optimizer) -> tuple[int, int] | None:
    """(stage, offset): when backward has completed this stage, the parameters that lie from the offset on can be updated. None where that
    does not pay, or where the optimizer needs all gradients at once."""
    if not optimizer.divisible:
        return None
    starts, size = starts_of(model), int(model.buffers.values.size)
    if any(start >= after for start, after in itertools.pairwise(starts.values())):  # stages share parameters
        return None
    others = [(stage, start) for stage, start in list(starts.items())[1:] if size - start >= LEAST]
    return others[0] if others else None

"""Forward passes for predictions on a CPU that are recorded once for each shape, and then run without Python between the loops."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucnn.layers.base import Array, Layer
from gpucnn.layers.stage import Forward
from gpucnn.ops.cpu import _engine

SHAPES = 16  # for which it is remembered what became of them
MOST_BYTES = 1 << 26  # of all recorded passes in this process
SEEN, UNFIT = "seen", "unfit"
_kept: list[tuple[weakref.ref[Replayed], Any]] = []  # where the recorded passes are, the oldest first


class Replayed:
    """The first stages of a chain, as far as they can be recorded. A shape's first pass runs as always, the second is recorded."""

    def __init__(self) -> None:
        self.known: dict[Any, Any] = {}  # by shape: a pass, or what is known about it
        self._counts: dict[bool, int] = {}

    def forget(self) -> None:
        """Forgets all passes: something about a layer has changed."""
        self.known.clear()
        self._counts.clear()

    def __call__(self, x: Array, stages: Sequence[Forward], logits: bool) -> tuple[Array, Sequence[Forward]]:
        """(the output of the first stages, the stages that are left)."""
        if logits not in self._counts:
            self._counts[logits] = _count(stages, logits)
        count = self._counts[logits]
        if not count or not _engine.loops(x):
            return x, stages
        key = x.shape, logits
        found = self.known.get(key)
        if found is None:
            self.known[key] = SEEN
            if len(self.known) > SHAPES:
                self.known.pop(next(iter(self.known)), None)
        elif found is SEEN:
            return self._record(key, x, stages[:count], logits and count == len(stages)), stages[count:]
        elif found is not UNFIT and not _engine.modules().replay.observed():
            y = found(x)
            if y is not None:
                return y, stages[count:]
        return x, stages

    def _record(self, key: Any, x: Array, stages: Sequence[Forward], logits: bool) -> Array:
        def run(x: Array) -> Array:
            for stage in stages[:-1]:
                x = stage.forward(x)
            return stages[-1].forward(x, logits=logits)

        replay = _engine.modules().replay
        if replay.observed():
            return run(x)
        parts = [part for stage in stages for layer in stage.layers for part in layer.walk().values()]
        y, found, why = replay.record(run, x, [array.value for part in parts for array in (*part.parameters, *part.arrays)])
        if found is not None:
            self.known[key] = found
            _make_room(self, key)
        elif why != replay.NOT_FINITE:
            self.known[key] = UNFIT
        return np.asarray(y)


def _make_room(owner: Replayed, key: Any) -> None:
    """Forgets the oldest passes where all of them together take too much memory."""
    there = [(one, where) for one, where in _kept if (found := one()) is not None and not isinstance(found.known.get(where, SEEN), str)]
    _kept[:] = [*(each for each in there if each != (weakref.ref(owner), key)), (weakref.ref(owner), key)]
    sizes = [one().known[where].bytes for one, where in _kept]  # type: ignore[union-attr]
    while sum(sizes) > MOST_BYTES:
        one, where = _kept.pop(0)
        sizes.pop(0)
        if (found := one()) is not None:
            found.known.pop(where, None)


def _count(stages: Sequence[Forward], logits: bool) -> int:
    """How many of the first stages can be recorded."""
    last = len(stages) - 1
    for index, stage in enumerate(stages):
        if not all(_records(layer, logits and index == last) for layer in stage.layers):
            return index
    return len(stages)


def _records(layer: Layer, logits: bool = False) -> bool:
    """Whether a layer's forward pass for predictions calls only operations on the CPU that are loops."""
    own = vars(type(layer)).get("replays", False) and layer.device.ops is sys.modules["gpucnn.ops.cpu"]
    changed = {"forward", "_forward"} & vars(layer).keys()
    activation = layer.activation in (None, "relu", "tanh") or (logits and layer.activation in ("softmax", "sigmoid"))
    return bool(own and not changed and activation and all(map(_records, layer.inner().values())))

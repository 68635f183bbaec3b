"""Passes on a CPU that are recorded once for each shape, and then run without Python between the loops: forward passes for predictions, and
training steps up to the update."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from gpucnn.layers.activations import ACTIVATIONS
from gpucnn.layers.base import Array, Layer, Parameter
from gpucnn.layers.stage import Forward, Stage
from gpucnn.ops.cpu import _engine, roads

SHAPES = 16  # for which it is remembered what became of them
MOST_BYTES = 1 << 28  # of all recorded passes in this process
UNFIT = "unfit"
Passes: TypeAlias = Callable[[Array, Array], Sequence[Array]]
_kept: list[tuple[weakref.ref[Replayed], Any]] = []  # where the recorded passes are, the oldest first


class Replayed:
    """The passes of a chain. A shape's first pass runs as always, the second is recorded: for predictions of the first stages, as far as
    they can be recorded."""

    def __init__(self) -> None:
        self.known: dict[Any, Any] = {}  # by shape: a pass, a step, what recording it needs, or UNFIT
        self._counts: dict[bool, int] = {}

    def forget(self) -> None:
        """Forgets all passes: something about a layer has changed."""
        self.known.clear()
        self._counts.clear()

    def __call__(self, x: Array, stages: Sequence[Forward], logits: bool) -> tuple[Array, Sequence[Forward]]:
        """(the output of the first stages, the stages that are left)."""
        count = self._count(stages, False)
        if not count or not _ready(x):
            if count and _engine.loops(x):
                _engine.modules().chunks.expect()
            return x, stages
        key = x.shape, logits
        found = self.known.get(key)
        if found is UNFIT:
            return x, stages
        done = found(x) if callable(found) else self._forward(key, x, stages[:count], logits and count == len(stages), found)
        return (x, stages) if done is None else (done[0], stages[count:])

    def train(self, stages: Sequence[Stage], loss: Any, x: Array, labels: Array, step: Passes) -> Any:
        """What step(x, labels) returns, or None if it has to run as always; then nothing has been done. The step is forward and backward
        through all stages, and the loss between. Gradients must have been forgotten. labels: class numbers."""
        if not _own(loss) or self._count(stages, True) < len(stages) or not _ready(x):
            return None
        key = x.shape, labels.shape, id(loss), repr(vars(loss))
        found = self.known.get(key)
        if found is UNFIT:
            return None
        return found(x, labels) if callable(found) else self._step(key, x, labels, stages, loss, step, found)

    def _count(self, stages: Sequence[Forward], training: bool) -> int:
        if training not in self._counts:
            self._counts[training] = _count(stages)
        return self._counts[training]

    def _once(self, key: Any, run: Callable[[Array], Sequence[Array]], x: Array) -> Any:
        """run(x), the first time for this shape; None, with nothing done, where there are so many shapes that most are always new: a room
        for each pass would take longer than small passes do."""
        replay = _engine.modules().replay
        if len(self.known) < SHAPES:
            done, self.known[key] = replay.once(run, x)
            return done
        self.known.pop(next(iter(self.known)), None)
        self.known[key] = replay.NOT_KNOWN
        return None

    def _forward(self, key: Any, x: Array, stages: Sequence[Forward], logits: bool, needs: Any) -> Any:
        def run(x: Array) -> Sequence[Array]:
            for stage in stages[:-1]:
                x = stage.forward(x)
            return [stages[-1].forward(x, logits=logits)]

        replay = _engine.modules().replay
        if needs is None:
            return self._once(key, run, x)
        held = _held(_parts(stages))
        outside, chunks = replay.Outside(held), _engine.modules().chunks
        each = chunks.size(len(x), needs, sum(array.nbytes for array in held))
        done, found, why = chunks.record(run, x, each, outside) if each else (None, None, "")
        if found is None and why != replay.NOT_NOW:
            done, found, why = replay.record(run, x, outside, needs)
        self._keep(key, found, why)
        return done

    def _step(self, key: Any, x: Array, labels: Array, stages: Sequence[Stage], loss: Any, step: Passes, needs: Any) -> Any:
        if needs is None:
            return self._once(key, lambda x: step(x, labels), x)
        replay, parts, held = _engine.modules().replay, _parts(stages), labels.copy()
        trained = list({id(each): each for part in parts for each in part.parameters if not each.frozen}.values())
        read = [held, *_held(parts)]
        written, counted = [each.gradient_room for each in trained], [array for part in parts for array in part.counters()]
        done, found, why = replay.record(lambda x: step(x, held), x, replay.Outside(read, written, counted), needs)
        self._keep(key, None if found is None else Step(found, held, trained, loss), why)
        return done

    def _keep(self, key: Any, found: Any, why: str) -> None:
        if found is not None:
            self.known[key] = found
            _make_room(self, key)
        elif why != _engine.modules().replay.NOT_NOW:
            self.known[key] = UNFIT


class Step:
    """A recorded training step, up to the update."""

    def __init__(self, recorded: Any, labels: Array, parameters: Sequence[Parameter], loss: Any) -> None:
        self.recorded, self.bytes = recorded, recorded.bytes
        self._loss = loss  # whose id is in the key
        self._labels, self._parameters = labels, parameters

    def __call__(self, x: Array, labels: Array) -> Any:
        self._labels[...] = labels
        done = self.recorded(x)
        if done is not None:
            for each in self._parameters:
                each.has_grad = True
        return done


def _own(part: Any) -> bool:
    """Whether a layer or a loss says that it may be recorded. A class derived from it may do something else."""
    return bool(vars(type(part)).get("replays", False))


def _ready(x: Array) -> bool:
    """Whether loops take this input, and do nothing else now than running."""
    return _engine.loops(x) and not _engine.modules().replay.observed()


def _parts(stages: Sequence[Forward]) -> list[Layer]:
    """All layers of some stages, and those inside them."""
    return [part for stage in stages for layer in stage.layers for part in layer.walk().values()]


def _held(parts: Sequence[Layer]) -> list[Array]:
    """All arrays of layers that passes read."""
    return [each for part in parts for each in (*(array.value for array in (*part.parameters, *part.arrays)), *part.constants())]


def _make_room(owner: Replayed, key: Any) -> None:
    """Forgets the oldest passes where all of them together take too much memory."""
    there = [(one, where) for one, where in _kept if (found := one()) is not None and callable(found.known.get(where))]
    _kept[:] = [*(each for each in there if each != (weakref.ref(owner), key)), (weakref.ref(owner), key)]
    sizes = [one().known[where].bytes for one, where in _kept]  # type: ignore[union-attr]
    while sum(sizes) > MOST_BYTES:
        one, where = _kept.pop(0)
        sizes.pop(0)
        if (found := one()) is not None:
            found.known.pop(where, None)


def _count(stages: Sequence[Forward]) -> int:
    """How many of the first stages can be recorded."""
    return next((index for index, stage in enumerate(stages) if not all(map(_records, stage.layers))), len(stages))


def _by_loops(activation: str | None) -> bool:
    """Whether loops compute an activation and its gradient."""
    return activation is None or {ACTIVATIONS[activation].apply, ACTIVATIONS[activation].grad} <= set(roads.__all__)


def _records(layer: Layer) -> bool:
    """Whether a layer's passes call only operations on the CPU, and may be loops alone."""
    own = _own(layer) and layer.device.ops is sys.modules["gpucnn.ops.cpu"]
    changed = {"forward", "_forward", "backward", "_backward"} & vars(layer).keys()
    return bool(own and not changed and _by_loops(layer.activation) and all(map(_records, layer.inner().values())))

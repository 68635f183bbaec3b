"""What a training step does with the other ranks: which part of a batch is its own, and one sum over all of them.

A step's batch has the same examples whatever the number of ranks; each takes a slice, and the loss is the mean over the whole batch. So a
rank's gradient of its own mean is weighted by its share before it is summed. Gradients lie in one flat buffer, and behind them, in its
tail, what else all must know: the loss, right answers, and whether anybody wants to stop. As all ranks get the same sums to the bit, they
take the same decisions in the same step, with no other message.

A rank whose slice is empty, at the end of an epoch, goes through the step with an example that counts for nothing: it makes the same calls
as the others.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpucnn.arrays import quiet
from gpucnn.device import to_numpy
from gpucnn.errors import ArgumentError, TrainingError
from gpucnn.layers.base import Array
from gpucnn.losses import Loss
from gpucnn.text import reason_of
from gpucnn.training.alike import checksum
from gpucnn.training.communicator import Communicator
from gpucnn.training.parallel import slice_of
from gpucnn.weighted import Weighted

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
LOSS, LOW, HIGH, FAILED, WISHES = range(5)  # places in the tail; the last is the first of SIGNALS'
RADIX = 4096  # right answers are summed in two parts, so that float32 holds each sum exactly
BUCKET = 8 << 20  # bytes: from there on a sum over ranks is as fast as a larger one
LAG = 2  # steps after which the host asks how a step of a GPU's went, so that the queue does not run dry


class Part:
    """The slice of a batch that is this rank's: what layers know of it that draw random numbers or look at the whole batch."""

    def __init__(self, ranks: Communicator) -> None:
        self.ranks = ranks
        self.first = 0  # examples before it in the batch
        self.count = 0  # examples in it
        self.size = 0  # examples in the whole batch

    def of(self, size: int) -> slice:
        """Makes a batch of `size` examples the next one: the slice of it that is this rank's, which is never empty."""
        self.size = size
        self.first, self.count = slice_of(size, self.ranks.size, self.ranks.rank)
        return slice(self.first, self.first + max(self.count, 1))

    @property
    def share(self) -> float:
        """How much this rank's mean counts in that of the batch."""
        return self.count / self.size

    @property
    def least(self) -> int:
        """The examples of the rank that has fewest."""
        return max(self.size // self.ranks.size, 1)

    def sum(self, array: Array) -> None:
        """The sum over all ranks, in place."""
        self.ranks.sum(array)


class Team:
    """The ranks as a training step, and the loop around it, see them."""

    def __init__(self, ranks: Communicator, model: Any) -> None:
        self.ranks = ranks
        self.model = model
        self.part = Part(ranks)
        self.failure: Exception | None = None  # of a callback on this rank, until the others know
        self._buckets: list[tuple[int, slice]] = []
        self._asked = np.zeros(WISHES + len(SIGNALS) - FAILED, model.dtype)
        self._copies: list[tuple[Any, Array]] = []  # of a GPU's tail, on the host, one step after another
        self._steps = 0
        if model.device.xp.__name__ == "cupy":
            event, pinned = model.device.xp.cuda.Event, model.device.pinned
            self._copies = [(event(disable_timing=True), pinned((WISHES + len(SIGNALS),), model.dtype)) for _ in range(LAG + 1)]
        self._wishes = model.device.array(self._asked.copy())  # where the step runs

    @property
    def tail(self) -> Array:
        """What is summed behind the gradients."""
        return self.model.buffers.tail

    # The step.

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Layers know of their part in the block."""
        layers = [part for layer in self.model.layers for part in layer.walk().values()]
        try:
            for layer in layers:
                layer.part = self.part
            self.model.chain.done = self._stage_done
            yield
        finally:
            for layer in layers:
                layer.part = None
            self.model.chain.done = None

    @quiet
    def weigh(self, loss: Array, correct: Array, doutputs: Array) -> None:
        """Between the loss and backward: puts what is summed besides into the tail, and weighs the gradient by this rank's share."""
        tail = self.tail
        if self.part.count:
            tail[LOSS : LOSS + 1] = loss * self.part.share
            tail[LOW : LOW + 1] = correct % RADIX
            tail[HIGH : HIGH + 1] = correct // RADIX
            doutputs *= doutputs.dtype.type(self.part.share)
        else:
            tail[:FAILED] = 0
            doutputs[...] = 0
        tail[FAILED : FAILED + len(self._asked)] = self._wishes
        self._buckets = buckets(self.model) if self._copies else []

    @quiet
    def summed(self) -> tuple[Array, Array]:
        """After backward: sums gradients and tail; (loss, right answers) of the whole batch."""
        buffers, tail = self.model.buffers, self.tail
        buffers.all_gradients()  # zeros where backward did not come to
        if self._copies:
            self._stage_done(0)  # whatever is left
            self.ranks.finish()
        else:
            self.ranks.sum(buffers.summed)
        correct = (tail[HIGH : HIGH + 1] * RADIX + tail[LOW : LOW + 1]).astype("int32")
        return tail[LOSS : LOSS + 1].reshape(()), correct.reshape(())

    def _stage_done(self, index: int) -> None:
        """While backward goes on, what it is done with is summed: on a GPU beside it."""
        buffers = self.model.buffers
        while self._buckets and self._buckets[0][0] >= index:
            _, part = self._buckets.pop(0)
            for parameter, offset in zip(buffers.parameters, buffers.offsets, strict=True):
                if part.start <= offset < part.stop:
                    parameter.grad  # noqa: B018 - zeros where backward did not come to
            self.ranks.begin_sum(buffers.summed[part])

    # The loop.

    def ask(self, number: int) -> None:
        """Before a step: that this rank has got the signal `number`, or 0."""
        before = self._asked.copy()
        self._asked[0] = self.failure is not None
        if number in SIGNALS:
            self._asked[1 + SIGNALS.index(number)] = 1
        if (self._asked != before).any():
            self._wishes[...] = self.model.device.array(self._asked)

    def told(self, last: bool) -> Array:
        """After a step: what all ranks have put into the tail, the same on each. Of a GPU it is what the step LAG before has said, None
        where there was none; after the `last` step of an epoch the host waits for that step's own."""
        if not self._copies:
            return self.tail
        stream = self.model.device.xp.cuda.get_current_stream()
        event, place = self._copies[self._steps % len(self._copies)]
        self.tail[: len(place)].get(stream=stream, out=place, blocking=False)
        event.record(stream)
        behind = 0 if last else LAG
        self._steps += 1
        if self._steps <= behind:
            return None
        event, place = self._copies[(self._steps - 1 - behind) % len(self._copies)]
        event.synchronize()
        return place

    def decided(self, told: Array) -> int:
        """The signal that ends all ranks now, or 0. Raises what has failed on any of them."""
        if told is None:
            return 0
        if told[FAILED] > 0:
            self.fail_together()
        return next((number for place, number in enumerate(SIGNALS, WISHES) if told[place] > 0), 0)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps an exception back until all ranks can know of it."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error

    def agree(self, run: Any, number: int) -> int:
        """At the end of an epoch: the signal that anybody has got, or 0; a run that anybody wants to stop stops. Raises what has failed on
        any of them."""
        said = self.ranks.gather((number, bool(run.stop), self.failure is not None))
        if any(failed for _, _, failed in said):
            self.fail_together()
        run.stop = any(stop for _, stop, _ in said)
        return next((number for number, _, _ in said if number), 0)

    def fail_together(self) -> None:
        """Raises this rank's failure, or one that tells of another's."""
        words = self.ranks.gather(None if self.failure is None else (self.ranks.name, reason_of(self.failure)))
        failure, self.failure = self.failure, None
        if failure is not None and next(rank for rank, word in enumerate(words) if word) == self.ranks.rank:
            raise failure
        name, reason = next(word for word in words if word)
        raise TrainingError(f"{name} failed: {reason}")

    def compare(self) -> None:
        """TrainingError unless the parameters of all ranks are alike to the bit, as the same sums and the same updates leave them: two
        kinds of processors, or of libraries, may round an update differently."""
        everybody = self.ranks.gather((self.ranks.name, checksum(to_numpy(self.model.buffers.values))))
        first = everybody[0]
        for name, found in everybody:
            if found != first[1]:
                raise TrainingError(
                    f"the parameters of {name} are no longer those of {first[0]} (their checksums are {found} and {first[1]}): these "
                    "machines do not compute alike; take machines of one kind, or set GPUCNN_CPU=numpy on all of them where they are CPUs"
                )


def halted(told: Array) -> bool:
    """Whether the loss of the whole batch was no number."""
    return told is not None and not math.isfinite(told[LOSS])


def buckets(model: Any) -> list[tuple[int, slice]]:
    """(stage, part of the flat buffer) of what is summed by itself as soon as backward is done with the stage: from the back, where
    backward begins, and the tail with the first. At least two, where two stages are trained."""
    buffers, found = model.buffers, []
    least = min(BUCKET // buffers.values.dtype.itemsize, max(1, buffers.values.size // 2))
    starts = {}
    for index, stage in enumerate(model.chain.stages):
        inside = {id(array) for layer in stage.layers for part in layer.walk().values() for array in part.parameters}
        offsets = [offset for parameter, offset in zip(buffers.parameters, buffers.offsets, strict=True) if id(parameter) in inside]
        if offsets:
            starts[index] = min(offsets)
    end, first = int(buffers.summed.size), min(starts, default=0)
    for index in sorted(starts, reverse=True):
        if index == first or end - starts[index] >= least:
            start = 0 if index == first else starts[index]
            found.append((index, slice(start, end)))
            end = start
    return found


def check(loss: Loss, batches: Any, ranks: Communicator) -> None:
    """ArgumentError for what cannot be shared among ranks."""
    if batches.batch_size < ranks.size and hasattr(batches, "images"):
        raise ArgumentError(
            f"a batch of {batches.batch_size} is smaller than the number of ranks, {ranks.size}, and each needs an example of its own: "
            "use a larger batch or fewer ranks"
        )
    whole = loss.loss if isinstance(loss, Weighted) else loss
    if type(whole).each is Loss.each:
        raise ArgumentError(
            f"loss {loss.name!r} does not give the loss of each example (`each`), and that of a batch is not the mean of its parts': it "
            "cannot be shared among ranks"
        )

"""Shares a training step among ranks: each rank's part of a batch, and one sum over all of them.

A step's batch has the same examples whatever the number of ranks. Each rank takes a slice, and the loss is the mean over the whole batch,
so a rank weights its gradient by its share before the sum. Gradients are in one flat buffer. Its tail, after the gradients, has the other
values that all ranks need: the loss, right answers, and requests to stop. The sums are bit-identical on all ranks, so all make the same
decisions in the same step without further messages.

At the end of an epoch a rank's slice may be empty. It then runs the step with an example of weight 0, because it must make the same calls
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
from gpucnn.training.early import starts_of
from gpucnn.training.parallel import slice_of
from gpucnn.weighted import Weighted

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
LOSS, LOW, HIGH, FAILED, WISHES = range(5)  # positions in the tail; the last is the first of those for SIGNALS
RADIX = 4096  # right answers are summed in two parts, so that float32 holds each sum exactly
BUCKET = 8 << 20  # bytes: from this size on, a sum over ranks is as fast as a larger one
LAG = 2  # steps after which the host reads a GPU step's results, so that the queue does not run empty


class Part:
    """This rank's slice of a batch, for layers that draw random numbers or use the whole batch."""

    def __init__(self, ranks: Communicator) -> None:
        self.ranks = ranks
        self.first = 0  # examples before it in the batch
        self.count = 0  # examples in it
        self.size = 0  # examples in the whole batch

    def of(self, size: int) -> slice:
        """Selects this rank's slice of the next batch, which has `size` examples. The slice is never empty."""
        self.size = size
        self.first, self.count = slice_of(size, self.ranks.size, self.ranks.rank)
        return slice(self.first, self.first + max(self.count, 1))

    @property
    def share(self) -> float:
        """The weight of this rank's mean in that of the batch."""
        return self.count / self.size

    @property
    def least(self) -> int:
        """The number of examples on the rank that has the fewest."""
        return max(self.size // self.ranks.size, 1)

    def sum(self, array: Array) -> None:
        """The sum over all ranks, in place."""
        self.ranks.sum(array)


class Team:
    """The ranks, as the training step and the loop around it use them."""

    def __init__(self, ranks: Communicator, model: Any) -> None:
        self.ranks = ranks
        self.model = model
        self.part = Part(ranks)
        self.failure: Exception | None = None  # an exception from a callback on this rank, until the others know of it
        self._buckets: list[tuple[int, slice]] = []
        self._asked = np.zeros(WISHES + len(SIGNALS) - FAILED, model.dtype)
        self._copies: list[tuple[Any, Array]] = []  # copies of a GPU's tail on the host, one for each step
        self._steps = 0
        if model.device.xp.__name__ == "cupy":
            event, pinned = model.device.xp.cuda.Event, model.device.pinned
            self._copies = [(event(disable_timing=True), pinned((WISHES + len(SIGNALS),), model.dtype)) for _ in range(LAG + 1)]
        self._wishes = model.device.array(self._asked.copy())  # where the step runs

    @property
    def tail(self) -> Array:
        """The numbers that are summed after the gradients."""
        return self.model.buffers.tail

    # The step.

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Tells the layers their part while the block runs."""
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
        """Between the loss and backward: fills the tail, and weights the gradient by this rank's share."""
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
        buffers.all_gradients()  # zeros where backward was not called
        if self._copies:
            self._stage_done(0)  # the rest
            self.ranks.finish()
        else:
            self.ranks.sum(buffers.summed)
        correct = (tail[HIGH : HIGH + 1] * RADIX + tail[LOW : LOW + 1]).astype("int32")
        return tail[LOSS : LOSS + 1].reshape(()), correct.reshape(())

    def _stage_done(self, index: int) -> None:
        """Sums gradients that backward has completed while it continues; on a GPU, side by side."""
        buffers = self.model.buffers
        while self._buckets and self._buckets[0][0] >= index:
            _, part = self._buckets.pop(0)
            for parameter, offset in zip(buffers.parameters, buffers.offsets, strict=True):
                if part.start <= offset < part.stop:
                    parameter.grad  # noqa: B018 - zeros where backward did not come to
            self.ranks.begin_sum(buffers.summed[part])

    # The loop.

    def ask(self, number: int) -> None:
        """Before a step: announces the signal `number` that this rank has received, or 0."""
        before = self._asked.copy()
        self._asked[0] = self.failure is not None
        if number in SIGNALS:
            self._asked[1 + SIGNALS.index(number)] = 1
        if (self._asked != before).any():
            self._wishes[...] = self.model.device.array(self._asked)

    def told(self, last: bool) -> Array:
        """After a step: the summed tail, the same on each rank. On a GPU it is that of LAG steps before, None if there was no such step;
        after the `last` step of an epoch, the host waits for that step's own."""
        if not self._copies:
            return self.tail
        stream = self.model.device.xp.cuda.get_current_stream()
        event, copy = self._copies[self._steps % len(self._copies)]
        self.tail[: len(copy)].get(stream=stream, out=copy, blocking=False)
        event.record(stream)
        behind = 0 if last else LAG
        self._steps += 1
        if self._steps <= behind:
            return None
        event, copy = self._copies[(self._steps - 1 - behind) % len(self._copies)]
        event.synchronize()
        return copy

    def decided(self, told: Array) -> int:
        """The signal that ends all ranks now, or 0. Raises the error of any rank that has failed."""
        if told is None:
            return 0
        if told[FAILED] > 0:
            self.fail_together()
        return next((number for index, number in enumerate(SIGNALS, WISHES) if told[index] > 0), 0)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds an exception back until all ranks can learn of it."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error

    def agree(self, run: Any, number: int) -> int:
        """At the end of an epoch: the signal that any rank has received, or 0. The run stops if any rank asks for it. Raises the error of
        any rank that has failed."""
        said = self.ranks.gather((number, bool(run.stop), self.failure is not None))
        if any(failed for _, _, failed in said):
            self.fail_together()
        run.stop = any(stop for _, stop, _ in said)
        return next((number for number, _, _ in said if number), 0)

    def fail_together(self) -> None:
        """Raises this rank's own error, or one that describes another rank's."""
        words = self.ranks.gather(None if self.failure is None else (self.ranks.name, reason_of(self.failure)))
        failure, self.failure = self.failure, None
        if failure is not None and next(rank for rank, word in enumerate(words) if word) == self.ranks.rank:
            raise failure
        name, reason = next(word for word in words if word)
        raise TrainingError(f"{name} failed: {reason}")

    def compare(self) -> None:
        """Raises TrainingError unless the parameters of all ranks are bit-identical, as they are after the same sums and updates. Different
        processors or libraries may round an update differently."""
        everybody = self.ranks.gather((self.ranks.name, checksum(to_numpy(self.model.buffers.values))))
        first = everybody[0]
        for name, found in everybody:
            if found != first[1]:
                raise TrainingError(
                    f"the parameters of {name} are no longer those of {first[0]} (their checksums are {found} and {first[1]}): these "
                    "machines do not compute alike; take machines of one kind, or set GPUCNN_CPU=numpy on all of them where they are CPUs"
                )


def halted(told: Array) -> bool:
    """Whether the loss of the whole batch was NaN or infinite."""
    return told is not None and not math.isfinite(told[LOSS])


def buckets(model: Any) -> list[tuple[int, slice]]:
    """(stage, part of the flat buffer) for each part that is summed separately, as soon as backward has completed the stage: from the last
    stage, where backward begins, with the tail in the first part. At least two if two stages are trained."""
    buffers, found = model.buffers, []
    least = min(BUCKET // buffers.values.dtype.itemsize, max(1, buffers.values.size // 2))
    starts = starts_of(model)
    end, first = int(buffers.summed.size), min(starts, default=0)
    for index in sorted(starts, reverse=True):
        if index == first or end - starts[index] >= least:
            start = 0 if index == first else starts[index]
            found.append((index, slice(start, end)))
            end = start
    return found


def check(loss: Loss, batches: Any, ranks: Communicator) -> None:
    """Raises ArgumentError for batches and losses that ranks cannot share."""
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

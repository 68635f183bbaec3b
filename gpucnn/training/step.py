"""One training step: forward, loss, backward, update and counters, launched kernel by kernel or replayed as one CUDA graph."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpucnn.device import to_numpy
from gpucnn.errors import DeviceMemoryError, GpucnnError, TrainingError
from gpucnn.layers.base import Array
from gpucnn.layers.beside import Apart, beside, forks
from gpucnn.losses import Loss
from gpucnn.optimizers import Optimizer
from gpucnn.precision import bits
from gpucnn.surroundings import flag
from gpucnn.text import bytes_text, first_line
from gpucnn.training.ahead import as_in_batches_of, compile_ahead
from gpucnn.training.early import early
from gpucnn.training.feed import Feed, HostFeed
from gpucnn.training.graph import Graphs
from gpucnn.training.team import Team, halted

VARIABLE = "GPUCNN_GRAPHS"  # environment variable; 0: kernels are launched one by one
STEP, EPOCH, CORRECT, DONE, HALTED, CARRIED = range(6)  # indices of the counters on the device


_as_it_is = nullcontext()


class Trainable(Protocol):
    """The interface of a model that training uses."""

    device: Any
    dtype: Any
    buffers: Any
    chain: Any  # forward and backward without checks of their arrays
    epochs_begun: int
    layers: Any

    def step_bytes(self, batch_size: int) -> int: ...
    def measure(self, x: Any, labels: Any, batch_size: int, ranks: Any = None) -> dict[str, float]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Totals:
    """Sums over the steps since `begin`: the loss over all examples, and the right answers."""

    loss: float = 0.0
    correct: int = 0


class TrainingStep:
    """Trains a model one batch at a time, without waiting for a step to finish.

    All state that changes from step to step is in device memory: the step number, the learning rate, the counters of dropout, the sums
    of losses and right answers. So every step makes the same launches, and on a GPU they are recorded as a CUDA graph, one per batch
    size. `begin` prepares an epoch; `read` waits and returns the sums.

    With a `team`, ranks share a batch: the feed provides this rank's part, and all ranks make the same update (team.py).
    """

    def __init__(self, model: Trainable, loss: Loss, optimizer: Optimizer, *, graphs: bool = True, team: Team | None = None) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.team = team
        self.whole = 0  # examples in every batch except perhaps the last, if known
        device = model.device
        self.graphs = Graphs(device, graphs and flag(VARIABLE, True))
        self._buffers = model.buffers
        self._prepared: set[Hashable] = set()  # steps whose kernels are all compiled
        xp, real = device.xp, model.dtype
        self._table = xp.zeros((1, 3), real)
        self._rates = xp.zeros(4, real)
        self._counters = xp.zeros(6, "int32")
        self._sums = xp.zeros(2, "float64" if device.kind == "cpu" else "float32")
        self._first = 0  # optimizer steps that `begin` was called for
        self._feed: HostFeed | None = None  # for `__call__`

    def begin(self, steps: int, *, epoch: int = 0, done: int = 0, totals: Totals | None = None) -> None:
        """Prepares an epoch of `steps` steps; `done` of them were done before, with the sums `totals`."""
        device, totals = self.model.device, totals or Totals()
        self.graphs.wait()
        if self.model.buffers is not self._buffers:  # the model was built again
            self._buffers = self.model.buffers
            self.graphs.clear()
        if len(self._table) < steps:
            self._table = device.xp.zeros((steps, 3), self.model.dtype)
            self.graphs.clear()
        self._first = self.optimizer.steps
        if steps > done:
            self._table[done:steps] = device.array(self.optimizer.rates(steps - done), self.model.dtype)
        counters = np.zeros(len(self._counters), np.uint32)
        counters[[STEP, EPOCH, CORRECT, CARRIED]] = done, epoch, totals.correct & 0xFFFFFFFF, totals.correct >> 32
        self._counters[...] = device.array(counters.view(np.int32))
        high = self._sums.dtype.type(totals.loss)
        self._sums[...] = device.array([high, totals.loss - float(high)], self._sums.dtype)

    def prepare(self, feed: Feed, size: int) -> None:
        """Compiles what a step on `size` examples of the feed will launch, where that is known: on a GPU, for one process alone.

        No kernel runs, but CuPy's own operations in a user's layer or optimizer do. Values that they change are restored.
        """
        if self.model.device.xp.__name__ != "cupy" or self.team is not None or not feed.blank(size):
            return

        def launch() -> None:
            held = self._sums, self._counters, self._buffers.values, self._buffers.saved, *self.optimizer.state.values()
            before = [to_numpy(array) for array in held]  # on the host: a pool would keep the memory of copies
            try:
                feed.order(0)
                self._launch(feed, size)
            finally:
                for array, values in zip(held, before, strict=True):
                    array.set(values)

        with self.graphs.entered(), as_in_batches_of(self.whole, self.model):
            key = type(feed).__name__, feed.key(size), size, self.loss.name, type(self.optimizer).__name__
            compile_ahead(self.model, key, launch)

    def run(self, feed: Feed, size: int) -> None:
        """One step on the next batch of the feed, which has `size` examples. After a NaN or infinite loss nothing is updated any more."""
        try:
            key = id(feed), size, feed.key(size), bits()
            if key not in self._prepared:
                self._prepared.add(key)
                self.prepare(feed, size)
            with as_in_batches_of(self.whole, self.model) if size < self.whole else _as_it_is:
                if self.graphs.cuda is None:
                    self._launch(feed, size)
                else:
                    self.graphs.run(key, lambda: self._launch(feed, size))
        except MemoryError as error:
            raise self.too_small(size, error) from None
        except RuntimeError as error:
            raise self._failed(error) from error
        self.optimizer.steps += 1

    def read(self) -> Totals:
        """Waits and returns the sums since `begin`. Raises TrainingError if a loss was NaN or infinite."""
        try:
            self.graphs.wait()
        except RuntimeError as error:
            raise self._failed(error) from error
        counters, sums = to_numpy(self._counters).tolist(), to_numpy(self._sums).astype(np.float64)
        self.optimizer.steps = self._first + counters[DONE]
        if counters[HALTED]:
            raise TrainingError(
                f"the loss became {sums[0]:g} at step {self.optimizer.steps + 1}: lower the learning rate (now "
                f"{self.optimizer.learning_rate:g}) or look for broken values in the data"
            )
        return Totals(float(sums.sum()), counters[CORRECT] & 0xFFFFFFFF | counters[CARRIED] << 32)

    def end(self) -> None:
        """Waits, and gives back the memory of the steps, also of one that an exception has broken off."""
        self.model.chain.forget()
        self.graphs.release()

    def ask(self, number: int) -> None:
        """For a team, before a step: announces the signal `number` that this rank has received, or 0."""
        assert self.team is not None
        with self.graphs.entered():
            self.team.ask(number)

    def told(self, last: bool) -> int:
        """For a team, after a step: the signal that ends all ranks now, or 0; see `Team.told`. Raises TrainingError if a loss was NaN or
        infinite, and the error of any rank that has failed."""
        assert self.team is not None
        with self.graphs.entered():
            told = self.team.told(last)
        if halted(told):
            self.read()
        return self.team.decided(told)

    def __call__(self, x: Array, labels: Array) -> tuple[float, int]:
        """(mean loss, right answers) of one step on checked arrays. Waits, so it is meant for hand-written loops."""
        if self._feed is None:
            self._feed = HostFeed(self.graphs)
        self.begin(1)
        self._feed.put(x, labels)
        self.run(self._feed, len(x))
        totals = self.read()
        return totals.loss / len(x), totals.correct

    def _failed(self, error: RuntimeError) -> RuntimeError:
        """The error to raise: gpucnn's own unchanged; for others, such as CUDA errors, one that says how to find out more."""
        if isinstance(error, GpucnnError):
            return error
        more = f"; with {VARIABLE}=0 and CUDA_LAUNCH_BLOCKING=1 in the environment kernels run one by one, and the one that fails is named"
        return TrainingError(f"a training step failed on {self.model.device.name}: {first_line(error)}{more if self.graphs.cuda else ''}")

    def too_small(self, size: int, error: MemoryError) -> DeviceMemoryError:
        """An error that says how much memory was needed, how much there was, and which batch size would fit."""
        if isinstance(error, DeviceMemoryError):
            return error
        device, needed = self.model.device, self.model.step_bytes(size)
        free = device.free_bytes() + self.graphs.bytes  # what the step has already allocated is available to a smaller one
        words = f"{device.name} has too little memory for a training step of {size} examples"
        if free > 1 << 60:  # unknown
            return DeviceMemoryError(f"{words} ({first_line(error)}): use a smaller batch")
        fitting = min(size // 2, int(0.8 * free * size / needed))  # leaves room for fragmentation and workspaces
        way = f"a batch of {fitting} should fit" if fitting else "not even one example fits: use a smaller model or smaller images"
        return DeviceMemoryError(f"{words}: they need about {bytes_text(needed)}, and {bytes_text(free)} were free; {way}")

    def _launch(self, feed: Feed, size: int) -> None:
        x, labels = feed.load(size, self._counters[: EPOCH + 1])
        done = self._replayed(x, labels)
        if done is not None:
            mean, right = done
            self._tally(mean, right, size)
            self.optimizer.update(self._rates)
            return
        if self.team is None:
            loss, correct, doutputs = self.model.chain.forward_with_loss(x, self.loss, labels)
        else:
            outputs = self.model.chain.forward(x, training=True, logits=self.loss.fused_activation is not None)
            loss, correct, doutputs = self.loss.of_batch(self.model.device, outputs, labels)
            self.team.weigh(loss, correct, doutputs)
        divided = early(self.model, self.optimizer) if self.team is None and forks() else None
        with beside(self.team is None) as apart:  # nothing before the update needs what is counted
            if self.team is None:
                with apart:
                    self._tally(loss, correct, size)
            self.optimizer.zero_grad()
            if divided is None:
                self.model.chain.backward(doutputs)
            else:
                self._backward_and_update(doutputs, *divided, apart)
                return
        if self.team is not None:
            self._tally(*self.team.summed(), size)
        self.optimizer.update(self._rates)

    def _backward_and_update(self, doutputs: Array, stage: int, offset: int, apart: Apart) -> None:
        """Backward, and the update in two parts: of the parameters from the offset on as soon as the stage is completed, beside the rest of
        backward, and of the others at its end."""

        def done(index: int) -> None:
            if index == stage:
                apart.join()  # both parts read the rates, which are made where it is counted
                with apart:
                    self.optimizer.update(self._rates, slice(offset, None))

        chain = self.model.chain
        chain.done = done
        try:
            chain.backward(doutputs)
        finally:
            chain.done = None
        self.optimizer.update(self._rates, slice(offset))

    def _replayed(self, x: Array, labels: Array) -> Any:
        """(mean loss, right answers) of a step that is recorded, on a CPU, without Python between its loops (layers/replayed.py), up to the
        update; None if it runs as always."""
        chain, loss = self.model.chain, self.loss
        if chain.replayed is None or self.team is not None or not (labels.ndim == 1 and labels.dtype == np.int32 and x.size):
            return None
        if labels.min() < 0 or labels.max() >= chain.stages[-1].layers[-1].output_shape[-1]:  # NumPy reports it
            return None

        def step(x: Array, labels: Array) -> tuple[Array, Array]:
            mean, correct, doutputs = chain.forward_with_loss(x, loss, labels)
            chain.backward(doutputs)
            return mean, correct

        self.optimizer.zero_grad()
        return chain.replayed.train(chain.stages, loss, x, labels, step)

    def _tally(self, loss: Array, correct: Array, size: int) -> None:
        self.model.device.ops.tally(loss, correct, size, self._table, self._rates, self._counters, self._sums)

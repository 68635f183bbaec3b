"""A run as callbacks see it, and the base class of callbacks.

A callback receives the `Run` after every step and every epoch, and may set `run.stop`. What it has to remember across a resume it
returns from `state` (JSON) and `arrays`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gpucnn.names import Worded
from gpucnn.training.history import History
from gpucnn.training.step import Totals


@dataclass
class Run:
    """A training run as callbacks see it. Epochs and steps count what is done, from 0.

    model, optimizer: those that are trained.
    epoch, epochs: completed epochs, and how many there will be.
    step, steps_per_epoch: steps done in the current epoch, and how many it has.
    history: the results of each epoch, a `History`.
    loss, accuracy_so_far: over the current epoch so far.
    batch_loss: over the steps since it was last read.
    stop: to be set to True; the run ends after the current epoch.
    """

    model: Any
    optimizer: Any
    steps_per_epoch: int
    epochs: int
    epoch: int = 0  # completed epochs
    step: int = 0  # steps done in the current epoch
    answers: int = 0
    examples: int = 0
    seconds: float = 0.0  # in the current epoch, since the last resume
    fresh_examples: int = 0  # in the current epoch, since the last resume
    history: History = field(default_factory=History)
    metrics: list[str] = field(default_factory=lambda: ["accuracy"])  # metrics to report: accuracy in training, all of them in validation
    validated: bool = False  # whether there is validation data
    steps_before: int = 0  # the optimizer's step count when the current epoch began
    first_epoch: int = 0  # epochs that the model had begun before this run
    stop: bool = False
    finished: bool = False
    resumed: bool = False
    ranks: int = 1  # the number of ranks that train together
    rank: int = 0  # the number of this rank
    last: Any = None  # the parameters of the last epoch, once a callback has put others in their place at the end of the run
    totals: Callable[[], Totals] = Totals  # over the current epoch; calling it waits for the pending steps
    _asked: tuple[float, int] = (0.0, 0)  # loss and examples when `batch_loss` was last read

    @property
    def measures(self) -> list[str]:
        """The quantities in each row of the history, which callbacks can monitor."""
        trained = ["loss", "accuracy"] if self.accuracy else ["loss"]
        return trained + [f"val_{name}" for name in ("loss", *self.metrics)] if self.validated else trained

    @property
    def accuracy(self) -> bool:
        """Whether accuracy is reported."""
        return "accuracy" in self.metrics

    def epoch_begins(self) -> None:
        """Starts a new epoch for `batch_loss`."""
        self._asked = self.loss_sum, self.examples

    @property
    def batch_loss(self) -> float:
        """The mean loss of the examples since this was last read, in the current epoch; if it is read after every step, this is the loss
        of the batch. NaN if there were no examples. On a GPU, reading it waits for the pending steps."""
        (loss, examples), now = self._asked, (self.loss_sum, self.examples)
        self._asked = now
        return (now[0] - loss) / (now[1] - examples) if now[1] > examples else math.nan

    @property
    def loss_sum(self) -> float:
        """The sum of the loss over the examples of the current epoch so far."""
        return self.totals().loss

    @property
    def correct(self) -> int:
        """The number of correct predictions in the current epoch so far."""
        return self.totals().correct

    @property
    def loss(self) -> float:
        """The mean loss over the examples of the current epoch so far."""
        return self.loss_sum / max(1, self.examples)

    @property
    def accuracy_so_far(self) -> float:
        """The accuracy in the current epoch so far."""
        return self.correct / max(1, self.answers)

    @property
    def images_per_second(self) -> float:
        """Training speed in the current epoch."""
        return self.fresh_examples / self.seconds if self.seconds else 0.0


class Callback(Worded):
    """Base class of callbacks. It does nothing by itself; `fit` calls its methods, the first four with the `Run`.

    on_train_begin: before the first step, and also when a run is resumed.
    on_step_end: after every step; after the last one of an epoch, before validation.
    on_epoch_end: after validation; `run.history` has the new row.
    on_train_end: after the last epoch, and when the run is stopped.
    close: always called last, even after an exception.
    state, arrays: what a checkpoint stores of a callback that has a `name`: a dict for JSON, and a dict of arrays.
    restore: of (state, arrays), takes them up when a run is resumed.

    If several ranks train together, a callback that sets `alone = True` is called on rank 0 only.
    """

    name = ""  # key of its state in checkpoints; empty: no state is kept
    alone = False  # it prints or writes: if several ranks train together, it is called on rank 0 only

    def on_train_begin(self, run: Run) -> None:
        """Called before the first step, and also when a run is resumed."""

    def on_step_end(self, run: Run) -> None:
        """Called after every step. After the last step of an epoch, it is called before validation."""

    def on_epoch_end(self, run: Run) -> None:
        """Called after validation at the end of an epoch; run.history has the new row."""

    def on_train_end(self, run: Run) -> None:
        """Called after the last epoch, and when the run is stopped."""

    def close(self) -> None:
        """Always called last, even after an exception."""

    def state(self) -> dict[str, Any]:
        """State that a checkpoint must store, ready for JSON."""
        return {}

    def arrays(self) -> dict[str, Any]:
        """Arrays that a checkpoint must store."""
        return {}

    def restore(self, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Restores what `state()` and `arrays()` returned."""

"""A run as callbacks see it, and what every callback is.

A callback gets the `Run` after every step and every epoch, and may set `run.stop`. What it must remember across a resume it gives as
`state` (JSON) and `arrays`.
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
    """A run of training as callbacks see it. Epochs and steps are those that are done: both start at 0."""

    model: Any
    optimizer: Any
    steps_per_epoch: int
    epochs: int
    epoch: int = 0  # whole epochs done
    step: int = 0  # steps done in the epoch that is under way
    answers: int = 0
    examples: int = 0
    seconds: float = 0.0  # of that epoch, without those before a resume
    fresh_examples: int = 0  # of that epoch, without those before a resume
    history: History = field(default_factory=History)
    metrics: list[str] = field(default_factory=lambda: ["accuracy"])  # that are reported: accuracy in training, all in validation
    validated: bool = False  # whether there are data to validate on
    steps_before: int = 0  # the optimizer's, when that epoch began
    first_epoch: int = 0  # how many epochs the model had begun before this run
    stop: bool = False
    finished: bool = False
    resumed: bool = False
    ranks: int = 1  # that train together
    rank: int = 0  # this one
    totals: Callable[[], Totals] = Totals  # over that epoch: reading them waits for the steps that are under way
    _asked: tuple[float, int] = (0.0, 0)  # its loss and examples when `batch_loss` was asked for last

    @property
    def measures(self) -> list[str]:
        """What each epoch's row in the history will hold of what can be watched."""
        trained = ["loss", "accuracy"] if self.accuracy else ["loss"]
        return trained + [f"val_{name}" for name in ("loss", *self.metrics)] if self.validated else trained

    @property
    def accuracy(self) -> bool:
        """Whether the part of right answers is reported."""
        return "accuracy" in self.metrics

    def epoch_begins(self) -> None:
        """Tells the loop's epoch from the one before, for `batch_loss`."""
        self._asked = self.loss_sum, self.examples

    @property
    def batch_loss(self) -> float:
        """The mean loss of the examples since this was asked for last, in the epoch that is under way: asked for after every step, it is
        that of the batch. NaN where there was none since. On a GPU it waits for the steps."""
        (loss, examples), now = self._asked, (self.loss_sum, self.examples)
        self._asked = now
        return (now[0] - loss) / (now[1] - examples) if now[1] > examples else math.nan

    @property
    def loss_sum(self) -> float:
        """The loss, summed over the examples that the epoch has seen so far."""
        return self.totals().loss

    @property
    def correct(self) -> int:
        """The right answers that the epoch has given so far."""
        return self.totals().correct

    @property
    def loss(self) -> float:
        """The mean loss of the examples that the epoch has seen so far."""
        return self.loss_sum / max(1, self.examples)

    @property
    def accuracy_so_far(self) -> float:
        """The part of right answers that the epoch has given so far."""
        return self.correct / max(1, self.answers)

    @property
    def images_per_second(self) -> float:
        """Examples per second of training, in the epoch that is under way."""
        return self.fresh_examples / self.seconds if self.seconds else 0.0


class Callback(Worded):
    """Base of all callbacks: does nothing."""

    name = ""  # under which its state is kept in checkpoints; none is kept where it is empty
    alone = False  # it prints or writes: where several ranks train together it is called on rank 0 only

    def on_train_begin(self, run: Run) -> None:
        """Before the first step, also of a resumed run."""

    def on_step_end(self, run: Run) -> None:
        """After every step. That of an epoch's last one comes before the validation."""

    def on_epoch_end(self, run: Run) -> None:
        """After the last step and the validation of an epoch; run.history has its row."""

    def on_train_end(self, run: Run) -> None:
        """After the last epoch, and when the run is stopped."""

    def close(self) -> None:
        """Always called last, whatever happened."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep of this callback."""
        return {}

    def arrays(self) -> dict[str, Any]:
        """Arrays that a checkpoint must keep of this callback."""
        return {}

    def restore(self, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Takes up a `state()` and `arrays()` again."""

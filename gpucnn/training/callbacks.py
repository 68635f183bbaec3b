"""What watches a run: history, progress, checkpoints, early stopping.

A callback gets the `Run` after every step and every epoch, and may set `run.stop`. What it must remember across a resume it gives as
`state` (JSON) and `arrays`.
"""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpucnn.checks import integer, pick, positive
from gpucnn.device import to_numpy
from gpucnn.training.checkpoint import write_atomically

Row = dict[str, float]


class History(Mapping[str, list[float]]):
    """What each epoch measured: history["val_accuracy"] is a list with one value per epoch, `rows` the epochs as dicts."""

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows = rows if rows is not None else []

    def __getitem__(self, name: str) -> list[float]:
        if not any(name in row for row in self.rows):
            raise KeyError(name)
        return [row[name] for row in self.rows if name in row]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def to_csv(self, path: str | Path) -> None:
        """Writes one line per epoch, with a header."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))


@dataclass
class Run:
    """A run of training as callbacks see it. Epochs and steps are those that are done: both start at 0."""

    model: Any
    optimizer: Any
    steps_per_epoch: int
    epochs: int
    epoch: int = 0  # whole epochs done
    step: int = 0  # steps done in the epoch that is under way
    loss_sum: float = 0.0  # over the examples of that epoch
    correct: int = 0
    answers: int = 0
    examples: int = 0
    seconds: float = 0.0  # of that epoch, without those before a resume
    fresh_examples: int = 0  # of that epoch, without those before a resume
    history: History = field(default_factory=History)
    accuracy: bool = True  # whether it is reported
    stop: bool = False
    finished: bool = False
    resumed: bool = False

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


class Callback:
    """Base of all callbacks: does nothing."""

    name = ""  # under which its state is kept in checkpoints; none is kept where it is empty

    def on_train_begin(self, run: Run) -> None:
        """Before the first step, also of a resumed run."""

    def on_step_end(self, run: Run) -> None:
        """After every step but the last of an epoch."""

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


class CSVLog(Callback):
    """Writes the history to a file after every epoch."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_epoch_end(self, run: Run) -> None:
        run.history.to_csv(self.path)


class Checkpoint(Callback):
    """Writes the whole run to `path` after every epoch and every `every` steps, so that `fit(..., resume=path)` can go on.

    Whatever happens meanwhile, the file is whole: either the new state or the one before.
    """

    def __init__(self, path: str | Path, every: int = 200) -> None:
        self.path = Path(path)
        self.every = integer(every, "every", 1)
        self.save: Any = None  # set by the loop, which knows what a run consists of

    def on_step_end(self, run: Run) -> None:
        if run.step % self.every == 0:
            self.save(self.path)

    def on_epoch_end(self, run: Run) -> None:
        if not run.finished:
            self.save(self.path)

    def on_train_end(self, run: Run) -> None:
        self.save(self.path)


MONITORS = {"loss": 1, "val_loss": 1, "accuracy": -1, "val_accuracy": -1}


class EarlyStopping(Callback):
    """Stops when `monitor` has not become better by more than `min_delta` for `patience` epochs.

    monitor: loss, val_loss, accuracy or val_accuracy. restore_best: in the end the parameters are those of the best epoch.
    """

    name = "early_stopping"

    def __init__(self, monitor: str = "val_loss", patience: int = 3, min_delta: float = 0.0, restore_best: bool = True) -> None:
        self.sign = pick(monitor, MONITORS, "quantity to monitor")
        self.monitor = monitor
        self.patience = integer(patience, "patience", 1)
        self.min_delta = positive(min_delta, "min_delta", zero=True)
        self.restore_best = bool(restore_best)
        self.best: float | None = None
        self.waited = 0
        self._parameters: Any = None

    def on_train_begin(self, run: Run) -> None:
        if not run.resumed:
            self.best, self.waited, self._parameters = None, 0, None

    def on_epoch_end(self, run: Run) -> None:
        row = run.history.rows[-1]
        if self.monitor not in row:
            raise ValueError(f"early stopping watches {self.monitor!r}, which this run does not measure: it measures {', '.join(row)}")
        value = self.sign * row[self.monitor]
        if self.best is None or value < self.best - self.min_delta:
            self.best, self.waited = value, 0
            if self.restore_best:
                self._parameters = run.model.buffers.values.copy()
        else:
            self.waited += 1
            run.stop = run.stop or self.waited >= self.patience

    def on_train_end(self, run: Run) -> None:
        if run.finished and self._parameters is not None:
            run.model.buffers.values[...] = self._parameters

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def arrays(self) -> dict[str, Any]:
        return {} if self._parameters is None else {"parameters": to_numpy(self._parameters)}

    def restore(self, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]
        self._parameters = arrays.get("parameters")


def epoch_line(run: Run) -> str:
    """The last epoch in one line."""
    row = run.history.rows[-1]
    parts = [f"epoch {run.epoch}/{run.epochs}", f"loss {row['loss']:.4f}"]
    if "accuracy" in row:
        parts.append(f"accuracy {100 * row['accuracy']:.2f} %")
    if "val_loss" in row:
        parts.append(f"val_loss {row['val_loss']:.4f}")
    if "val_accuracy" in row:
        parts.append(f"val_accuracy {100 * row['val_accuracy']:.2f} %")
    parts.append(f"{row['images_per_second']:,.0f} images/s")
    return "  ".join(parts)


class Progress(Callback):
    """Shows how the run goes: a bar with loss, accuracy, images per second and the time left on a terminal, elsewhere a line per epoch."""

    def __init__(self, bar: bool | None = None) -> None:
        self.bar = sys.stdout.isatty() if bar is None else bar
        self._progress: Any = None
        self._task: Any = None
        self._shown = 0.0

    def on_train_begin(self, run: Run) -> None:
        if not self.bar or run.finished:
            return
        from rich import progress

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=None),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[numbers]}"),
            progress.TimeRemainingColumn(compact=True),
            expand=True,
        )
        self._progress.start()
        total = run.epochs * run.steps_per_epoch
        self._task = self._progress.add_task(self._title(run), total=total, completed=self._done(run), numbers="")

    def on_step_end(self, run: Run) -> None:
        # A terminal shows no more than a few dozen frames a second: formatting every step of a fast network would cost time.
        if self._progress is None or time.monotonic() - self._shown < 0.05:
            return
        self._shown = time.monotonic()
        numbers = f"loss {run.loss:.4f}"
        if run.accuracy:
            numbers += f"  accuracy {100 * run.accuracy_so_far:.2f} %"
        numbers += f"  {run.images_per_second:,.0f} images/s"
        self._progress.update(self._task, completed=self._done(run), description=self._title(run), numbers=numbers)

    def on_epoch_end(self, run: Run) -> None:
        if self._progress is None:
            print(epoch_line(run), flush=True)
        else:
            self._progress.console.print(epoch_line(run), highlight=False)
            self._progress.update(self._task, completed=self._done(run), description=self._title(run))

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @staticmethod
    def _title(run: Run) -> str:
        return f"epoch {min(run.epoch + 1, run.epochs)}/{run.epochs}"

    @staticmethod
    def _done(run: Run) -> int:
        return run.epoch * run.steps_per_epoch + run.step

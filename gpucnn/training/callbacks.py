"""What watches a run: history, progress, checkpoints, early stopping.

A callback gets the `Run` after every step and every epoch, and may set `run.stop`. What it must remember across a resume it gives as
`state` (JSON) and `arrays`.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpucnn.checks import integer, pick, positive
from gpucnn.device import to_numpy
from gpucnn.errors import ArgumentError, CheckpointError
from gpucnn.files import append, write_atomically
from gpucnn.metrics import METRICS
from gpucnn.names import Worded
from gpucnn.surroundings import is_terminal, say, user_path
from gpucnn.training.rows import Row, checksum, lines, returns
from gpucnn.training.step import Totals


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

    @property
    def history(self) -> dict[str, list[float]]:
        """The same as a dict of lists, as Keras has it; "acc" and the like are found as well."""
        return _Lists(self)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.4g}" for name, value in (self.rows[-1] if self.rows else {}).items() if name != "epoch")
        return f"<History of {len(self.rows)} epoch{'' if len(self.rows) == 1 else 's'}{': ' if last else ''}{last}>"

    def to_csv(self, path: str | Path) -> None:
        """Writes one line per epoch, with a header."""
        content = lines(list(self), self.rows, header=True).encode()
        write_atomically(path, lambda file: file.write(content))


class _Lists(dict[str, list[float]]):
    def __missing__(self, name: str) -> list[float]:
        meant = METRICS.meant(str(name).removeprefix("val_"))
        key = f"val_{meant}" if str(name).startswith("val_") else meant
        if key is None or key not in self:
            raise KeyError(name)
        return self[key]


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


class CSVLog(Callback):
    """Keeps the history in a file: whole when a run is resumed, and a line more after every epoch.

    A `Checkpoint` in the same folder leaves the history to it: the two files go together.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path)
        self._forget()

    def _forget(self) -> None:
        self._columns: list[str] | None = None  # of the file, as far as it is this run's
        self._rows: list[Row] = []  # that it holds
        self._returning = self._synced = True  # whether they can be read from it again, and whether they are on the disk
        self.checksum = 0

    def on_train_begin(self, run: Run) -> None:
        self._forget()
        if run.history.rows:
            self._write(run)

    def on_epoch_end(self, run: Run) -> None:
        row = run.history.rows[-1]
        if self._columns is None or not row.keys() <= set(self._columns) or not self.path.is_file():
            self._write(run)
        else:
            append(self.path, lines(self._columns, [row]).encode())
            self._holds([row])

    def holds(self, rows: list[Row]) -> bool:
        """Whether just these rows are in the file, on the disk, and can be read from it again."""
        if not self._returning or self._rows != rows or not self.path.is_file():
            return False
        if not self._synced:
            handle = os.open(self.path, os.O_RDWR)  # a checkpoint must not outlive the rows that it leaves out
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            self._synced = True
        return True

    def _write(self, run: Run) -> None:
        run.history.to_csv(self.path)
        self._forget()
        self._columns = list(run.history)
        self._holds(run.history.rows)

    def _holds(self, rows: list[Row]) -> None:
        self._rows += [dict(row) for row in rows]
        self._synced = False
        self._returning = self._returning and all(map(returns, rows))
        if self._returning:
            self.checksum = checksum(rows, self.checksum)


class Checkpoint(Callback):
    """Writes the whole run to `path` after every epoch and every `every` steps, so that `fit(..., resume=path)` can go on.

    Whatever happens meanwhile, the file is whole: either the new state or the one before. The history is in it, or where a `CSVLog`
    writes to the same folder, in that one's file: a run of thousands of epochs wants one.
    """

    def __init__(self, path: str | Path, every: int = 200, *, notes: Mapping[str, Any] | None = None) -> None:
        self.path = user_path(path)
        self.every = integer(every, "every", 1)
        self.notes = dict(notes or {})  # kept in the file for the program that wrote it
        self.save: Any = None  # set by the loop, which knows what a run consists of

    def on_step_end(self, run: Run) -> None:
        if run.step % self.every == 0:
            self.save(self.path)

    def on_epoch_end(self, run: Run) -> None:
        if not run.finished:
            self.save(self.path)

    def on_train_end(self, run: Run) -> None:
        self.save(self.path)


def _direction(monitor: object) -> int:
    """1 for a loss, which is better lower, −1 for a metric, which is better higher."""
    names = {"loss": 1, **dict.fromkeys(METRICS, -1)}
    return pick(monitor, {**names, **{f"val_{name}": sign for name, sign in names.items()}}, "quantity to monitor")


class EarlyStopping(Callback):
    """Stops when `monitor` has not become better by more than `min_delta` for `patience` epochs.

    monitor: loss, accuracy or another metric, or one of them with val_ before it. restore_best: in the end the parameters are those of the
    best epoch.
    """

    name = "early_stopping"

    def __init__(self, monitor: str = "val_loss", patience: int = 3, min_delta: float = 0.0, restore_best: bool = True) -> None:
        self.sign = _direction(monitor)
        self.monitor = monitor
        self.patience = integer(patience, "patience", 1)
        self.min_delta = positive(min_delta, "min_delta", zero=True)
        self.restore_best = bool(restore_best)
        self.best: float | None = None
        self.waited = 0
        self._parameters: Any = None  # of the best epoch
        self._last: Any = None  # of the last epoch, where the best ones were put in their place: a longer run goes on from them

    def on_train_begin(self, run: Run) -> None:
        if self.monitor not in run.measures:
            raise ArgumentError(
                f"early stopping watches {self.monitor!r}, which this run does not measure: it measures {', '.join(run.measures)}"
                f"{'' if run.validated else '; give fit validation_data, or watch one of these'}"
            )
        if not run.resumed:
            self.best, self.waited, self._parameters, self._last = None, 0, None, None
        for kept in (self._parameters, self._last):
            if kept is not None and kept.shape != (run.model.buffers.size,):
                raise CheckpointError(f"the parameters that early stopping kept have shape {kept.shape}: they are of another model")
        if self._last is not None:
            run.model.buffers.put(self._last)
            self._last = None

    def on_epoch_end(self, run: Run) -> None:
        row = run.history.rows[-1]
        value = self.sign * row[self.monitor]
        if value == value and (self.best is None or value < self.best - self.min_delta):  # NaN is never better
            self.best, self.waited = value, 0
            if self.restore_best:
                self._parameters = run.model.buffers.copy()
        else:
            self.waited += 1
            run.stop = run.stop or self.waited >= self.patience

    def on_train_end(self, run: Run) -> None:
        if run.finished and self._parameters is not None:
            self._last = run.model.buffers.copy()
            run.model.buffers.put(self._parameters)

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def arrays(self) -> dict[str, Any]:
        kept = {"parameters": self._parameters, "last": self._last}
        return {name: to_numpy(array) for name, array in kept.items() if array is not None}

    def restore(self, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        self.best, self.waited = None if state["best"] is None else float(state["best"]), int(state["waited"])
        self._parameters, self._last = arrays.get("parameters") if self.restore_best else None, arrays.get("last")


def epoch_line(run: Run) -> str:
    """The last epoch in one line."""
    return epoch_lines(run)[0]


def epoch_lines(run: Run) -> list[str]:
    """The last epoch in one line: whole first, then ever shorter, for narrow terminals."""
    row = run.history.rows[-1]
    parts = {"epoch": f"epoch {run.epoch}/{run.epochs}", "loss": f"loss {row['loss']:.4f}"}
    if "accuracy" in row:
        parts["accuracy"] = f"accuracy {100 * row['accuracy']:.2f} %"
    if "val_loss" in row:
        parts["val_loss"] = f"val_loss {row['val_loss']:.4f}"
    if "val_accuracy" in row:
        parts["val_accuracy"] = f"val_accuracy {100 * row['val_accuracy']:.2f} %"
    parts["speed"] = f"{row['images_per_second']:,.0f} images/s"
    lines = ["  ".join(parts.values())]
    for least in ("speed", "accuracy", "loss", "val_loss"):  # what one misses least goes first; history.csv has it all
        if parts.pop(least, None) is not None and len(parts) > 1:
            lines.append("  ".join(parts.values()))
    return lines


class Progress(Callback):
    """Shows how the run goes: a bar with loss, accuracy, images per second and the time left on a terminal, elsewhere a line per epoch.

    The bar goes when the run ends, and leaves the lines of the epochs.
    """

    MARGIN = 4  # columns that stay free at the right, so that the ^C that a terminal echoes does not wrap the line

    def __init__(self, bar: bool | None = None) -> None:
        capable = os.environ.get("TERM") not in ("dumb", "unknown")  # such a terminal cannot go back to redraw a bar
        self.bar = is_terminal(sys.stdout) and capable if bar is None else bar
        self._progress: Any = None
        self._column: Any = None
        self._task: Any = None
        self._shown = 0.0

    def on_train_begin(self, run: Run) -> None:
        if not self.bar or run.finished:
            return
        from rich import progress

        self._column = progress.BarColumn(bar_width=1)
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            self._column,
            progress.TextColumn("{task.fields[numbers]}", markup=False),
            transient=True,
        )
        self._task = self._progress.add_task("", total=run.epochs * run.steps_per_epoch, completed=self._done(run), numbers="")
        self._show(run)
        self._progress.start()

    def on_step_end(self, run: Run) -> None:
        # A terminal shows no more than a few dozen frames a second: formatting every step of a fast network would cost time.
        if self._progress is not None and time.monotonic() - self._shown >= 0.05:
            self._show(run)

    def on_epoch_end(self, run: Run) -> None:
        if self._progress is None:
            say(epoch_line(run))
        else:
            line = _fitting(epoch_lines(run), self._progress.console.width)
            self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
            self._show(run)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _show(self, run: Run) -> None:
        """Redraws: the numbers that the terminal has room for, and a bar in the room that they leave."""
        self._shown = time.monotonic()
        self._progress.update(self._task, completed=self._done(run))
        task = self._progress.tasks[0]
        title = f"epoch {min(run.epoch + 1, run.epochs)}/{run.epochs}"
        left = "" if task.time_remaining is None else f"  {_clock(task.time_remaining)} left"
        numbers = [f"{task.percentage:3.0f} %"]
        if run.fresh_examples:
            loss, speed = f"  loss {run.loss:.4f}", f"  {run.images_per_second:,.0f} images/s"
            accuracy = f"  accuracy {100 * run.accuracy_so_far:.2f} %" if run.accuracy else ""
            rest = (loss + accuracy + speed + left, loss + accuracy + left, loss + left, left, "")
            numbers = [numbers[0] + part for part in rest]
        room = self._progress.console.width - self.MARGIN - len(title) - 2  # a space before and one after the bar
        text = _fitting(numbers, room - 10)
        self._column.bar_width = min(max(room - len(text), 1), 50)
        self._progress.update(self._task, description=title, numbers=text)

    @staticmethod
    def _done(run: Run) -> int:
        return run.epoch * run.steps_per_epoch + run.step


def _fitting(texts: Sequence[str], width: int) -> str:
    """The first of the texts that is no longer than `width`; the last where none is."""
    return next((text for text in texts if len(text) <= width), texts[-1])


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"

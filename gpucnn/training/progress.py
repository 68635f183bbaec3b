"""Progress of a run: a bar on a terminal, otherwise one line per epoch."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from gpucnn.checks import flag
from gpucnn.surroundings import in_notebook, is_terminal, say
from gpucnn.training.run import Callback, Run


class Progress(Callback):
    """Shows the progress of a run. On a terminal, and in a notebook with ipywidgets, it is a bar with loss, accuracy, images per second and
    the time left; elsewhere it is one line per epoch.

    When the run ends, the bar disappears and the lines of the epochs remain.
    """

    alone = True
    MARGIN = 4  # columns left free at the right, so that the ^C that a terminal echoes does not wrap the line

    def __init__(self, bar: bool | None = None) -> None:
        capable = os.environ.get("TERM") not in ("dumb", "unknown")  # such a terminal cannot go back to redraw a bar
        self.bar = (is_terminal(sys.stdout) and capable) or _notebook_bar() if bar is None else flag(bar, "bar")
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
        """Redraws the numbers that fit on the terminal, and the bar in the space that is left."""
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


def shown_unasked() -> bool:
    """Whether somebody is watching, at a terminal or in a notebook."""
    return is_terminal(sys.stdout) or in_notebook()


def _notebook_bar() -> bool:
    """Whether rich can draw a bar in the notebook, for which it needs ipywidgets."""
    return in_notebook() and find_spec("ipywidgets") is not None


def epoch_line(run: Run) -> str:
    """The last epoch in one line."""
    return epoch_lines(run)[0]


def epoch_lines(run: Run) -> list[str]:
    """The last epoch as one line: the full version first, then shorter ones for narrow terminals."""
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
    for least in ("speed", "accuracy", "loss", "val_loss"):  # the least important goes first; history.csv has everything
        if parts.pop(least, None) is not None and len(parts) > 1:
            lines.append("  ".join(parts.values()))
    return lines


def _fitting(texts: Sequence[str], width: int) -> str:
    """The first text that fits into `width`; the last if none does."""
    return next((text for text in texts if len(text) <= width), texts[-1])


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"

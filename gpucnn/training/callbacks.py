"""Callbacks: the history as a CSV file, checkpoints, early stopping. Re-exports those that have modules of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpucnn.checks import flag, integer, pick, positive
from gpucnn.device import to_numpy
from gpucnn.errors import ArgumentError, CheckpointError, GpucnnError
from gpucnn.files import append, why_not_written
from gpucnn.metrics import METRICS
from gpucnn.signatures import Mode
from gpucnn.surroundings import user_path
from gpucnn.text import shown
from gpucnn.training.checkpoint import as_json
from gpucnn.training.history import History
from gpucnn.training.progress import Progress
from gpucnn.training.rows import Row, checksum, lines, returns
from gpucnn.training.run import Callback, Run

__all__ = ["CSVLog", "Callback", "Checkpoint", "EarlyStopping", "History", "Progress", "Run"]


INSIDE = 100  # epochs of a history that a checkpoint holds itself


class CSVLog(Callback):
    """Writes the history to a CSV file: one line after every epoch, and the whole file again when a run is resumed.

    A `Checkpoint` in the same folder then does not store the history: keep the two files together.
    """

    alone = True

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path)
        self._forget()

    def _forget(self) -> None:
        self._columns: list[str] | None = None  # of the file, once this run has written it
        self._rows: list[Row] = []  # in the file
        self._returning = self._synced = True  # whether they can be read back, and whether they are flushed to disk
        self.checksum = 0

    def on_train_begin(self, run: Run) -> None:
        self._forget()
        if run.history.rows:
            self._write(run.history)

    def on_epoch_end(self, run: Run) -> None:
        self._add(run.history.rows[-1:], run.history)

    def holds(self, rows: list[Row]) -> bool:
        """Whether the file on disk holds exactly these rows and can be read back."""
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

    def catch_up(self, history: History) -> None:
        """Makes the file match `history`: appends new rows, or rewrites all of it if anything else has changed."""
        known = len(self._rows)
        if self._rows == history.rows[:known]:
            self._add(history.rows[known:], history)
        else:
            self._write(history)

    def _add(self, new: list[Row], history: History) -> None:
        """Appends the last rows of `history`, or rewrites all of it if they do not fit the file."""
        if self._columns is None or any(row.keys() - set(self._columns) for row in new) or not self.path.is_file():
            self._write(history)
        elif new:
            append(self.path, lines(self._columns, new).encode())
            self._holds(new)

    def _write(self, history: History) -> None:
        history.to_csv(self.path)
        self._forget()
        self._columns = list(history)
        self._holds(history.rows)

    def _holds(self, rows: list[Row]) -> None:
        self._rows += [dict(row) for row in rows]
        self._synced = False
        self._returning = self._returning and all(map(returns, rows))
        if self._returning:
            self.checksum = checksum(rows, self.checksum)


class Checkpoint(Callback):
    """Writes the whole run to `path` after every epoch and every `every` steps, so that `fit(..., resume=path)` can continue.

    The file is complete at any time: it holds either the new state or the previous one. It includes the history, unless a `CSVLog`
    writes to the same folder. A history of more than 100 epochs is stored in a second file, `path` followed by `.history.csv`, which grows
    by one line per epoch, because the checkpoint is rewritten every time and must not grow with the run. Keep the two files together.
    """

    alone = True

    def __init__(self, path: str | Path, every: int = 200, *, notes: Mapping[str, Any] | None = None) -> None:
        self.path = user_path(path)
        self.every = integer(every, "every", 1)
        if not isinstance(notes, Mapping | None):
            raise TypeError(f"notes must be a dict, got {shown(notes)}")
        self.notes = as_json(notes or {}, "notes")  # stored in the file for the calling program
        self.save: Any = None  # set by the loop, which knows what a run consists of
        self._log = CSVLog(f"{self.path}.history.csv")

    def log_of(self, history: History) -> CSVLog | None:
        """A file with the history, for a checkpoint that must not contain all of it; None if it may, or cannot have a file beside it."""
        if len(history.rows) <= INSIDE or not self.path.is_file():
            return None  # before there is a checkpoint, its path may turn out to be a device
        try:
            self._log.catch_up(history)
        except (OSError, GpucnnError):  # a name too long, or taken by a folder
            return None
        return self._log

    def on_step_end(self, run: Run) -> None:
        if run.step % self.every == 0:
            self.save(self.path)

    def on_epoch_end(self, run: Run) -> None:
        if not run.finished:
            self.save(self.path)

    def on_train_end(self, run: Run) -> None:
        self.save(self.path)


def check_files(callbacks: Sequence[Callback]) -> None:
    """ArgumentError if a callback will not be able to write its file, or if a log shares its file with another callback: said before the
    first step, and not after an epoch."""
    taken: dict[str, Callback] = {}
    for callback in callbacks:
        if not isinstance(callback, Checkpoint | CSVLog):
            continue
        name = type(callback).__name__
        if why := why_not_written(callback.path):
            raise ArgumentError(f"{name}({str(callback.path)!r}) cannot write its file, {why}")
        other = taken.setdefault(os.path.realpath(callback.path), callback)
        if other is not callback and CSVLog in (type(other), type(callback)):
            raise ArgumentError(f"{type(other).__name__} and {name} both write {callback.path}: name another file for one of them")


def _monitored(monitor: Any, mode: object) -> tuple[str, int]:
    """(the first name of a quantity, 1 if lower is better, −1 if higher is). By default lower is for a loss, and higher for a metric."""
    names = {"loss": 1, **dict.fromkeys(METRICS, -1)}
    if isinstance(monitor, str):
        prefix = "val_" if monitor.startswith("val_") else ""
        monitor = f"{prefix}{METRICS.meant(monitor.removeprefix(prefix)) or monitor.removeprefix(prefix)}"
    usual = pick(monitor, {**names, **{f"val_{name}": sign for name, sign in names.items()}}, "quantity to monitor")
    return monitor, pick(mode, {"auto": usual, "min": 1, "max": -1}, "mode")


class EarlyStopping(Callback):
    """Stops when `monitor` has not improved by more than `min_delta` for `patience` epochs.

    monitor: loss or accuracy, with or without the prefix val_, or another metric with it: validation alone measures those.
    restore_best: end with the parameters of the best epoch.
    mode: "min" if the lowest value is the best, "max" if the highest is. "auto" takes the lowest loss, and the highest value of any metric:
        for a registered metric that counts errors, give "min".
    """

    name = "early_stopping"

    def __init__(
        self, monitor: str = "val_loss", patience: int = 3, min_delta: float = 0.0, restore_best: bool = True, *, mode: Mode = "auto"
    ) -> None:
        self.monitor, self.sign = _monitored(monitor, mode)
        self.patience = integer(patience, "patience", 1)
        self.min_delta = positive(min_delta, "min_delta", zero=True)
        self.restore_best = flag(restore_best, "restore_best")
        self.mode = mode
        self.best: float | None = None
        self.waited = 0
        self._parameters: Any = None  # of the best epoch
        self._last: Any = None  # of the last epoch, after the best ones replaced them: a longer run continues from these
        self._restored = False  # whether all of this comes from the checkpoint that a run is resumed from

    def on_train_begin(self, run: Run) -> None:
        if self.monitor not in run.measures:
            raise ArgumentError(
                f"early stopping monitors {self.monitor!r}, which this run does not have: it has {', '.join(run.measures)}"
                f"{'' if run.validated else '; give fit validation_data, or watch one of these'}"
            )
        if not (run.resumed and self._restored):  # the checkpoint may be of a run without early stopping
            self.best, self.waited, self._parameters, self._last = None, 0, None, None
        for kept in (self._parameters, self._last):
            if kept is not None and kept.shape != (run.model.buffers.size,):
                raise CheckpointError(f"the parameters that early stopping kept have shape {kept.shape}: they belong to another model")
        if self._last is not None:
            run.model.buffers.put(self._last)
            self._last = None
        self._restored = False

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
            if run.last is None:  # else another has put its own best ones in place
                run.last = run.model.buffers.copy()
            self._last = run.last
            run.model.buffers.put(self._parameters)

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "monitor": self.monitor, "sign": self.sign}

    def arrays(self) -> dict[str, Any]:
        kept = {"parameters": self._parameters, "last": self._last}
        return {name: to_numpy(array) for name, array in kept.items() if array is not None}

    def restore(self, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        before, now = (state.get("monitor", self.monitor), state.get("sign", self.sign)), (self.monitor, self.sign)
        if before != now:  # its best value is one of another quantity
            told, tells = (f"the {'lowest' if sign == 1 else 'highest'} {monitor}" for monitor, sign in (before, now))
            raise CheckpointError(
                f"early stopping looked for {told} in the run of the checkpoint, and looks for {tells} now: give monitor and mode as before"
            )
        self.best, self.waited = None if state["best"] is None else float(state["best"]), int(state["waited"])
        self._parameters, self._last = arrays.get("parameters") if self.restore_best else None, arrays.get("last")
        self._restored = True

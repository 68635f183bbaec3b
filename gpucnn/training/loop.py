"""The loop around the training step: epochs, validation, callbacks, interruption. What a run consists of: resuming.py."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpucnn.errors import ArgumentError, TrainingError
from gpucnn.losses import Loss
from gpucnn.optimizers import Optimizer
from gpucnn.surroundings import user_path
from gpucnn.training import resuming
from gpucnn.training.alike import same
from gpucnn.training.callbacks import Callback, Checkpoint, History, Progress, Run, check_files
from gpucnn.training.communicator import Communicator
from gpucnn.training.feed import Feed, feed_for
from gpucnn.training.progress import shown_unasked
from gpucnn.training.step import Totals, TrainingStep
from gpucnn.training.team import SIGNALS, Team, check

AWAY = {Callback.on_step_end, Checkpoint.on_step_end, Progress.on_step_end}  # these read nothing that a pending step still computes


def fit(
    model: Any,
    loss: Loss,
    optimizer: Optimizer,
    batches: Any,
    *,
    epochs: int,
    validation: tuple[Any, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    verbose: bool | None = None,
    metrics: Sequence[str] = ("accuracy",),
    resume: str | Path | None = None,
    ranks: Communicator | None = None,
) -> History:
    """Trains `model` on `batches` for `epochs` epochs; see `Sequential.fit`.

    A run resumes at exactly the step of its checkpoint. Batches, augmentation and dropout depend on seed and step alone, so the result
    is bit-identical to that of an uninterrupted run. Ctrl-C finishes the current step and writes a checkpoint before KeyboardInterrupt
    is raised; a second Ctrl-C does not wait. SIGTERM and SIGHUP have the effect of the first and raise SystemExit with status 143 and 129.

    With several `ranks`, each processes its part of every batch, and all end in the same step, for whatever reason. Callbacks that print or
    write (`Callback.alone`) are called on rank 0 only; a checkpoint belongs to the run, whatever the number of ranks.
    """
    team = Team(ranks, model) if ranks is not None and ranks.size > 1 else None
    resuming.check_names(callbacks)
    # Checkpoints come last: they must include what the other callbacks remember of this step, and the final state of the run.
    callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))
    if not any(isinstance(callback, Progress) for callback in callbacks) and (shown_unasked() if verbose is None else verbose):
        callbacks.insert(0, Progress())
    if team is not None and team.ranks.rank:
        callbacks = [callback for callback in callbacks if not callback.alone]
    run = Run(model, optimizer, batches.steps_per_epoch, epochs, metrics=list(metrics), validated=validation is not None)
    run.first_epoch = model.epochs_begun
    recipe = resuming.recipe_of(model, batches)
    if team is not None:
        run.ranks, run.rank = team.ranks.size, team.ranks.rank
        check(loss, batches, team.ranks)
        same(
            team.ranks,
            {**resuming.seen(model, optimizer, batches, validation, recipe, epochs, metrics), "wish to resume": resume is not None},
        )
    once = _by_itself if team is None else team.ranks.once
    complete = False
    if resume is not None and once(lambda: resuming.begun(resume, callbacks, told=verbose is not False)):
        resuming.restore(run, once(lambda: resuming.loaded(user_path(resume))), recipe, callbacks)
        done = run.epoch >= epochs or run.stop
        complete = run.finished and done  # a run that was killed between its last epoch and its end still has to finish
        run.finished = done  # continue if more epochs are asked for than last time
    run.steps_before = optimizer.steps - run.step
    for callback in callbacks:
        if isinstance(callback, Checkpoint):
            callback.save = lambda path: resuming.save(run, path, recipe, callbacks)
    if complete:
        model.epochs_begun = run.first_epoch + run.epoch
        return run.history
    once(lambda: check_files(callbacks))
    step = TrainingStep(model, loss, optimizer, team=team)
    feed = feed_for(step.graphs, batches, None if team is None else team.part)
    try:
        whole = min(batches.batch_size, len(getattr(batches, "images", range(batches.batch_size))))
        step.whole = whole if team is None else -(-whole // team.ranks.size)
        step.prepare(feed, whole)
        with _interruptible() as interrupted, contextlib.nullcontext() if team is None else team.at_work():
            _each(callbacks, "on_train_begin", run, team, interrupted)
            first = run.epoch + 1
            while not run.finished:
                for size in _epoch(run, step, feed, validation, batches.batch_size, callbacks, interrupted):
                    step.run(feed, size)
                number = _each(callbacks, "on_epoch_end", run, team, interrupted)
                run.finished = run.stop or run.epoch >= epochs
                if team is not None and (run.finished or run.epoch == first):  # early, so that little is lost; and the files that are left
                    team.compare()
                if number and not run.finished:
                    raise _stop(number)
            if number := _each(callbacks, "on_train_end", run, team, interrupted):
                raise _stop(number)
    except TrainingError as error:
        run.step = optimizer.steps - run.steps_before  # the steps before the failure
        kept = [callback.path for callback in callbacks if isinstance(callback, Checkpoint) and callback.path.exists()]
        where = f" (epoch {run.epoch + 1}, batch {min(run.step + 1, run.steps_per_epoch)})"
        last = f"; the last good checkpoint is {kept[0]}" if kept else ""
        raise TrainingError(f"{error}{where}{last}") from None
    finally:
        with contextlib.suppress(RuntimeError):  # from CUDA, after an error of its own
            step.end()
        for callback in callbacks:
            callback.close()
    return run.history


def _epoch(
    run: Run,
    step: TrainingStep,
    feed: Feed,
    validation: tuple[Any, Any] | None,
    batch_size: int,
    callbacks: Sequence[Callback],
    interrupted: Callable[[], int],
) -> Iterator[int]:
    """Runs the rest of the current epoch, validates, and adds a row to the history. Yields the size of each batch, and the caller runs
    the step: this keeps one more frame out of the call stack between `fit` and the kernels."""
    run.seconds, run.fresh_examples = 0.0, 0
    number = run.first_epoch + run.epoch  # counts all epochs of this model, over all calls of fit
    run.model.epochs_begun = number + 1
    learning_rate = run.optimizer.learning_rate
    step.begin(run.steps_per_epoch, epoch=number, done=run.step, totals=run.totals())
    run.totals = step.read
    team = step.team
    held = contextlib.nullcontext if team is None else team.held
    at_once = run.model.device.kind == "cpu"  # if waiting costs nothing, find a NaN loss at the step that produced it
    run.steps_before = run.optimizer.steps - run.step
    schedule = run.optimizer.schedule  # whose rates for this epoch are in device memory
    run.epoch_begins()
    clock = time.perf_counter()
    for size in feed.epoch(number, run.step):
        learning_rate = run.optimizer.learning_rate
        if team is not None:
            step.ask(interrupted())
        yield size
        labels = feed.labels(size)
        run.answers += step.loss.answers(labels) * size // len(labels)
        run.examples += size
        run.fresh_examples += size
        run.step += 1
        last = run.step == run.steps_per_epoch
        if at_once or last:
            step.read()
        now = time.perf_counter()
        run.seconds += now - clock
        waited = step.graphs.waited
        for callback in callbacks:
            # Callbacks that read or change the model run between two steps; those known not to need no waiting. After the last
            # step checkpoints and progress wait for the epoch's end, which comes next.
            if (last and isinstance(callback, Checkpoint | Progress)) or (team is not None and team.failure is not None):
                continue
            with held(), contextlib.nullcontext() if type(callback).on_step_end in AWAY else step.graphs.ordered():
                callback.on_step_end(run)
        if run.optimizer.schedule is not schedule and not last:
            raise ArgumentError("the learning rate was changed within an epoch: change it in on_epoch_end, or give a function of the step")
        run.seconds += step.graphs.waited - waited  # waiting for the steps counts as training time
        number = interrupted() if team is None else step.told(last)
        if number and not last:
            for callback in callbacks:
                if isinstance(callback, Checkpoint):
                    with held():
                        callback.save(callback.path)
            raise _stop(number if team is None else team.agree(run, number))
        clock = time.perf_counter()
    row = {"epoch": run.epoch + 1, "loss": run.loss}
    if run.accuracy:
        row["accuracy"] = run.accuracy_so_far
    if validation is not None:
        size = min(batch_size, len(validation[0]))
        ranks = () if team is None else (team.ranks,)
        try:
            row |= {f"val_{name}": value for name, value in run.model.measure(*validation, size, *ranks).items()}
        except MemoryError as error:
            raise step.too_small(size, error) from None
        if not math.isfinite(row["val_loss"]):  # before the checkpoint of this epoch, so that the last checkpoint stays good
            raise TrainingError(f"the validation loss became {row['val_loss']} after step {run.optimizer.steps}: lower the learning rate")
    row |= {"learning_rate": learning_rate, "seconds": round(run.seconds, 3), "images_per_second": round(run.images_per_second, 1)}
    run.history.rows.append(row if team is None else team.ranks.once(lambda: row))  # clocks differ
    run.epoch += 1
    run.step = run.answers = run.examples = 0
    run.steps_before = run.optimizer.steps
    run.totals = Totals


def _each(callbacks: Sequence[Callback], event: str, run: Run, team: Team | None, interrupted: Callable[[], int]) -> int:
    """Calls all callbacks, and returns the signal that ends the run, or 0. With ranks, any of them may have received it."""
    for callback in callbacks:
        with contextlib.nullcontext() if team is None else team.held():
            getattr(callback, event)(run)
        if team is not None and team.failure is not None:
            break
    return interrupted() if team is None else team.agree(run, interrupted())


def _by_itself(function: Callable[[], Any]) -> Any:
    return function()


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], int]]:
    """Defers the first Ctrl-C, and any SIGTERM or SIGHUP, to the end of a step. Yields a function that returns the first one's number,
    or 0."""
    caught: list[int] = []
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        caught.append(number)
        if len(caught) > 1 and number == signal.SIGINT:  # from a person; queueing systems and mpiexec may send a signal several times
            raise _stop(number)

    try:
        # Only the main thread receives signals. Signals that are ignored, as after nohup or in the background, stay ignored.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if (handler := signal.getsignal(number)) is not signal.SIG_IGN and handler is not None:
                    before[number] = handler
                    signal.signal(number, handle)
        yield lambda: caught[0] if caught else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int) -> BaseException:
    """The exception that ends an interrupted run: KeyboardInterrupt, or SystemExit with the usual status for the signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)

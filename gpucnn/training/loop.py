"""The loop around the training step: epochs, validation, callbacks, interruption, and going on from a checkpoint."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.errors import CheckpointError, TrainingError
from gpucnn.losses import Loss
from gpucnn.optimizers import Optimizer
from gpucnn.training.callbacks import Callback, Checkpoint, History, Progress, Run
from gpucnn.training.checkpoint import load_tensors, save_tensors, take
from gpucnn.training.feed import Feed, feed_for
from gpucnn.training.step import Totals, TrainingStep

COUNTERS = ("epoch", "step", "loss_sum", "correct", "answers", "examples", "stop", "finished")


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
    accuracy: bool = True,
    resume: str | Path | None = None,
) -> History:
    """Trains `model` on `batches` for `epochs` epochs; see `Sequential.fit`.

    A run is resumed at the very step of its checkpoint; as batches, augmentation and dropout depend on seed and step alone, it ends in
    the same bits as one that was never stopped. Ctrl-C ends the step that is under way and writes a checkpoint before
    KeyboardInterrupt is raised; a second Ctrl-C does not wait.
    """
    # Checkpoints come last: they must hold what the other callbacks remember of this very step, and what the run ends with.
    callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))
    if not any(isinstance(callback, Progress) for callback in callbacks) and (sys.stdout.isatty() if verbose is None else verbose):
        callbacks.insert(0, Progress())
    run = Run(model, optimizer, batches.steps_per_epoch, epochs, accuracy=accuracy)
    recipe = _recipe(model, batches)
    complete = False
    if resume is not None and Path(resume).exists():
        _restore(run, resume, recipe, callbacks)
        done = run.epoch >= epochs or run.stop
        complete = run.finished and done  # a run killed between its last epoch and its end has still to be ended
        run.finished = done  # more epochs than last time go on
    for callback in callbacks:
        if isinstance(callback, Checkpoint):
            callback.save = lambda path: _save(run, path, recipe, callbacks)
    if complete:
        return run.history
    step = TrainingStep(model, loss, optimizer)
    feed = feed_for(step.graphs, batches)
    try:
        with _interruptible() as interrupted:
            _each(callbacks, "on_train_begin", run)
            while not run.finished:
                _epoch(run, step, feed, validation, callbacks, interrupted)
                _each(callbacks, "on_epoch_end", run)
                run.finished = run.stop or run.epoch >= epochs
                if interrupted() and not run.finished:
                    raise KeyboardInterrupt
            _each(callbacks, "on_train_end", run)
            if interrupted():
                raise KeyboardInterrupt
    except TrainingError as error:
        kept = [callback.path for callback in callbacks if isinstance(callback, Checkpoint) and callback.path.exists()]
        where = f" (epoch {run.epoch + 1}, batch {min(run.step + 1, run.steps_per_epoch)})"
        last = f"; the last good checkpoint is {kept[0]}" if kept else ""
        raise TrainingError(f"{error}{where}{last}") from None
    finally:
        for callback in callbacks:
            callback.close()
    return run.history


def _epoch(
    run: Run,
    step: TrainingStep,
    feed: Feed,
    validation: tuple[Any, Any] | None,
    callbacks: Sequence[Callback],
    interrupted: Callable[[], bool],
) -> None:
    """The rest of the epoch that is under way, its validation and its row in the history."""
    run.seconds, run.fresh_examples = 0.0, 0
    learning_rate = run.optimizer.learning_rate
    step.begin(run.steps_per_epoch, epoch=run.epoch, done=run.step, totals=run.totals())
    run.totals = step.read
    at_once = run.model.device.kind == "cpu"  # where waiting costs nothing, a loss of NaN is found where it comes up
    begun = run.optimizer.steps - run.step
    try:
        clock = time.perf_counter()
        for size in feed.epoch(run.epoch, run.step):
            learning_rate = run.optimizer.learning_rate
            step.run(feed, size)
            run.answers += step.loss.answers(feed.labels(size))
            run.examples += size
            run.fresh_examples += size
            run.step += 1
            last = run.step == run.steps_per_epoch
            if at_once or last:
                step.read()
            now = time.perf_counter()
            run.seconds += now - clock
            if not last:
                _each(callbacks, "on_step_end", run)
                if interrupted():
                    for callback in callbacks:
                        if isinstance(callback, Checkpoint):
                            callback.save(callback.path)
                    raise KeyboardInterrupt
            clock = time.perf_counter()
    except TrainingError:
        run.step = run.optimizer.steps - begun  # the steps that were good
        raise
    row = {"epoch": run.epoch + 1, "loss": run.loss}
    if run.accuracy:
        row["accuracy"] = run.accuracy_so_far
    if validation is not None:
        row["val_loss"], val_accuracy = run.model.evaluate_sums(*validation, 256)
        if not math.isfinite(row["val_loss"]):  # before the checkpoint of this epoch, so that the last one is a good one
            raise TrainingError(f"the validation loss became {row['val_loss']} after step {run.optimizer.steps}: lower the learning rate")
        if run.accuracy:
            row["val_accuracy"] = val_accuracy
    row |= {"learning_rate": learning_rate, "seconds": round(run.seconds, 3), "images_per_second": round(run.images_per_second, 1)}
    run.history.rows.append(row)
    run.epoch += 1
    run.step = run.answers = run.examples = 0
    run.totals = Totals


def _each(callbacks: Sequence[Callback], event: str, run: Run) -> None:
    for callback in callbacks:
        getattr(callback, event)(run)


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Holds the first Ctrl-C back, so that a step is never cut in half; yields a function that says whether there was one."""
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    # Signals go to the main thread alone; and who started us with nohup or in the background wants Ctrl-C to stay ignored.
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
        yield pressed.is_set
        return

    def handle(number: int, frame: Any) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)


def _recipe(model: Any, batches: Any) -> dict[str, Any]:
    """Everything that decides what a run computes, apart from its length: a checkpoint is good for the same recipe only."""
    config = model.config()
    augment = batches.augment
    return {
        "input shape": config["input_shape"],
        "layers": config["layers"],
        "dtype": config["dtype"],
        "loss": config["loss"],
        "optimizer": config["optimizer"],
        "seed": [config["seed"], batches.seed],
        "batch size": batches.batch_size,
        "shuffling": batches.shuffle,
        "augmentation": augment.config() if hasattr(augment, "config") else _name(augment),
        "training data": [len(batches.images), _crc(batches.images), _crc(batches.labels)],
    }


def _name(function: Any) -> str | None:
    """What stands for a function in a recipe: its repr() would hold an address, which is another one in every process."""
    if function is None:
        return None
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


def _crc(array: np.ndarray[Any, Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


def _save(run: Run, path: Path, recipe: dict[str, Any], callbacks: Sequence[Callback]) -> None:
    run.totals()  # waits for the steps that are under way
    tensors = {f"parameters.{name}": parameter.value for name, parameter in run.model.parameters.items()}
    tensors |= {f"optimizer.{name}": value for name, value in run.optimizer.state.items()}
    named = [callback for callback in callbacks if callback.name]
    for callback in named:
        tensors |= {f"{callback.name}.{name}": value for name, value in callback.arrays().items()}
    description = {
        "recipe": recipe,
        "run": {name: getattr(run, name) for name in COUNTERS},
        "optimizer steps": run.optimizer.steps,
        "history": run.history.rows,
        "model state": run.model.state(),
        "callbacks": {callback.name: callback.state() for callback in named},
    }
    try:
        save_tensors(path, tensors, description)
    except CheckpointError as error:
        raise TrainingError(str(error)) from None


def _restore(run: Run, path: str | Path, recipe: dict[str, Any], callbacks: Sequence[Callback]) -> None:
    """Takes up the run in `path`; where that fails, model and optimizer are as they were before."""
    before = run.model.state()
    tensors, description = load_tensors(path)
    try:
        saved = description["recipe"]
        for name, value in recipe.items():
            if saved[name] != _plain(value):
                raise CheckpointError(
                    f"{path} is a checkpoint of another run: its {name} differ{'' if name == 'layers' else 's'} "
                    "(use the options of that run, or another output folder)"
                )
        arrays = {f"parameters.{name}": parameter.value for name, parameter in run.model.parameters.items()}
        arrays |= {f"optimizer.{name}": value for name, value in run.optimizer.state.items()}
        counters = {name: _like(getattr(run, name), description["run"][name], name) for name in COUNTERS}
        if counters["step"] >= run.steps_per_epoch:
            raise CheckpointError(f"{path} is at step {counters['step']} of an epoch of {run.steps_per_epoch}")
        steps = _like(0, description["optimizer steps"], "optimizer steps")
        rows = [dict(row) for row in description["history"]]
        if description["model state"].keys() != run.model.state().keys():
            raise CheckpointError(f"{path} holds the random state of other layers than the model's")
        own = {}
        for callback in callbacks:
            if callback.name in description["callbacks"]:
                prefix = f"{callback.name}."
                own[callback.name] = {
                    name.removeprefix(prefix): run.model.device.array(value) for name, value in tensors.items() if name.startswith(prefix)
                }
        run.model.restore(description["model state"])
        for callback in callbacks:
            if callback.name in own:
                callback.restore(description["callbacks"][callback.name], own[callback.name])
        take(tensors, arrays, path)
    except CheckpointError:
        run.model.restore(before)
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        run.model.restore(before)
        raise CheckpointError(f"{path} is no checkpoint of a run ({type(error).__name__}: {error}): is it a model file?") from None
    totals = Totals(counters.pop("loss_sum"), counters.pop("correct"))
    for name, value in counters.items():
        setattr(run, name, value)
    run.totals = lambda: totals
    run.optimizer.steps = steps
    run.history.rows[:] = rows
    run.resumed = True


def _like(default: Any, value: Any, name: str) -> Any:
    """`value`, if it is of the type of `default` and no count below zero."""
    if type(value) is not type(default) or (type(value) is int and value < 0):
        raise ValueError(f"{name} is {value!r}")
    return value


def _plain(value: Any) -> Any:
    """As it comes back from JSON: tuples are lists."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, dict) else value

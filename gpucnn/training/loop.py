"""The loop around the training step: epochs, validation, callbacks, interruption, and going on from a checkpoint."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpucnn.errors import CheckpointError, TrainingError
from gpucnn.files import exists
from gpucnn.losses import Loss
from gpucnn.optimizers import Optimizer
from gpucnn.surroundings import user_path
from gpucnn.text import shown
from gpucnn.training.callbacks import Callback, Checkpoint, CSVLog, History, Progress, Run
from gpucnn.training.checkpoint import load_tensors, save_tensors, take
from gpucnn.training.feed import Feed, feed_for
from gpucnn.training.progress import shown_unasked
from gpucnn.training.rows import found, left
from gpucnn.training.step import Totals, TrainingStep

AWAY = {Callback.on_step_end, Checkpoint.on_step_end, Progress.on_step_end}  # they look at nothing but what has been waited for
COUNTERS = ("epoch", "step", "loss_sum", "correct", "answers", "examples", "stop", "finished")
PARTS = ("parameters.", "arrays.", "optimizer.")  # of a checkpoint's tensors: callbacks have others


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
) -> History:
    """Trains `model` on `batches` for `epochs` epochs; see `Sequential.fit`.

    A run is resumed at the very step of its checkpoint; as batches, augmentation and dropout depend on seed and step alone, it ends in
    the same bits as one that was never stopped. Ctrl-C ends the step that is under way and writes a checkpoint before
    KeyboardInterrupt is raised; a second Ctrl-C does not wait. SIGTERM and SIGHUP do the same, and end in SystemExit with 143 and 129.
    """
    # Checkpoints come last: they must hold what the other callbacks remember of this very step, and what the run ends with.
    callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))
    if not any(isinstance(callback, Progress) for callback in callbacks) and (shown_unasked() if verbose is None else verbose):
        callbacks.insert(0, Progress())
    run = Run(model, optimizer, batches.steps_per_epoch, epochs, metrics=list(metrics), validated=validation is not None)
    run.first_epoch = model.epochs_begun
    recipe = _recipe(model, batches)
    complete = False
    if resume is not None and exists(resume := user_path(resume)):
        _restore(run, resume, recipe, callbacks)
        done = run.epoch >= epochs or run.stop
        complete = run.finished and done  # a run killed between its last epoch and its end has still to be ended
        run.finished = done  # more epochs than last time go on
    run.steps_before = optimizer.steps - run.step
    for callback in callbacks:
        if isinstance(callback, Checkpoint):
            callback.save = lambda path: _save(run, path, recipe, callbacks)
    if complete:
        model.epochs_begun = run.first_epoch + run.epoch
        return run.history
    step = TrainingStep(model, loss, optimizer)
    feed = feed_for(step.graphs, batches)
    try:
        with _interruptible() as interrupted:
            _each(callbacks, "on_train_begin", run)
            while not run.finished:
                for size in _epoch(run, step, feed, validation, batches.batch_size, callbacks, interrupted):
                    step.run(feed, size)
                _each(callbacks, "on_epoch_end", run)
                run.finished = run.stop or run.epoch >= epochs
                if interrupted() and not run.finished:
                    raise _stop(interrupted())
            _each(callbacks, "on_train_end", run)
            if interrupted():
                raise _stop(interrupted())
    except TrainingError as error:
        run.step = optimizer.steps - run.steps_before  # the steps that were good
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
    batch_size: int,
    callbacks: Sequence[Callback],
    interrupted: Callable[[], int],
) -> Iterator[int]:
    """The rest of the epoch that is under way, its validation and its row in the history. Yields the size of each batch, for whoever
    goes through them to run the step: so no frame of this one lies between `fit` and the kernels."""
    run.seconds, run.fresh_examples = 0.0, 0
    number = run.first_epoch + run.epoch  # of all epochs of this model, over all calls of fit
    run.model.epochs_begun = number + 1
    learning_rate = run.optimizer.learning_rate
    step.begin(run.steps_per_epoch, epoch=number, done=run.step, totals=run.totals())
    run.totals = step.read
    at_once = run.model.device.kind == "cpu"  # where waiting costs nothing, a loss of NaN is found where it comes up
    run.steps_before = run.optimizer.steps - run.step
    run.epoch_begins()
    clock = time.perf_counter()
    for size in feed.epoch(number, run.step):
        learning_rate = run.optimizer.learning_rate
        yield size
        run.answers += step.loss.answers(feed.labels(size))
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
            # What looks at the model, or changes it, does so between two steps; what is known not to look costs nothing. After the last
            # step checkpoints and progress wait for the epoch's end, which comes next.
            if last and isinstance(callback, Checkpoint | Progress):
                continue
            with contextlib.nullcontext() if type(callback).on_step_end in AWAY else step.graphs.ordered():
                callback.on_step_end(run)
        run.seconds += step.graphs.waited - waited  # for the steps themselves: that is training, whoever waited
        if interrupted() and not last:
            for callback in callbacks:
                if isinstance(callback, Checkpoint):
                    callback.save(callback.path)
            raise _stop(interrupted())
        clock = time.perf_counter()
    row = {"epoch": run.epoch + 1, "loss": run.loss}
    if run.accuracy:
        row["accuracy"] = run.accuracy_so_far
    if validation is not None:
        size = min(batch_size, len(validation[0]))
        try:
            row |= {f"val_{name}": value for name, value in run.model.measure(*validation, size).items()}
        except MemoryError as error:
            raise step.too_small(size, error) from None
        if not math.isfinite(row["val_loss"]):  # before the checkpoint of this epoch, so that the last one is a good one
            raise TrainingError(f"the validation loss became {row['val_loss']} after step {run.optimizer.steps}: lower the learning rate")
    row |= {"learning_rate": learning_rate, "seconds": round(run.seconds, 3), "images_per_second": round(run.images_per_second, 1)}
    run.history.rows.append(row)
    run.epoch += 1
    run.step = run.answers = run.examples = 0
    run.steps_before = run.optimizer.steps
    run.totals = Totals


def _each(callbacks: Sequence[Callback], event: str, run: Run) -> None:
    for callback in callbacks:
        getattr(callback, event)(run)


SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], int]]:
    """Holds the first Ctrl-C, SIGTERM or SIGHUP back, so that no step is cut in half; yields a function that gives its number, or 0."""
    caught: list[int] = []
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise _stop(number)

    try:
        # Signals go to the main thread alone; and who started us with nohup or in the background wants them to stay ignored.
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
    """What ends a run that was told to end: as Ctrl-C does everywhere, or with the status that a shell gives the signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def _notes(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """What a program wants to find in its checkpoints again."""
    return {name: value for callback in callbacks if isinstance(callback, Checkpoint) for name, value in callback.notes.items()}


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
        "training data": batches.fingerprint,
    }


def _name(function: Any) -> str | None:
    """What stands for a function in a recipe: its repr() would hold an address, which is another one in every process."""
    if function is None:
        return None
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


def _tensors(run: Run) -> dict[str, Any]:
    """What a checkpoint holds of the model and its optimizer."""
    parameters, arrays, state = run.model.parameters, run.model.arrays, run.optimizer.state
    tensors = {f"parameters.{name}": parameter.value for name, parameter in parameters.items()}
    tensors |= {f"arrays.{name}": array.value for name, array in arrays.items()}
    return tensors | {f"optimizer.{name}": value for name, value in state.items()}


def _save(run: Run, path: Path, recipe: dict[str, Any], callbacks: Sequence[Callback]) -> None:
    run.totals()  # waits for the steps that are under way
    tensors = _tensors(run)
    named = [callback for callback in callbacks if callback.name]
    for callback in named:
        tensors |= {f"{callback.name}.{name}": value for name, value in callback.arrays().items()}
    description = {
        "recipe": recipe,
        "notes": dict(_notes(callbacks)),
        "first epoch": run.first_epoch,
        "run": {name: getattr(run, name) for name in COUNTERS},
        "optimizer steps": run.optimizer.steps,
        **left(path, run.history.rows, [callback for callback in callbacks if isinstance(callback, CSVLog)]),
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
            if saved[name] != _plain(value) and not (name == "optimizer" and saved[name] == _plain(run.optimizer.continues)):
                raise CheckpointError(
                    f"{path} is a checkpoint of another run: its {name} differ{'' if name == 'layers' else 's'} "
                    f"({_difference(saved[name], _plain(value))}): use the options of that run, or another output folder"
                )
        arrays = _tensors(run)
        counters = {name: _like(getattr(run, name), description["run"][name], name) for name in COUNTERS}
        if counters["step"] >= run.steps_per_epoch:
            raise CheckpointError(f"{path} is at step {counters['step']} of an epoch of {run.steps_per_epoch}")
        steps = _like(0, description["optimizer steps"], "optimizer steps")
        first = _like(0, description.get("first epoch", 0), "first epoch")
        rows = found(Path(path), description)
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
        take({name: array for name, array in tensors.items() if name.startswith(PARTS)}, arrays, path)
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
    run.first_epoch = first
    run.history.rows[:] = rows
    run.resumed = True


def _like(default: Any, value: Any, name: str) -> Any:
    """`value`, if it is of the type of `default` and no count below zero."""
    if type(value) is not type(default) or (type(value) is int and value < 0):
        raise ValueError(f"{name} is {value!r}")
    return value


def _difference(there: Any, here: Any, path: str = "") -> str:
    """The first place at which two descriptions differ, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            if there.get(key) != here.get(key):
                return _difference(there.get(key), here.get(key), f"{path}.{key}" if path else str(key))
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for index, (one, other) in enumerate(zip(there, here, strict=True)):
            if one != other:
                return _difference(one, other, f"{path}[{index}]")
    return f"{path or 'which'} is {shown(there)} there and {shown(here)} here"


def _plain(value: Any) -> Any:
    """As it comes back from JSON: tuples are lists."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, dict) else value

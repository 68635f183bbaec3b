"""A run in a checkpoint: its parts, how it is resumed, and what must be the same on all ranks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.device import to_numpy
from gpucnn.errors import ArgumentError, CheckpointError, TrainingError
from gpucnn.files import exists, why_no_folder
from gpucnn.schedules import SCHEDULES, get_schedule
from gpucnn.surroundings import complain, user_path
from gpucnn.text import reason_of
from gpucnn.training.alike import VERSION, checksum, difference, plain
from gpucnn.training.callbacks import Callback, Checkpoint, CSVLog, Run
from gpucnn.training.checkpoint import load_tensors, save_tensors, take
from gpucnn.training.rows import found, left
from gpucnn.training.step import Totals

COUNTERS = ("epoch", "step", "loss_sum", "correct", "answers", "examples", "stop", "finished")
PARTS = ("parameters.", "arrays.", "optimizer.")  # of a checkpoint's tensors: callbacks have others


def _notes(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """The notes that a program stores in its checkpoints."""
    return {name: value for callback in callbacks if isinstance(callback, Checkpoint) for name, value in callback.notes.items()}


def _named(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """The callbacks with a state, by its key in a checkpoint: of several of one name, the second is name_2, the third name_3. ArgumentError
    for a name that would mix up what a checkpoint holds."""
    found: dict[str, Callback] = {}
    for name in dict.fromkeys(callback.name for callback in callbacks if callback.name):
        for number, callback in enumerate((each for each in callbacks if each.name == name), 1):
            key = name if number == 1 else f"{name}_{number}"
            own = f"{key}."  # before the names of its arrays
            if other := next(
                (each for each in (*PARTS, *(f"{each}." for each in found)) if own.startswith(each) or each.startswith(own)), ""
            ):
                kind = type(callback).__name__
                raise ArgumentError(f"a {kind} cannot have the name {key!r} beside {other[:-1]!r} in one checkpoint: choose another name")
            found[key] = callback
    return found


def seen(model: Any, optimizer: Any, batches: Any, validation: Any, recipe: dict[str, Any], epochs: int, metrics: Any) -> dict[str, Any]:
    """The values that must be the same on all ranks of a run, by name."""
    package = sys.modules[__name__.partition(".")[0]]
    facts = {
        VERSION: package.__version__,
        "kind of device": model.device.kind,
        **recipe,
        "first batch": None if hasattr(batches, "images") else checksum(*map(np.asarray, batches.first())),
        "validation data": None if validation is None else [len(validation[0]), checksum(*validation)],
        "epochs": epochs,
        "metrics": list(metrics),
        "parameters": checksum(to_numpy(model.buffers.values), to_numpy(model.buffers.saved)),
        "state of the optimizer": [optimizer.steps, checksum(*map(to_numpy, optimizer.state.values()))],
        "state of the layers": model.state(),
    }
    return plain(facts)  # type: ignore[no-any-return]


def recipe_of(model: Any, batches: Any) -> dict[str, Any]:
    """Everything that decides what a run computes, apart from its length: a checkpoint is valid for the same recipe only."""
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
    """A function's name in a recipe: its repr() would hold an address, which differs in every process."""
    if function is None:
        return None
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


def _tensors(run: Run) -> dict[str, Any]:
    """The arrays of the model and its optimizer that a checkpoint holds."""
    parameters, arrays, state = run.model.parameters, run.model.arrays, run.optimizer.state
    tensors = {f"parameters.{name}": parameter.value for name, parameter in parameters.items()}
    tensors |= {f"arrays.{name}": array.value for name, array in arrays.items()}
    return tensors | {f"optimizer.{name}": value for name, value in state.items()}


def save(run: Run, path: Path, recipe: dict[str, Any], callbacks: Sequence[Callback]) -> None:
    run.totals()  # waits for the pending steps
    tensors = _tensors(run)
    named = _named(callbacks)
    for key, callback in named.items():
        tensors |= {f"{key}.{name}": value for name, value in callback.arrays().items()}
    description = {
        "recipe": recipe,
        "notes": dict(_notes(callbacks)),
        "first epoch": run.first_epoch,
        "run": {name: getattr(run, name) for name in COUNTERS},
        "optimizer steps": run.optimizer.steps,
        **_history(run, path, callbacks),
        "model state": run.model.state(),
        "callbacks": {key: callback.state() for key, callback in named.items()},
    }
    schedule = plain(run.optimizer.schedule.config())
    if schedule != plain(recipe["optimizer"].get("learning_rate", schedule)):  # a callback has assigned another
        description["learning rate"] = schedule
    try:
        save_tensors(path, tensors, description)
    except CheckpointError as error:
        raise TrainingError(str(error)) from None


def _history(run: Run, path: Path, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """The history in a checkpoint's description: if the program keeps a log of it, the checkpoint need not repeat it."""
    rows = run.history.rows
    said = left(path, rows, [callback for callback in callbacks if isinstance(callback, CSVLog)])
    if len(said["history"]) == len(rows):
        logs = (callback.log_of(run.history) for callback in callbacks if isinstance(callback, Checkpoint) and callback.path == path)
        return left(path, rows, [log for log in logs if log is not None])
    return said


def check_names(callbacks: Sequence[Callback]) -> None:
    """ArgumentError if the names of callbacks do not keep apart what a checkpoint of the run would hold."""
    if any(isinstance(callback, Checkpoint) for callback in callbacks):
        _named(callbacks)


def begun(given: str | Path, callbacks: Sequence[Callback], *, told: bool) -> bool:
    """Whether there is a file at `given` to continue from. If there is none yet, but a Checkpoint of this run will write it, the run starts
    from the beginning, and with `told` a line on standard error says so. CheckpointError if nothing would write it: the name is wrong."""
    path = user_path(given)
    if exists(path):
        return True
    if any(isinstance(callback, Checkpoint) and os.path.realpath(callback.path) == os.path.realpath(path) for callback in callbacks):
        if told:
            complain(f"note: there is no checkpoint {path} yet: starting from the beginning")
        return False
    import difflib  # needed for errors only

    folder = path.parent
    why = why_no_folder(folder)
    near = [] if why else difflib.get_close_matches(path.name, _names(folder), n=1)
    there = f" (of its folder: {why})" if why else f" (did you mean {str(folder / near[0])!r}?)" if near else ""
    raise CheckpointError(
        f"there is no checkpoint {path} to resume{there}: correct the name; for a run that begins now and can be resumed from there, add "
        f"Checkpoint({os.fspath(given)!r}) to its callbacks"
    )


def _names(folder: Path) -> list[str]:
    """The names in a folder, without hidden ones; none if it cannot be read."""
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return []


def loaded(path: Path) -> tuple[Path, dict[str, Any], dict[str, Any], list[dict[str, float]]]:
    """(path, tensors, description, rows of the history) of a checkpoint."""
    tensors, description = load_tensors(path)
    try:
        return path, tensors, description, found(path, description)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _no_run(path, error) from None


def _no_run(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} is not a checkpoint of a run ({reason_of(error)}): is it a model file?")


def restore(run: Run, given: tuple[Any, ...], recipe: dict[str, Any], callbacks: Sequence[Callback]) -> None:
    """Resumes the run that `loaded` gave. If that fails, model and optimizer are unchanged."""
    before = run.model.state()
    path, tensors, description, rows = given
    try:
        saved = description["recipe"]
        for name, value in recipe.items():
            if saved[name] != plain(value) and not (name == "optimizer" and saved[name] == plain(run.optimizer.continues)):
                raise CheckpointError(
                    f"{path} is a checkpoint of another run: its {name} differ{'' if name == 'layers' else 's'} "
                    f"({difference(name, saved[name], plain(value))}): use the options of that run, or another output folder"
                )
        arrays = _tensors(run)
        counters = {name: _like(getattr(run, name), description["run"][name], name) for name in COUNTERS}
        if counters["step"] >= run.steps_per_epoch:
            raise CheckpointError(f"{path} is at step {counters['step']} of an epoch of {run.steps_per_epoch}")
        steps = _like(0, description["optimizer steps"], "optimizer steps")
        first = _like(0, description.get("first epoch", 0), "first epoch")
        if description["model state"].keys() != run.model.state().keys():
            raise CheckpointError(f"{path} contains the random state of other layers than the model's")
        named, own = _named(callbacks), {}
        for key in named:
            if key in description["callbacks"]:
                prefix = f"{key}."
                own[key] = {
                    name.removeprefix(prefix): run.model.device.array(value) for name, value in tensors.items() if name.startswith(prefix)
                }
        if (schedule := description.get("learning rate")) is not None:
            if SCHEDULES.meant(schedule["schedule"]) is None:
                raise CheckpointError(
                    f"{path} cannot be resumed: its learning rate became {schedule['schedule']}, which no file can name: assign a number "
                    "or a registered schedule"
                )
            schedule = get_schedule(schedule)
        run.model.restore(description["model state"])
        for key, arrays_of_it in own.items():
            named[key].restore(description["callbacks"][key], arrays_of_it)
        take({name: array for name, array in tensors.items() if name.startswith(PARTS)}, arrays, path)
    except CheckpointError:
        run.model.restore(before)
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        run.model.restore(before)
        raise _no_run(path, error) from None
    totals = Totals(counters.pop("loss_sum"), counters.pop("correct"))
    for name, value in counters.items():
        setattr(run, name, value)
    run.totals = lambda: totals
    run.optimizer.steps = steps
    if schedule is not None:
        run.optimizer.schedule = schedule
    run.first_epoch = first
    run.history.rows[:] = rows
    run.resumed = True


def _like(default: Any, value: Any, name: str) -> Any:
    """`value`, if it has the type of `default` and is not a negative count."""
    if type(value) is not type(default) or (type(value) is int and value < 0):
        raise ValueError(f"{name} is {value!r}")
    return value

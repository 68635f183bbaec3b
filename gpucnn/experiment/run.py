"""A whole run, from its options to the pictures."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import gpucnn
from gpucnn import plots, report
from gpucnn.checks import integer
from gpucnn.data import Dataset
from gpucnn.data.background import background
from gpucnn.data.dataset import DATASETS
from gpucnn.data.datasets import as_named
from gpucnn.data.images import size_of
from gpucnn.device import Device, get_device
from gpucnn.errors import CheckpointError, DataError, MissingExtraError, ShapeError
from gpucnn.experiment import card
from gpucnn.experiment.data import Downloads, Pair, held_back, load_data
from gpucnn.experiment.folder import (
    CHECKPOINT,
    CONFUSION,
    CURVES,
    FEATURES,
    FILTERS,
    HISTORY,
    MISTAKES,
    MODEL,
    REPORT,
    Say,
    StoppedError,
    Watch,
    check_apart,
    check_files,
    made_folder,
)
from gpucnn.experiment.options import AGAIN, Options, as_begun
from gpucnn.files import exists
from gpucnn.metrics import confusion_matrix
from gpucnn.model import Sequential
from gpucnn.networks import NETWORKS, network
from gpucnn.optimizers import OPTIMIZERS
from gpucnn.precision import mode, note_of, using
from gpucnn.recipes import Recipe
from gpucnn.reservation import locked
from gpucnn.surroundings import OUTPUT, user_path
from gpucnn.text import message, number_of
from gpucnn.training.alike import VERSION, checksum, plain, same
from gpucnn.training.callbacks import Checkpoint, CSVLog, History, Progress
from gpucnn.training.checkpoint import TensorFile
from gpucnn.training.communicator import Communicator
from gpucnn.training.parallel import join

FEW = 100  # labels, under which luck and learning cannot be distinguished


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run: the test accuracy, and the files that were written ([] if the run was already complete)."""

    accuracy: float
    files: list[Path]


def train(options: Options, say: Say, downloads: Downloads | None = None) -> Outcome:
    """Trains according to `options`. `say` is called with each line for the user."""
    integer(options.checkpoint_every, "steps between checkpoints", 1)
    integer(options.seed, "seed", 0)
    if options.image_size is not None:
        size_of(options.image_size)
    mode(options.precision)
    ranks = join("auto")
    device = get_device(options.device)
    ranks.on(device)
    # As they are called here; an unknown network is refused before anything is loaded.
    options = replace(options, model=NETWORKS.first(options.model), dataset=as_named(options.dataset))
    model = network(options.model)
    output = options.output
    check_apart(output, options.dataset)
    noted = plain(options.noted(options.dataset, options.recipe))
    begins = {"output folder": os.path.abspath(output), "wish to resume": options.resume}  # a rank that resumed alone would wait for ever
    same(ranks, {VERSION: gpucnn.__version__, "options": noted, **begins})
    with contextlib.ExitStack() as held:
        ranks.once(lambda: _take(output, held))
        if options.resume and ranks.once(lambda: exists(output / CHECKPOINT)):
            given = options
            ranks.once(lambda: check_files(output, AGAIN))
            options = ranks.once(lambda: as_begun(given, output / CHECKPOINT))
            model = network(options.model)
        seed = options.seed
        size = None if options.image_size is None else size_of(options.image_size)
        dataset = ranks.in_turn(lambda: load_data(options.dataset, options.data_dir, seed, say, downloads, size))
        if ranks.size > 1:  # now, and not when the test images are used, after the training
            same(ranks, {"data set": _told_apart(dataset)})
        model = network(options.model, dataset.classes)
        _build(model, dataset, seed, device)
        recipe = options.recipe.for_size(len(dataset.train_images), own=options.dataset not in DATASETS)
        if dataset.validation_images is not None and options.recipe.validation is None:
            recipe = replace(recipe, validation=None)
        dataset, validation = held_back(dataset, recipe.validation, seed)
        steps = -(-len(dataset.train_images) // recipe.batch_size)
        optimizer = recipe.make_optimizer(recipe.epochs * steps)
        if options.begun_epochs is not None:
            optimizer.continues = recipe.make_optimizer(options.begun_epochs * steps).config()
            laid = f"the {recipe.schedule} schedule now covers all of them"
            say(f"note: the run was started with {number_of(options.begun_epochs, 'epoch')} and now has {recipe.epochs:,}: {laid}")
        model.compile(optimizer, "categorical_crossentropy", ["accuracy"])
        model.metadata = {
            "network": options.model,
            "dataset": dataset.name if options.dataset == "auto" else options.dataset,  # the set that was used
            "dataset_name": dataset.name,
            "class_names": list(dataset.class_names),
            "background": background(dataset.train_images),
            **({} if size is None else {"image_size": list(size)}),
        }
        say(f"data      {dataset.name}: {dataset.source}")
        if validation is not None:
            images = len(validation[0])
            which = number_of(images, "additional image") if recipe.validation is None else f"{images:,} of them held out"
            say(f"          {which} for validation; the test images are used once, at the end")
        say(f"model     {options.model}: {model.parameter_count:,} parameters, input {'×'.join(map(str, dataset.image_shape))}")
        for line in devices(ranks, device):
            say(line)
        say(f"recipe    {recipe.optimizer}, learning rate {recipe.learning_rate:g} ({recipe.schedule}), seed {seed}")
        length = f"{number_of(recipe.epochs, 'epoch')} of {number_of(steps, 'step')}"
        say(f"          {length}, batch {recipe.batch_size}, augmentation {recipe.augment}")
        unseen = note_of(options.precision, device.kind)
        if unseen:
            say(f"note: {unseen}")
        with using(options.precision):
            return _run(model, dataset, validation, recipe, options, say, ranks)


def _told_apart(dataset: Dataset) -> dict[str, Any]:
    """A description that distinguishes the data set from others."""
    parts = {
        "training images": (dataset.train_images, dataset.train_labels),
        "test images": (dataset.test_images, dataset.test_labels),
        "validation images": (dataset.validation_images, dataset.validation_labels),
    }
    seen = {name: [len(pair[0]), checksum(*pair)] for name, pair in parts.items() if pair[0] is not None}
    return {"classes": list(dataset.class_names), **seen}


def _take(output: Path, held: contextlib.ExitStack) -> None:
    """Creates the folder, and reserves it for this process until `held` ends."""
    held.enter_context(made_folder(output))
    held.enter_context(locked(output))


def devices(ranks: Communicator, device: Device) -> list[str]:
    """The devices, one line per rank, with the name that a message about a process would use."""
    if ranks.size == 1:
        return [f"device    {device.name}"]
    where = ranks.gather(f"{device.name}, process {os.getpid()} on {ranks.host}")
    return [f"{f'{ranks.size} ranks' if rank == 0 else '':<10}rank {rank}: {line}" for rank, line in enumerate(where)]


def _build(model: Sequential, dataset: Dataset, seed: int, device: Any) -> None:
    try:
        model.build(dataset.image_shape, seed=seed, device=device)
    except ShapeError as error:
        size = "×".join(map(str, dataset.image_shape))
        raise ShapeError(
            f"the images of {dataset.name}, {size}, do not fit this network: {error}; give larger ones, or another --model"
        ) from None


def _run(
    model: Sequential, dataset: Dataset, validation: Pair | None, recipe: Recipe, options: Options, say: Say, ranks: Communicator
) -> Outcome:
    """The part of `train` that writes."""
    output = options.output
    checkpoint = output / CHECKPOINT
    resume = options.resume and ranks.once(lambda: exists(checkpoint))
    if options.resume and not resume:
        say(f"note: there is no checkpoint in {output} yet: starting from the beginning")
    watch = Watch(model, output, say)
    noted = options.noted(str(model.metadata["dataset"]), recipe)
    notes = {
        "options": noted,
        "data_dir": None if options.data_dir is None else os.path.abspath(user_path(options.data_dir)),
    }
    try:
        if not resume:
            ranks.once(watch.make_way)
        history = model.fit(
            dataset.train_images,
            dataset.train_labels,
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            validation_data=validation,
            callbacks=[watch, Progress(), CSVLog(output / HISTORY), Checkpoint(checkpoint, options.checkpoint_every, notes=notes)],
            augment=recipe.make_augment(min(dataset.image_shape[1:])),
            verbose=False,
            resume=checkpoint if resume else None,
            parallel=ranks,
        )
        # The card is written last: a run without one was stopped before it had all of its files, which are made again.
        if ranks.once(lambda: not watch.trained and (output / MODEL).exists() and (output / card.CARD).exists()):
            say(f"note: the run in {output} is complete ({number_of(len(history.rows), 'epoch')}): there is nothing to do")
            return ranks.once(lambda: Outcome(_tested(output / MODEL, model, dataset), []))
        probabilities = model.predict(dataset.test_images, parallel=ranks)
        held = 0 if validation is None else len(validation[0])
        return ranks.once(
            lambda: _with_card(_left(model, dataset, history, probabilities, recipe, output, say), model, dataset, noted, held, output, say)
        )
    except (KeyboardInterrupt, SystemExit) as stop:
        # One from before this run would be of no use to it.
        if (watch.trained or resume) and checkpoint.exists():
            status = stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130
            raise StoppedError(f"stopped: the same command with --resume continues from {checkpoint}", status) from None
        raise
    except CheckpointError as error:
        if resume and not watch.trained:
            raise CheckpointError(f"{error}{AGAIN}") from None
        raise
    except BrokenPipeError:
        raise  # an error of the terminal's output, not of the folder
    except OSError as error:
        if error.filename == OUTPUT:
            raise
        last = f"; the same command with --resume then continues from {checkpoint}" if checkpoint.exists() else ""
        raise DataError(f"{output} can no longer be written ({error.strerror or error}): fix that, or free some space{last}") from None


def _with_card(
    outcome: Outcome, model: Sequential, dataset: Dataset, noted: Mapping[str, Any], held: int, output: Path, say: Say
) -> Outcome:
    """The outcome, with a model card beside the model, unless the user has a README.md there."""
    written = card.write(output, model, dataset, noted, held)
    if written is None:
        say(f"note: {output / card.CARD} was not written by gpucnn and is unchanged: there is no model card")
        return outcome
    return replace(outcome, files=[*outcome.files, written])


def _left(
    model: Sequential, dataset: Dataset, history: History, probabilities: np.ndarray[Any, Any], recipe: Recipe, output: Path, say: Say
) -> Outcome:
    """Writes the results of a run, and says so if it has learned nothing."""
    outcome = _write(model, dataset, history, probabilities, output, say)
    if guessing(history["accuracy"][-1], dataset.train_labels) and guessing(outcome.accuracy, dataset.test_labels):
        high = recipe.learning_rate > OPTIMIZERS.pick(recipe.optimizer).peak
        say(
            f"note: this is no better than guessing (always {dataset.class_names[int(np.bincount(dataset.train_labels).argmax())]}): "
            f"{'lower --lr' if high else 'train for more epochs, or with another --lr'}; it was {recipe.learning_rate:g}"
        )
    return outcome


def _write(model: Sequential, dataset: Dataset, history: History, probabilities: np.ndarray[Any, Any], output: Path, say: Say) -> Outcome:
    """Writes everything but the checkpoint, which exists already, given the model's output for the test images."""
    predicted = probabilities.argmax(axis=1)
    accuracy = float(np.mean(predicted == dataset.test_labels))
    history.to_csv(output / HISTORY)
    counts = confusion_matrix(dataset.test_labels, predicted, dataset.classes)
    model.metadata["test_accuracy"] = accuracy
    model.save(output / MODEL)
    report.write(output / REPORT, report.of_classes(counts, dataset.class_names))
    files = [output / MODEL, output / HISTORY, output / CHECKPOINT, output / REPORT]
    first = int(dataset.test_labels[0])
    title = f"the first test image: {dataset.class_names[first]}, predicted {dataset.class_names[int(predicted[0])]}"
    pictures: list[tuple[str, Callable[[Path], bool | None]]] = [
        (CURVES, lambda path: plots.save_curves(history, path)),
        (CONFUSION, lambda path: plots.save_confusion(counts, dataset.class_names, path)),
        (MISTAKES, lambda path: plots.save_mistakes(dataset.test_images, dataset.test_labels, probabilities, dataset.class_names, path)),
        (FILTERS, lambda path: plots.save_filters(model, path)),
        (FEATURES, lambda path: plots.save_features(model, dataset.test_images[0], path, title)),
    ]
    for name, picture in pictures:
        try:
            made = picture(output / name)
        except MissingExtraError as error:
            say(f"note: no pictures were made: {error}")
            break
        except OSError:
            raise
        except Exception as error:  # an error in a drawing library must not cost the model
            say(message(f"note: {name} was not made: {type(error).__name__}: {error}"))
        else:
            if made is not False:
                files.append(output / name)
    return Outcome(accuracy, files)


def guessing(accuracy: float, labels: np.ndarray[Any, Any]) -> bool:
    """Whether an accuracy on this many labels could also come from always answering one class: within three standard deviations."""
    if len(labels) < FEW:
        return False
    share = float(np.bincount(labels).max()) / len(labels)
    return accuracy <= share + 3 * math.sqrt(share * (1 - share) / len(labels))


def _tested(path: Path, model: Sequential, dataset: Dataset) -> float:
    """The test accuracy of a complete run, from its model's file, or measured if the file does not have it."""
    with TensorFile(path) as file:
        noted = file.description.get("model", {}).get("metadata", {}).get("test_accuracy")
    if isinstance(noted, float):
        return noted
    return float(np.mean(model.predict(dataset.test_images).argmax(axis=1) == dataset.test_labels))

"""A training run that ends in a folder: what `gpucnn train` does, behind its options.

    checkpoint.safetensors  the run, to go on from        history.csv    a line per epoch
    model.safetensors       the trained model             curves.png     loss and accuracy over the epochs
    filters.png             the first layer's filters     confusion.png  which class was taken for which
    features.png            an image and its feature maps

model.safetensors is written last: where it is, the run is complete.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.checks import integer
from gpucnn.data import Dataset, load_dataset
from gpucnn.device import get_device
from gpucnn.errors import CheckpointError, DataError, MissingExtraError, ShapeError
from gpucnn.metrics import confusion_matrix
from gpucnn.model import Sequential
from gpucnn.networks import network
from gpucnn.recipes import AUGMENTATIONS, Recipe
from gpucnn.training.callbacks import Callback, Checkpoint, CSVLog, History, Progress

CHECKPOINT, MODEL, HISTORY = "checkpoint.safetensors", "model.safetensors", "history.csv"
CURVES, CONFUSION, FILTERS, FEATURES = "curves.png", "confusion.png", "filters.png", "features.png"
FILES = (MODEL, CHECKPOINT, HISTORY, CURVES, CONFUSION, FILTERS, FEATURES)


@dataclass(frozen=True)
class Options:
    """What to train, how, and where to."""

    dataset: str
    data_dir: Path | None
    model: str
    recipe: Recipe
    device: str
    seed: int
    output: Path
    resume: bool
    checkpoint_every: int


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the test accuracy, and the files that were written ([] where the run had been complete before)."""

    accuracy: float
    files: list[Path]


def train(options: Options, say: Callable[[str], None], download_progress: Any = None) -> Outcome:
    """Trains as `options` say; `say` gets what a person should know, a line at a time."""
    every = integer(options.checkpoint_every, "steps between checkpoints", 1)
    seed = integer(options.seed, "seed", 0)
    device = get_device(options.device)
    model = network(options.model)  # an unknown name is refused before anything is loaded
    output = options.output
    _check_folder(output)
    dataset = load_dataset(options.dataset, options.data_dir, seed=seed, progress=download_progress)
    if dataset.note:
        say(f"note: {dataset.note}")
    model = network(options.model, dataset.classes)
    _build(model, dataset, seed, device)
    recipe = options.recipe.for_size(len(dataset.train_images))
    steps = recipe.epochs * -(-len(dataset.train_images) // recipe.batch_size)
    model.compile(recipe.make_optimizer(steps), "categorical_crossentropy", ["accuracy"])
    model.metadata = {"network": options.model, "dataset": options.dataset, "dataset_name": dataset.name, "class_names": list(dataset.class_names)}
    say(f"data      {dataset.name}: {dataset.source}")
    say(f"model     {options.model}: {model.parameter_count:,} parameters, input {'×'.join(map(str, dataset.image_shape))}")
    say(f"device    {device.name}")
    say(
        f"recipe    {recipe.optimizer}, learning rate {recipe.learning_rate:g} ({recipe.schedule}), batch {recipe.batch_size}, "
        f"augmentation {recipe.augment}, {recipe.epochs} epochs, seed {seed}"
    )

    checkpoint = output / CHECKPOINT
    if not options.resume:
        moved = _set_aside(output)
        if moved:
            say(f"note: the run that was in {output} is now in {moved}")
    elif not checkpoint.exists():
        say(f"note: there is no checkpoint in {output} yet: starting from the beginning")
    watch = _Watch()
    callbacks: list[Callback] = [Progress(), watch, CSVLog(output / HISTORY), Checkpoint(checkpoint, every)]
    history = model.fit(
        dataset.train_images,
        dataset.train_labels,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation_data=(dataset.test_images, dataset.test_labels),
        callbacks=callbacks,
        augment=AUGMENTATIONS[recipe.augment],
        verbose=False,
        resume=checkpoint if options.resume else None,
    )
    if not watch.trained and (output / MODEL).exists():
        say(f"note: the run in {output} is complete ({len(history.rows)} epochs): there is nothing to do")
        return Outcome(history["val_accuracy"][-1], [])
    return _write(model, dataset, history, output, say)


class _Watch(Callback):
    """Knows whether anything was trained at all."""

    trained = False

    def on_train_begin(self, run: Any) -> None:
        self.trained = True
        if run.resumed:
            print(f"resumed at epoch {run.epoch + 1}, step {run.step}", flush=True)


def _build(model: Sequential, dataset: Dataset, seed: int, device: Any) -> None:
    try:
        model.build(dataset.image_shape, seed=seed, device=device)
    except ShapeError as error:
        raise ShapeError(f"the images of {dataset.name} are {dataset.image_shape} and do not fit this network: {error}") from None


def _write(model: Sequential, dataset: Dataset, history: History, output: Path, say: Callable[[str], None]) -> Outcome:
    """Tests the model and writes everything but the checkpoint and the history, which are there."""
    probabilities = model.predict(dataset.test_images)
    predicted = probabilities.argmax(axis=1)
    accuracy = float(np.mean(predicted == dataset.test_labels))
    files = [output / HISTORY, output / CHECKPOINT]
    try:
        from gpucnn import plots

        plots.save_curves(history, output / CURVES)
        plots.save_confusion(confusion_matrix(dataset.test_labels, predicted, dataset.classes), dataset.class_names, output / CONFUSION)
        files += [output / CURVES, output / CONFUSION]
        if plots.save_filters(model, output / FILTERS):
            files.append(output / FILTERS)
        first = int(dataset.test_labels[0])
        title = f"the first test image: {dataset.class_names[first]}, taken for {dataset.class_names[int(predicted[0])]}"
        if plots.save_features(model, dataset.test_images[0], output / FEATURES, title):
            files.append(output / FEATURES)
    except MissingExtraError as error:
        say(f"note: no pictures were made: {error}")
    model.metadata["test_accuracy"] = accuracy
    model.save(output / MODEL)
    return Outcome(accuracy, [output / MODEL, *files])


def _check_folder(folder: Path) -> None:
    """Finds out before an hour of training, and not after it, that nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"the output folder {folder} cannot be written to ({error.strerror or error}): name another with --output") from None


def _set_aside(folder: Path) -> Path | None:
    """Moves the files of an earlier run into a folder of their own, so that no run is lost to a forgotten option."""
    there = [name for name in FILES if (folder / name).exists()]
    if not there:
        return None
    number = 1
    while (folder / f"previous-{number}").exists():
        number += 1
    aside = folder / f"previous-{number}"
    aside.mkdir()
    for name in there:
        os.replace(folder / name, aside / name)
    return aside


def check_fits(model: Sequential, shape: tuple[int, ...], what: str) -> None:
    """CheckpointError unless images of `shape` (C, H, W) are what the model takes."""
    if tuple(shape) != model.input_shape:
        raise CheckpointError(
            f"{what} has shape {tuple(shape)} (channels, height, width) and the model takes {model.input_shape}: "
            "give images of that size and depth"
        )

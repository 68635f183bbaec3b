"""A training run that ends in a folder: what `gpucnn train` does, behind its options.

    checkpoint.safetensors  the run, to go on from        history.csv    a line per epoch
    model.safetensors       the trained model             curves.png     loss and accuracy over the epochs
    filters.png             the first layer's filters     confusion.png  which class was taken for which
    features.png            an image and its feature maps

model.safetensors is written when training has ended, before the pictures: where it is, the run is complete. One process at a time
writes to the folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from gpucnn import plots
from gpucnn.checks import integer
from gpucnn.data import Dataset, fit_channels, load_dataset
from gpucnn.data.dataset import DATASETS
from gpucnn.data.datasets import as_named
from gpucnn.data.image_folder import parts_of
from gpucnn.data.images import size_of
from gpucnn.data.split import of_each_class
from gpucnn.device import get_device
from gpucnn.errors import CheckpointError, DataError, MissingExtraError, ShapeError
from gpucnn.files import clear_leftovers, exists, locked
from gpucnn.metrics import confusion_matrix
from gpucnn.model import Sequential
from gpucnn.networks import NETWORKS, network
from gpucnn.recipes import OpenRecipe, Recipe
from gpucnn.surroundings import user_path
from gpucnn.text import bytes_text, message, shown
from gpucnn.training.callbacks import Callback, Checkpoint, CSVLog, History, Progress, Run
from gpucnn.training.checkpoint import TensorFile

CHECKPOINT, MODEL, HISTORY = "checkpoint.safetensors", "model.safetensors", "history.csv"
CURVES, CONFUSION, FILTERS, FEATURES = "curves.png", "confusion.png", "filters.png", "features.png"
FILES = (MODEL, CHECKPOINT, HISTORY, CURVES, CONFUSION, FILTERS, FEATURES)


@dataclass(frozen=True)
class Options:
    """What to train, how, and where to: the options of `gpucnn train`, with their defaults."""

    dataset: str = "auto"
    data_dir: Path | None = None
    model: str = "keras"
    recipe: OpenRecipe = field(default_factory=OpenRecipe)
    device: str = "auto"
    seed: int = 0
    image_size: str | None = None
    output: Path = Path("runs/latest")
    resume: bool = False
    checkpoint_every: int = 200
    given: frozenset[str] = frozenset()  # which of OPTIONS were named; a run that is resumed has its own for the others

    def noted(self, dataset: str, recipe: OpenRecipe | Recipe) -> dict[str, Any]:
        """OPTIONS by name, as a checkpoint keeps them. A data set's folder is noted in full, wherever one asks from."""
        return {
            "dataset": dataset if dataset in DATASETS else os.path.abspath(user_path(dataset)),
            "model": self.model,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "optimizer": recipe.optimizer,
            "lr": recipe.learning_rate,
            "schedule": recipe.schedule,
            "augment": recipe.augment,
            "validation": recipe.validation,
            "image_size": None if self.image_size is None else "x".join(map(str, size_of(self.image_size))),
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the test accuracy, and the files that were written ([] where the run had been complete before)."""

    accuracy: float
    files: list[Path]


Say = Callable[[str], None]
Pair: TypeAlias = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
OPTIONS = ("dataset", "model", "epochs", "batch_size", "optimizer", "lr", "schedule", "augment", "validation", "image_size", "seed")
"""What makes a run what it is."""
AGAIN = "; or leave --resume out to begin anew, which sets this run aside"


def train(options: Options, say: Say, downloads: Downloads | None = None) -> Outcome:
    """Trains as `options` say; `say` gets what a person should know, a line at a time."""
    integer(options.checkpoint_every, "steps between checkpoints", 1)
    integer(options.seed, "seed", 0)
    if options.image_size is not None:
        size_of(options.image_size)
    device = get_device(options.device)
    # As they are called here; an unknown network is refused before anything is loaded.
    options = replace(options, model=NETWORKS.first(options.model), dataset=as_named(options.dataset))
    model = network(options.model)
    output = options.output
    _check_apart(output, options.dataset)
    with _folder(output), locked(output):
        if options.resume and exists(output / CHECKPOINT):
            options = _as_begun(options, output / CHECKPOINT)
            model = network(options.model)
        seed = options.seed
        size = None if options.image_size is None else size_of(options.image_size)
        dataset = load_data(options.dataset, options.data_dir, seed, say, downloads, size)
        model = network(options.model, dataset.classes)
        _build(model, dataset, seed, device)
        recipe = options.recipe.for_size(len(dataset.train_images), own=options.dataset not in DATASETS)
        if dataset.validation_images is not None and options.recipe.validation is None:
            recipe = replace(recipe, validation=None)
        dataset, validation = _held_back(dataset, recipe.validation, seed)
        steps = -(-len(dataset.train_images) // recipe.batch_size)
        model.compile(recipe.make_optimizer(recipe.epochs * steps), "categorical_crossentropy", ["accuracy"])
        model.metadata = {
            "network": options.model,
            "dataset": dataset.name if options.dataset == "auto" else options.dataset,  # what was taken, and not what might be next time
            "dataset_name": dataset.name,
            "class_names": list(dataset.class_names),
            **({} if size is None else {"image_size": list(size)}),
        }
        say(f"data      {dataset.name}: {dataset.source}")
        if validation is not None:
            which = "besides" if recipe.validation is None else "of them held back"
            say(f"          {len(validation[0]):,} {which} to validate on; the test images are looked at once, at the end")
        say(f"model     {options.model}: {model.parameter_count:,} parameters, input {'×'.join(map(str, dataset.image_shape))}")
        say(f"device    {device.name}")
        say(f"recipe    {recipe.optimizer}, learning rate {recipe.learning_rate:g} ({recipe.schedule}), seed {seed}")
        length = f"{_count(recipe.epochs, 'epoch')} of {_count(steps, 'step')}"
        say(f"          {length}, batch {recipe.batch_size}, augmentation {recipe.augment}")
        return _run(model, dataset, validation, recipe, options, say)


def _as_begun(options: Options, checkpoint: Path) -> Options:
    """The options with which the run in `checkpoint` was begun, where the command leaves them open. CheckpointError where it names others.

    More epochs than it was begun with are another run, except under a learning rate that does not depend on them.
    """
    notes = run_notes(checkpoint, AGAIN)
    begun = notes.get("options")
    if options.data_dir is None:
        options = replace(options, data_dir=_noted_folder(notes))
    if not isinstance(begun, dict) or set(begun) != set(OPTIONS):
        return options  # of a program that keeps none
    recipe = options.recipe
    asked = options.noted(options.dataset, recipe)
    free = {"epochs"} if begun["schedule"] == "constant" else set()
    if options.dataset == "auto":
        free.add("dataset")
    for name in OPTIONS:
        if name in options.given and name not in free and asked[name] != begun[name]:
            option = "--" + name.replace("_", "-")
            raise CheckpointError(
                f"{checkpoint} is a checkpoint of another run: it was begun with {option} {shown(begun[name])}, and this command has "
                f"{option} {shown(asked[name])}: leave {option} out to go on with it{AGAIN}"
            )
    chosen: dict[str, Any] = {name: asked[name] if name in options.given and name == "epochs" else begun[name] for name in OPTIONS}
    made = OpenRecipe(
        optimizer=chosen["optimizer"],
        learning_rate=chosen["lr"],
        schedule=chosen["schedule"],
        epochs=chosen["epochs"],
        batch_size=chosen["batch_size"],
        augment=chosen["augment"],
        validation=chosen["validation"],
    )
    return replace(
        options,
        dataset=chosen["dataset"],
        model=chosen["model"],
        seed=integer(chosen["seed"], "seed", 0),
        image_size=chosen["image_size"],
        recipe=made,
    )


def run_notes(checkpoint: Path, advice: str = "") -> dict[str, Any]:
    """What a run has noted of itself in its checkpoint. CheckpointError, with `advice` at its end, for a file that is none."""
    try:
        with TensorFile(checkpoint) as file:
            notes = file.description.get("notes", {})
    except CheckpointError as error:
        raise CheckpointError(f"{error}{advice}") from None
    return notes if isinstance(notes, dict) else {}


def _noted_folder(notes: dict[str, Any]) -> Path | None:
    """Where a run had its data set's files from."""
    folder = notes.get("data_dir")
    return Path(folder) if isinstance(folder, str) and folder else None


def trained_on(model: Sequential, path: Path) -> tuple[str, Path | None]:
    """The data set that the model in the file `path` was trained on, by its name, or the folder that its run has noted beside it; and the
    folder of the data set's files, where the run had been told one.

    What a model's file alone says is no reason to read a folder: CheckpointError asks for it.
    """
    notes: dict[str, Any] = {}
    checkpoint = path.parent / CHECKPOINT
    if checkpoint.is_file():
        with contextlib.suppress(CheckpointError):
            notes = run_notes(checkpoint)
    begun = notes.get("options")
    if isinstance(begun, dict) and isinstance(begun.get("dataset"), str):
        return str(begun["dataset"]), _noted_folder(notes)
    named = model.metadata.get("dataset", "auto")
    if named in DATASETS:
        return str(named), None
    raise CheckpointError(f"{path} was trained on {shown(named)}, and no run is beside it to say where that is: name it with --dataset")


def load_data(
    name: str,
    data_dir: Path | None,
    seed: int,
    say: Say,
    downloads: Downloads | None = None,
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    """The data set, with a word on which one it is where it was not named."""
    with downloads or contextlib.nullcontext():  # it ends here: what shows training needs the terminal for itself
        dataset = load_dataset(name, data_dir, seed=seed, progress=downloads, image_size=image_size)
    if dataset.note:
        say(f"note: {dataset.note}")
    return dataset


def _held_back(dataset: Dataset, share: float | None, seed: int) -> tuple[Dataset, Pair | None]:
    """The data set with fewer images to train on, and (images, labels) to validate on: none where the share is, or comes to, none.

    A data set that has a part of its own for that keeps all of its images, unless a share was asked for.
    """
    if share is None and dataset.validation_images is not None and dataset.validation_labels is not None:
        return dataset, (dataset.validation_images, dataset.validation_labels)
    if not share:
        return dataset, None
    chosen = of_each_class(dataset.train_labels, share, seed)
    if not chosen.any():
        return dataset, None
    images, labels = dataset.train_images, dataset.train_labels
    return replace(dataset, train_images=images[~chosen], train_labels=labels[~chosen]), (images[chosen], labels[chosen])


def _run(model: Sequential, dataset: Dataset, validation: Pair | None, recipe: Recipe, options: Options, say: Say) -> Outcome:
    """The part of `train` that writes."""
    output = options.output
    checkpoint = output / CHECKPOINT
    resume = options.resume and exists(checkpoint)
    if options.resume and not resume:
        say(f"note: there is no checkpoint in {output} yet: starting from the beginning")
    watch = _Watch(model, output, say)
    notes = {
        "options": options.noted(str(model.metadata["dataset"]), recipe),
        "data_dir": None if options.data_dir is None else os.path.abspath(user_path(options.data_dir)),
    }
    try:
        if not resume:
            watch.check_room()
            watch.set_aside(FILES)
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
        )
        if not watch.trained and (output / MODEL).exists():
            say(f"note: the run in {output} is complete ({_count(len(history.rows), 'epoch')}): there is nothing to do")
            return Outcome(_tested(output / MODEL, model, dataset), [])
        return _write(model, dataset, history, output, say)
    except (KeyboardInterrupt, SystemExit) as stop:
        # One from before this run would be of no use to it.
        if (watch.trained or resume) and checkpoint.exists():
            status = stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130
            raise StoppedError(f"stopped: the same command with --resume goes on from {checkpoint}", status) from None
        raise
    except CheckpointError as error:
        if resume and not watch.trained:
            raise CheckpointError(f"{error}{AGAIN}") from None
        raise
    except BrokenPipeError:
        raise  # of the output that one reads, not of the folder
    except OSError as error:
        last = f"; the same command with --resume then goes on from {checkpoint}" if checkpoint.exists() else ""
        raise DataError(f"{output} cannot be written to any more ({error.strerror or error}): mend that, or free some room{last}") from None


def _tested(path: Path, model: Sequential, dataset: Dataset) -> float:
    """The test accuracy of a run that is complete: as its model's file has it, or measured where it does not say."""
    with TensorFile(path) as file:
        noted = file.description.get("model", {}).get("metadata", {}).get("test_accuracy")
    if isinstance(noted, float):
        return noted
    return float(np.mean(model.predict(dataset.test_images).argmax(axis=1) == dataset.test_labels))


class Downloads(Protocol):
    """What shows downloads: a progress callback of `load_dataset` that is also a context."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *exception: object) -> None: ...
    def __call__(self, name: str, done: int, total: int | None) -> None: ...


class StoppedError(Exception):
    """Ctrl-C, or a signal that ends a program, in a run that can be taken up again; its text says how."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status  # of the program: 128 and the signal's number


class _Watch(Callback):
    """Readies the folder for a run that is about to write."""

    def __init__(self, model: Sequential, folder: Path, say: Say) -> None:
        self.model, self.folder, self.say = model, folder, say
        self.trained = False  # whether there was anything to train at all

    def on_train_begin(self, run: Run) -> None:
        self.trained = True
        for name in FILES:  # what a killed run was about to write
            clear_leftovers(self.folder / name)
        if not run.resumed:
            return
        self.check_room()
        if (self.folder / MODEL).exists():  # a complete run that is to have more epochs: until it has, there is no model of it
            self.set_aside([name for name in FILES if name not in (CHECKPOINT, HISTORY)])
        if not run.finished:
            self.say(f"resumed   at epoch {run.epoch + 1}, step {run.step + 1}")

    def check_room(self) -> None:
        """Finds out before an hour of training, and not after it, that a checkpoint has no room."""
        optimizer = self.model.optimizer
        size = self.model.parameter_count * self.model.dtype.itemsize * (1 + len(optimizer.slots if optimizer else ())) + (1 << 16)
        _check_writable(self.folder, size)

    def set_aside(self, names: Sequence[str]) -> None:
        """Moves files of an earlier run into a folder of their own, so that no run is lost to a forgotten option."""
        there = [name for name in names if (self.folder / name).exists()]
        if not there:
            return
        number = 1
        while (self.folder / f"previous-{number}").exists():
            number += 1
        aside = self.folder / f"previous-{number}"
        aside.mkdir()
        for name in there:
            os.replace(self.folder / name, aside / name)
        self.say(f"note: the run that was in {self.folder} is now in {aside}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _build(model: Sequential, dataset: Dataset, seed: int, device: Any) -> None:
    try:
        model.build(dataset.image_shape, seed=seed, device=device)
    except ShapeError as error:
        size = "×".join(map(str, dataset.image_shape))
        raise ShapeError(
            f"the images of {dataset.name}, {size}, do not fit this network: {error}; give larger ones, or another --model"
        ) from None


def _write(model: Sequential, dataset: Dataset, history: History, output: Path, say: Say) -> Outcome:
    """Tests the model and writes everything but the checkpoint, which is there."""
    probabilities = model.predict(dataset.test_images)
    predicted = probabilities.argmax(axis=1)
    accuracy = float(np.mean(predicted == dataset.test_labels))
    history.to_csv(output / HISTORY)
    counts = confusion_matrix(dataset.test_labels, predicted, dataset.classes)
    model.metadata["test_accuracy"] = accuracy
    model.save(output / MODEL)
    files = [output / MODEL, output / HISTORY, output / CHECKPOINT]
    first = int(dataset.test_labels[0])
    title = f"the first test image: {dataset.class_names[first]}, taken for {dataset.class_names[int(predicted[0])]}"
    pictures: list[tuple[str, Callable[[Path], bool | None]]] = [
        (CURVES, lambda path: plots.save_curves(history, path)),
        (CONFUSION, lambda path: plots.save_confusion(counts, dataset.class_names, path)),
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
        except Exception as error:  # whatever a drawing library stumbles over must not cost the model
            say(message(f"note: {name} was not made: {type(error).__name__}: {error}"))
        else:
            if made is not False:
                files.append(output / name)
    return Outcome(accuracy, files)


def _check_apart(output: Path, dataset: str) -> None:
    """In a folder of images by class, the output would be taken for a class; in its next run, its pictures for images."""
    if dataset in DATASETS:
        return
    folder = user_path(dataset)
    if not folder.is_dir():
        return
    split = parts_of(folder)
    for images in split.values() if "train" in split and len(split) > 1 else [folder]:
        if output.resolve().is_relative_to(images.resolve()):
            raise DataError(
                f"the output folder {output} lies among the images in {images}, as if it were a class: name another with --output"
            )


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Makes the folder, and takes it away again where nothing came to be written into it."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        _check_writable(folder, 1)
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()  # an empty one only
        raise


def _check_writable(folder: Path, size: int) -> None:
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for start in range(0, size, 1 << 20):
                file.write(bytes(min(1 << 20, size - start)))
            file.flush()
    except OSError as error:
        room = f" and has to hold {bytes_text(size)}" if size > 1 else ""
        raise DataError(
            f"the output folder {folder} cannot be written to ({error.strerror or error}){room}: mend that, or name another with --output"
        ) from None


def noted_size(model: Sequential) -> tuple[int, int] | None:
    """The size that the images of the model's training were brought to; None where they had one of their own."""
    noted = model.metadata.get("image_size")
    return size_of(tuple(noted)) if isinstance(noted, list) and len(noted) == 2 else None


def fit_to(model: Sequential, images: np.ndarray[Any, Any], what: str) -> np.ndarray[Any, Any]:
    """uint8 images (…, C, H, W) as the model takes them: grey as colour where it takes colour, as a folder's images are made alike.

    CheckpointError where they are of another size.
    """
    if len(model.input_shape) == 3 and images.shape[-3] == 1 and model.input_shape[0] == 3:
        images = fit_channels(images, 3)
    check_fits(model, images.shape[-3:], what)
    return images


def check_fits(model: Sequential, shape: tuple[int, ...], what: str) -> None:
    """CheckpointError unless images of `shape` (C, H, W) are what the model takes."""
    if tuple(shape) != model.input_shape:
        raise CheckpointError(
            f"{what} has shape {tuple(shape)} (channels, height, width) and the model takes {model.input_shape}: "
            "give images of that size and depth"
        )

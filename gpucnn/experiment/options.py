"""The options of a run, and how a resumed run restores them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpucnn.checks import integer
from gpucnn.data.dataset import DATASETS
from gpucnn.data.images import size_of
from gpucnn.errors import CheckpointError
from gpucnn.precision import mode
from gpucnn.recipes import OpenRecipe, Recipe
from gpucnn.surroundings import user_path
from gpucnn.text import shown
from gpucnn.training.checkpoint import TensorFile

OPTIONS = (
    "dataset",
    "model",
    "epochs",
    "batch_size",
    "optimizer",
    "lr",
    "schedule",
    "augment",
    "validation",
    "image_size",
    "precision",
    "seed",
)
"""The options that determine what a run computes."""
BEFORE = {"precision": "highest"}
"""The values for runs that were begun by a version without the option."""
AGAIN = "; or leave out --resume to start a new run, which moves this one aside"

GONE = "which does not exist any more: name the place where it is now with --dataset"


@dataclass(frozen=True)
class Options:
    """The options of `gpucnn train`, with their defaults: what to train, how, and where to write."""

    dataset: str = "auto"
    data_dir: Path | None = None
    model: str = "keras"
    recipe: OpenRecipe = field(default_factory=OpenRecipe)
    device: str = "auto"
    seed: int = 0
    image_size: str | None = None
    precision: str = "highest"
    output: Path = Path("runs/latest")
    resume: bool = False
    checkpoint_every: int = 200
    begun_epochs: int | None = None  # of a run that is resumed with more of them, under a schedule that depends on their number
    given: frozenset[str] = frozenset()  # which of OPTIONS were named; a run that is resumed has its own for the others

    def noted(self, dataset: str, recipe: OpenRecipe | Recipe) -> dict[str, Any]:
        """OPTIONS by name, as a checkpoint stores them. A data set's folder is stored as an absolute path."""
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
            "precision": mode(self.precision),
            "seed": self.seed,
        }


def as_begun(options: Options, checkpoint: Path) -> Options:
    """The options that the run in `checkpoint` was started with, where the command does not set them. CheckpointError if the command sets
    others.

    There may be more epochs than at its start: a schedule that depends on their number is then extended over all of them. Data that are no
    longer where they were may be named where they are now: that they are the same is checked before training.
    """
    notes = run_notes(checkpoint, AGAIN)
    begun = notes.get("options")
    if options.data_dir is None:
        options = replace(options, data_dir=noted_folder(notes))
    if isinstance(begun, dict):
        begun = BEFORE | begun
    if not isinstance(begun, dict) or set(begun) != set(OPTIONS):
        return options  # of a program that keeps none
    recipe = options.recipe
    asked = options.noted(options.dataset, recipe)
    free = {"epochs"} if begun["schedule"] == "constant" or (asked["epochs"] or 0) > _number(begun["epochs"]) else set()
    elsewhere = {"dataset"} if has_gone(begun["dataset"]) and "dataset" in options.given else set()
    if has_gone(begun["dataset"]) and not elsewhere:
        raise CheckpointError(f"{checkpoint} is of a run on {begun['dataset']}, {GONE}")
    if options.dataset == "auto":
        free.add("dataset")
    free |= elsewhere
    differ = [name for name in OPTIONS if name in options.given and name not in free and asked[name] != begun[name]]
    if differ:
        there = ", ".join(f"{_option(name)} {shown(begun[name])}" for name in differ)
        here = ", ".join(f"{_option(name)} {shown(asked[name])}" for name in differ)
        out = "it" if len(differ) == 1 else "them"
        raise CheckpointError(
            f"{checkpoint} is a checkpoint of another run: it was started with {there}, and this command has {here}: leave {out} out to "
            f"continue it{AGAIN}"
        )
    named = options.given & ({"epochs"} | elsewhere)
    chosen: dict[str, Any] = {name: asked[name] if name in named else begun[name] for name in OPTIONS}
    made = OpenRecipe(
        optimizer=chosen["optimizer"],
        learning_rate=chosen["lr"],
        schedule=chosen["schedule"],
        epochs=chosen["epochs"],
        batch_size=chosen["batch_size"],
        augment=chosen["augment"],
        validation=chosen["validation"],
    )
    grown = chosen["epochs"] != begun["epochs"] and begun["schedule"] != "constant"
    return replace(
        options,
        begun_epochs=integer(begun["epochs"], "epochs", 1) if grown else None,
        dataset=chosen["dataset"],
        model=chosen["model"],
        seed=integer(chosen["seed"], "seed", 0),
        image_size=chosen["image_size"],
        precision=mode(chosen["precision"]),
        recipe=made,
    )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _number(epochs: Any) -> int:
    return epochs if isinstance(epochs, int) else 0


def run_notes(checkpoint: Path, advice: str = "") -> dict[str, Any]:
    """The notes that a run recorded in its checkpoint. CheckpointError, ending with `advice`, for a file that is not a
    checkpoint."""
    try:
        with TensorFile(checkpoint) as file:
            notes = file.description.get("notes", {})
    except CheckpointError as error:
        raise CheckpointError(f"{error}{advice}") from None
    return notes if isinstance(notes, dict) else {}


def has_gone(dataset: Any) -> bool:
    """Whether a recorded data set is a path at which there is nothing any more."""
    return isinstance(dataset, str) and os.path.isabs(dataset) and not os.path.lexists(dataset)


def noted_folder(notes: dict[str, Any]) -> Path | None:
    """The folder from which a run read its data set. None if none was noted, or if it does not exist any more: the usual places may have
    the same files."""
    folder = notes.get("data_dir")
    return Path(folder) if isinstance(folder, str) and folder and os.path.isdir(folder) else None

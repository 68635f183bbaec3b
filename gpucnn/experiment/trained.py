"""Facts about the training images of a trained model, from its file and from the run beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.data import fit_channels
from gpucnn.data.background import DARK, LIGHT
from gpucnn.data.dataset import DATASETS
from gpucnn.errors import CheckpointError
from gpucnn.experiment.folder import CHECKPOINT, FILES, MODEL
from gpucnn.experiment.options import GONE, has_gone, noted_folder, run_notes
from gpucnn.files import exists
from gpucnn.model import Sequential
from gpucnn.surroundings import user_path
from gpucnn.text import number_of, shown


def trained_on(model: Sequential, path: Path) -> tuple[str, Path | None]:
    """The data set that the model in the file `path` was trained on, by name or as the folder that its run recorded; and the folder of the
    data set's files, if the run was given one.

    A model's file alone does not make gpucnn read a folder, and accuracies on a set that was only guessed would mean nothing:
    CheckpointError asks the user to name it.
    """
    notes: dict[str, Any] = {}
    checkpoint, why = path.parent / CHECKPOINT, "there is no run beside it that does"
    if os.path.isfile(checkpoint):
        try:
            notes = run_notes(checkpoint)
        except CheckpointError as error:
            why = f"the run beside it cannot be read ({error})"
    begun = notes.get("options")
    if isinstance(begun, dict) and isinstance(begun.get("dataset"), str):
        if has_gone(begun["dataset"]):
            raise CheckpointError(f"{path} was trained on {begun['dataset']}, {GONE}")
        return str(begun["dataset"]), noted_folder(notes)
    if "dataset" not in model.metadata:
        raise CheckpointError(f"{path} does not say which data set it was trained on, and {why}: name one with --dataset")
    named = model.metadata["dataset"]
    if isinstance(named, str) and named in DATASETS:
        return named, None
    raise CheckpointError(f"{path} does not say where {shown(named)} is, which it was trained on, and {why}: name it with --dataset")


def model_file(path: Path) -> Path:
    """The file of a named model, or of the model in the folder of a named run. CheckpointError for a folder without one."""
    path = user_path(path)
    if not os.path.isdir(path):
        return path
    if not exists(path / MODEL):
        begun = exists(path / CHECKPOINT)
        why = "its run is not complete: continue it with gpucnn train --resume" if begun else "there is no run"
        raise CheckpointError(f"{path} is a folder without {MODEL} ({why}): name a model, or the folder of a run")
    return path / MODEL


def run_files(path: Path) -> dict[str, list[Path]]:
    """The files of the run that wrote the model `path`, for `check_target`: nothing else that is written may replace one of them."""
    return {"a file of the model's run": [path.parent / name for name in FILES if path.name == MODEL]}


def noted_background(model: Sequential) -> str | None:
    """The background of the training images, DARK or LIGHT; None if they had none, or if it was not determined."""
    noted = model.metadata.get("background")
    return noted if noted in (DARK, LIGHT) else None


def compiled(model: Sequential) -> Sequential:
    """The model, with a loss if it was saved without one: the loss knows how raw outputs become probabilities."""
    if model.loss is None:
        model.compile(loss="binary_crossentropy" if _is_binary(model) else "categorical_crossentropy")
    return model


def class_count(model: Sequential) -> int:
    """The number of classes that the model tells apart: one output tells two apart, as the probability of the second."""
    return max(model.output_shape[0], 2)


def class_probabilities(model: Sequential, path: Path, outputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The probabilities of the classes, (N, `class_count`), in what `predict` returned for a compiled model. CheckpointError for outputs
    that are none."""
    if not np.isfinite(outputs).all():
        raise CheckpointError(f"{path} outputs NaN for an image: its weights are too large or broken; train it again, or get a new copy")
    if _is_binary(model):
        outputs = np.concatenate([1 - outputs, outputs], axis=1)
    if outputs.ndim != 2 or outputs.shape[1] < 2 or not np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        raise CheckpointError(
            f"{path} is not a classifier: its outputs, {model.output_shape} of an image, are not class probabilities; model.predict, in "
            "Python, returns them"
        )
    return outputs


def _is_binary(model: Sequential) -> bool:
    """Whether the only output is a probability, by the last layer or by the loss."""
    final = model.loss.final(model.last_activation) if model.loss else None
    return model.output_shape == (1,) and "sigmoid" in (model.last_activation, final)


def class_names(network: Sequential, path: Path) -> list[str] | None:
    """The classes that the model was trained on; None if its file does not have them."""
    names = network.metadata.get("class_names")
    if names is None:
        return None
    if not isinstance(names, list) or [str(name) for name in names] != names or len(names) != class_count(network):
        raise CheckpointError(
            f"{path} has {number_of(network.output_shape[0], 'output')} and the class names {shown(names)}, expected a list of "
            f"{'two' if network.output_shape[0] == 1 else 'as many'} strings: "
            "train it again, or set model.metadata['class_names'] and save it"
        )
    return names


def taken_size(model: Sequential) -> tuple[int, int] | None:
    """(height, width) to which images of a folder are resized for this model; None if it does not take images."""
    return (model.input_shape[1], model.input_shape[2]) if len(model.input_shape) == 3 else None


def fit_to(model: Sequential, images: np.ndarray[Any, Any], what: str) -> np.ndarray[Any, Any]:
    """uint8 images (…, C, H, W) with the model's channels: grey converted to colour, or colour to grey.

    CheckpointError where they are of another size.
    """
    if len(model.input_shape) == 3 and {images.shape[-3], model.input_shape[0]} == {1, 3}:
        images = fit_channels(images, model.input_shape[0])
    check_fits(model, images.shape[-3:], what)
    return images


def check_fits(model: Sequential, shape: tuple[int, ...], what: str) -> None:
    """CheckpointError unless the model takes images of `shape` (C, H, W)."""
    if tuple(shape) != model.input_shape:
        raise CheckpointError(
            f"{what} has shape {tuple(shape)} (channels, height, width) and the model takes {model.input_shape}: give images of that shape"
        )

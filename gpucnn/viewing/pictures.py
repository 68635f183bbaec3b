"""The images offered on a page."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn import experiment
from gpucnn.data import files_of, load_dataset, read_image
from gpucnn.data.dataset import DATASETS, Dataset
from gpucnn.data.images import resized
from gpucnn.errors import DataError, GpucnnError, ShapeError
from gpucnn.experiment.folder import MODEL
from gpucnn.model import Sequential
from gpucnn.surroundings import user_path
from gpucnn.text import plain, shown

MOST = 40  # images on a page: a strip that can still be looked over
CLASSES = 20  # of a data set, one image each


@dataclass(frozen=True, eq=False)
class Pictures:
    """images: uint8 (N, C, H, W) in the model's format; N may be 0. titles: a few words about each, for people. source: where they come
    from. note: why there are none, or fewer than possible."""

    images: NDArray[np.uint8]
    titles: list[str] = field(default_factory=list)
    source: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or len(self.titles) != len(self.images):
            raise ShapeError(f"images must be uint8 with a title each, got {shown(self.images)} and {len(self.titles)} titles")
        if len(self.images) > MOST:
            raise ShapeError(f"a page takes at most {MOST} images, got {len(self.images)}: choose some")


def none(model: Sequential, note: str = "") -> Pictures:
    """No images at all."""
    return Pictures(np.zeros((0, *model.input_shape), np.uint8), note=plain(note))


def of_dataset(model: Sequential, dataset: Dataset) -> Pictures:
    """The first test image of each class; with many classes, only the first classes."""
    classes = range(min(dataset.classes, CLASSES))
    found = [(name, np.flatnonzero(dataset.test_labels == name)) for name in classes]
    chosen = [(name, int(indices[0])) for name, indices in found if len(indices)]
    images = experiment.fit_to(model, dataset.test_images[[index for _, index in chosen]], f"an image of {dataset.name}")
    more = f"the first {CLASSES} of {dataset.classes} classes" if dataset.classes > CLASSES else ""
    return Pictures(images, [plain(dataset.class_names[name]) for name, _ in chosen], plain(f"test images of {dataset.name}"), more)


def of_files(model: Sequential, files: Sequence[Path], source: str) -> Pictures:
    """The images in these files, resized as the training images were."""
    note = f"the first {MOST} of {len(files)} images" if len(files) > MOST else ""
    size, loaded = experiment.taken_size(model), []
    for path in files[:MOST]:
        image = read_image(path)
        if size is not None:
            image = resized(image, size)
        loaded.append(experiment.fit_to(model, image, str(path)))
    return Pictures(np.stack(loaded), [plain(path.name) for path in files[:MOST]], plain(source), note)


def of_training(model: Sequential, path: Path, data_dir: Path | None = None) -> Pictures:
    """Images of the data set that the model in the file `path` was trained on, if it is on this machine: nothing is downloaded.
    data_dir: where the files of MNIST or Fashion-MNIST are; by default where the run found them."""
    if len(model.input_shape) != 3:
        return none(model)
    try:
        name, noted = experiment.trained_on(model, path)
    except GpucnnError:
        return none(model, "this page has no image of its training set, whose location is unknown: give images with --images")
    try:
        size = experiment.taken_size(model) if name not in DATASETS and files_of.holds_images(user_path(name)) else None
        return of_dataset(model, load_dataset(name, data_dir or noted, download=False, seed=model.seed, image_size=size))
    except (GpucnnError, OSError) as error:
        if data_dir is not None:  # which the caller gave
            raise
        return none(model, f"this page has no image of its training set: {error}")


def given(model: Sequential, images: Any, titles: Sequence[str] | None = None) -> Pictures:
    """The user's own images: (N, C, H, W), or (N, H, W) for grey ones, uint8 or floats from 0 to 1."""
    array = np.asarray(images)
    if array.ndim == 3 and len(model.input_shape) == 3 and model.input_shape[0] == 1:
        array = array[:, None]
    if array.shape[1:] != model.input_shape:
        raise ShapeError(f"images must be (number, {', '.join(map(str, model.input_shape))}), got an array of shape {array.shape}")
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            fits = bool(np.isfinite(array).all() and (array >= 0).all() and (array <= 1).all())
        if not fits:
            raise DataError("floating-point images must lie within 0 … 1: scale them, or give uint8")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise DataError(f"images must be uint8, or floats within 0 … 1, got {array.dtype}")
    names = [str(number) for number in range(1, len(array) + 1)] if titles is None else [plain(title) for title in titles]
    return Pictures(np.ascontiguousarray(array), names, "images given")


def dark_paper(pictures: Pictures) -> bool:
    """Whether the images are light on dark, judged by their borders; True if there are none."""
    images = pictures.images
    if images.ndim != 4 or not images.size:
        return True
    edges = [images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]]
    return float(np.mean([edge.mean() for edge in edges])) < 128


def folder_of(path: Path) -> str:
    """The run that a model's file belongs to, for the title."""
    with contextlib.suppress(OSError):
        return plain(path.resolve().parent.name if path.name == MODEL else path.stem)
    return plain(path.stem)

"""A folder of the user's own images, with one subfolder per class."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.dataset import Dataset, Request, counted
from gpucnn.data.images import SUFFIXES, fit_channels, images_below, read_image, resized
from gpucnn.data.kept import keep, kept, path_of
from gpucnn.data.split import held_back
from gpucnn.errors import DataError
from gpucnn.files import kind_of, why_no_folder
from gpucnn.text import listed, message

MANY = 256  # images from which on threads are worthwhile
JUNK = ("thumbs.db", "ehthumbs.db", "desktop.ini")  # which Windows leaves in folders of images
SPELLINGS = {"train": ("train", "training"), "test": ("test", "testing"), "validation": ("val", "valid", "validation")}
LAYOUT = "FOLDER/CLASS/image.png, or FOLDER/train/CLASS/image.png and FOLDER/test/CLASS/image.png"


@dataclass
class Passed:
    """What was skipped."""

    kinds: list[str] = field(default_factory=list)  # a word for each file
    deeper: list[Path] = field(default_factory=list)  # folders of images inside a class folder


def load(folder: Path, request: Request) -> Dataset:
    """Images of one size in FOLDER/CLASS/, or in FOLDER/train/CLASS/ and FOLDER/test/CLASS/, with an optional FOLDER/val/CLASS/, in any
    usual spelling. A val without a test is used for testing.

    In the first layout `test_fraction` of each class is held back for testing, at least one image and never all; which ones
    depends on the seed and the file names alone. Classes are the subfolders' names, sorted. Hidden files are skipped, and
    so are files that are not images and folders inside a class folder, which the note reports. If one image has three channels, all get
    three.

    DataError if there is nothing to learn from, or an image cannot be read or has another size.
    """
    if why := why_no_folder(folder):
        raise DataError(f"{folder} is not a folder of images ({why}): lay it out as {LAYOUT}")
    passed = Passed()
    parts, validation = parts_of(folder), None
    notes: list[str] = []
    if "train" in parts and len(parts) > 1:
        if "test" not in parts:
            parts["test"] = parts.pop("validation")
            notes.append(f"there is no test folder beside {parts['train']}: the images in {parts['test']} are used for testing")
        classes = {part: _classes(path, passed) for part, path in parts.items()}
        train, test, validation = classes["train"], classes["test"], classes.get("validation")
        for part, path in parts.items():
            strangers = sorted(set(classes[part]) - set(train))
            if strangers:
                raise DataError(
                    f"{path} has the class {strangers[0]!r}, which {parts['train']} does not have: "
                    f"add images of it there, or remove it from {path.name}"
                )
            if absent := sorted(set(train) - set(classes[part])):
                them = "it" if len(absent) == 1 else "them"
                notes.append(message(f"{path} has no images of {listed(absent, 6)}: accuracies there say nothing about {them}"))
        notes += [
            message(f"{path} was skipped: the parts of a data set are named train, test and val")
            for path in _like_parts(folder, train)
            if path not in parts.values()
        ]
    else:
        train, test = _split(_classes(folder, passed), folder, request.test_fraction, request.seed)
    if len(train) < 2:
        raise DataError(f"{folder} has only the class {next(iter(train))!r} to train on: at least two are needed; lay it out as {LAYOUT}")

    names = tuple(sorted(train))
    notes += _note(folder, passed)
    files = [[(path, names.index(name)) for name in names for path in part.get(name, ())] for part in (train, test, validation or {})]
    arrays = np.split(_read([path for part in files for path, _ in part], request), np.cumsum([len(part) for part in files[:2]]))
    labels = [np.array([label for _, label in part], np.int32) for part in files]
    return Dataset(
        name=folder.name or str(folder),
        train_images=arrays[0],
        train_labels=labels[0],
        test_images=arrays[1],
        test_labels=labels[1],
        class_names=names,
        source=counted(folder, len(files[0]), len(files[1])),
        note="; ".join(notes) or None,
        validation_images=arrays[2] if validation else None,
        validation_labels=labels[2] if validation else None,
    )


def parts_of(folder: Path) -> dict[str, Path]:
    """The subfolders of `folder` whose names are those of parts: "train", "test", "validation", as far as they exist."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}): check its permissions") from error
    parts: dict[str, Path] = {}
    for part, spellings in SPELLINGS.items():
        for name in found:
            if name.lower() in spellings:
                parts.setdefault(part, folder / name)
    return parts


def _like_parts(folder: Path, classes: Collection[str]) -> list[Path]:
    """The subfolders of `folder` that have a folder of one of the classes, as a part has: `dev`, or a `val` that is spelt wrong."""
    with os.scandir(folder) as entries:
        found = sorted(entry.name for entry in entries if entry.is_dir())
    return [folder / name for name in found if any(os.path.isdir(folder / name / known) for known in classes)]


def _classes(folder: Path, passed: Passed) -> dict[str, list[Path]]:
    """The images of each class folder, sorted by name. Everything else is added to `passed`."""
    try:
        with os.scandir(folder) as entries:
            subfolders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__")))
        classes = {name: _images(folder / name, passed) for name in subfolders}
        loose = _images(folder, Passed())
    except OSError as error:
        raise DataError(f"{error.filename or folder} cannot be read ({error.strerror}): check its permissions") from error
    if any(classes.values()):
        empty = [name for name, images in classes.items() if not images]
        if empty:
            _refuse_deeper(folder / empty[0], f"move them to {folder / empty[0]}")
            raise DataError(f"{folder / empty[0]} contains no images ({', '.join(SUFFIXES)}): add some, or remove that class folder")
        passed.kinds += [f"{path.suffix.lower()} beside the class folders" for path in loose]
        return classes
    for name, other in (("train", "test"), ("test", "train")):
        if name in classes or any(spelt.lower() in SPELLINGS[name] for spelt in classes):
            raise DataError(
                f"{folder} contains {name} but no {other}, nor images by class: add {other}/CLASS, or name the folder {folder / name}"
            )
    if loose:
        raise DataError(f"{folder} contains images but no class folders: move each image into a subfolder named after its class")
    for name in classes:
        inside = folder / name
        _refuse_deeper(inside, f"name the folder {inside}" if len(classes) == 1 else f"move the images of {name} to {inside}")
    raise DataError(f"{folder} contains no images: lay it out as {LAYOUT}")


def _refuse_deeper(folder: Path, mend: str) -> None:
    """DataError if a class folder without images has some in a folder of its own."""
    image = next(images_below(folder), None)
    if image is not None:
        raise DataError(
            f"{folder} contains no images, only folders of them ({image}), expected the images of a class in {folder.parent}/CLASS itself: "
            f"{mend}"
        )


def _images(folder: Path, passed: Passed) -> list[Path]:
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in JUNK:
                continue
            if entry.is_file() and entry.name.lower().endswith(SUFFIXES):
                names.append(entry.name)
            elif entry.is_dir() and not entry.name.startswith("__") and any(images_below(folder / entry.name)):
                passed.deeper.append(folder / entry.name)
            else:
                passed.kinds.append(_kind(entry))
    return [folder / name for name in sorted(names)]


def _kind(entry: os.DirEntry[str]) -> str:
    """A word for something that was skipped."""
    try:
        kind = kind_of(entry.stat().st_mode)
    except OSError:
        kind = "a link that leads nowhere"
    return kind or Path(entry.name).suffix.lower() or "without an ending"


def _note(folder: Path, passed: Passed) -> list[str]:
    """Notes about the files and folders that were skipped."""
    notes = []
    if passed.deeper:
        first, more = min(passed.deeper), len(passed.deeper) - 1
        others = f" and {more:,} more {'folder' if more == 1 else 'folders'}" if more else ""
        mend = f"move them to {first.parent} if they belong to that class"
        notes.append(message(f"the images in {first}{others} were skipped, a folder deeper than {folder}/CLASS/image.png: {mend}"))
    if count := len(passed.kinds):
        kinds = listed([f"{count} {kind}" for kind, count in Counter(passed.kinds).most_common()], 6)
        files = "1 file" if count == 1 else f"{count:,} files"
        notes.append(message(f"{files} in {folder} {'was' if count == 1 else 'were'} skipped ({kinds}): images are {', '.join(SUFFIXES)}"))
    return notes


def _split(classes: dict[str, list[Path]], folder: Path, fraction: float, seed: int) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """(train, test), both by class."""
    train, test = {}, {}
    for name, images in classes.items():
        if len(images) < 2:
            raise DataError(
                f"{folder / name} contains one image, and one must be held out for testing: add images, or sort them into "
                f"{folder / 'train'} and {folder / 'test'}, each with a folder for every class"
            )
        count = min(max(math.floor(len(images) * fraction + 0.5), 1), len(images) - 1)
        held = held_back([f"{name}/{path.name}" for path in images], count, seed)
        train[name] = [path for path in images if f"{name}/{path.name}" not in held]
        test[name] = [path for path in images if f"{name}/{path.name}" in held]
    return train, test


def _read(paths: list[Path], request: Request) -> NDArray[np.uint8]:
    """All images as one array (N, C, H, W), where C is the largest number of channels of any image."""
    size = request.image_size
    kept_in = None if size is None else path_of(paths, size)
    if kept_in is not None and size is not None and (found := kept(kept_in, len(paths), size)) is not None:
        return found
    images: list[NDArray[np.uint8]] = []
    for path, image in zip(paths, _one_by_one(paths, size), strict=True):
        if images and image.shape[1:] != images[0].shape[1:]:
            (height, width), (rows, columns) = image.shape[1:], images[0].shape[1:]
            raise DataError(
                f"{path} is {height} × {width} pixels (height × width), expected {rows} × {columns}, "
                f"as in {paths[0].name}: give --image-size (image_size= in Python), or resize all images to one size"
            )
        images.append(image)
        if request.reading is not None:
            request.reading("images", len(images), len(paths))
    channels = max(image.shape[0] for image in images)
    result = np.empty((len(images), channels, *images[0].shape[1:]), np.uint8)
    for row, image in zip(result, images, strict=True):
        row[:] = fit_channels(image, channels)
    if kept_in is not None:
        keep(kept_in, result)
    return result


def _one_by_one(paths: list[Path], size: tuple[int, int] | None) -> Iterator[NDArray[np.uint8]]:
    """The images in the order of their paths. Many images are read by several threads, because Pillow decodes without Python's lock."""

    def read(path: Path) -> NDArray[np.uint8]:
        image = read_image(path)
        return image if size is None else resized(image, size)

    if len(paths) < MANY:
        yield from map(read, paths)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "gpucnn-images") as pool:
        try:
            for first in range(0, len(paths), MANY):  # so that errors are reported early, and few images wait in memory
                yield from pool.map(read, paths[first : first + MANY])
        finally:
            pool.shutdown(cancel_futures=True)

"""The output of `gpucnn predict`: images converted for the model, and their most probable classes, as lines and as a table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.checks import pick
from gpucnn.data.background import DARK, LIGHT, background, inverted
from gpucnn.data.images import SUFFIXES, fit_channels, images_below, read_image, resized
from gpucnn.errors import CheckpointError, DataError
from gpucnn.files import write_atomically
from gpucnn.surroundings import user_path
from gpucnn.text import aligned, cell, plain, reason_of

INVERT = {"never": "leave images unchanged", "auto": "invert images that look inverted", "always": "invert all"}
COLOURS = {1: "grey", 3: "colour"}


def images_of(given: Sequence[Path]) -> list[Path]:
    """The named images, and those in the named folders and their subfolders, sorted by name: each once, even if a folder is named twice or
    within another.

    DataError for a folder that has none, or that cannot be read.
    """

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read ({reason_of(error)}): check its permissions") from None

    found: dict[str, Path] = {}
    for path in given:
        folder = user_path(path)
        if not os.path.isdir(folder):
            found.setdefault(os.path.abspath(folder), path)
            continue
        inside = list(images_below(folder, unreadable))
        if not inside:
            raise DataError(f"{path} contains no images: images are {', '.join(SUFFIXES)}")
        for image in sorted(inside):
            found.setdefault(os.path.abspath(image), image)
    return list(found.values())


class Images:
    """Images in the model's format, with notes about how they were converted.

    shape: (C, H, W) of the model's input. Each image is converted to it: scaled until it covers the size, cropped about the centre, and
    converted between grey and colour.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.paths: list[Path] = []
        self.images: list[np.ndarray[Any, Any]] = []
        self.changed: list[tuple[Path, tuple[int, ...]]] = []
        self.turned: list[Path] = []

    def read(self, paths: Sequence[Path]) -> Images:
        """DataError for a file that cannot be read as an image, CheckpointError if the model does not take images."""
        for path in paths:
            image = read_image(path)
            if len(self.shape) != 3 or self.shape[0] not in COLOURS:
                raise CheckpointError(
                    f"the model takes {self.shape} where an image, {image.shape} (channels, height, width), was given: only models "
                    "of images with 1 or 3 channels can be asked for the class of one"
                )
            if image.shape != self.shape:
                self.changed.append((path, image.shape))
                image = resized(fit_channels(image, self.shape[0]), (self.shape[1], self.shape[2]))
            self.paths.append(path)
            self.images.append(image)
        return self

    def turn(self, usual: str | None, invert: str = "never") -> np.ndarray[Any, Any]:
        """The images (N, C, H, W), inverted according to `invert`; `usual` is the background of the training images, if they had one."""
        pick(invert, INVERT, "way to invert")
        images = np.stack(self.images)
        looks = inverted(images, usual)
        self.turned = [path for path, found in zip(self.paths, looks, strict=True) if found]
        chosen = looks if invert == "auto" else np.full(len(images), invert == "always")
        images[chosen] = 255 - images[chosen]
        return images

    def notes(self, usual: str | None, invert: str = "never") -> list[str]:
        """Notes about the images, one line per kind."""
        found = []
        if self.changed:
            (path, (channels, height, width)), count = self.changed[0], len(self.changed)
            done = "converted" if all(shape[1:] == self.shape[1:] for _, shape in self.changed) else "resized"
            colour = "" if channels == self.shape[0] else f" in {COLOURS[channels]}"
            which = f"{path}, {height}×{width}{colour}, was" if count == 1 else f"{count:,} images ({path}, {height}×{width}{colour}) were"
            to = "" if channels == self.shape[0] else f" in {COLOURS[self.shape[0]]}"
            found.append(f"{which} {done} to {self.shape[1]}×{self.shape[2]}{to}, the input size of the model")
        if self.turned and invert != "always":
            other = LIGHT if usual == DARK else DARK
            which = f"{self.turned[0]} looks" if len(self.turned) == 1 else f"{len(self.turned):,} images ({self.turned[0]}) look"
            mended = "they were inverted" if invert == "auto" else "--invert auto corrects that"
            found.append(f"{which} inverted, with a {other} background, while the training images had a {usual} one: {mended}")
        return found


def turned(images: np.ndarray[Any, Any], usual: str | None, invert: str = "never") -> tuple[np.ndarray[Any, Any], str | None]:
    """Images (N, C, H, W) of a data set, inverted according to `invert`, and a note if their background differs from the usual one."""
    other = None if usual is None else LIGHT if usual == DARK else DARK
    looks = other is not None and background(images) == other
    if invert == "always" or (invert == "auto" and looks):
        images = 255 - images
    if not looks or invert == "always":
        return images, None
    mended = "they were inverted" if invert == "auto" else "--invert auto corrects that"
    return images, f"the images look inverted, with a {other} background, while the training images had a {usual} one: {mended}"


def lines(paths: Sequence[Path], probabilities: np.ndarray[Any, Any], names: Sequence[str], top: int = 1) -> list[str]:
    """One line per image, with its `top` most probable classes."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    rows = [
        [plain(path), *(words for index in order for words in (plain(names[index]), f"{100 * row[index]:5.1f} %"))]
        for path, row, order in zip(paths, probabilities, best, strict=True)
    ]
    return aligned(rows, right=range(2, len(rows[0]), 2))


def write_csv(target: Path, paths: Sequence[Path], probabilities: np.ndarray[Any, Any], names: Sequence[str], top: int = 1) -> None:
    """A table of the images and their `top` most probable classes with probabilities. A spreadsheet finds no formula in it."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ranks = [""] + [f"_{rank}" for rank in range(2, best.shape[1] + 1)]
    writer.writerow(["image", *(f"{word}{rank}" for rank in ranks for word in ("class", "probability"))])
    for path, row, order in zip(paths, probabilities, best, strict=True):
        answers = [word for index in order for word in (cell(names[index]), f"{row[index]:.6f}")]
        writer.writerow([cell(path), *answers])
    write_atomically(target, lambda file: file.write(text.getvalue().encode("utf-8", "backslashreplace")))

"""What `gpucnn predict` answers: the classes of images, best first, as lines and as a table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.data.images import SUFFIXES
from gpucnn.errors import DataError
from gpucnn.files import write_atomically
from gpucnn.surroundings import user_path
from gpucnn.text import plain

FORMULAS = ("=", "+", "-", "@")  # what a spreadsheet would compute


def images_of(given: Sequence[Path]) -> list[Path]:
    """The images that are named, and those in folders that are named, with all folders below, in the order of their names.

    DataError for a folder that has none.
    """
    found: list[Path] = []
    for path in given:
        folder = user_path(path)
        if not folder.is_dir():
            found.append(path)
            continue
        inside = []
        for above, below, names in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".")]
            inside += [Path(above) / name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        if not inside:
            raise DataError(f"{path} holds no images: images are {', '.join(SUFFIXES)}")
        found += sorted(inside)
    return found


def lines(paths: Sequence[Path], probabilities: np.ndarray[Any, Any], names: Sequence[str], top: int = 1) -> list[str]:
    """A line for each image, with its `top` most probable classes."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    shown = [(plain(path), [plain(names[index]) for index in row]) for path, row in zip(paths, best, strict=True)]
    width = max(len(words) for words, _ in shown)
    widths = [max(len(labels[place]) for _, labels in shown) for place in range(best.shape[1])]
    return [
        f"{words:<{width}}  "
        + "  ".join(f"{label:<{wide}}  {100 * row[index]:5.1f} %" for label, wide, index in zip(labels, widths, order, strict=True))
        for (words, labels), row, order in zip(shown, probabilities, best, strict=True)
    ]


def write_csv(target: Path, paths: Sequence[Path], probabilities: np.ndarray[Any, Any], names: Sequence[str], top: int = 1) -> None:
    """A table: the image, and its `top` most probable classes with their probabilities. Nothing in it is a formula to a spreadsheet."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    places = [""] + [f"_{place}" for place in range(2, best.shape[1] + 1)]
    writer.writerow(["image", *(f"{word}{place}" for place in places for word in ("class", "probability"))])
    for path, row, order in zip(paths, probabilities, best, strict=True):
        answers = [cell for index in order for cell in (_safe(names[index]), f"{row[index]:.6f}")]
        writer.writerow([_safe(str(path)), *answers])
    write_atomically(target, lambda file: file.write(text.getvalue().encode("utf-8", "backslashreplace")))


def _safe(words: str) -> str:
    words = plain(words)
    return f"'{words}" if words.startswith(FORMULAS) else words

"""The results of a model on each class, as a table for people and for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.files import write_atomically
from gpucnn.text import aligned, cell, plain, shortened

HEADER = ("class", "images", "right", "recall", "precision", "f1", "most_taken_for", "times")


@dataclass(frozen=True)
class OfClass:
    """One class: how many images it has, how many were recognised, and which class most of the others were predicted as.

    recall: the share of its images that were predicted as it. precision: the share of those predicted as it that are. f1: their harmonic
    mean. Each is 0 where there is nothing to divide by.
    """

    name: str
    images: int
    right: int
    recall: float
    precision: float
    f1: float
    taken_for: str  # "" where all were recognised
    times: int


def of_classes(counts: np.ndarray[Any, Any], names: Sequence[str]) -> list[OfClass]:
    """The classes of a confusion matrix: counts[i, j] images of class i were predicted as class j."""
    found = []
    for number, name in enumerate(names):
        row = [int(count) for count in counts[number]]
        images, taken, right = sum(row), int(counts[:, number].sum()), row[number]
        row[number] = 0
        other = int(np.argmax(row))
        found.append(
            OfClass(
                name=name,
                images=images,
                right=right,
                recall=right / images if images else 0.0,
                precision=right / taken if taken else 0.0,
                f1=2 * right / (images + taken) if images + taken else 0.0,
                taken_for=names[other] if row[other] else "",
                times=row[other],
            )
        )
    return found


def lines(classes: Sequence[OfClass]) -> list[str]:
    """The table as text."""
    rows: list[tuple[str, ...]] = [("class", "images", "recall", "precision", "F1", "mistaken for")]
    for one in classes:
        confused = f"{shortened(plain(one.taken_for), 24)} ({one.times:,})" if one.times else ""
        shares = [f"{100 * share:.1f} %" for share in (one.recall, one.precision, one.f1)]
        rows.append((shortened(plain(one.name), 24), f"{one.images:,}", *shares, confused))
    return aligned(rows, right=range(1, 5))


def write(target: Path, classes: Sequence[OfClass]) -> None:
    """The table as CSV. A spreadsheet finds no formula in it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for one in classes:
        shares = [f"{share:.6f}" for share in (one.recall, one.precision, one.f1)]
        writer.writerow([cell(one.name), one.images, one.right, *shares, cell(one.taken_for), one.times])
    write_atomically(target, lambda file: file.write(text.getvalue().encode("utf-8", "backslashreplace")))

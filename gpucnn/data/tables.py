"""Tables of pixels, as Kaggle's MNIST: one row per image, with the label in one column."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.dataset import Dataset, Request
from gpucnn.data.files import content_of, open_content
from gpucnn.data.tidy import Part, dataset
from gpucnn.errors import DataError
from gpucnn.text import reason_of, shortened

LABELS = ("label", "labels", "class", "target", "y", "digit")
LARGEST = 1 << 33  # bytes of text
MANY = 1 << 23  # bytes of text above which a faster reader is worth loading


def load(path: Path, request: Request, test: Path | None = None) -> Dataset:
    """A table that is split for testing, or two tables. The label is in the column of that name, otherwise in the first; all others are
    pixels.

    DataError for a table without labels, with cells that are not numbers, and with rows of several lengths.
    """
    return dataset(
        path.name.partition(".")[0], table(path), None if test is None else table(test), path if test is None else path.parent, request
    )


def table(path: Path) -> Part:
    """The images and labels of one table, unconverted."""
    text = content_of(path, LARGEST, "store it as .npz")
    if not text.strip():
        raise DataError(f"{path} is empty: get a new copy or save it again")
    first, _, rest = text.partition(b"\n")
    cells, header = _first_row(first)
    if len(cells) < 5:
        columns = f"{len(cells)} column{'' if len(cells) == 1 else 's'}"
        raise DataError(f"{path} has {columns}, expected a label and at least four pixels, separated by commas")
    at = _label_column(cells, header)
    if at is None:
        raise DataError(f"{path} has no label column ({', '.join(LABELS[:3])}): name a table with labels to train on")
    values, labels = _cells(rest if header else text, at, len(cells), path)
    return Part(values, labels, str(path))


def has_labels(path: Path) -> bool:
    """Whether a table has a column of labels, judged by its first row."""
    with open_content(path) as (stream, _):
        first = stream.readline(1 << 24)
    return _label_column(*_first_row(first)) is not None


def _first_row(line: bytes) -> tuple[list[str], bool]:
    """The cells of the first row in lower case, and whether they are column names."""
    cells = [cell.strip().strip('"').lower() for cell in line.decode("utf-8-sig", "replace").split(",")]
    return cells, not all(_number(cell) for cell in cells[1:])


def _label_column(cells: list[str], header: bool) -> int | None:
    """The column of the labels: the one with that name; the first if columns have no names or if the first one's name is not that of a
    pixel."""
    if not header:
        return 0
    named = next((cells.index(name) for name in LABELS if name in cells), None)
    return 0 if named is None and not cells[0].startswith(("pixel", "px", "p0", "1x1", "0", "1")) else named


def _cells(text: bytes, at: int, columns: int, path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """(pixels, labels) of the rows of a table."""
    if not text.strip():
        raise DataError(f"{path} has no rows below its header: get a new copy")
    words: list[str] = []
    numbers: Any = _quickly(text, columns) if len(text) >= MANY else None
    try:
        numbers = (
            numbers
            if numbers is not None
            else np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.float32, ndmin=2, comments=None, quotechar='"', encoding="utf-8")
        )
    except ValueError as error:
        first = text.partition(b"\n")[0].decode("utf-8", "replace").split(",")
        if len(first) != columns or at >= len(first) or _number(first[at].strip().strip('"')):
            raise DataError(f"{path} cannot be read as a table of numbers ({shortened(reason_of(error), 150)}): fix that row") from None
        # The classes have names, which are read separately.
        others = [index for index in range(columns) if index != at]
        try:
            numbers = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.float32, ndmin=2, comments=None, quotechar='"', usecols=others)
        except ValueError as again:
            raise DataError(f"{path} cannot be read as a table of numbers ({shortened(reason_of(again), 150)}): fix that row") from None
        words = [line.decode("utf-8", "replace").split(",")[at].strip().strip('"') for line in text.splitlines() if line.strip()]
    if words:
        return numbers, np.array(words)
    if numbers.shape[1] != columns:
        raise DataError(f"{path} has rows of {numbers.shape[1]} cells below a header of {columns}: get a new copy")
    return np.delete(numbers, at, axis=1), numbers[:, at]


def _quickly(text: bytes, columns: int) -> NDArray[np.float32] | None:
    """The numbers of a large table, read with pyarrow; None if it is not installed or cannot read the table."""
    try:
        import pyarrow
        from pyarrow import csv

        table = csv.read_csv(
            pyarrow.py_buffer(text),
            read_options=csv.ReadOptions(autogenerate_column_names=True),
            convert_options=csv.ConvertOptions(column_types={f"f{column}": pyarrow.float32() for column in range(columns)}, null_values=[]),
        )
        if table.num_columns != columns:
            return None
        numbers = np.empty((table.num_rows, columns), np.float32)
        for column in range(columns):
            numbers[:, column] = table.column(column).to_numpy()
        return numbers
    except Exception:  # NumPy then reports what is wrong
        return None


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True

"""Tables of pixels, as Kaggle's MNIST: one row per image, with the label in one column."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.dataset import Dataset, Request
from gpucnn.data.files import content_of, open_content
from gpucnn.data.tidy import Part, dataset
from gpucnn.errors import DataError
from gpucnn.text import reason_of, shortened, shown

LABELS = ("label", "labels", "class", "target", "y", "digit")
LARGEST = 1 << 33  # bytes of text
MANY = 1 << 23  # bytes of text above which a faster reader is worth loading
EXACT = 1 << 24  # from here on float32 does not have every integer


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
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is in UTF-16: save it as UTF-8")
    text = text.removeprefix(codecs.BOM_UTF8)
    first, _, rest = text.partition(b"\n")
    cells, header = _first_row(first)
    if len(cells) < 5:
        columns = f"{len(cells)} column{'' if len(cells) == 1 else 's'}"
        raise DataError(f"{path} has {columns}, expected a label and at least four pixels, separated by commas")
    at = _label_column(cells, header)
    if at is None:
        raise DataError(f"{path} has no label column ({', '.join(LABELS[:3])}): name a table with labels to train on")
    values, labels = _cells(rest if header else text, at, len(cells), path, above=int(header))
    return Part(values, labels, str(path))


def has_labels(path: Path) -> bool:
    """Whether a table has a column of labels, judged by its first row."""
    with open_content(path) as (stream, _):
        first = stream.readline(1 << 24)
    return _label_column(*_first_row(first)) is not None


def _first_row(line: bytes) -> tuple[list[str], bool]:
    """The cells of the first row in lower case, and whether they are column names; empty cells are numbers that are missing."""
    text = line.decode("utf-8-sig", "replace")
    try:
        found = next(csv.reader([text]), []) or [""]
    except csv.Error:
        found = text.split(",")
    cells = [cell.strip().strip('"').lower() for cell in found]
    return cells, not all(not cell or _number(cell) for cell in cells[1:])


def _label_column(cells: list[str], header: bool) -> int | None:
    """The column of the labels: the one with that name; the first if columns have no names or if the first one's name is not that of a
    pixel."""
    if not header:
        return 0
    named = next((cells.index(name) for name in LABELS if name in cells), None)
    return 0 if named is None and not cells[0].startswith(("pixel", "px", "p0", "1x1", "0", "1")) else named


def _cells(text: bytes, at: int, columns: int, path: Path, above: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(pixels, labels) of the rows of a table, which begin after `above` lines."""
    if not text.strip():
        raise DataError(f"{path} has no rows below its header: get a new copy")
    numbers: Any = _quickly(text, columns) if len(text) >= MANY else None
    try:
        if numbers is None:
            numbers = _numbers(text, None)
    except ValueError:  # the classes may have names, which are read separately
        labels = np.array(_labels(text, at, columns, path, above))
        try:
            return _numbers(text, [index for index in range(columns) if index != at]), labels
        except ValueError as error:
            raise _damaged(path, _first_damage(text, at, columns, above) or reason_of(error)) from None
    if numbers.shape[1] != columns:
        raise DataError(f"{path} has rows of {numbers.shape[1]} cells below a header of {columns}: get a new copy")
    labels = numbers[:, at]
    if not (abs(labels) < EXACT).all():  # in float32, two of them may be one
        labels = _exact(_labels(text, at, columns, path, above))
    return np.delete(numbers, at, axis=1), labels


def _numbers(text: bytes, columns: list[int] | None) -> NDArray[np.float32]:
    """The numbers of all columns, or of these; ValueError for anything else."""
    options: dict[str, Any] = {"delimiter": ",", "comments": None, "quotechar": '"', "encoding": "utf-8"}
    return np.loadtxt(io.BytesIO(text), dtype=np.float32, ndmin=2, usecols=columns, **options)


def _rows(text: bytes, above: int, errors: str = "strict") -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, each with the number of its line in the file."""
    rows = csv.reader(io.TextIOWrapper(io.BytesIO(text), encoding="utf-8", errors=errors, newline=""))
    for cells in rows:
        if cells:
            yield above + rows.line_num, cells


def _labels(text: bytes, at: int, columns: int, path: Path, above: int) -> list[str]:
    """The labels as they are written. DataError for a row of another length, or without a label: names must be those of classes."""
    found = []
    try:
        for line, cells in _rows(text, above):
            if len(cells) != columns:
                raise _damaged(path, _of_length(line, cells, columns))
            found.append(cells[at].strip())
            if not found[-1]:
                raise DataError(f"{path}, line {line}, has no label: add it, or remove the row")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} has labels that are not UTF-8 ({shortened(reason_of(error), 150)}): save it in that encoding") from None
    except csv.Error as error:
        raise _damaged(path, reason_of(error)) from None
    return found


def _exact(labels: list[str]) -> NDArray[Any]:
    try:
        return np.array([int(label) for label in labels], np.int64)
    except (ValueError, OverflowError):
        return np.array([float(label) for label in labels])


def _first_damage(text: bytes, at: int, columns: int, above: int) -> str:
    """What is wrong with the first row that is not one of `columns` numbers, the label at `at` aside; empty if all are."""
    try:
        for line, cells in _rows(text, above, "replace"):
            if len(cells) != columns:
                return _of_length(line, cells, columns)
            for index, cell in enumerate(cells):
                if index != at and not _number(cell):
                    return f"line {line}, column {index + 1}: {shown(cell)} is no number"
    except csv.Error:
        pass
    return ""


def _of_length(line: int, cells: list[str], columns: int) -> str:
    return f"line {line} has {len(cells)} cell{'' if len(cells) == 1 else 's'}, and the first one {columns}"


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be read as a table of numbers ({shortened(why, 150)}): fix that row")


def _quickly(text: bytes, columns: int) -> NDArray[np.float32] | None:
    """The numbers of a large table, read with pyarrow; None if it is not installed or cannot read the table."""
    try:
        import pyarrow
        from pyarrow import csv as quick

        kinds = {f"f{column}": pyarrow.float32() for column in range(columns)}
        table = quick.read_csv(
            pyarrow.py_buffer(text),
            read_options=quick.ReadOptions(autogenerate_column_names=True),
            convert_options=quick.ConvertOptions(column_types=kinds, null_values=[]),
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

"""History rows as lines of a CSV file, so that a checkpoint beside that file need not repeat them.

A checkpoint is rewritten every time and would grow by a row per epoch: over thousands of epochs, the bytes written would be quadratic.
"""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
import zlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from gpucnn.errors import GpucnnError
from gpucnn.files import regular_file
from gpucnn.text import cell, message, plain, reason_of

Row = dict[str, float]


def lines(columns: Sequence[str], rows: Sequence[Row], *, header: bool = False) -> str:
    """Rows as text, one per line. Numbers can be read back exactly. A name with line ends or other controls is written with escapes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow([cell(name) for name in columns])
    writer.writerows([_written(row.get(name, "")) for name in columns] for row in rows)
    return text.getvalue()


def _written(value: Any) -> Any:
    return cell(value) if isinstance(value, str) else value


def checksum(rows: Sequence[Row], start: int = 0) -> int:
    """A checksum of names and values that does not depend on the order of columns, and can be continued row by row."""
    for row in rows:
        start = zlib.crc32(json.dumps(row, sort_keys=True).encode(), start)
    return start


def returns(row: Row) -> bool:
    """Whether a row survives being written as text and read again: numbers do whose names need no escapes."""
    return all(
        isinstance(name, str) and cell(name) == name and isinstance(value, int | float) and type(value) is not bool
        for name, value in row.items()
    )


def left(path: Path, rows: Sequence[Row], logs: Sequence[Any]) -> dict[str, Any]:
    """The part of a checkpoint at `path` that describes the history: all rows; or the last row and the CSV file with the others, if one of
    `logs` writes to the same folder and its file holds exactly these rows."""
    for log in logs:
        if rows and os.path.abspath(log.path.parent) == os.path.abspath(path.parent) and log.holds(rows):
            return {"history": list(rows[-1:]), "history file": {"name": log.path.name, "rows": len(rows), "checksum": log.checksum}}
    return {"history": list(rows)}


def found(path: Path, description: dict[str, Any]) -> list[Row]:
    """The rows that were passed to `left`. If the file is missing or has changed: a warning, and the last row only.

    Raises KeyError, TypeError or ValueError for a description that `left` never returns.
    """
    kept = [dict(row) for row in description["history"]]
    noted = description.get("history file")
    if noted is None:
        return kept
    name, count, expected = noted["name"], noted["rows"], noted["checksum"]
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"its history is in {plain(name)!r}, which is not a file beside it")
    if type(count) is not int or count < 1:
        raise ValueError(f"its history has {count!r} rows")
    try:
        rows = _read(path.parent / name, count)
        if checksum(rows) == expected:
            return rows
        why = "it was changed, or belongs to another run"
    except (OSError, ValueError, TypeError, AttributeError, GpucnnError, csv.Error) as error:
        why = reason_of(error)
    warnings.warn(
        message(f"the history continues without its first epochs: {path.parent / name}, which contains them, cannot be used: {why}"),
        stacklevel=5,
    )
    return kept


def _read(path: Path, count: int) -> list[Row]:
    with open(regular_file(path, "a history"), newline="", encoding="utf-8") as file:
        return [{name: _number(text) for name, text in row.items() if text} for row in islice(csv.DictReader(file), count)]


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)

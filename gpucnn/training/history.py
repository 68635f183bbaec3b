"""The history of a run, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from gpucnn import notebook
from gpucnn.files import write_atomically
from gpucnn.metrics import METRICS
from gpucnn.text import plain
from gpucnn.training.rows import Row, lines


class History(Mapping[str, list[float]]):
    """The results of each epoch: history["val_accuracy"] is a list with one value per epoch; `rows` has the epochs as dicts."""

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows = rows if rows is not None else []

    def __getitem__(self, name: str) -> list[float]:
        if not any(name in row for row in self.rows):
            raise KeyError(name)
        return [row[name] for row in self.rows if name in row]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(list(iter(self)))

    @property
    def history(self) -> dict[str, list[float]]:
        """The history as a dict of lists, as in Keras; second names such as "acc" also work."""
        return _Lists(self)

    def __repr__(self) -> str:
        last = ", ".join(f"{plain(name)} {value:.4g}" for name, value in (self.rows[-1] if self.rows else {}).items() if name != "epoch")
        return f"<History of {len(self.rows)} epoch{'' if len(self.rows) == 1 else 's'}{': ' if last else ''}{last}>"

    def _repr_html_(self) -> str:
        """A table of the epochs and their curves, for notebooks."""
        names = list(self)
        shown = [*self.rows[:20], *self.rows[-5:]] if len(self.rows) > 30 else self.rows
        rows = [[_shown(name, row[name]) if name in row else "" for name in names] for row in shown]
        left = f"{len(self.rows) - len(shown)} epochs are left out" if len(shown) < len(self.rows) else ""
        pictures = []
        for name in ("loss", "accuracy"):
            lines = {
                label: [(row["epoch"], row[key]) for row in self.rows if key in row and "epoch" in row]
                for label, key in (("training", name), ("validation", f"val_{name}"))
            }
            pictures.append(notebook.curves(name, lines))
        return notebook.table(names, rows, heading=f"{len(self.rows)} epochs", below=left) + "".join(pictures)

    def to_csv(self, path: str | Path) -> None:
        """Writes one line per epoch, with a header."""
        content = lines(list(self), self.rows, header=True).encode()
        write_atomically(path, lambda file: file.write(content))


def _shown(name: str, value: float) -> str:
    if "accuracy" in name:
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if name in ("epoch", "images_per_second") else f"{value:.4g}"


class _Lists(dict[str, list[float]]):
    def __missing__(self, name: str) -> list[float]:
        meant = METRICS.meant(str(name).removeprefix("val_"))
        key = f"val_{meant}" if str(name).startswith("val_") else meant
        if key is None or key not in self:
            raise KeyError(name)
        return self[key]

"""Options and arguments that several commands have, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import gpucnn
from gpucnn.data import datasets
from gpucnn.device import NAMES as DEVICES
from gpucnn.errors import CheckpointError

SETS = datasets.choices_text()

DataDir = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where the files of MNIST or Fashion-MNIST are, or are downloaded to.", show_default=False),
]
Device = Annotated[str, typer.Option(metavar="NAME", help=f"{', '.join(DEVICES)}; auto takes a GPU where there is one.")]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors that train wrote.", show_default=False)]


def whole(text: str) -> int:
    """Typer's own words for a value that is no number leave out the value."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None


def class_names(network: gpucnn.Sequential, path: Path) -> list[str] | None:
    """The classes that the model was trained on; None where its file does not say."""
    names = network.metadata.get("class_names")
    if names is None:
        return None
    if not isinstance(names, list) or [str(name) for name in names] != names or len(names) != network.output_shape[0]:
        raise CheckpointError(f"{path} has {network.output_shape[0]} outputs and does not name as many classes: train it anew")
    return names

"""Options and arguments that several commands share, and parsers for their values."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated

import typer

from gpucnn import answers
from gpucnn.data import datasets
from gpucnn.device import NAMES as DEVICES
from gpucnn.precision import MODES

SETS = datasets.choices_text()


def named(text: str) -> Path:
    """Refuses an empty path, which Path() takes for the current folder: a shell makes one of a variable that is not set."""
    if not str(text):
        raise typer.BadParameter("the path is empty: name a file or a folder, or . for the current one")
    return Path(text)


def filled(text: str) -> str:
    """Refuses an empty name, as `named` does an empty path: it would count as an option that was left out."""
    if not str(text):
        raise typer.BadParameter("it is empty: give a name or a path, or leave the option out")
    return text


def in_any_case(names: Collection[str]) -> Callable[[str], str]:
    """A parser that takes `names` in capitals as well, as models, optimizers and data sets are taken. It leaves any other word as it is,
    for the error of whoever looks it up."""
    return lambda text: text.lower() if text.lower() in names else text


DataDir = Annotated[
    Path | None,
    typer.Option(
        parser=named,
        metavar="FOLDER",
        help="Folder with the files of a named data set, also for downloads. It must exist, and no other folder is searched.",
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(parser=in_any_case(DEVICES), metavar="NAME", help=f"{', '.join(DEVICES)}; auto uses a GPU if there is one."),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="MODE",
        help=f"How exact convolutions and dense layers are on a GPU's tensor cores: {', '.join(MODES)}. high allows factors rounded to "
        "11 bits (TF32), medium to 8 (bfloat16); on a CPU nothing changes.",
    ),
]
ModelFile = Annotated[
    Path, typer.Argument(parser=named, metavar="MODEL", help="A model.safetensors that train wrote, or its folder.", show_default=False)
]
Invert = Annotated[
    str,
    typer.Option(
        parser=in_any_case(answers.INVERT),
        metavar="WHEN",
        help=f"{', '.join(f'{name} ({words})' for name, words in answers.INVERT.items())}: images on a light background if the training "
        "images were on a dark one, or the other way round.",
    ),
]


def whole(text: str) -> int:
    """Replaces Typer's message for a value that is not a number, which does not name the value."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an integer") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None

"""gpucnn view"""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import gpucnn
from gpucnn import experiment
from gpucnn.answers import images_of
from gpucnn.cli.options import ModelFile, in_any_case, named
from gpucnn.cli.program import app
from gpucnn.errors import CheckpointError
from gpucnn.files import check_target
from gpucnn.layers import LAYERS
from gpucnn.surroundings import say, user_path
from gpucnn.text import bytes_text, listed, shown
from gpucnn.training.checkpoint import TensorFile


@app.command(short_help="Write a page that shows the output of every layer for an image.")
def view(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", parser=named, metavar="FILE", help="The page.")] = Path("view.html"),
    images: Annotated[
        list[Path] | None,
        typer.Option(
            parser=named,
            metavar="FILE|FOLDER",
            help="Images to offer on the page; can be repeated. [default: a test image of each class]",
            show_default=False,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            parser=named, metavar="FOLDER", help="Folder with the files of a named data set; nothing is downloaded.", show_default=False
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            parser=in_any_case(("float32", "float16")),
            metavar="NAME",
            help="Type of the weights: float32, or float16 for a page of half the size.",
        ),
    ] = "float32",
    opened: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Write one page, with everything in it, that shows the network at work: draw, and every layer responds.

    The page needs no network and no server: it can be mailed, put on the web, and opened on a phone.
    """
    from gpucnn import viewing
    from gpucnn.viewing import pictures

    path, target = experiment.model_file(model), user_path(output)
    shown_there = images_of(images or [])
    check_target(target, "-o", {"the model itself": [path], **experiment.run_files(path), "one of the images": shown_there})
    network = _loaded(path)
    if images:
        chosen = pictures.of_files(network, shown_there, listed(images))
    else:
        chosen = pictures.of_training(network, path, None if data_dir is None else user_path(data_dir))
    if chosen.note:
        say(f"note: {chosen.note}")
    viewing.write(network, target, chosen, title="" if network.metadata.get("network") else pictures.folder_of(path), dtype=dtype)
    say(f"wrote     {output} ({bytes_text(target.stat().st_size)}): open it in any browser")
    if opened and _has_browser():
        webbrowser.open(target.absolute().as_uri())


def _loaded(path: Path) -> gpucnn.Sequential:
    """The model in a file. CheckpointError explains what to do about a layer of the user's own, which only the user's program can
    create."""
    try:
        return gpucnn.load(path, device="cpu")
    except CheckpointError:
        with TensorFile(path) as file:
            unknown = [name for name in _layers(file.description.get("model")) if name not in LAYERS]
        if not unknown:
            raise
        raise CheckpointError(
            f"{path} has a layer {shown(unknown[0])}, which gpucnn does not know: in a program that has it, gpucnn.register it, load the "
            "model, and call gpucnn.viewing.write(model, 'view.html', images=images)"
        ) from None


def _layers(described: Any) -> Iterator[str]:
    """The kinds of layers named anywhere in a description."""
    if isinstance(described, dict):
        if isinstance(described.get("layer"), str):
            yield described["layer"]
        described = list(described.values())
    if isinstance(described, list):
        for part in described:
            yield from _layers(part)


def _has_browser() -> bool:
    """Whether there is a screen to show a page on; a text browser would not do."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

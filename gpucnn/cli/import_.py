"""gpucnn import"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from gpucnn import experiment
from gpucnn.cli.options import filled, named, whole
from gpucnn.cli.program import app
from gpucnn.errors import ArgumentError, DataError
from gpucnn.files import check_target, regular_file
from gpucnn.networks import NETWORKS
from gpucnn.surroundings import complain, say, user_path
from gpucnn.text import number_of, reason_of

KINDS = ".onnx, .keras, .safetensors, .pt, .pth"
LONGEST = 1 << 24  # bytes of a map of names


@app.command("import", short_help="Convert a model from PyTorch, Keras or ONNX.")
def import_(
    file: Annotated[Path, typer.Argument(parser=named, metavar="FILE", help=f"{KINDS}.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", parser=named, metavar="MODEL", help="The model.safetensors to write.", show_default=False)
    ],
    network: Annotated[
        str | None,
        typer.Option(
            parser=filled,
            metavar="NAME|MODEL",
            help=f"The network for a file of weights (.safetensors, .pt): {NETWORKS}, or a model.safetensors of gpucnn, or its folder.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(parser=whole, metavar="N", help="Number of classes, for a network by name. [default: 10]", show_default=False),
    ] = None,
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="SIZES",
            help="Shape of an example, in the file's order of axes, for a network by name or if the file leaves it open: 3x32x32. "
            "[default: 1x28x28]",
            show_default=False,
        ),
    ] = None,
    map_: Annotated[
        Path | None,
        typer.Option(
            "--map", parser=named, metavar="FILE", help="A JSON file that maps the file's modules or tensors to layers.", show_default=False
        ),
    ] = None,
) -> None:
    """Read a model of another library, with its weights, and write it as a gpucnn model.

    ONNX and .keras files describe a model. .safetensors and .pt files hold weights only, so name their network. Nothing in a file is
    executed. If some layers cannot be imported, they are named and nothing is written.
    """
    from gpucnn.exchange import NotTakenError, import_model

    if network is not None and NETWORKS.meant(network) is None and os.path.isdir(user_path(network)):
        network = str(experiment.model_file(Path(network)))
    target = user_path(output)
    read = {"the file that is imported": file, "the map of names": map_, "the model that is the network": network}
    check_target(target, "-o", {what: [path] for what, path in read.items() if path})
    try:
        model = import_model(file, network=network, classes=classes, input_shape=_sizes(input_), names=_names(map_), device="cpu")
    except NotTakenError as error:
        if len(error.problems) > 1:
            for problem in error.problems:
                complain(f"  {problem}")
        raise
    model.save(target)
    layers = number_of(len([part for layer in model.layers for part in layer.layers]), "layer")
    parameters, size = number_of(model.parameter_count, "parameter"), "×".join(map(str, model.input_shape))
    say(f"read      {file}: {layers}, {parameters}, input {size}")
    note = model.metadata.get("note")
    if note:
        say(f"note: {note}")
    say(f"wrote     {output}")


def _sizes(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise ArgumentError(f"--input {text!r} must be sizes separated by x, such as 3x32x32")
    return tuple(int(part) for part in parts)


def _names(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    file = regular_file(path, "a map of names", empty=False)
    if file.stat().st_size > LONGEST:
        raise DataError(f"{file} has {file.stat().st_size:,} bytes; the limit for a map of names is {LONGEST:,}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f'{file} is not JSON ({reason_of(error)}): write {{"their.module": "gpucnn.layer"}}') from None
    if not isinstance(found, dict):
        raise DataError(f'{file} must contain an object, {{"their.module": "gpucnn.layer"}}')
    return found

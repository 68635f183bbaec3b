"""gpucnn export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import gpucnn
from gpucnn import experiment
from gpucnn.cli.options import ModelFile, named
from gpucnn.cli.program import app
from gpucnn.errors import ArgumentError
from gpucnn.files import check_target
from gpucnn.surroundings import say, user_path


@app.command(short_help="Write a model as ONNX, for other programs to run.")
def export(
    model: ModelFile,
    output: Annotated[Path, typer.Argument(parser=named, metavar="FILE", help="The .onnx file to write.", show_default=False)],
    logits: Annotated[bool, typer.Option("--logits", help="Raw outputs instead of probabilities.")] = False,
) -> None:
    """Write a model as ONNX, for other programs to run.

    One input, (batch, channels, height, width) of pixels divided by 255, and one output, probabilities of the classes; batches of any size.
    """
    from gpucnn.exchange import export_onnx

    if output.suffix.lower() != ".onnx":
        raise ArgumentError(f"{output} must end in .onnx, the only format that is written")
    check_target(user_path(output), "FILE", {})
    network = gpucnn.load(experiment.model_file(model), device="cpu")
    export_onnx(experiment.compiled(network), user_path(output), logits=logits)
    say(f"wrote     {output}")

"""gpucnn predict"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import gpucnn
from gpucnn import answers, experiment
from gpucnn.checks import integer
from gpucnn.cli.options import Device, ModelFile, whole
from gpucnn.cli.program import app
from gpucnn.data.images import resized
from gpucnn.errors import CheckpointError
from gpucnn.surroundings import say, user_path


@app.command(short_help="Print the class of each image, and its probability.")
def predict(
    model: ModelFile,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="PNG, JPEG or .npy files of its size, or folders of them.", show_default=False),
    ],
    top: Annotated[int, typer.Option(parser=whole, metavar="N", help="How many classes to name, the most probable first.")] = 1,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the answers as a table.", show_default=False)] = None,
    device: Device = "auto",
) -> None:
    """Print the class of each image, and how probable the model takes it to be."""
    import numpy as np

    top = integer(top, "top", 1)
    network = gpucnn.load(model, device=device)
    loaded, files = [], answers.images_of(images)
    for path in files:  # all are read before the first is answered: a bad one at the end is told at once
        image = gpucnn.data.read_image(path)
        size = experiment.noted_size(network)
        if size is not None and image.shape[1:] != size:
            say(f"note: {path}, {image.shape[1]}×{image.shape[2]}, was brought to {size[0]}×{size[1]}, as the images of the training were")
            image = resized(image, size)
        loaded.append(experiment.fit_to(network, image, str(path)))
    if network.loss is None:
        network.compile()  # the loss knows how raw outputs become probabilities
    probabilities = network.predict(np.stack(loaded))
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise CheckpointError(f"{model} is no classifier: its outputs, {network.output_shape} of an image, are no probabilities of classes")
    names = experiment.class_names(network, model) or [str(number) for number in range(probabilities.shape[1])]
    for line in answers.lines(files, probabilities, names, top):
        say(line)
    if csv is not None:
        answers.write_csv(user_path(csv), files, probabilities, names, top)
        say(f"wrote     {csv}")

"""gpucnn evaluate"""

from __future__ import annotations

from typing import Annotated

import typer

import gpucnn
from gpucnn import experiment
from gpucnn.checks import integer
from gpucnn.cli.options import SETS, DataDir, Device, ModelFile, whole
from gpucnn.cli.program import app
from gpucnn.cli.progress import Downloads
from gpucnn.errors import ShapeError
from gpucnn.surroundings import say, user_path
from gpucnn.text import listed


@app.command(short_help="Print the loss and the accuracy of a model.")
def evaluate(
    model: ModelFile,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER", help=f"{SETS}. [default: what the model was trained on]", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    seed: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="Of the images that are held back for testing, in a folder without train and test. [default: the one it was trained with]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the loss and the accuracy of a model on the test images of a data set."""
    network = gpucnn.load(model, device=device)
    if network.loss is None:
        network.compile()
    name, noted = (dataset, None) if dataset else experiment.trained_on(network, user_path(model))
    # With another seed, images that the model was trained on would be among those that it is tested on.
    drawn = network.seed if seed is None else integer(seed, "seed", 0)
    size = experiment.noted_size(network) if user_path(name).is_dir() else None
    data = experiment.load_data(name, data_dir or noted, drawn, say, Downloads(), size)
    images = experiment.fit_to(network, data.test_images, f"an image of {data.name}")
    names = experiment.class_names(network, model)
    if names is not None and list(data.class_names) != names:
        raise ShapeError(
            f"the model knows the classes {listed(names)}, and {data.name} has {listed(data.class_names)}: "
            "give the data set that it was trained on, or one with the same classes"
        )
    loss, accuracy = network.evaluate(images, data.test_labels)
    say(f"data      {data.name}: {data.source}")
    say(f"test loss {loss:.4f}")
    say(f"test accuracy {100 * accuracy:.2f} %")

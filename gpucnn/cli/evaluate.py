"""gpucnn evaluate"""

from __future__ import annotations

from typing import Annotated

import typer

import gpucnn
from gpucnn import answers, experiment, report
from gpucnn.checks import integer, pick
from gpucnn.cli.options import SETS, DataDir, Device, Invert, ModelFile, Precision, filled, whole
from gpucnn.cli.program import app
from gpucnn.cli.progress import Downloads
from gpucnn.data import files_of
from gpucnn.errors import ShapeError
from gpucnn.metrics import confusion_matrix
from gpucnn.precision import mode, note_of, using
from gpucnn.surroundings import say, user_path
from gpucnn.text import listed
from gpucnn.training.parallel import join


@app.command(short_help="Print the loss and the accuracy of a model.")
def evaluate(
    model: ModelFile,
    dataset: Annotated[
        str | None,
        typer.Option(parser=filled, metavar="NAME|FOLDER", help=f"{SETS}. [default: what the model was trained on]", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    invert: Invert = "never",
    classes: Annotated[
        bool,
        typer.Option("--classes", help="Print one line per class: how many images were recognised, and what the others were predicted as."),
    ] = False,
    precision: Precision = "highest",
    device: Device = "auto",
    seed: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="Seed of the images held out for testing, for a folder without train and test. [default: the one of the training]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the loss and the accuracy of a model on the test images of a data set."""
    pick(invert, answers.INVERT, "way to invert")
    mode(precision)
    model = experiment.model_file(model)
    network = gpucnn.load(model, device=device)
    network.data_format = "channels_first"  # as images are read here, whatever arrays the model was made for
    experiment.compiled(network)
    name, noted = (dataset, None) if dataset is not None else experiment.trained_on(network, user_path(model))
    # With another seed, images that the model was trained on would be among those that it is tested on.
    drawn = network.seed if seed is None else integer(seed, "seed", 0)
    size = experiment.taken_size(network) if files_of.holds_images(user_path(name)) else None
    data = join("auto").in_turn(lambda: experiment.load_data(name, data_dir or noted, drawn, say, Downloads(), size))
    images = experiment.fit_to(network, data.test_images, f"an image of {data.name}")
    names = experiment.class_names(network, model)
    if names is not None and list(data.class_names) != names:
        raise ShapeError(
            f"the model knows the classes {listed(names)}, and {data.name} has {listed(data.class_names)}: "
            "give the data set that it was trained on, or one with the same classes"
        )
    outputs = experiment.class_count(network)
    if len(network.output_shape) == 1 and outputs < data.classes:
        raise ShapeError(
            f"the model tells {outputs} classes apart, and {data.name} has {data.classes}: give the data set that it was trained on, or "
            "one with as many classes"
        )
    images, note = answers.turned(images, experiment.noted_background(network), invert)
    with using(precision):
        loss, accuracy = network.evaluate(images, data.test_labels, parallel="auto")
        probabilities = network.predict(images, parallel="auto") if classes else None
    say(f"data      {data.name}: {data.source}")
    for line in filter(None, (note, note_of(precision, network.device.kind))):
        say(f"note: {line}")
    say(f"test loss {loss:.4f}")
    if probabilities is not None:
        predicted = probabilities.argmax(axis=1) if probabilities.shape[1] > 1 else (probabilities[:, 0] > 0.5).astype(int)
        known = [*data.class_names, *(f"output {number}" for number in range(data.classes, outputs))]
        for line in report.lines(report.of_classes(confusion_matrix(data.test_labels, predicted, outputs), known)):
            say(line)
    say(f"test accuracy {100 * accuracy:.2f} %")

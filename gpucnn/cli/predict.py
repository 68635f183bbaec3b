"""gpucnn predict"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import gpucnn
from gpucnn import answers, experiment
from gpucnn.checks import integer, pick
from gpucnn.cli.options import Device, Invert, ModelFile, Precision, named, whole
from gpucnn.cli.program import app
from gpucnn.files import check_target
from gpucnn.precision import mode, note_of, using
from gpucnn.surroundings import say, user_path
from gpucnn.training.parallel import join


@app.command(short_help="Print the class of each image, and its probability.")
def predict(
    model: ModelFile,
    images: Annotated[
        list[Path],
        typer.Argument(
            parser=named, metavar="IMAGE", help="Images in any usual format, .npy files, or folders of them.", show_default=False
        ),
    ],
    top: Annotated[int, typer.Option(parser=whole, metavar="N", help="How many classes to name, the most probable first.")] = 3,
    csv: Annotated[
        Path | None, typer.Option(parser=named, metavar="FILE", help="Write the predictions as a CSV table.", show_default=False)
    ] = None,
    invert: Invert = "never",
    precision: Precision = "highest",
    device: Device = "auto",
) -> None:
    """Print the most probable classes of each image, and their probabilities according to the model.

    Images are converted to the size and the colours of the training images. Notes say which images were changed, and which look inverted.
    """
    top = integer(top, "top", 1)
    pick(invert, answers.INVERT, "way to invert")
    mode(precision)
    model = experiment.model_file(model)
    chosen, table = answers.images_of(images), None if csv is None else user_path(csv)
    if table is not None:
        check_target(table, "--csv", {"the model itself": [model], **experiment.run_files(model), "one of the images": chosen})
    network = gpucnn.load(model, device=device)
    # All images are read before the first prediction, so that a bad one at the end is reported at once.
    asked = answers.Images(network.input_shape).read(chosen)
    background = experiment.noted_background(network)
    loaded = asked.turn(background, invert)
    for note in filter(None, (*asked.notes(background, invert), note_of(precision, network.device.kind))):
        say(f"note: {note}")
    network.data_format = "channels_first"  # as images are read here, whatever arrays the model was made for
    ranks = join("auto")
    with using(precision):
        outputs = experiment.compiled(network).predict(loaded, parallel=ranks)
    probabilities = experiment.class_probabilities(network, model, outputs)
    names = experiment.class_names(network, model) or [str(number) for number in range(probabilities.shape[1])]
    try:  # before anything is printed: a reader such as head may end the program
        if table is not None and not ranks.rank:
            answers.write_csv(table, asked.paths, probabilities, names, top)
    finally:
        for line in answers.lines(asked.paths, probabilities, names, top):
            say(line)
    if table is not None:
        say(f"wrote     {csv}")

"""gpucnn train"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from gpucnn import experiment
from gpucnn.cli import together
from gpucnn.cli.options import SETS, DataDir, Device, Precision, filled, named, number, whole
from gpucnn.cli.program import app
from gpucnn.cli.progress import Downloads
from gpucnn.cli.stopping import say_unless_ended
from gpucnn.data.augment import choices
from gpucnn.networks import NETWORKS
from gpucnn.recipes import OpenRecipe, default_text, optimizers_text, rates_text
from gpucnn.schedules import SCHEDULES
from gpucnn.surroundings import say, user_path

DEFAULTS = experiment.Options()


@app.command(short_help="Train a network; write the model and pictures to a folder.")
def train(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(parser=filled, metavar="NAME|FOLDER", help=f"{SETS}.")] = DEFAULTS.dataset,
    data_dir: DataDir = None,
    model: Annotated[str, typer.Option(parser=filled, metavar="NAME", help=f"{NETWORKS}.")] = DEFAULTS.model,
    epochs: Annotated[
        int | None, typer.Option(parser=whole, metavar="N", help=f"Passes over the training images. {default_text('epochs')}")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(parser=whole, metavar="N", help=f"Images in a step. {default_text('batch_size')}")
    ] = None,
    optimizer: Annotated[str, typer.Option(metavar="NAME", help=f"{optimizers_text()}.")] = DEFAULTS.recipe.optimizer,
    lr: Annotated[
        float | None,
        typer.Option("--lr", parser=number, metavar="X", help=f"Peak learning rate. [default: {rates_text()}]"),
    ] = None,
    schedule: Annotated[
        str, typer.Option(metavar="NAME", help=f"Learning rate over the whole run: {SCHEDULES}.")
    ] = DEFAULTS.recipe.schedule,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Random changes to training images: {', '.join(choices())}. {default_text('augment')}",
        ),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            parser=number,
            metavar="X",
            help="Fraction of the training images to hold out for validation after every epoch; 0 for none. "
            f"{default_text('validation')[:-1]}, and for sets of your own]",
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW",
            help="Resize the images of a folder to this size: scaled until they cover it, then cropped about the centre.",
            show_default=False,
        ),
    ] = None,
    precision: Precision = DEFAULTS.precision,
    device: Device = "auto",
    seed: Annotated[
        int,
        typer.Option(parser=whole, metavar="N", help="Seed of initial values, order, augmentation, dropout and validation images."),
    ] = DEFAULTS.seed,
    output: Annotated[
        Path, typer.Option(parser=named, metavar="FOLDER", help="Where to write; an earlier run there is moved to previous-1 and so on.")
    ] = DEFAULTS.output,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint in the output folder, with the options of that run.")
    ] = False,
    checkpoint_every: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="Steps between checkpoints. Every epoch also ends with one.")
    ] = DEFAULTS.checkpoint_every,
    ranks: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="Train on N processes that share each batch, each on its own GPU or a part of the cores. MPI starts them.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a network, and write the model, its history and pictures of it to a folder.

    The defaults train MNIST well in a few epochs; a small set gets more epochs of smaller steps.
    """
    if ranks is not None and together.start(ranks, "--ranks"):
        return
    options = experiment.Options(
        dataset=dataset,
        data_dir=data_dir,
        model=model,
        recipe=OpenRecipe(
            optimizer=optimizer,
            learning_rate=lr,
            schedule=schedule,
            epochs=epochs,
            batch_size=batch_size,
            augment=augment,
            validation=validation,
        ),
        device=device,
        seed=seed,
        image_size=image_size,
        precision=precision,
        output=user_path(output),
        resume=resume,
        checkpoint_every=checkpoint_every,
        given=frozenset(name for name in experiment.OPTIONS if was_named(context, name)),
    )
    outcome = experiment.train(options, say_unless_ended, Downloads())
    for path in outcome.files:
        say(f"wrote     {path}")
    say(f"look      gpucnn view {shlex.quote(str(output))} writes a page that shows what each layer does")
    say(f"test accuracy {100 * outcome.accuracy:.2f} %")


def was_named(context: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line; otherwise its value is a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"

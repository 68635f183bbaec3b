"""The command line: gpucnn train | evaluate | predict | info.

Whatever is refused ends in one sentence on stderr and exit status 2; GPUCNN_DEBUG=1 shows the traceback behind it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import gpucnn
from gpucnn import experiment, recipes
from gpucnn.device import NAMES as DEVICES
from gpucnn.device import get_device, why_no_cuda
from gpucnn.errors import GpucnnError, ShapeError
from gpucnn.networks import NETWORKS

app = typer.Typer(
    name="gpucnn",
    help="Train and run small convolutional networks: on an NVIDIA GPU with kernels in plain Python, or on the CPU with NumPy.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

DataDir = Annotated[Path | None, typer.Option(help="Where the idx files of MNIST or Fashion-MNIST are; they are downloaded there if not.")]
Device = Annotated[str, typer.Option(help=f"{', '.join(DEVICES)}.")]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors that train wrote.", show_default=False)]
DATASETS = "auto (MNIST where it can be had, otherwise digits), mnist, fashion-mnist, digits, or a folder of images"
SMALL_SET = f"under {recipes.SMALL:,} images"
RATES = ", ".join(f"{rate:g} for {name}" for name, rate in recipes.LEARNING_RATES.items())


@app.command()
def train(
    dataset: Annotated[str, typer.Option(help=f"{DATASETS}.")] = "auto",
    data_dir: DataDir = None,
    model: Annotated[str, typer.Option(help=f"{', '.join(NETWORKS)}.")] = "keras",
    epochs: Annotated[int | None, typer.Option(help=f"Passes over the training images. [default: 5; 40 for {SMALL_SET}]")] = None,
    batch_size: Annotated[int | None, typer.Option(help=f"Images in a step. [default: 128; 32 for {SMALL_SET}]")] = None,
    optimizer: Annotated[str, typer.Option(help=f"{', '.join(recipes.OPTIMIZERS)}; sgd with Nesterov momentum of 0.9.")] = "adam",
    lr: Annotated[float | None, typer.Option("--lr", help=f"Learning rate, at the schedule's peak. [default: {RATES}]")] = None,
    schedule: Annotated[str, typer.Option(help=f"{', '.join(recipes.SCHEDULES)}: of the learning rate, over the whole run.")] = "one-cycle",
    augment: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(recipes.AUGMENTATIONS)}: random changes to training images. [default: shift; none for {SMALL_SET}]"),
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Of all that is random: initial values, order, augmentation, dropout, held-back images.")] = 0,
    output: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("runs/latest"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the output folder.")] = False,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints; there is one after every epoch as well.")] = 200,
) -> None:
    """Train a network, and write the model, its history and pictures of it to a folder.

    The default recipe is Adam under a one-cycle schedule, with training images shifted by up to a pixel at random.
    """
    options = experiment.Options(
        dataset=dataset,
        data_dir=data_dir,
        model=model,
        recipe=recipes.recipe(optimizer, lr, schedule, epochs, batch_size, augment),
        device=device,
        seed=seed,
        output=output,
        resume=resume,
        checkpoint_every=checkpoint_every,
    )
    with _Downloads() as downloads:
        try:
            outcome = experiment.train(options, _say, downloads)
        except KeyboardInterrupt:
            if (output / experiment.CHECKPOINT).exists():
                print(f"\nstopped; the same command with --resume goes on from {output / experiment.CHECKPOINT}", file=sys.stderr)
            raise
    for path in outcome.files:
        _say(f"wrote     {path}")
    _say(f"test accuracy {100 * outcome.accuracy:.2f} %")


@app.command()
def evaluate(
    model: ModelFile,
    dataset: Annotated[str | None, typer.Option(help=f"{DATASETS}. [default: what the model was trained on]", show_default=False)] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Of the images that are held back for testing, in a folder without train and test.")] = 0,
) -> None:
    """Print the loss and the accuracy of a model on the test images of a data set."""
    network = gpucnn.load(model, device=device)
    if network.loss is None:
        network.compile()
    with _Downloads() as downloads:
        name = dataset or network.metadata.get("dataset", "auto")
        data = gpucnn.load_dataset(name, data_dir, seed=seed, progress=downloads)
    if data.note:
        _say(f"note: {data.note}")
    experiment.check_fits(network, data.image_shape, f"an image of {data.name}")
    names = network.metadata.get("class_names")
    if names is not None and list(data.class_names) != names:
        raise ShapeError(f"the model knows the classes {', '.join(names)}, and {data.name} has {', '.join(data.class_names)}")
    loss, accuracy = network.evaluate(data.test_images, data.test_labels)
    _say(f"data      {data.name}: {data.source}")
    _say(f"test loss {loss:.4f}")
    _say(f"test accuracy {100 * accuracy:.2f} %")


@app.command()
def predict(
    model: ModelFile,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG or .npy, of the model's size.", show_default=False)],
    device: Device = "auto",
) -> None:
    """Print the class of each image, and how probable the model takes it to be."""
    import numpy as np

    network = gpucnn.load(model, device=device)
    loaded = []
    for path in images:  # all are read before the first is answered: a bad one at the end is told at once
        image = gpucnn.data.read_image(path)
        experiment.check_fits(network, image.shape, str(path))
        loaded.append(image)
    names = network.metadata.get("class_names") or [str(number) for number in range(network.output_shape[0])]
    probabilities = network.predict(np.stack(loaded))
    width = max(len(str(path)) for path in images)
    label_width = max(map(len, names))
    for path, row in zip(images, probabilities, strict=True):
        best = int(row.argmax())
        _say(f"{str(path):<{width}}  {names[best]:<{label_width}}  {100 * row[best]:5.1f} %")


@app.command()
def info() -> None:
    """Print versions, the device that "auto" takes, and what is missing for the GPU if that is the CPU."""
    rows = [("gpucnn", gpucnn.__version__), ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for name in ("numpy", "numba", "numba-cuda", "cupy-cuda12x", "cupy-cuda13x", "safetensors", "scikit-learn", "pillow", "matplotlib"):
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            if not name.startswith("cupy"):
                rows.append((name, "not installed"))
    device = get_device("auto")
    rows.append(("device", f"{device.kind}: {device.name}"))
    if device.kind == "cpu":
        from gpucnn.ops.cpu._threads import threads

        rows.append(("threads", str(threads())))
        rows.append(("no GPU", why_no_cuda() or ""))
    for name, value in rows:
        _say(f"{name:<13} {value}")


def main() -> None:
    """Runs the command line and exits: 0, 2 for whatever is refused, 130 after Ctrl-C."""
    try:
        status = app(standalone_mode=False)
    except KeyboardInterrupt:
        status = 130
    except typer.Abort:
        status = 130
    except Exception as error:
        if os.environ.get("GPUCNN_DEBUG"):
            raise
        status = 2
        if hasattr(error, "format_message"):  # of the parser: an unknown option, a value of another type
            message = error.format_message()
            hint = "" if "\n" in message else "; see gpucnn --help"
            print(f"gpucnn: {message.rstrip('.')}{hint}", file=sys.stderr)
        elif isinstance(error, (GpucnnError, ValueError, TypeError, OSError, MemoryError)):
            print(f"gpucnn: {_sentence(error)}", file=sys.stderr)
        else:
            print(
                f"gpucnn: this is a bug, {type(error).__name__}: {error} (set GPUCNN_DEBUG=1 for the traceback, and please report it)",
                file=sys.stderr,
            )
    sys.exit(status if isinstance(status, int) else 0)


def _say(line: str) -> None:
    print(line, flush=True)


def _sentence(error: Exception) -> str:
    if isinstance(error, GpucnnError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory ({error}): use a smaller batch size"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}: free some room or name another folder" if error.errno == 28 else f"{where}{error.strerror}"
    return str(error) or type(error).__name__


class _Downloads:
    """A progress bar for downloads that appears when the first one starts; a line for each where the output is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Downloads:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, name: str, done: int, total: int | None) -> None:
        if not sys.stdout.isatty():
            if name not in self._tasks:
                _say(f"downloading {name}")
                self._tasks[name] = True
            return
        if self._bar is None:
            from rich import progress

            self._bar = progress.Progress(*progress.Progress.get_default_columns(), progress.DownloadColumn())
            self._bar.start()
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total)
        self._bar.update(self._tasks[name], completed=done, total=total)
        if total is not None and done >= total and all(task.finished for task in self._bar.tasks):
            self._bar.refresh()


if __name__ == "__main__":
    main()

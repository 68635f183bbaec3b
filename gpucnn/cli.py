"""The command line: gpucnn train | evaluate | predict | profile | tune | info.

Whatever is refused ends in one sentence on stderr and exit status 2; GPUCNN_DEBUG=1 shows the traceback behind it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import gpucnn
from gpucnn import answers, experiment, starting
from gpucnn.checks import integer
from gpucnn.data import datasets
from gpucnn.data.augment import choices
from gpucnn.data.images import resized
from gpucnn.device import NAMES as DEVICES
from gpucnn.device import get_device, why_not_auto
from gpucnn.errors import CheckpointError, DeviceError, GpucnnError, ShapeError
from gpucnn.networks import NETWORKS
from gpucnn.recipes import OpenRecipe, default_text, optimizers_text, rates_text
from gpucnn.schedules import SCHEDULES
from gpucnn.surroundings import complain, flag, is_terminal, say, user_path
from gpucnn.text import listed, message, plain

STOPPED = (130, 143, 129)  # by Ctrl-C, SIGTERM, SIGHUP

app = typer.Typer(
    name="gpucnn",
    help="Train and run small convolutional networks: on an NVIDIA GPU with kernels in plain Python, or on the CPU with NumPy.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _whole(text: str) -> int:
    """Typer's own words for a value that is no number leave out the value."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None


def _version(asked: bool) -> None:
    if asked:
        say(f"gpucnn {gpucnn.__version__}")
        raise typer.Exit


DataDir = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where the files of MNIST or Fashion-MNIST are, or are downloaded to.", show_default=False),
]
Device = Annotated[str, typer.Option(metavar="NAME", help=f"{', '.join(DEVICES)}; auto takes a GPU where there is one.")]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors that train wrote.", show_default=False)]
SETS = datasets.choices_text()
DEFAULTS = experiment.Options()  # of train
PACKAGES = (
    "numpy", "numba", "numba-cuda", "cupy", "cupy-cuda12x", "cupy-cuda13x", "safetensors", "scikit-learn", "pillow", "matplotlib",
)  # fmt: skip


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """What stands before the command: --version alone, which has been dealt with by now."""


@app.command(short_help="Train a network; write the model and pictures of it to a folder.")
def train(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(metavar="NAME|FOLDER", help=f"{SETS}.")] = DEFAULTS.dataset,
    data_dir: DataDir = None,
    model: Annotated[str, typer.Option(metavar="NAME", help=f"{NETWORKS}.")] = DEFAULTS.model,
    epochs: Annotated[
        int | None, typer.Option(parser=_whole, metavar="N", help=f"Passes over the training images. {default_text('epochs')}")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(parser=_whole, metavar="N", help=f"Images in a step. {default_text('batch_size')}")
    ] = None,
    optimizer: Annotated[str, typer.Option(metavar="NAME", help=f"{optimizers_text()}.")] = DEFAULTS.recipe.optimizer,
    lr: Annotated[
        float | None,
        typer.Option("--lr", parser=_number, metavar="X", help=f"Learning rate, at the schedule's peak. [default: {rates_text()}]"),
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
            parser=_number,
            metavar="X",
            help="Part of the training images that is held back to validate on after every epoch; 0 for none. "
            f"{default_text('validation')[:-1]}, and for sets of your own]",
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW",
            help="Bring the images of a folder to this size: scaled until they cover it, and cut about their centre.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    seed: Annotated[
        int,
        typer.Option(
            parser=_whole, metavar="N", help="Of all that is random: initial values, order, augmentation, dropout, held-back images."
        ),
    ] = DEFAULTS.seed,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where to write; an earlier run there is set aside to previous-1 and so on.")
    ] = DEFAULTS.output,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the output folder, with the options that it was begun with.")
    ] = False,
    checkpoint_every: Annotated[
        int, typer.Option(parser=_whole, metavar="N", help="Steps between checkpoints; there is one after every epoch as well.")
    ] = DEFAULTS.checkpoint_every,
) -> None:
    """Train a network, and write the model, its history and pictures of it to a folder.

    The defaults train MNIST well in a few epochs; a small set gets more epochs of smaller steps.
    """
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
        output=user_path(output),
        resume=resume,
        checkpoint_every=checkpoint_every,
        given=frozenset(name for name in experiment.OPTIONS if _was_named(context, name)),
    )
    outcome = experiment.train(options, _say_unless_ended, _Downloads())
    for path in outcome.files:
        say(f"wrote     {path}")
    say(f"test accuracy {100 * outcome.accuracy:.2f} %")


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
            parser=_whole,
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
    data = experiment.load_data(name, data_dir or noted, drawn, say, _Downloads(), size)
    images = experiment.fit_to(network, data.test_images, f"an image of {data.name}")
    names = _class_names(network, model)
    if names is not None and list(data.class_names) != names:
        raise ShapeError(
            f"the model knows the classes {listed(names)}, and {data.name} has {listed(data.class_names)}: "
            "give the data set that it was trained on, or one with the same classes"
        )
    loss, accuracy = network.evaluate(images, data.test_labels)
    say(f"data      {data.name}: {data.source}")
    say(f"test loss {loss:.4f}")
    say(f"test accuracy {100 * accuracy:.2f} %")


@app.command(short_help="Print the class of each image, and its probability.")
def predict(
    model: ModelFile,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="PNG, JPEG or .npy files of its size, or folders of them.", show_default=False),
    ],
    top: Annotated[int, typer.Option(parser=_whole, metavar="N", help="How many classes to name, the most probable first.")] = 1,
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
    names = _class_names(network, model) or [str(number) for number in range(probabilities.shape[1])]
    for line in answers.lines(files, probabilities, names, top):
        say(line)
    if csv is not None:
        answers.write_csv(user_path(csv), files, probabilities, names, top)
        say(f"wrote     {csv}")


@app.command(short_help="Measure where a training step's time goes, kernel by kernel.")
def profile(
    model: Annotated[str, typer.Option(metavar="NAME|FILE", help=f"{NETWORKS}, or a model.safetensors that train wrote.")] = "keras",
    batch_size: Annotated[
        int | None, typer.Option(parser=_whole, metavar="N", help="Images in the step. [default: 128]", show_default=False)
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="I", help="Only this layer: its number, counted from 1, or its name.", show_default=False)
    ] = None,
    op: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Only these: batch, conv, pool, pad, dense, bias, norm, activation, join, dropout, loss, update.",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="One operation, named by --op, in place of a model: for conv N,C,HxW,K,RxS[,stride[,padding]], such as "
            "128,32,14x14,64,5x5,1,same.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="torch", help="Beside PyTorch (cuDNN on a GPU), on the same shapes.", show_default=False)
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="CHIP",
            help="A chip that need not be here (T4, A100, RTX 4090, H100, H200, B200, sm_90): what the compiler and the roofline say.",
            show_default=False,
        ),
    ] = None,
    kernels: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="With --arch, in place of a step: the kernels with TEXT in their names, each by itself; all; or shapes, what the named "
            "shapes ask of the chip.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help=f"{', '.join(DEVICES)}; auto is the GPU, cpu measures NumPy's operations.")
    ] = "auto",
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the profile, to compare with.", show_default=False)] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a trace for ui.perfetto.dev or chrome://tracing.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page: roofline, timeline, sortable table.", show_default=False)
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An earlier profile (--json): print what got slower, beyond the noise.", show_default=False),
    ] = None,
    lineinfo: Annotated[
        bool, typer.Option("--lineinfo", help="Compile line numbers in, so that Nsight Compute shows Python source.")
    ] = False,
) -> None:
    """Where a training step's time goes, how far each kernel is from what the chip can do, and what to look at next.

    On a GPU kernels are measured; with --device cpu, NumPy's operations. With --arch nothing runs: the kernels are compiled for a chip
    that need not be here, and what is printed are bounds.
    """
    if lineinfo:
        os.environ["GPUCNN_LINEINFO"] = "1"  # read when the kernels are imported, which is below
    from gpucnn.profiling import records, run
    from gpucnn.profiling.show import compare as comparison
    from gpucnn.profiling.show import report

    outputs = run.Outputs(*(None if path is None else user_path(path) for path in (json, trace, html)))
    outputs.check()
    earlier = None if against is None else records.read(user_path(against))
    options = run.Options(model, batch_size, layer, op, shape, compare, device, arch, lineinfo, kernels)
    with _Status() as status:
        made = run.make(options, status)
    for line in report.lines(made):
        say(line)
    if earlier is not None:
        say("")
        for line in comparison.lines(earlier, made):
            say(line)
    for path in outputs.write(made):
        say(f"wrote     {path}")


@app.command(short_help="Measure which kernels are fastest on this GPU, and remember it.")
def tune(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help=f"Whose shapes: {NETWORKS}, or a model.safetensors; may be given several times. [default: all of these]",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Images in a step.")] = 128,
    forget: Annotated[bool, typer.Option("--forget", help="Delete what is remembered of this GPU, and measure nothing.")] = False,
) -> None:
    """Measures every kernel that can do each operation of a training step, and keeps what is clearly faster than what the rules choose.

    The table is in the user's cache ($GPUCNN_TUNED names another folder) and counts from the next run on.
    """
    from gpucnn.profiling import tune as tuning

    device = get_device("cuda")
    if device.xp.__name__ == "numpy":
        raise DeviceError("Numba's CUDA simulator is on, and its times say nothing: tune on a GPU")
    if forget:
        gone = tuning.forget()
        say(f"deleted   {gone}" if gone else "nothing was remembered of this GPU")
        return
    with _Status() as status:
        results, file = tuning.on_gpu(device, list(NETWORKS) if model is None else model, integer(batch_size, "batch size", 1), status)
    for line in tuning.lines(results):
        say(line)
    say(f"wrote     {file}")


@app.command(short_help="Print versions, the device, and what is missing for the GPU.")
def info() -> None:
    """Print versions, the device that "auto" takes, and what is missing for the GPU if that is the CPU."""
    import importlib.metadata

    rows = [("gpucnn", gpucnn.__version__), ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for name in PACKAGES:
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
        rows.append(("no GPU", why_not_auto() or "GPUCNN_DEVICE is cpu"))
    for name, value in rows:
        say(f"{name:<13} {value}")


def main() -> None:
    """Runs the command line and exits: 0, 2 for whatever is refused, 130 after Ctrl-C, 143 and 129 after SIGTERM and SIGHUP."""
    debug = flag("GPUCNN_DEBUG")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file's name may hold what the terminal's encoding does not
            stream.reconfigure(errors="backslashreplace")
    if not debug and not sys.warnoptions:
        # NumPy warns of an overflow on its way to the NaN that ends the run, in a sentence of its own.
        warnings.simplefilter("ignore", RuntimeWarning)
    stopped, status = "stopped", 0
    try:
        with _ending():
            status = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written is told here, and not by Python at its end
    except experiment.StoppedError as error:
        stopped, status = str(error), error.status
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 2
    except (KeyboardInterrupt, typer.Abort):  # the latter is what an older Typer makes of Ctrl-C; a newer one returns 130
        status = 130
    except BrokenPipeError:
        _forget_output()  # whoever read it has gone, as head does: nothing is left to say
        status = 1
    except Exception as error:
        if debug:
            raise
        status = 2
        complain(_complaint(error))
        if isinstance(error, OSError):
            _forget_output()
    if status in STOPPED:
        complain(f"gpucnn: {message(stopped)}")
    sys.exit(status if isinstance(status, int) else 0)


def _forget_output() -> None:
    """Has what was printed and not yet written go nowhere: Python would fail at its end over what has failed before."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_ended: list[int] = []  # by which signals the program was told to end


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """SIGTERM and SIGHUP end the program as Ctrl-C does, with everything put in order on the way; what is ignored stays so."""
    starting.done()
    _ended.clear()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: Any) -> None:
    _ended.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _say_unless_ended(line: str) -> None:
    """Packages that catch everything while they are imported catch the end of the program as well: then it ends at its next word."""
    if _ended:
        _end(_ended[0], None)
    say(line)


def _was_named(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line; otherwise its value is a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _complaint(error: Exception) -> str:
    """What to print about an error, and nothing more: one line, except where the help was as good as asked for."""
    if hasattr(error, "format_message"):  # of the parser: an unknown option, a value of another type, no command at all
        words = " ".join(error.format_message().split()) if error.args else error.format_message()
        if "Usage:" in words:
            return str(error.format_message())
        command = getattr(getattr(error, "ctx", None), "command_path", "gpucnn")
        return message(f"gpucnn: {words.rstrip('.')} (see {command} --help)")
    if isinstance(error, (GpucnnError, ValueError, TypeError, OSError, MemoryError)):
        return message(f"gpucnn: {_sentence(error)}")
    return message(f"gpucnn: this is a bug, {type(error).__name__}: {error} (set GPUCNN_DEBUG=1 for the traceback, and please report it)")


def _sentence(error: Exception) -> str:
    if isinstance(error, GpucnnError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory ({error}): use a smaller batch size"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}: free some room or name another folder" if error.errno == 28 else f"{where}{error.strerror}"
    return str(error) or type(error).__name__


def _class_names(network: gpucnn.Sequential, path: Path) -> list[str] | None:
    """The classes that the model was trained on; None where its file does not say."""
    names = network.metadata.get("class_names")
    if names is None:
        return None
    if not isinstance(names, list) or [str(name) for name in names] != names or len(names) != network.output_shape[0]:
        raise CheckpointError(f"{path} has {network.output_shape[0]} outputs and does not name as many classes: train it anew")
    return names


class _Status:
    """What is going on, in one line on stderr that is written over; nothing where that is no terminal."""

    def __enter__(self) -> _Status:
        return self

    def __exit__(self, *exception: object) -> None:
        self("")

    def __call__(self, text: str) -> None:
        if is_terminal(sys.stderr):
            sys.stderr.write(f"\r\x1b[K{plain(text)}")
            sys.stderr.flush()


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
            self._bar = None

    def __call__(self, name: str, done: int, total: int | None) -> None:
        if not is_terminal(sys.stdout):
            if name not in self._tasks:
                say(f"downloading {name}")
                self._tasks[name] = True
            return
        if self._bar is None:
            from rich import progress

            self._bar = progress.Progress(*progress.Progress.get_default_columns(), progress.DownloadColumn())
            self._bar.start()
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total)
        self._bar.update(self._tasks[name], completed=done, total=total)


if __name__ == "__main__":
    main()

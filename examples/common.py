"""Shared by the examples: checked options, --quick, a data set that needs no download, and notes about virtual GPUs."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import numpy as np

import gpucnn as gc
from gpucnn.device import VIRTUAL, Device, simulated

CLASSES, SIDE = 10, 12  # of small_set's images


def whole(least: int = 1, most: int | None = None) -> Callable[[str], int]:
    """A parser for argparse: an integer from `least` to `most`."""
    words = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most:,}"

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"takes {words}, got {text!r}")
        return value

    return number


def parse(parser: argparse.ArgumentParser, **quick: Any) -> argparse.Namespace:
    """The options of the command line, including --quick, which replaces the defaults by `quick` but not the values that are given."""
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in quick.items())
    parser.add_argument("--quick", action="store_true", help=f"a short run, in seconds{words and f' ({words})'}: its figures mean nothing")
    options = parser.parse_args()
    if options.quick:
        parser.set_defaults(**quick)
        options = parser.parse_args()
    return options


def finish(main: Callable[[], int]) -> NoReturn:
    """Exits with main's status, or with a sentence and status 2 if something is missing or wrong."""
    try:
        status = main()
    except gc.GpucnnError as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def small_set(train: int = 96, test: int = 32) -> gc.data.Dataset:
    """A data set drawn here: noise with a bright bar, across or down, at one of five places, which is the class. 1 × 12 × 12 pixels."""
    rng = np.random.default_rng(5)
    images = rng.integers(0, 60, (train + test, 1, SIDE, SIDE)).astype(np.uint8)
    labels = (np.arange(train + test) % CLASSES).astype(np.int32)
    for image, label in zip(images[:, 0], labels, strict=True):
        at = 1 + label % 5 * 2
        (image if label < 5 else image.T)[at : at + 2] = 220
    names = tuple(f"{way} {place}" for way in ("across", "down") for place in range(5))
    source = f"bars drawn for --quick, {train} + {test} images"
    return gc.data.Dataset("bars", images[:train], labels[:train], images[train:], labels[train:], names, source)


def data_set(options: argparse.Namespace) -> gc.data.Dataset:
    """The data set that --dataset and --data-dir name, or the small one for --quick; prints which one it is if that is not obvious."""
    named = options.dataset is not None or options.data_dir is not None
    data = small_set() if options.quick and not named else gc.load_dataset(options.dataset or "auto", options.data_dir)
    if data.name != "mnist":
        print(f"data: {data.note or data.source}", flush=True)
    return data


def data_options(parser: argparse.ArgumentParser) -> None:
    """The options that data_set reads."""
    known = ", ".join(gc.data.names())
    parser.add_argument(
        "--dataset", metavar="NAME|FOLDER", help=f"{known}, or a folder of images [auto: MNIST if available, digits otherwise]"
    )
    parser.add_argument("--data-dir", metavar="FOLDER", help="folder of MNIST, also for downloads")


def not_measured(device: Device, quick: bool) -> str | None:
    """Why the times of this run mean nothing; None if they do mean something."""
    if device.name.startswith(VIRTUAL):
        return f"{device.name} is a virtual GPU, which runs on the CPU and has no times: the figures mean nothing"
    if device.kind == "cuda" and simulated():
        return f"{device.name} has no times: the figures mean nothing"
    return "a run with --quick: the figures mean nothing" if quick else None


def pytorch_on(device: Device) -> tuple[Any, str]:
    """(torch, "") if PyTorch runs on `device`, otherwise (None, the reason)."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        missing = "not installed (pip install torch)" if error.name == "torch" else f"installed and does not import ({error})"
        return None, f"PyTorch is {missing}"
    if device.kind == "cuda" and device.name.startswith(VIRTUAL):
        return None, "PyTorch's libraries are machine code, which a virtual GPU cannot run"
    if device.kind == "cuda" and not torch.cuda.is_available():
        return None, "this PyTorch sees no GPU: install a build of it with CUDA"
    return torch, ""


@contextlib.contextmanager
def few_repetitions(wanted: bool = True) -> Iterator[None]:
    """Measures with as few repetitions as possible if `wanted`."""
    from gpucnn.profiling.measure import gpu, timing  # takes a second: the kernels, and Numba with them

    few = {timing: {"LEAST_SAMPLE": 0, "MOST_RUNS": 2, "LEAST_SAMPLES": 2, "MOST_SAMPLES": 2}, gpu: {"WARM_UP": 1, "STEPS": 2, "TURNS": 2}}
    with contextlib.ExitStack() as patches:
        for module, values in few.items() if wanted else ():
            patches.enter_context(mock.patch.multiple(module, **values))
        yield

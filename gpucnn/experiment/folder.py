"""The output folder of a run: its files, a check of the free space, and moving an earlier run aside."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gpucnn.data.dataset import DATASETS
from gpucnn.data.image_folder import parts_of
from gpucnn.errors import DataError
from gpucnn.experiment.card import CARD, is_ours
from gpucnn.files import clear_leftovers, exists, kind_of
from gpucnn.model import Sequential
from gpucnn.surroundings import user_path
from gpucnn.text import bytes_text
from gpucnn.training.callbacks import Callback, Run

CHECKPOINT, MODEL, HISTORY = "checkpoint.safetensors", "model.safetensors", "history.csv"
CURVES, CONFUSION, FILTERS, FEATURES = "curves.png", "confusion.png", "filters.png", "features.png"
MISTAKES, REPORT = "mistakes.png", "report.csv"
FILES = (MODEL, CHECKPOINT, HISTORY, REPORT, CURVES, CONFUSION, MISTAKES, FILTERS, FEATURES, CARD)

Say = Callable[[str], None]


class StoppedError(Exception):
    """Ctrl-C or a terminating signal in a run that can be resumed; the text says how."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status  # exit status: 128 plus the number of the signal


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Creates the folder, and removes it again if nothing was written to it."""
    made = [path for path in (folder, *folder.parents) if not exists(path)]
    try:
        check_writable(folder, 1)
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()  # an empty one only
        raise


def check_writable(folder: Path, size: int) -> None:
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for start in range(0, size, 1 << 20):
                file.write(bytes(min(1 << 20, size - start)))
            file.flush()
    except OSError as error:
        room = f" and needs room for {bytes_text(size)}" if size > 1 else ""
        raise DataError(
            f"the output folder {folder} cannot be written to ({error.strerror or error}){room}: fix that, or name another with --output"
        ) from None


def check_files(folder: Path, advice: str) -> None:
    """Refuses a folder where something other than a file has a name that the run writes, before hours of work. `advice` ends the
    message."""
    for path in (folder / name for name in FILES if name != CARD):  # the user's own card stays as it is
        if exists(path) and (kind := kind_of(os.stat(path).st_mode)):
            raise DataError(f"{path} is {kind}, and the run writes a file of that name: move it elsewhere{advice}")


def check_apart(output: Path, dataset: str) -> None:
    """Refuses an output folder among images sorted by class, where it would count as a class and its pictures as images."""
    if dataset in DATASETS:
        return
    folder = user_path(dataset)
    if not os.path.isdir(folder):
        return
    split = parts_of(folder)
    for images in split.values() if "train" in split and len(split) > 1 else [folder]:
        if output.resolve().is_relative_to(images.resolve()):
            raise DataError(
                f"the output folder {output} is among the images in {images}, where it would count as a class: name another with --output"
            )


class Watch(Callback):
    """Prepares the folder before a run writes to it."""

    alone = True

    def __init__(self, model: Sequential, folder: Path, say: Say) -> None:
        self.model, self.folder, self.say = model, folder, say
        self.trained = False  # whether any training happened

    def on_train_begin(self, run: Run) -> None:
        self.trained = True
        for name in FILES:  # temporary files of a killed run
            clear_leftovers(self.folder / name)
        if not run.resumed:
            return
        self.check_room()
        if (self.folder / MODEL).exists():  # a complete run that gets more epochs: it has no model until these are done
            self.set_aside([name for name in FILES if name not in (CHECKPOINT, HISTORY)])
        if not run.finished:
            self.say(f"resumed   at epoch {run.epoch + 1}, step {run.step + 1}")

    def make_way(self) -> None:
        """Prepares the folder for a new run: checks the free space and moves the files of an earlier run."""
        self.check_room()
        self.set_aside(FILES)

    def check_room(self) -> None:
        """Checks that a checkpoint fits on the disk: before an hour of training, not after it."""
        optimizer = self.model.optimizer
        size = self.model.parameter_count * self.model.dtype.itemsize * (1 + len(optimizer.slots if optimizer else ())) + (1 << 16)
        check_writable(self.folder, size)

    def set_aside(self, names: Sequence[str]) -> None:
        """Moves the files of an earlier run to a folder of their own, so that no run is lost to a forgotten option."""
        there = [name for name in names if (self.folder / name).exists() and (name != CARD or is_ours(self.folder / name))]
        if not there:
            return
        number = 1
        while (self.folder / f"previous-{number}").exists():
            number += 1
        aside = self.folder / f"previous-{number}"
        aside.mkdir()
        for name in there:
            os.replace(self.folder / name, aside / name)
        self.say(f"note: the run that was in {self.folder} is now in {aside}")

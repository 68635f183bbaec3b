"""CIFAR-10 and CIFAR-100 in their binary form: the archive itself, or its unpacked files. Nothing is ever unpickled.

A file is a row of records: one byte with the class (in CIFAR-100 two, the coarse class before the fine one), and 3 × 32 × 32 bytes of
pixels, red, green and blue, each plane row by row.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; https://www.cs.toronto.edu/~kriz/cifar.html, whose
page gives the MD5s of the archives and says how many images of each class there are.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucnn.data import search
from gpucnn.data.dataset import DATASETS, Dataset, Request, counted
from gpucnn.data.download import UnavailableError, fetch
from gpucnn.data.files import content_of, file_md5
from gpucnn.errors import DataError
from gpucnn.files import regular_file
from gpucnn.text import listed, reason_of

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
LIMIT = 1 << 28  # bytes of an archive


@dataclass(frozen=True)
class Source:
    """One of the two sets."""

    name: str
    title: str
    archive: str
    mirrors: tuple[str, ...]  # prefixes of the archive's name
    md5: str  # of the archive
    folder: str  # in the archive, and after unpacking it
    train: tuple[str, ...]
    test: str
    labels: int  # bytes of labels before the pixels, of which the last is the class
    train_images: int
    test_images: int
    class_names: tuple[str, ...]
    pickled: str  # the folder of the pickled form, which is not read

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test)


MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar cattle chair
chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail
snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe
whale willow_tree wolf woman worm
"""
SOURCES = {
    source.name: source
    for source in (
        Source(
            name="cifar10",
            title="CIFAR-10",
            archive="cifar-10-binary.tar.gz",
            mirrors=(*MIRRORS, "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/"),
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            folder="cifar-10-batches-bin",
            train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            test="test_batch.bin",
            labels=1,
            train_images=50_000,
            test_images=10_000,
            class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            pickled="cifar-10-batches-py",
        ),
        Source(
            name="cifar100",
            title="CIFAR-100",
            archive="cifar-100-binary.tar.gz",
            mirrors=MIRRORS,
            md5="03b5dce01913d631647c71ecec9e9cb8",
            folder="cifar-100-binary",
            train=("train.bin",),
            test="test.bin",
            labels=2,
            train_images=50_000,
            test_images=10_000,
            class_names=tuple(FINE.split()),
            pickled="cifar-100-python",
        ),
    )
}


def load(name: str, request: Request) -> Dataset:
    """The set `name` from the first folder that has its binary files or its archive; the archive is downloaded if there is none.

    The folders are those of gpucnn.data.mnist. DataError for files that are damaged or belong to another set; UnavailableError if the set
    cannot be downloaded.
    """
    source = SOURCES[name]
    roots = search.roots(request.data_dir)
    pickles = False
    for root in roots:
        for folder in search.folders(root, (source.folder, name, f"{name}/{source.folder}")):
            if all(os.path.exists(folder / file) for file in source.files):
                return _dataset(
                    source,
                    {file: content_of(folder / file, LIMIT, f"it is not a file of {source.title}") for file in source.files},
                    folder,
                    folder,
                )
            if os.path.isfile(folder / source.archive):
                return _of_archive(source, folder / source.archive)
            if os.path.exists(folder / source.pickled):
                pickles = True
    advice = search.advice(f"{source.archive}, or the files in it,", request.data_dir)
    beside = f" ({source.pickled} lies there, and nothing is ever unpickled)" if pickles else ""
    if not roots:
        raise UnavailableError(f"there is no folder to look for {source.title} in, nor to download it to: {advice}")
    if not request.download:
        searched = ", ".join(map(str, roots))
        raise UnavailableError(f"{source.title} was not found{beside} in {searched}, and downloading is off: {advice}")
    target = (roots[0] if roots[0].name == name else roots[0] / name) / source.archive
    urls = [f"{mirror}{source.archive}" for mirror in source.mirrors]
    try:
        fetch(urls, target, md5=source.md5, progress=request.progress, limit=LIMIT, advice=f"{advice}{beside}")
    except UnavailableError as error:
        raise search.not_in(request.data_dir, source.title, error) from None
    return _of_archive(source, target)


for _name in SOURCES:
    DATASETS.add(_name)(partial(load, _name))


def _of_archive(source: Source, path: Path) -> Dataset:
    """The set read from its archive; nothing is unpacked to the disk."""
    if (found := file_md5(regular_file(path, "an archive", empty=False))) != source.md5:
        raise DataError(f"{path} has the MD5 {found}, expected {source.md5}: it is damaged or another file; delete it and get a new copy")
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                file = member.name.rpartition("/")[2]
                if file in source.files and member.isfile() and member.size <= LIMIT:
                    unpacked = archive.extractfile(member)
                    contents[file] = b"" if unpacked is None else unpacked.read()
    except Exception as error:  # tarfile may raise anything
        raise DataError(f"{path} cannot be read as a .tar.gz archive ({reason_of(error)}): delete it and get a new copy") from None
    missing = [file for file in source.files if file not in contents]
    if missing:
        raise DataError(f"{path} lacks {listed(missing)}: it is not the binary form of {source.title}; delete it and get a new copy")
    return _dataset(source, contents, path, path)


def _dataset(source: Source, contents: dict[str, bytes], origin: Path, where: Path) -> Dataset:
    x, y = _records(source, [contents[file] for file in source.train], source.train_images, where, source.train)
    xt, yt = _records(source, [contents[source.test]], source.test_images, where, (source.test,))
    return Dataset(source.name, x, y, xt, yt, source.class_names, counted(origin, len(x), len(xt)))


def _records(
    source: Source, parts: list[bytes], images: int, where: Path, files: tuple[str, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """(images (N, 3, 32, 32), class numbers (N,)) of files with a known number of images."""
    size = source.labels + PIXELS
    for part, file in zip(parts, files, strict=True):
        if len(part) != images // len(parts) * size:
            raise DataError(
                f"{where}: {file} has {len(part):,} bytes, expected {images // len(parts):,} images of {size:,} bytes each: it "
                "is damaged or another file; get a new copy"
            )
    records = np.concatenate([np.frombuffer(part, np.uint8).reshape(-1, size) for part in parts])
    labels = records[:, source.labels - 1].astype(np.int32)
    counts = np.bincount(labels, minlength=len(source.class_names))
    if len(counts) > len(source.class_names) or counts.min() != counts.max():
        raise DataError(
            f"{where}: {listed(files)} do not have {images // len(source.class_names):,} images of each of {len(source.class_names)} "
            f"classes, as {source.title} has: get new copies"
        )
    return np.ascontiguousarray(records[:, source.labels :]).reshape(-1, *SHAPE), labels

"""MNIST and Fashion-MNIST: four idx files each, found in a folder or downloaded, and always checked by their hash.

MNIST: Y. LeCun, C. Cortes, C. Burges, CC BY-SA 3.0. Fashion-MNIST: Zalando Research (H. Xiao, K. Rasul, R. Vollgraf), MIT.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpucnn.data.dataset import DATASETS, Dataset, Request, counted
from gpucnn.data.download import UnavailableError, fetch
from gpucnn.data.idx import DigestError, load_pair
from gpucnn.errors import DataError
from gpucnn.files import exists, why_no_folder
from gpucnn.surroundings import cache_folder, user_path

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
VARIABLE = "GPUCNN_DATA_DIR"
LIMIT = 1 << 27  # bytes; the largest of the files has 47 million


@dataclass(frozen=True)
class Source:
    """One data set in four idx files: where to get them, and how to know them."""

    name: str
    title: str
    mirrors: tuple[str, ...]
    sha256: tuple[str, str, str, str]  # of the uncompressed files, in the order of FILES
    train_shape: tuple[int, int, int]
    test_shape: tuple[int, int, int]
    class_names: tuple[str, ...]


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="mnist",
            title="MNIST",
            mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
            sha256=(
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            train_shape=(60000, 28, 28),
            test_shape=(10000, 28, 28),
            class_names=tuple("0123456789"),
        ),
        Source(
            name="fashion-mnist",
            title="Fashion-MNIST",
            mirrors=(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            ),
            sha256=(
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
            train_shape=(60000, 28, 28),
            test_shape=(10000, 28, 28),
            class_names=(
                "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
            ),
        ),
    )
}  # fmt: skip


class _OtherDatasetError(DataError):
    """Files of the right names, which belong to another data set."""


def load(name: str, request: Request) -> Dataset:
    """The data set `name` of SOURCES from the first folder that has all four files, downloaded where none has.

    The folders, in order: `data_dir`, $GPUCNN_DATA_DIR, the user's cache; in each the subfolder of the set's name, then the folder
    itself. The download goes to the first of these that is given. UnavailableError if the set is nowhere and cannot be
    fetched. DataError if a file is there and damaged, or if `data_dir` holds another set under the same file names.
    """
    source = SOURCES[name]
    roots = _roots(request.data_dir)
    for root in roots:
        for folder in (root / name, root):
            found = find(folder)
            if None in found:
                continue
            if request.data_dir is not None and root != request.data_dir and not exists(request.data_dir):
                raise DataError(
                    f"data_dir {request.data_dir} does not exist, and {source.title} in {folder} was not asked for: check the path, "
                    "or leave it out"
                )
            try:
                return _load(source, folder, found)
            except _OtherDatasetError:
                # A folder that was named for this very call is meant; one of the environment may well be for the other set.
                if root == request.data_dir:
                    raise
    advice = (
        f"put the four files ({', '.join(FILES)}; .gz or not) into a folder and pass it with --data-dir "
        f"(data_dir= in Python), or set {VARIABLE} to it"
    )
    if not roots:
        raise UnavailableError(f"there is no folder to look for {source.title} in, nor to download it to: {advice}")
    target = _target(roots[0], name)
    missing = [file for file, path in zip(FILES, find(target), strict=True) if path is None]
    if not request.download:
        looked = ", ".join(map(str, roots))
        some = f": {target} lacks {', '.join(missing)}" if len(missing) < len(FILES) else f" in {looked}"
        raise UnavailableError(f"{source.title} was not found{some}, and downloading is off: {advice}")
    mirrors = list(source.mirrors)
    for file, sha256 in zip(FILES, source.sha256, strict=True):
        if file in missing:
            urls = [f"{mirror}{file}.gz" for mirror in mirrors]
            used = fetch(urls, target / f"{file}.gz", sha256, progress=request.progress, limit=LIMIT, advice=advice)
            mirrors.insert(0, mirrors.pop(urls.index(used)))  # a mirror that has failed once is not waited for again
    return _load(source, target, find(target))


for _name in SOURCES:
    DATASETS.add(_name)(partial(load, _name))


def _roots(data_dir: Path | None) -> list[Path]:
    """The folders to look into, the first of which is where a download goes."""
    roots = []
    if data_dir is not None:
        _check_folder(data_dir, f"data_dir {data_dir}", "name")
        roots.append(data_dir)
    if os.environ.get(VARIABLE):
        named = user_path(os.environ[VARIABLE])
        _check_folder(named, f"{VARIABLE} is {named}, which", f"set {VARIABLE} to")
        roots.append(named)
    cache = cache_folder()
    if cache is not None:
        roots.append(cache)
    return roots


def _check_folder(path: Path, what: str, mend: str) -> None:
    """DataError where something else than a folder is."""
    if exists(path) and (why := why_no_folder(path)):
        raise DataError(f"{what} {why.removeprefix('it ')} where a folder was expected: {mend} the folder that holds the data")


def find(folder: Path) -> list[Path | None]:
    """The path of each of FILES in a folder, None where there is none."""
    return [_spelt(folder, file) for file in FILES]


def _spelt(folder: Path, file: str) -> Path | None:
    """A file under any of its usual names: with a hyphen or a dot before idx, with or without .gz."""
    for name in (file, file.replace("-idx", ".idx")):
        for path in (folder / name, folder / f"{name}.gz"):
            if os.path.exists(path):
                return path
    return None


def _target(root: Path, name: str) -> Path:
    """Where to download to: a subfolder of `root`, as the two sets have the same file names, or beside files that are there."""
    begun = any(find(root)) and not all(find(root))
    return root if root.name == name or (begun and not any(find(root / name))) else root / name


def _load(source: Source, folder: Path, found: list[Path | None]) -> Dataset:
    train_images, train_labels, test_images, test_labels = (path or folder / file for path, file in zip(found, FILES, strict=True))
    hashes, classes = source.sha256, len(source.class_names)
    try:
        x, y = load_pair(
            train_images, train_labels, classes, images_sha256=hashes[0], labels_sha256=hashes[1], images_shape=source.train_shape
        )
        xt, yt = load_pair(
            test_images, test_labels, classes, images_sha256=hashes[2], labels_sha256=hashes[3], images_shape=source.test_shape
        )
    except DigestError as error:
        for other in SOURCES.values():
            if other is not source and error.found in other.sha256:
                raise _OtherDatasetError(
                    f"{folder} holds {other.title}, and {source.title} was asked for (the files of both have the same names): "
                    f"ask for {other.name}, or keep {source.title} in a folder of its own"
                ) from error
        raise
    # One channel: (N, H, W) → (N, 1, H, W)
    return Dataset(source.name, x[:, None], y, xt[:, None], yt, source.class_names, counted(folder, len(x), len(xt)))

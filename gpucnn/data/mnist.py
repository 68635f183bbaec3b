"""MNIST and the sets of the same form: four idx files each, found in a folder or downloaded, and verified by their hashes."""

from __future__ import annotations

import os
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucnn.data import search
from gpucnn.data.dataset import DATASETS, Dataset, Request, counted
from gpucnn.data.download import UnavailableError, fetch
from gpucnn.data.files import CHUNK, atomic_file, content_sha256, file_md5
from gpucnn.data.idx import EXTENDED, DigestError, load_pair
from gpucnn.data.sources import FILES, SOURCES, Archive, Source
from gpucnn.errors import DataError
from gpucnn.files import regular_file
from gpucnn.text import listed, reason_of

LIMIT = 1 << 28  # bytes of one of the files; the largest has 188 million
LIMIT_OF_ARCHIVE = 1 << 30
Found = list[Path | None]


class _OtherDatasetError(DataError):
    """Files with the right names that belong to another data set."""


def load(name: str, request: Request) -> Dataset:
    """The data set `name` of SOURCES from the first folder that has all four files; they are downloaded if no folder has.

    The folders: `data_dir` where it is given, otherwise $GPUCNN_DATA_DIR, then the user's cache; in each the subfolder of the set's name,
    torchvision's NAME/raw, then the folder itself. The download goes to the first of these that is given. UnavailableError if the set is
    in none of them and cannot be fetched. DataError if a file is there and damaged, if `data_dir` does not exist, or if it holds another
    set under the same file names.
    """
    source = SOURCES[name]
    roots = search.roots(request.data_dir)
    for root in roots:
        for folder in search.folders(root, (name, *source.folders)):
            found = find(folder, source)
            if None in found and (archive := _archive(folder, source)):
                _unpack(archive, source, folder)
                found = find(folder, source)
            if None in found:
                continue
            try:
                return _load(source, folder, found)
            except _OtherDatasetError:
                # A folder given in this call is meant for this set; the one in the environment may be for another.
                if root == request.data_dir:
                    raise
    advice = search.advice(f"the four files ({', '.join(source.files)}; .gz or not)", request.data_dir)
    if not roots:
        raise UnavailableError(f"there is no folder to look for {source.title} in, nor to download it to: {advice}")
    target = _target(roots[0], source)
    missing = [file for file, path in zip(source.files, find(target, source), strict=True) if path is None]
    if not request.download:
        looked = ", ".join(map(str, roots))
        some = f": {target} lacks {', '.join(missing)}" if len(missing) < len(source.files) else f" in {looked}"
        raise UnavailableError(f"{source.title} was not found{some}, and downloading is off: {advice}")
    try:
        folder = _fetch(source, missing, target, roots[0], request, advice)
    except UnavailableError as error:
        raise search.not_in(request.data_dir, source.title, error) from None
    return _load(source, folder, find(folder, source))


for _name in SOURCES:
    DATASETS.add(_name)(partial(load, _name))


def find(folder: Path, source: Source) -> Found:
    """The path of each of the source's files in a folder; None for missing ones."""
    return [_spelt(folder, file, sha256 is None) for file, sha256 in zip(source.files, source.sha256, strict=True)]


def _spelt(folder: Path, file: str, packed_first: bool) -> Path | None:
    """A file under any of its usual names: with a hyphen or a dot before idx, with or without .gz, preferring the form that can be
    verified better."""
    endings = (".gz", "") if packed_first else ("", ".gz")
    for name in (file, file.replace("-idx", ".idx")):
        for path in (folder / f"{name}{ending}" for ending in endings):
            if os.path.exists(path):
                return path
    return None


def _target(root: Path, source: Source) -> Path:
    """The folder to download to: a subfolder of `root`, because several sets have the same file names, or the folder of existing files."""
    here = find(root, source)
    begun = any(here) and not all(here)
    return root if root.name == source.name or (begun and not any(find(root / source.name, source))) else root / source.name


def _fetch(source: Source, missing: list[str], target: Path, root: Path, request: Request, advice: str) -> Path:
    """Downloads the missing files to `target`, or the archive to where the other sets in it look for it as well. Returns the folder."""
    mirrors = list(source.mirrors)
    try:
        for file, sha256, md5 in zip(source.files, source.sha256, source.md5, strict=True):
            if file in missing:
                urls = [f"{mirror}{file}.gz" for mirror in mirrors]
                used = fetch(urls, target / f"{file}.gz", sha256, md5=md5, progress=request.progress, limit=LIMIT, advice=advice)
                mirrors.insert(0, mirrors.pop(urls.index(used)))  # a mirror that has failed once is not waited for again
    except UnavailableError:
        if source.archive is None:
            raise
        target = root if root.name == source.archive.folder else root / source.archive.folder
        archive = target / source.archive.name
        fetch(source.archive.mirrors, archive, md5=source.archive.md5, progress=request.progress, limit=LIMIT_OF_ARCHIVE, advice=advice)
        _unpack(archive, source, target)
    return target


def _archive(folder: Path, source: Source) -> Path | None:
    """The downloaded archive of the set in a folder."""
    path = None if source.archive is None else folder / source.archive.name
    return path if path is not None and os.path.isfile(path) else None


def _unpack(path: Path, source: Source, folder: Path) -> None:
    """Extracts the set's four files from the archive, each verified by its MD5."""
    assert isinstance(source.archive, Archive)
    regular_file(path, "an archive", empty=False)
    try:
        with zipfile.ZipFile(path) as archive:
            for file, md5 in zip(source.files, source.md5, strict=True):
                info = archive.getinfo(f"{source.archive.inside}{file}.gz")
                if info.file_size > LIMIT:
                    raise DataError(f"{path}: {info.filename} is over {LIMIT:,} bytes, and not the file that was expected: get a new copy")
                with archive.open(info) as packed, atomic_file(folder / f"{file}.gz") as unpacked:
                    while chunk := packed.read(CHUNK):
                        unpacked.write(chunk)
                    unpacked.flush()
                    if file_md5(Path(unpacked.name)) != md5:
                        raise DataError(
                            f"{path}: {info.filename} is not the file that was published: delete the archive and get a new copy"
                        )
    except DataError:
        raise
    except Exception as error:  # zipfile may raise anything
        raise DataError(f"{path} cannot be read as {source.title}'s archive ({reason_of(error)}): delete it and get a new copy") from None


def _load(source: Source, folder: Path, found: Found) -> Dataset:
    paths = [path or folder / file for path, file in zip(found, source.files, strict=True)]
    unlike = _unlike(source, paths)
    try:
        parts = [_pair(source, paths, at) for at in (0, 2)]
    except DigestError as error:
        other = next((other for other in SOURCES.values() if other is not source and _is_of(other, paths, error.found)), None)
        if other is not None:
            raise _OtherDatasetError(_other(source, other, folder)) from error
        raise
    except DataError:
        if (other := _known(source, paths)) is not None:
            raise _OtherDatasetError(_other(source, other, folder)) from None
        raise
    if None in source.sha256 and (other := _known(source, paths)) is not None:
        raise _OtherDatasetError(_other(source, other, folder))
    for (_, labels), path in zip(parts, paths[1::2], strict=True):
        counts = np.bincount(labels, minlength=len(source.class_names))
        if source.even and counts.min() != counts.max():
            raise DataError(
                f"{path} has {counts.min():,} to {counts.max():,} images of a class where {source.title} has as many of each: it is "
                "damaged, or another set's; delete it and get a new copy"
            )
    (x, y), (xt, yt) = parts
    note = None
    if unlike:
        note = f"{listed(unlike, 4)} in {folder} are not the published files byte for byte: only sizes and labels were checked"
    return Dataset(source.name, x, y, xt, yt, source.class_names, counted(folder, len(x), len(xt)), note)


def _pair(source: Source, paths: list[Path], at: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """(images (N, 1, H, W), labels) of the two files from index `at` on."""
    shape = source.test_shape if at else source.train_shape
    images, labels = load_pair(
        paths[at],
        paths[at + 1],
        len(source.class_names),
        images_sha256=source.sha256[at],
        labels_sha256=source.sha256[at + 1],
        images_shape=shape,
        labels_shape=(shape[0], EXTENDED) if source.files[at + 1].endswith("-int") else None,
        first=source.first,
    )
    return np.ascontiguousarray((images if source.upright else images.swapaxes(1, 2))[:, None]), labels


def _unlike(source: Source, paths: list[Path]) -> list[str]:
    """The compressed files that differ from the published ones, among those of which only that hash is known."""
    return [
        path.name
        for path, sha256, md5 in zip(paths, source.sha256, source.md5, strict=True)
        if sha256 is None and md5 is not None and path.suffix == ".gz" and file_md5(regular_file(path, "a file of data")) != md5
    ]


def _is_of(other: Source, paths: list[Path], found: str) -> bool:
    """Whether files belong to `other`, by the SHA-256 of one of them or by the published MD5."""
    return found in other.sha256 or any(path.suffix == ".gz" and file_md5(path) in other.md5 for path in paths if any(other.md5))


def _known(source: Source, paths: list[Path]) -> Source | None:
    """The other set that the test labels belong to, if it is one that is known by its content."""
    others = [other for other in SOURCES.values() if other is not source and other.sha256[3]]
    try:
        found = content_sha256(paths[3], LIMIT)
    except DataError:
        return None
    return next((other for other in others if other.sha256[3] == found), None)


def _other(source: Source, other: Source, folder: Path) -> str:
    return (
        f"{folder} contains {other.title}, and {source.title} was requested (the files of both have the same names): name {other.name}, "
        f"or keep {source.title} in a folder of its own"
    )


__all__ = ["FILES", "SOURCES", "find", "load"]

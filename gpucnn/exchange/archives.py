"""Zip archives from untrusted sources: a few entries are read, and nothing is ever unpacked to disk."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpucnn.errors import CheckpointError
from gpucnn.files import regular_file
from gpucnn.text import bytes_text, plain, reason_of, shown

MOST_ENTRIES = 100_000
GROWTH = 100  # how many times larger than its compressed size an entry may be: weights shrink by a tenth, a zip bomb a thousandfold
ALWAYS = 1 << 20  # bytes that an entry may always have
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Archive:
    """An open archive: the `names` of its entries, and the content of each."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path, self._file = path, file
        self._entries = {entry.filename: entry for entry in file.infolist()}
        self.names = list(self._entries)
        if len(file.infolist()) > MOST_ENTRIES:
            raise CheckpointError(f"{path} has {len(file.infolist()):,} entries; the limit is {MOST_ENTRIES:,}")
        if len(self._entries) < len(file.infolist()):
            raise CheckpointError(f"{path} has two entries of one name: save it again")
        for name in self.names:
            parts = name.replace("\\", "/").split("/")
            if ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0]:
                raise CheckpointError(f"{path} has an entry {shown(name)}, whose path leaves the archive: get a new copy from its author")

    def size(self, name: str) -> int:
        """The size of the entry in bytes, as the archive declares it. CheckpointError if there is no such entry or it cannot be read."""
        entry = self._entries.get(name)
        if entry is None:
            raise CheckpointError(f"{self.path} has no {plain(name)}: save it again or get a new copy")
        if entry.flag_bits & 1:
            raise CheckpointError(f"{self.path} is encrypted: save it without a password")
        if entry.compress_type not in PLAIN:
            raise CheckpointError(f"{self.path} is packed in an unsupported way (method {entry.compress_type}): save it again")
        if entry.file_size > max(ALWAYS, GROWTH * entry.compress_size):
            raise CheckpointError(
                f"{self.path} has an entry {plain(name)} of {bytes_text(entry.compress_size)} that unpacks to "
                f"{bytes_text(entry.file_size)}: models do not compress that much; get a new copy"
            )
        return entry.file_size

    def read(self, name: str, most: int | None = None) -> bytes:
        """The content of an entry, of `most` bytes."""
        size = self.size(name)
        if most is not None and size > most:
            raise CheckpointError(f"{self.path} has an entry {plain(name)} of {bytes_text(size)}; the limit is {bytes_text(most)}")
        try:
            with self._file.open(self._entries[name]) as entry:
                content = entry.read(size + 1)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{self.path}: its entry {plain(name)} is damaged ({reason_of(error)}): get a new copy") from None
        if len(content) != size:
            raise CheckpointError(f"{self.path}: its entry {plain(name)} does not have the {size:,} bytes that it declares: get a new copy")
        return content


@contextmanager
def opened(path: str | Path, what: str) -> Iterator[Archive]:
    """Opens the archive at `path`. CheckpointError if it is not one, or was cut short."""
    path = regular_file(path, what, CheckpointError, empty=False)
    try:
        file = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, OverflowError) as error:
        raise CheckpointError(f"{path} is not {what}, or was cut short ({reason_of(error)}): save it again or get a new copy") from None
    with file:
        yield Archive(path, file)

"""All access to files: they are written completely or not at all, and only regular files are read.

A file is written under a temporary name in the same folder, flushed to the disk and then renamed, so a process that is killed meanwhile
leaves the old file unchanged. The temporary file that it leaves behind is recognized by its name, and a lock shows whether it is still
being written. If not, the next process that writes the same file removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from gpucnn.errors import ArgumentError, DataError, GpucnnError
from gpucnn.surroundings import user_path
from gpucnn.text import reason_of, shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".partial"
UNFINISHED = ".unfinished"  # of a file that arrives in parts
OLD = 3600  # seconds after which a file counts as a leftover if there are no locks
KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def kind_of(mode: int) -> str | None:
    """The kind of a path that is not a regular file: "a pipe", "a folder" and so on; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return next((words for test, words in KINDS if test(mode)), "no regular file")


def regular_file(path: str | os.PathLike[str], what: str, error: type[GpucnnError] = DataError, *, empty: bool = True) -> Path:
    """`path`, with ~ expanded, if it is a regular file that can be opened immediately; otherwise raises `error` with the reason.

    Every file that is read passes through here, because a pipe, a socket or a terminal might never answer. `what` is "a model", "an image"
    and the like. Without `empty`, a file of no bytes is rejected as well (some of those that the system generates never end).
    """
    found = user_path(path)
    try:
        status = os.stat(found)
    except FileNotFoundError:
        link = " (it is a broken link)" if found.is_symlink() else ""
        raise error(f"{found} does not exist, there is no such file{link}: check the path of {what}") from None
    except OSError as problem:
        raise error(f"{found} cannot be read ({_why(problem)}): check the path of {what}") from None
    kind = kind_of(status.st_mode)
    if kind == "a folder":
        raise error(f"{found} is a folder: name {what} in it")
    if kind is not None:
        raise error(f"{found} is {kind}, not a regular file: {what} was expected; copy its content into a file first")
    if not empty and not status.st_size:
        raise error(f"{found} is empty, and cannot be read as {what}: get a new copy")
    if not os.access(found, os.R_OK):  # asked here, because libraries that open files say that there is none
        raise error(f"{found} cannot be read ({os.strerror(errno.EACCES)}): check its permissions")
    return found


def exists(path: Path) -> bool:
    """Whether something exists at the path, even if it cannot be read; reading it then gives the reason."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def check_target(target: Path, option: str, read: dict[str, Iterable[str | os.PathLike[str]]]) -> None:
    """Raises ArgumentError if `target`, which is to be written, cannot be, or is one of the files that are `read`, under whatever name.
    `option` is what names it; the keys of `read` say what the files are."""
    if why := why_not_written(target):
        raise ArgumentError(f"{option} {target} cannot be written, {why}")
    try:
        there = os.stat(target)
    except OSError:
        return  # a new file
    for what, paths in read.items():
        for path in paths:
            with contextlib.suppress(OSError):  # reading it says what is wrong
                if stat.S_ISREG(there.st_mode) and os.path.samestat(there, os.stat(user_path(path))):
                    raise ArgumentError(f"{target} is {what}: name another file with {option}")


def why_no_folder(path: Path) -> str | None:
    """A description of what is at `path` instead of a folder, for messages; None if it is a folder."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "it does not exist"
    except OSError as problem:
        return _why(problem)
    return None if stat.S_ISDIR(mode) else f"it is {kind_of(mode) or 'a file'}"


def why_not_written(path: Path) -> str | None:
    """Why `writing` could not write `path`, and what to do, for messages; None if nothing is in the way. Writes nothing, so that it can be
    asked before hours of work: room on the disk is another question."""
    try:
        target = _target(path)
    except OSError as error:
        return reason_of(error)
    folder = next(filter(exists, target.parents), target.parent)  # the others will be created
    if why_no_folder(folder):
        return f"{folder} is not a folder: name another place"
    return (
        None if os.access(folder, os.W_OK | os.X_OK) else f"no file can be made in {folder}: change its permissions, or name another place"
    )


@contextmanager
def writing(path: str | os.PathLike[str], *, folders: bool = True) -> Iterator[BinaryIO]:
    """A new binary file, which takes the place of `path` if the block succeeds and is removed if it fails.

    Follows links: the file that a link leads to is written, and the link stays. With `folders`, missing folders are created. Permissions
    are those of the file that existed, otherwise those that open() would give. Raises OSError from the system, and for a pipe, a device or
    a folder, which are never replaced; DataError for an unusable path.
    """
    target = _target(user_path(path))
    if folders:
        target.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(target)
    handle, temporary = _beside(target)
    try:
        with open(temporary, "wb", opener=lambda *given: handle) as file:  # so that its name is the path
            yield file
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(OSError, AttributeError):  # none was there, or a file system without permissions
                os.fchmod(file.fileno(), stat.S_IMODE(os.stat(target).st_mode))
            if fcntl is not None:  # closing releases the lock, and the file must have its new name by then
                os.replace(temporary, target)
        if fcntl is None:  # where an open file cannot be renamed
            os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # write() and fsync() do not tell which file it was, and replace() names the temporary one.
        if isinstance(error, OSError) and error.filename in (None, temporary, os.fspath(temporary)):
            error.filename, error.filename2 = os.fspath(target), None
        raise


@contextmanager
def continuing(path: str | os.PathLike[str], keep: Callable[[BaseException, int], bool]) -> Iterator[BinaryIO]:
    """Like `writing`, starting from what an earlier block left behind. If the block fails, `keep(error, size)` decides whether the file
    stays.

    If another process is writing it, or the system has no locks, it is a new file that is never continued. The folder must exist.
    """
    target = _target(user_path(path))
    unfinished = target.parent / f"{_start(target.parent, target.name)[:-1]}{UNFINISHED}"
    begun = _continued(unfinished)
    if begun is None:
        with writing(path, folders=False) as file:
            yield file
        return
    with begun:
        try:
            yield begun
            begun.flush()
            os.fsync(begun.fileno())
            os.replace(unfinished, target)
        except BaseException as error:
            if not keep(error, begun.seek(0, os.SEEK_END)):
                with contextlib.suppress(OSError):
                    unfinished.unlink(missing_ok=True)
            raise


def write_atomically(path: str | os.PathLike[str], write: Callable[[Any], Any]) -> None:
    """Calls `write` with a file from `writing`."""
    with writing(path) as file:
        write(file)


def append(path: str | os.PathLike[str], content: bytes) -> None:
    """Appends to a file that `writing` made, also through links. Raises OSError unchanged."""
    with open(_target(user_path(path)), "ab") as file:
        file.write(content)


def clear_leftovers(target: Path) -> None:
    """Removes temporary files that processes killed while writing `target` left beside it; files that another process is writing stay."""
    start = _start(target.parent, target.name)
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if entry.name.startswith(start) and entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _clear(Path(entry.path))


def _why(error: OSError) -> str:
    return "it is a link to itself" if error.errno == errno.ELOOP else reason_of(error)


def _target(path: Path) -> Path:
    """The file to write for `path`, with links resolved. OSError if something exists there that is not a regular file."""
    try:
        status = os.stat(path)
    except FileNotFoundError:  # a new file, possibly behind a link
        return Path(os.path.realpath(path)) if path.is_symlink() else path
    except UnicodeEncodeError as error:
        name = shown(str(path)[error.start : error.end])
        why = f"file names here are {sys.getfilesystemencoding()}, which has no {name}: choose another name, or set PYTHONUTF8=1"
        raise OSError(errno.EILSEQ, why, str(path)) from None
    except NotADirectoryError as error:
        above = next(filter(exists, path.parents), path.parent)
        raise OSError(error.errno, f"{above} is not a folder: name another place", str(path)) from None
    except OSError as error:
        raise OSError(error.errno, f"{_why(error)}: name another", str(path)) from None
    kind = kind_of(status.st_mode)
    if kind == "a folder":
        raise IsADirectoryError(errno.EISDIR, "it is a folder: name a file in it", str(path))
    if kind is not None:
        raise OSError(errno.EINVAL, f"it is {kind}, not a file: name another", str(path))
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _start(folder: Path, name: str) -> str:
    """The prefix of the temporary files for `name`, short enough for the file system, however long `name` is."""
    try:
        longest = os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        longest = 255
    room = longest - len("..") - 8 - len(SUFFIX)
    raw = os.fsencode(name)
    if len(raw) > room:
        name = raw[: room - 17].decode("ascii", "ignore") + "~" + hashlib.sha256(raw).hexdigest()[:16]
    return f".{name}."


def _beside(target: Path) -> tuple[int, Path]:
    """A new file beside `target`, open and locked."""
    start = _start(target.parent, target.name)
    while True:
        temporary = target.parent / f"{start}{secrets.token_hex(4)}{SUFFIX}"
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        except FileExistsError:
            continue
        except OSError as error:
            error.filename = os.fspath(target)  # whose name the user knows
            raise
        if fcntl is None:
            return handle, temporary
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            if os.stat(temporary).st_ino == os.fstat(handle).st_ino:
                return handle, temporary
        except OSError:
            pass
        os.close(handle)  # another process removed it as a leftover before it was locked


def _continued(path: Path) -> BinaryIO | None:
    """The file, new or as it was left, open for reading and writing and locked by this process; None if that is impossible."""
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:
        return None  # writing the file itself reports why
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISREG(os.fstat(handle).st_mode) and os.stat(path).st_ino == os.fstat(handle).st_ino:
            return open(path, "r+b", opener=lambda *given: handle)  # so that its name is the path
    except OSError:
        pass
    os.close(handle)
    return None


def _clear(leftover: Path) -> None:
    if fcntl is None:
        if time.time() - leftover.stat().st_mtime > OLD:
            leftover.unlink()
        return
    handle = os.open(leftover, os.O_WRONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # it is being written
        except OSError:  # a file system without locks
            if time.time() - leftover.stat().st_mtime <= OLD:
                return
        leftover.unlink()
    finally:
        os.close(handle)

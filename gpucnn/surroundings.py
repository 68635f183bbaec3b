"""The environment of a process, which may be broken: variables, a home folder, a terminal, a stream to write to."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from gpucnn.errors import DataError
from gpucnn.text import plain

OUTPUT = "standard output"
OFF = ("", "0", "no", "off", "false")
RANKS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")  # launchers of ranks say how many there are
OPEN_MPI = RANKS[0]
LOCAL = (
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "SLURM_LOCALID",
)  # and a rank's number on its machine
_ASCII = str.maketrans({"─": "-", "×": "x", "…": "...", "’": "'", "−": "-", "━": "-"})  # characters of our own that small encodings lack


def flag(name: str, default: bool = False) -> bool:
    """Whether the environment variable `name` is on, that is, set to anything but an empty value, 0, no, off or false."""
    given = os.environ.get(name)
    return default if given is None else given.strip().lower() not in OFF


def user_path(path: str | os.PathLike[str]) -> Path:
    """`path` with a leading ~ or ~name expanded. Every path from the user passes through here.

    TypeError for anything that is not a path; DataError for an empty one, for NUL characters, and where the home folder is not known.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"a path must be a string or a pathlib.Path, got {type(path).__name__}")
    text = os.fspath(path)
    if not text:
        raise DataError("a path is empty: name a file or a folder")
    if "\0" in text:
        raise DataError(f"{text!r} is not a usable path, it has a NUL character in it: give the path of a file or folder")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise DataError(f"the home folder that {text!r} refers to is not known: write the path in full, or set HOME") from None


def install(extra: str) -> str:
    """The command that installs the packages of `extra`: from this checkout, or by the names that the installed package gives for it.

    gpucnn is on no package index, so `gpucnn[extra]` would install nothing, or something else.
    """
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return f'pip install -e "{checkout}[{extra}]"'
    from importlib import metadata  # takes a while, and only here

    try:
        listed = metadata.requires("gpucnn") or []
    except metadata.PackageNotFoundError:  # copied here by hand
        listed = []
    split = (requirement.partition(";") for requirement in listed)
    wanted = [f'"{name.strip()}"' for name, _, marker in split if re.search(rf"\bextra == ['\"]{extra}['\"]", marker)]
    return f"pip install {' '.join(wanted)}" if wanted else f"install what pyproject.toml lists under {extra}"


def home() -> Path | None:
    """The user's home folder; None if there is none."""
    try:
        return Path.home()
    except (RuntimeError, KeyError, OSError):
        return None


def cache_folder() -> Path | None:
    """The folder for files that can be obtained again: gpucnn in $XDG_CACHE_HOME or ~/.cache, on Windows in %LOCALAPPDATA%.

    None without a home folder.
    """
    given = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    if os.path.isabs(given):
        return Path(given) / "gpucnn"
    folder = home()
    return None if folder is None else folder / ".cache" / "gpucnn"


def started_ranks() -> int:
    """The number of processes started together with this one, itself included, according to mpiexec or srun; 1 if neither says so."""
    return max((number for name in RANKS if (number := _count(name)) is not None), default=1) or 1


def local_rank() -> int | None:
    """This process's number among those started together on this machine; None if it was started by itself."""
    if started_ranks() == 1:
        return None
    return next((number for name in LOCAL if (number := _count(name)) is not None), None)


def _count(name: str) -> int | None:
    given = os.environ.get(name, "")
    return int(given) if given.isdecimal() else None


def is_terminal(stream: Any) -> bool:
    """Whether `stream` is a terminal that somebody may look at. False for None, a closed stream, and streams that cannot tell."""
    try:
        return bool(stream.isatty()) and (_count(OPEN_MPI) is None or _seen(os.ttyname(stream.fileno()), stream.fileno()))
    except (AttributeError, ValueError, OSError):
        return False


def _seen(terminal: str, number: int, processes: Path = Path("/proc")) -> bool:
    """Whether somebody sees what a rank of Open MPI prints to its terminal. Open MPI gives each rank a terminal of its own, and passes the
    output on to wherever mpiexec prints. That is a terminal if the closest ancestor of this process on another terminal has one.

    False where the system does not tell (macOS): lines in a terminal can be read, and a bar in a file cannot.
    """
    process = os.getpid()
    while True:
        process = int((processes / str(process) / "stat").read_text().rpartition(")")[2].split()[1])
        theirs = os.readlink(processes / str(process) / "fd" / str(number))
        if theirs != terminal:
            return theirs.startswith(("/dev/pts/", "/dev/tty"))


def in_notebook() -> bool:
    """Whether the program runs in a notebook's kernel, where output can be updated."""
    ipython = sys.modules.get("IPython")
    try:
        shell = ipython.get_ipython() if ipython is not None else None
    except Exception:  # half of a package, or another one of that name
        return False
    return type(shell).__name__ == "ZMQInteractiveShell" or "google.colab" in type(shell).__module__


def complain(text: str, *, end: str = "\n") -> None:
    """`say` on standard error. Where that cannot be written, nobody can be told so, and the work goes on."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            say(text, sys.stderr, end=end)


def say(text: str, stream: Any = None, *, end: str = "\n") -> None:
    """Writes one line to `stream` (standard output by default), whatever characters it supports; does nothing if there is no stream.

    The line is made `plain`, line ends in the names of files included; characters that the stream's encoding lacks are replaced. An OSError
    of standard output has OUTPUT as its file's name, which tells it from those of the files that a command writes.
    """
    stream = sys.stdout if stream is None else stream
    if stream is None or getattr(stream, "closed", False):
        return
    line = plain(text) + end
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        line.encode(encoding)  # asked here, because a stream that escapes what it lacks takes a line as it is
    except UnicodeEncodeError:
        line = line.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    try:
        stream.write(line)
        if hasattr(stream, "flush"):
            stream.flush()
    except OSError as error:
        if stream is sys.stdout:
            error.filename = OUTPUT
        raise

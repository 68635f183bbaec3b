"""The program around the commands: `app`, with which each command registers, and `main`, which turns every error into one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

import gpucnn
from gpucnn import experiment
from gpucnn.cli import together
from gpucnn.cli.stopping import STOPPED, ending
from gpucnn.errors import GpucnnError
from gpucnn.files import exists
from gpucnn.surroundings import OUTPUT, complain, flag, say
from gpucnn.text import message, reason_of, shortened

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a full quota, and a limit to the size of a file
HELP = ("-h", "--help")
F = TypeVar("F", bound=Callable[..., Any])


class Command(TyperCommand):
    """A command whose help names its arguments without Python's types, such as <list[Path]>, which newer versions of Typer add."""

    def get_help(self, ctx: Any) -> str:
        def blank(found: re.Match[str]) -> str:
            return found[1] + " " * (len(found[0]) - len(found[1]))  # what stands behind stays in its column

        return re.sub(r"^(  [A-Z]+) <[\w\[\]]+>", blank, super().get_help(ctx), flags=re.MULTILINE)


class App(typer.Typer):
    def command(self, *names: Any, **settings: Any) -> Callable[[F], F]:
        return super().command(*names, cls=Command, **settings)


app = App(
    name="gpucnn",
    help="Train and run small convolutional networks: on an NVIDIA GPU with kernels in plain Python, or on the CPU with compiled loops.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": [*HELP], "max_content_width": 110},
)


def _version(asked: bool) -> None:
    if asked:
        say(f"gpucnn {gpucnn.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Options before the command. There is only --version, which its callback has already handled."""


def main() -> None:
    """Runs the command line and exits: with 0, with 2 after an error, with 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    debug = flag("GPUCNN_DEBUG")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names may contain characters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    if not debug and not sys.warnoptions:
        # NumPy warns of the overflow that leads to NaN; the run then ends with a sentence about that.
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.showwarning = _note
    stopped, status, words = "stopped", 0, ""
    try:
        with ending():
            together.listen()
            status = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # report write errors here, and not when Python exits
    except experiment.StoppedError as error:
        stopped, status = str(error), error.status
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 2
    except (KeyboardInterrupt, typer.Abort):  # the latter is what an older Typer makes of Ctrl-C; a newer one returns 130
        status = 130
    except BrokenPipeError:
        _forget_output()  # the reader has gone, as with head: nobody is left to tell
        status = 1
    except Exception as error:
        if debug:
            raise
        status, words = 2, complaint(error)
        if isinstance(error, OSError):
            _forget_output()
    if status in STOPPED:
        words = f"gpucnn: {message(stopped)}"
    if status:
        together.end(status, lambda who: _print_error(words.replace("gpucnn: ", f"gpucnn: {who}", 1)) if words else None)
    sys.exit(status if isinstance(status, int) else 0)


def _note(message: Warning | str, *where: object, **more: object) -> None:
    """A warning as a note. Python would add the place in the source, which says nothing to somebody at the command line."""
    complain(f"note: {shortened(str(message))}")


def _print_error(words: str) -> None:
    for line in words.split("\n"):  # the help has several
        complain(line)


def _forget_output() -> None:
    """Discards output that could not be written; otherwise Python would fail again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complaint(error: Exception) -> str:
    """The text to print for an error: one line, or the help if the command was incomplete."""
    if hasattr(error, "format_message"):  # from the parser: an unknown option, an invalid value, no command at all
        words = " ".join(error.format_message().split()) if error.args else error.format_message()
        if "Usage:" in words:
            return str(error.format_message())
        if (file := _taken_for_option(error)) is not None:
            return message(f"gpucnn: {file} begins as options do: name it ./{file}, or write -- before it")
        return message(f"gpucnn: {words.rstrip('.')} (see {_command_of(error)} --help)")
    if isinstance(error, (GpucnnError, ValueError, TypeError, OSError, MemoryError)):
        return message(f"gpucnn: {_sentence(error)}")
    return message(f"gpucnn: this is a bug, {type(error).__name__}: {error} (set GPUCNN_DEBUG=1 for the traceback, and please report it)")


def _command_of(error: Exception) -> str:
    """The command that an error of the parser is about. One about an option without its value, or with one too many, does not say."""
    context = getattr(error, "ctx", None)
    if context is not None:
        return str(context.command_path)
    known = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    return " ".join(["gpucnn", *(word for word in sys.argv[1:2] if word in known)])


def _taken_for_option(error: Exception) -> str | None:
    """The file with a dash at the start of its name that the parser took for an option, as a shell's *.png may name one."""
    option = getattr(error, "option_name", None)
    named = (word for word in sys.argv[1:] if option and word.startswith(option) and exists(Path(word)))
    return next(named, None)


def _sentence(error: Exception) -> str:
    if isinstance(error, GpucnnError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory ({error}): use a smaller batch size"
    helped = not {*HELP}.isdisjoint(sys.argv)  # the parser prints that by itself, and names nothing when it cannot
    if isinstance(error, OSError) and error.filename == (None if helped else OUTPUT):
        return f"{OUTPUT} cannot be written ({reason_of(error)}): free some room there, or send it to another file or program"
    if isinstance(error, FileNotFoundError) and error.filename is None:  # of os.getcwd(), the only one that names nothing
        return "the current folder does not exist any more: change to one that does"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}{': free some room, or write to another place' if error.errno in NO_ROOM else ''}"
    return str(error) or type(error).__name__

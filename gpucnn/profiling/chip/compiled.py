"""Kernels compiled for a chip that is not present. Their machine code and its resource use are cached on disk, because compiling a model
takes a minute.

The cache key covers everything that the result depends on: the code of the kernel and of all that it calls
(gpucnn_kernels.core.disk_cache), the files that these are in (sources.py), the types of its arguments, its blocks, the architecture, the
compilers, and how their answer is read.
GPUCNN_KERNEL_CACHE=0 turns the user's cache off.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpucnn.data.files import atomic_file
from gpucnn.errors import DataError, MissingExtraError
from gpucnn.profiling.chip import machine, sass, sources, static
from gpucnn.profiling.chip.machine import Program
from gpucnn.profiling.chip.static import Compiled
from gpucnn.profiling.records import checked
from gpucnn.surroundings import cache_folder
from gpucnn_kernels.core.launch import Launch

COMPILERS = ("numba", "numba-cuda", "nvidia-nvjitlink", "nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-nvdisasm", "llvmlite")


class Compiler:
    """Compiles for one architecture; `say` is called with a line for each kernel that has to be compiled. `kept` is the folder of the
    results, or None for no cache. Without `loops` it does not look at main loops."""

    def __init__(self, arch: str, say: Callable[[str], None], kept: Path | None, *, loops: bool = True) -> None:
        self.arch, self.say, self.kept, self.loops = arch, say, kept, loops
        self.notes: list[str] = []
        self._done: dict[Any, Compiled] = {}
        self._programs: dict[Any, Program | None] = {}
        self._wanted = 0

    def expect(self, launches: Sequence[Launch]) -> None:
        """Announces the launches to come, for the progress message."""
        self._wanted = len({self._key(launch) for launch in launches})

    def compiled(self, launch: Launch) -> Compiled:
        """The resource use of the launch's kernel. Raises MissingExtraError if the compilers are not installed."""
        key = self._key(launch)
        if key not in self._done:
            file = self._file(launch, ".json")
            found = None if file is None else _read(file)
            if found is None:
                self.say(f"compiling for {self.arch}, {len(self._done) + 1} of {self._wanted}: {launch.name}")
                found = self._compile(launch)
                if file is not None and not self.notes:  # incomplete results are not cached
                    _write(json.dumps(dataclasses.asdict(found)).encode(), file)
                    self.machine_code(launch)  # already made: static.py remembers the last ones
            self._done[key] = found
        return self._done[key]

    def machine_code(self, launch: Launch) -> bytes:
        """The launch's kernel as a cubin. ToolchainError if the compilers are not installed."""
        file, code = self._file(launch, ".cubin"), b""
        with contextlib.suppress(OSError):
            code = b"" if file is None else file.read_bytes()
        if not code.startswith(b"\x7fELF"):
            code = static.machine_code(launch, self.arch)
            if file is not None:
                _write(code, file)
        return code

    def program(self, launch: Launch) -> Program | None:
        """The launch's kernel as instructions, with lines of Python if it was compiled with them; None, with a note, if there is no
        disassembler."""
        key = id(launch.kernel), launch.signature
        if key not in self._programs:
            try:
                self._programs[key] = machine.parse(sass.disassemble(self.machine_code(launch), "-hex", "-g"))
            except (static.ToolchainError, ValueError) as error:
                self._note(f"nothing is predicted: {error}")
                self._programs[key] = None
        return self._programs[key]

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _compile(self, launch: Launch) -> Compiled:
        try:
            found = static.compile_launch(launch, self.arch)
        except static.ToolchainError as error:
            raise MissingExtraError(str(error)) from None
        if not self.loops:
            return found
        try:
            return dataclasses.replace(found, loop=static.main_loop(launch, self.arch))
        except static.ToolchainError as error:
            self._note(f"nothing is said of main loops: {error}")
            return found

    def mark(self, launch: Launch) -> str | None:
        """A hash of all that the compiler's answer depends on; None if the kernel has none that is the same in every process."""
        from gpucnn_kernels.core import disk_cache, early  # not under the simulator, which compiles nothing

        function = launch.kernel.py_func
        files = (*sources.files_of(function), Path(static.__file__), Path(sass.__file__))
        made_of = sources.content(files) + (b"early" if early.ENABLED else b"")
        mark = disk_cache.fingerprint((function, sorted(launch.kernel.targetoptions.items())), made_of)
        if mark is None:
            return None
        key = f"{mark} {launch.signature} {launch.threads} {launch.shared} {self.arch} {self.loops} {versions()}"
        return hashlib.sha256(key.encode()).hexdigest()

    def _file(self, launch: Launch, ending: str) -> Path | None:
        """The cache file; None if there is no cache, or if the kernel has no mark."""
        if self.kept is None:
            return None
        mark = self.mark(launch)
        return None if mark is None else self.kept / f"{mark}{ending}"

    @staticmethod
    def _key(launch: Launch) -> Any:
        return id(launch.kernel), launch.signature, launch.threads, launch.shared


def for_user(arch: str, say: Callable[[str], None]) -> Compiler:
    """A compiler that keeps its results in the user's cache."""
    return Compiler(arch, say, folder())


def folder() -> Path | None:
    """The folder in the user's cache; None if there is none."""
    from gpucnn_kernels.core import disk_cache

    if not disk_cache.ENABLED:
        return None
    cache = cache_folder()
    return None if cache is None else cache / "compiled"


def _read(file: Path) -> Compiled | None:
    try:
        found: Compiled = checked(Compiled, json.loads(file.read_text(encoding="utf-8")), file.name)
    except (OSError, ValueError):  # missing or truncated: compile again
        return None
    return found


def _write(content: bytes, file: Path) -> None:
    with contextlib.suppress(OSError, DataError):  # disk full or no permission: it is compiled again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as stream:
            stream.write(content)


@functools.cache
def versions() -> str:
    """The compilers that are installed."""
    found = []
    for name in COMPILERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)

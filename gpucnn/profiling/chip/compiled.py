"""Kernels compiled for a chip that is not present. Their resource use is cached on disk, because compiling a model takes a minute.

The cache key covers everything that the result depends on: the code of the kernel and of all that it calls
(gpucnn_kernels.core.disk_cache), the types of its arguments, its blocks, the architecture and the compilers. GPUCNN_KERNEL_CACHE=0 turns
the cache off.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpucnn.data.files import atomic_file
from gpucnn.errors import DataError, MissingExtraError
from gpucnn.profiling.chip import machine, sass, static
from gpucnn.profiling.chip.machine import Program
from gpucnn.profiling.chip.static import Compiled
from gpucnn.profiling.records import checked
from gpucnn.surroundings import cache_folder
from gpucnn_kernels.core.launch import Launch

COMPILERS = ("numba", "numba-cuda", "nvidia-nvjitlink", "nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-nvdisasm", "llvmlite")


class Compiler:
    """Compiles for one architecture; `say` is called with a line for each kernel that has to be compiled."""

    def __init__(self, arch: str, say: Callable[[str], None]) -> None:
        self.arch, self.say = arch, say
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
            file = self._file(launch)
            found = None if file is None else _read(file)
            if found is None:
                self.say(f"compiling for {self.arch}, {len(self._done) + 1} of {self._wanted}: {launch.name}")
                found = self._compile(launch)
                if file is not None and not self.notes:  # incomplete results are not cached
                    _keep(found, file)
            self._done[key] = found
        return self._done[key]

    def program(self, launch: Launch) -> Program | None:
        """The launch's kernel as instructions, with lines of Python where it was compiled with them; None, with a note, where there is no
        disassembler."""
        key = id(launch.kernel), launch.signature
        if key not in self._programs:
            file = self._file(launch, ".cubin")
            code = None
            with contextlib.suppress(OSError):
                code = file.read_bytes() if file is not None else None
            try:
                if code is None:
                    code = static.machine_code(launch, self.arch)
                    if file is not None:
                        _write(code, file)
                self._programs[key] = machine.parse(sass.disassemble(code, "-hex", "-g"))
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
        try:
            return dataclasses.replace(found, loop=static.main_loop(launch, self.arch))
        except static.ToolchainError as error:
            self._note(f"nothing is said of main loops: {error}")
            return found

    def _file(self, launch: Launch, ending: str = ".json") -> Path | None:
        """The cache file; None if the cache is off, or if the kernel has no key that is the same in every process."""
        from gpucnn_kernels.core import disk_cache  # not under the simulator, which compiles nothing

        kept = folder()
        mark = disk_cache.fingerprint((launch.kernel.py_func, sorted(launch.kernel.targetoptions.items()))) if kept else None
        if kept is None or mark is None:
            return None
        rest = f"{launch.signature} {launch.threads} {launch.shared} {self.arch} {_versions()}"
        return kept / f"{hashlib.sha256(f'{mark} {rest}'.encode()).hexdigest()}{ending}"

    @staticmethod
    def _key(launch: Launch) -> Any:
        return id(launch.kernel), launch.signature, launch.threads, launch.shared


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


def _keep(compiled: Compiled, file: Path) -> None:
    _write(json.dumps(dataclasses.asdict(compiled)).encode(), file)


def _write(content: bytes, file: Path) -> None:
    with contextlib.suppress(OSError, DataError):  # disk full or no permission: it is compiled again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as stream:
            stream.write(content)


def _versions() -> str:
    found = []
    for name in COMPILERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)

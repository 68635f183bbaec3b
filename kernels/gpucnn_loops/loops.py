"""A loop: a Python function that is compiled to a C function when it is first needed, or read from the disk.

Its arguments are addresses and numbers, it uses no Python objects, and Python's global lock is released while it runs. Other loops call it
by its symbol, so that it is compiled once; a `helper` becomes a part of each loop that calls it, and an `intrinsic` writes instructions.

Numba compiles (`_numba.py`), and is imported when something is to be compiled.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import importlib.metadata
import os
import platform
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpucnn_loops import disk_cache, machine
from gpucnn_loops.language import PACKED, WORDS, Declared, Helper

__all__ = [
    "Loop",
    "alone",
    "compiled",
    "every",
    "loop",
    "noting",
    "observed",
    "recorder",
    "recording",
    "rehearsal",
    "rehearsing",
    "watching",
    "without_collection",
]

if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):  # helpers would stay Python functions, which no loop can contain
    raise ImportError("NUMBA_DISABLE_JIT is set, and nothing is compiled")


def _compiler() -> Any:
    return importlib.import_module("gpucnn_loops._numba")


@contextmanager
def without_collection() -> Iterator[None]:
    """Keeps Python from looking for garbage: among the million objects that a compiler makes for a loop it finds none, and takes a sixth of
    the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


class Loop(Declared):
    """A function that becomes machine code when it is first called, or `prepare`d."""

    def __init__(self, function: Callable[..., Any], *arguments: str | type) -> None:
        super().__init__(function, arguments)
        self.ready = False
        self.address = 0  # of the way in that takes one address: where the arguments lie
        kinds = "".join(WORDS.get(kind, "q") for kind in self.arguments)
        self.packed, self.noted = struct.Struct(f"={kinds}"), struct.Struct(f"=qq{kinds}")
        self._made: bytes | None = None  # compiled, and not yet loaded: the contents of its file
        self.library: Any = None  # Numba's, where it was compiled in this process
        self._call: Callable[..., None] = self._first
        _LOOPS[self.symbol] = self

    def __call__(self, *arguments: Any) -> None:
        if _own.meets is None:
            self._call(*arguments)
        else:
            _own.meets(self, arguments)

    def _first(self, *arguments: Any) -> None:
        self.prepare()
        self._call(*arguments)

    def calls(self) -> list[Loop]:
        """The loops that this one calls, directly or through helpers."""
        found: dict[int, Loop] = {}
        seen, ahead = {id(self.function)}, [self.function]
        while ahead:
            function = ahead.pop()
            for name in function.__code__.co_names:
                value = function.__globals__.get(name)
                if isinstance(value, Loop):
                    found[id(value)] = value
                elif isinstance(value, Helper) and id(value.py_func) not in seen:
                    seen.add(id(value.py_func))
                    ahead.append(value.py_func)
        return list(found.values())

    @property
    def path(self) -> Path | None:
        """The file of its machine code for this processor."""
        return disk_cache.path(self.name, (self.signature(), *_versions(), *machine.processor()), self.source)

    @property
    def waits(self) -> bool:
        """Whether it must be compiled before it can run: it is neither ready nor on the disk."""
        path = None if self.ready else self.path
        return not self.ready and (path is None or not path.exists())

    def prepare(self) -> None:
        """Makes the loop, and those that it calls, ready to run: from the disk, or by compiling."""
        with _LOCK:
            if self.ready:
                return
            for other in self.calls():
                other.prepare()
            address = self._address(self._made or disk_cache.read(self.path))
            if address is None:
                self.compile()
                address = self._address(self._made)
                if address is None:
                    needs = (self._made or b"").partition(b"\n")[0].decode()
                    raise ImportError(f"machine code of {self.name} calls what is not there: {needs}")
            self._made = None
            # Python packs thirty numbers in half the time that ctypes takes to look at each of them.
            way_in, pack = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(address), self.packed.pack
            self._call = lambda *arguments: way_in(pack(*arguments))
            self.address, self.ready = address, True

    def compile(self) -> None:
        """Compiles this loop alone, without those that it calls, and keeps it on the disk. Nothing is loaded."""
        with _LOCK:
            if self.ready or self._made is not None:
                return
            disk_cache.tell(self.name)
            began = time.thread_time()
            with without_collection():
                code, needs, self.library = _compiler().compile(self)
            compiled[self.name] = time.thread_time() - began
            self._made = " ".join(needs).encode() + b"\n" + code
            disk_cache.keep(self.path, self.name, self._made)

    def note(self, room: Any, place: int, arguments: tuple[Any, ...]) -> int:
        """Writes a call into `room`, words of eight bytes, from `place` on: the function's address, the number of words, the arguments.
        Returns the place behind it."""
        words = 2 + len(self.arguments)
        self.noted.pack_into(room, 8 * place, self.address, words, *arguments)
        return place + words

    def _address(self, kept: bytes | None) -> int | None:
        """Loads the contents of its file (a line of the functions that it calls, and the machine code) and returns the loop's address, or
        None if that fails."""
        needs, _, code = (kept or b"").partition(b"\n")
        if not code:
            return None
        for need in needs.decode().split():
            if need in _LOOPS:
                _LOOPS[need].prepare()
            elif not machine.known(need):
                return None
        return machine.load(code, self.symbol, self.symbol + PACKED)


_LOOPS: dict[str, Loop] = {}  # by symbol
_LOCK = threading.RLock()
compiled: dict[str, float] = {}  # loops that were compiled in this process, and seconds that each took


def every() -> list[Loop]:
    """All loops of the imported modules."""
    return list(_LOOPS.values())


@functools.cache
def _versions() -> tuple[str, ...]:
    """The versions that machine code depends on, besides its source and the processor. PackageNotFoundError without Numba."""
    return platform.python_version(), importlib.metadata.version("numba"), importlib.metadata.version("llvmlite")


def loop(*arguments: str | type) -> Callable[[Callable[..., Any]], Loop]:
    """Makes a function a `Loop`. arguments: their kinds in order: i an integer, f and d floats, u an unsigned integer of 64 bits,
    f*, i*, w*, d* the address of float32, int32, int64 and float64 numbers; or a `record` of several."""
    return lambda function: Loop(function, *arguments)


Meet = Callable[["Loop", tuple[Any, ...]], object]
Share = Callable[[int, Callable[[int, int], object], int], None]


class _Own(threading.local):
    """State of each thread: what calling a loop does in place of running it, what `share` does, and whether work is not shared (within
    `rehearsal` and `noting`)."""

    meets: Meet | None = None
    record: Share | None = None
    rehearsing = False
    alone = False


_own = _Own()


def noting(keep: Meet, run: Callable[[int, int], object], first: int, last: int) -> None:
    """Calls run(first, last), whose loops do not run: `keep` is called with each and its arguments."""
    before = _own.meets, _own.alone
    _own.meets, _own.alone = keep, True
    try:
        run(first, last)
    finally:
        _own.meets, _own.alone = before


def alone() -> bool:
    """Whether this thread's loops do not run now, so that there is no work to share."""
    return _own.alone


def observed() -> bool:
    """Whether calling a loop in this thread does something else than running it."""
    return _own.meets is not None


def recorder() -> Share | None:
    """What takes `share`'s place in this thread, within `recording`."""
    return _own.record


@contextmanager
def recording(meet: Meet, record: Share) -> Iterator[None]:
    """Within it, `meet` is called with each loop and its arguments, and `record` in place of `share`."""
    _own.record = record
    try:
        with _meeting(meet, False):
            yield
    finally:
        _own.record = None


@contextmanager
def rehearsal() -> Iterator[list[Loop]]:
    """Within it, loops that this thread calls do not run; each is added to the list, behind those that it calls itself."""
    found: list[Loop] = []

    def meet(loop: Loop, arguments: tuple[Any, ...]) -> None:
        if loop not in found:
            for other in loop.calls():
                meet(other, ())
            found.append(loop)

    with _meeting(meet, True):
        yield found


@contextmanager
def watching() -> Iterator[list[Loop]]:
    """Within it, loops that this thread calls run, and are added to the list."""
    found: list[Loop] = []

    def meet(loop: Loop, arguments: tuple[Any, ...]) -> None:
        found.append(loop)
        loop._call(*arguments)

    with _meeting(meet, False):
        yield found


@contextmanager
def _meeting(meet: Meet, rehearsing: bool) -> Iterator[None]:
    before = _own.meets, _own.rehearsing, _own.alone
    _own.meets, _own.rehearsing, _own.alone = meet, rehearsing, rehearsing
    try:
        yield
    finally:
        _own.meets, _own.rehearsing, _own.alone = before


def rehearsing() -> bool:
    """Whether this thread is within a `rehearsal`."""
    return _own.rehearsing

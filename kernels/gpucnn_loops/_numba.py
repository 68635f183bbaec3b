"""Everything that the loops take from Numba and llvmlite, imported in this one place; and what a loop is.

A loop is a Python function that is compiled to a C function: its arguments are addresses and numbers, it knows no Python object, and
Python's global lock is released while it runs. It is compiled (or read from the disk) when it is first needed. Other loops call it by its
symbol, so that it is compiled once; a `helper` becomes a part of each loop that calls it.
"""

from __future__ import annotations

import ctypes
import pickle
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding
import llvmlite.ir
import numba
from numba import extending
from numba.core import cgutils as _cgutils
from numba.core import codegen, config
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from gpucnn_loops import disk_cache, threads

__all__ = [
    "FEATURES",
    "Loop",
    "cgutils",
    "compiled",
    "floats",
    "helper",
    "intrinsic",
    "ints",
    "ir",
    "loop",
    "models",
    "overload",
    "register_model",
    "rehearsal",
    "rehearsing",
    "types",
    "whole",
    "words",
]

# Numba has no type annotations worth the name.
ir: Any = llvmlite.ir
types: Any = numba.types
cgutils: Any = _cgutils
intrinsic: Any = extending.intrinsic
models: Any = extending.models
overload: Any = extending.overload
register_model: Any = extending.register_model

floats: Any = types.CPointer(types.float32)  # addresses of numbers
words: Any = types.CPointer(types.int64)
ints: Any = types.CPointer(types.int32)
whole: Any = types.int64
doubles: Any = types.CPointer(types.float64)
_KINDS = {"f*": floats, "i*": ints, "w*": words, "d*": doubles, "i": whole, "f": types.float32, "d": types.float64, "u": types.uint64}

# What the compiler may use: this machine's features, or those that NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name (both: with the name alone
# the features stay this machine's).
_features = codegen.get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
FEATURES = frozenset(name[1:] for name in str(_features).split(",") if name.startswith("+"))

if config.DISABLE_JIT:  # helpers would stay Python functions, which no loop can contain
    raise ImportError("NUMBA_DISABLE_JIT is set, and nothing is compiled")

_VERSIONS = platform.python_version(), str(numba.__version__), str(llvmlite.__version__)
_OPTIONS = {"error_model": "numpy", "boundscheck": False}  # no fastmath: sums keep their order, NaN and infinity stay


def helper(function: Callable[..., Any]) -> Any:
    """Makes `function` one that loops can call, and contain."""
    return numba.njit(**_OPTIONS)(function)


def _pack(result: Any) -> bytes:
    return bytes(dumps(result._reduce()))


def _unpack(context: Any, data: bytes) -> Any:
    return CompileResult._rebuild(context, *pickle.loads(data))


class Loop:
    """A function that becomes machine code when it is first called, or `prepare`d."""

    def __init__(self, function: Callable[..., Any], arguments: str) -> None:
        self.function = function
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.symbol = f"gpucnn_loops.{self.name}"
        self.signature = types.void(*(_KINDS[kind] for kind in arguments.split()))
        self.ready = False
        self._call: Callable[..., None] = self._first

    def __call__(self, *arguments: Any) -> None:
        if _rehearsed.loops is None:
            self._call(*arguments)
        elif self not in _rehearsed.loops:
            for other in self.calls():
                other()
            _rehearsed.loops.append(self)

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
                inner = getattr(value, "py_func", None)
                if inner is not None and id(inner) not in seen:
                    seen.add(id(inner))
                    ahead.append(inner)
        return list(found.values())

    def _kept(self) -> disk_cache.Kept:
        return disk_cache.Kept(self.name, (str(self.signature), *_VERSIONS), _pack, _unpack)

    @property
    def waits(self) -> bool:
        """Whether it is still to be compiled: not ready, and not on the disk."""
        if self.ready:
            return False
        path = self._kept().path(numba.core.registry.cpu_target.target_context.codegen())
        return path is None or not path.exists()

    def prepare(self) -> None:
        """Makes the loop, and those that it calls, ready to run: from the disk, or by compiling."""
        with _LOCK:
            if self.ready:
                return
            for other in self.calls():
                other.prepare()
            kept = self._kept()
            compiling: Any = CFunc(self.function, (self.signature.args, types.void), {}, dict(_OPTIONS))
            compiling._cache = kept
            began = time.thread_time()
            compiling.compile()
            if not kept.found:
                compiled[self.name] = time.thread_time() - began
            llvmlite.binding.add_symbol(self.symbol, compiling.address)
            kinds: Any = [_C_KINDS.get(kind, ctypes.c_void_p) for kind in self.signature.args]
            self._compiled, self._call = compiling, ctypes.CFUNCTYPE(None, *kinds)(compiling.address)
            self.ready = True


class _Rehearsed(threading.local):
    loops: list[Loop] | None = None


_rehearsed = _Rehearsed()


@contextmanager
def rehearsal() -> Iterator[list[Loop]]:
    """Within it loops that this thread calls do nothing but get into the list, behind those that they call themselves."""
    before, _rehearsed.loops = _rehearsed.loops, []
    try:
        yield _rehearsed.loops
    finally:
        _rehearsed.loops = before


def rehearsing() -> bool:
    """Whether this thread is within a `rehearsal`."""
    return _rehearsed.loops is not None


threads.rehearsing = rehearsing
_C_KINDS = {whole: ctypes.c_int64, types.float32: ctypes.c_float, types.float64: ctypes.c_double, types.uint64: ctypes.c_uint64}
_LOCK = threading.RLock()
compiled: dict[str, float] = {}  # loops that were compiled in this process, and seconds that each took


@extending.typeof_impl.register(Loop)  # type: ignore[untyped-decorator]
def _type_of_loop(value: Loop, context: Any) -> Any:
    return types.ExternalFunction(value.symbol, value.signature)


def loop(arguments: str) -> Callable[[Callable[..., Any]], Loop]:
    """Makes a function a `Loop`. arguments: their kinds in order, i a whole number, f and d floating numbers, u an unsigned one of 64 bits,
    f*, i*, w*, d* the address of float32, int32, int64 and float64 numbers."""
    return lambda function: Loop(function, arguments)

"""Compiled kernels kept on disk, so that only the first run on a machine compiles.

Numba has such a cache (`cache=True`), but its key pickles everything that a kernel's function closes over, and the pickle of a function
differs from process to process. Kernels that are made for a shape or a tile close over functions. So the key here is the content of
these functions: code, constants and, recursively, what they close over; and the source of the whole package, because functions that a
kernel calls by name are in no closure.

Numba puts the files into __pycache__ beside the sources, or into NUMBA_CACHE_DIR. GPUCNN_KERNEL_CACHE=0 turns this off.

Each kernel has files of its own for each chip and each list of types: processes that compile side by side never write to the same ones,
unless they have compiled the same kernel.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpucnn_kernels.core import early
from gpucnn_kernels.core._numba import CacheFile, CUDACache

announce: Callable[[str], object] | None = None
"""Called with the name of each kernel that is about to be compiled, which takes seconds, so that a program can show it."""

MONTH = 30 * 24 * 3600
ENABLED = os.environ.get("GPUCNN_KERNEL_CACHE", "1") not in ("", "0")


class KernelCache(CUDACache):  # type: ignore[misc]
    """Numba's cache of one kernel, under a key that is the same in every process. If anything fails, the kernel is compiled again."""

    def __init__(self, function: Any, mark: str) -> None:
        super().__init__(function)
        self.mark = mark
        self._name = function.__name__.removesuffix("_kernel")

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        key: tuple[Any, ...] = (sig, codegen.magic_tuple(), self.mark)
        key = key if self._launch_config_key is None else (*key, ("launch_config", self._launch_config_key))
        # Numba asks for the key before it reads or writes, and keeps one index per function, shared by all kernels that a function makes.
        # Two processes that add to an index at the same time may give their files the same number: then one kernel is loaded in place of
        # the other.
        self._cache_file = CacheFile(
            cache_path=self._cache_path,
            filename_base=f"{self._impl.filename_base}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}",
            source_stamp=self._impl.locator.get_source_stamp(),
        )
        return key

    def holds(self, sig: Any, codegen: Any) -> bool:
        """Whether the kernel is on the disk for these types and the chip of `codegen`. Its files are not read to the end."""
        try:
            key = self._index_key(sig, codegen)
            name = self._cache_file._load_index().get(key)
            return name is not None and Path(self._cache_path, name).is_file()
        except Exception:  # loading the kernel reports what is wrong
            return False

    def check_folder(self) -> None:
        """OSError if nothing can be written to the disk."""
        self._impl.locator.ensure_cache_path()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel, or None."""
        try:
            found = super().load_overload(sig, target_context)
        except Exception as error:  # a file of another version, cut short, or not readable
            warnings.warn(f"a kernel on disk cannot be used, and is compiled again ({type(error).__name__}: {error})", stacklevel=2)
            found = None
        if found is None and announce is not None:
            announce(self._name)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Stores a compiled kernel, if possible."""
        try:
            self._forget_old()
            super().save_overload(sig, data)
        except Exception as error:
            warnings.warn(
                f"a kernel cannot be kept on disk, and is compiled at every start ({type(error).__name__}: {error})", stacklevel=2
            )

    def _forget_old(self) -> None:
        """Deletes files older than a month: every change to the sources leaves files behind that are never used again."""
        for file in Path(self._cache_path).glob(f"{self._impl.filename_base}-*"):
            with contextlib.suppress(OSError):  # another process was first
                if time.time() - file.stat().st_mtime > MONTH:
                    file.unlink()


def keep(dispatcher: Any, options: dict[str, Any]) -> Any:
    """Enables the disk cache for a kernel, unless it is turned off or there is no folder for it. Returns the kernel."""
    if not ENABLED:
        return dispatcher
    mark = fingerprint((dispatcher.py_func, sorted(options.items())))
    if mark is not None:
        with contextlib.suppress(RuntimeError, OSError):  # no folder can be written to
            dispatcher._cache = KernelCache(dispatcher.py_func, mark)
    return dispatcher


def fingerprint(value: Any, sources: bytes | None = None) -> str | None:
    """A hash of the content of a function and all that it closes over. None if something in it can be identified by its address only.
    sources: a hash of the files that it is made of, where that is known better than by the whole package."""
    digest = hashlib.sha256(_sources() if sources is None else sources)
    try:
        _take(value, digest, {})
    except ValueError:
        return None
    return digest.hexdigest()


def _take(value: Any, digest: Any, taken: dict[types.FunctionType, bytes]) -> None:
    """`taken` has the hash of each function that came up before: a kernel reaches most of its functions by several ways, and those that
    these call by many more."""
    value = getattr(value, "py_func", value)  # a device function
    if isinstance(value, types.FunctionType):
        if value not in taken:
            own = hashlib.sha256(f"function {value.__module__}.{value.__qualname__}".encode())
            _take(value.__code__, own, taken)
            for cell in value.__closure__ or ():
                _take(cell.cell_contents, own, taken)
            taken[value] = own.digest()
        digest.update(taken[value])
    elif isinstance(value, types.CodeType):
        digest.update(_code(value))
    elif isinstance(value, (tuple, list)):
        digest.update(f"sequence of {len(value)}".encode())
        for item in value:
            _take(item, digest, taken)
    else:
        text = repr(value)
        if " at 0x" in text:
            raise ValueError(text)
        digest.update(f"{type(value).__qualname__} {text}".encode())


@functools.cache
def _code(value: types.CodeType) -> bytes:
    """A hash of what a function does, which is the same in many of its closures."""
    digest = hashlib.sha256(value.co_code)
    _take((value.co_names, value.co_varnames, value.co_freevars, value.co_consts), digest, {})
    return digest.digest()


@functools.cache
def _sources() -> bytes:
    """A hash of every source file of the package, and of what is put into every kernel."""
    digest = hashlib.sha256(b"early" if early.ENABLED else b"")
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.digest()

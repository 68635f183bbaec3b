"""Launches of kernels that are already compiled: directly through the driver, at a tenth of the host time that Numba takes.

Numba finds out at every launch what type each argument has, wraps each array, and makes an object for each number: 60 µs and more, and a
step of a small network has twenty launches of some microseconds each. Here everything that depends on the types is prepared once: the
layout of the parameters in memory, and their addresses, which the driver copies at each launch. Only the values change.

A kernel's parameters are Numba's: seven 8-byte words for a flat array (two that are 0, elements, bytes of one, address, elements again, and
bytes from one to the next), a word of its own size for each number, and the numbers of a tuple one after the other.

This path takes flat CuPy arrays only; anything else, and every failure, is left to Numba.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any

import numpy as np

from gpucnn_kernels.core import early

_ARRAY = "qqqqqqq"
_FORMATS: dict[type, str] = {np.int32: "i", np.uint32: "I", np.float32: "f"}  # and CuPy's arrays, once one has been seen


class Prepared:
    """A compiled kernel, with memory for its parameters."""

    def __init__(self, handle: int, formats: tuple[str, ...], waits: bool = False) -> None:
        from cuda.bindings import driver  # not at the top: it is missing where kernels are simulated

        self._driver = driver
        self.function = driver.CUfunction(handle)
        self.waits = waits  # by itself, for the kernels before it
        self.struct = struct.Struct("@" + "".join(formats))  # aligned as in C, like kernel parameters
        self.buffer = ctypes.create_string_buffer(self.struct.size)
        places, before = [], ""
        for each in "".join(formats):
            before += each
            places.append(struct.calcsize("@" + before) - struct.calcsize("@" + each))
        start = ctypes.addressof(self.buffer)
        self._addresses = (ctypes.c_void_p * len(places))(*(start + place for place in places))
        self.parameters = ctypes.addressof(self._addresses)

    def launch(self, blocks: int, threads: int, shared: int, stream: int, values: list[Any]) -> bool:
        """Launches the kernel with these parameters. Returns whether the driver accepted it."""
        where = _streams.get(stream)
        if where is None:
            where = _streams[stream] = self._driver.CUstream(stream)
        with _lock:
            self.struct.pack_into(self.buffer, 0, *values)
            if self.waits and early.possible(self._driver, where):
                error = early.launch(self._driver, self.function, blocks, threads, shared, where, self.parameters)
            else:
                (error,) = self._driver.cuLaunchKernel(self.function, blocks, 1, 1, threads, 1, 1, shared, where, self.parameters, 0)
        return int(error) == 0


_prepared: dict[tuple[Any, ...], Prepared] = {}
_flat: dict[int, tuple[tuple[Any, ...], str, tuple[Any, ...]]] = {}  # by id; the tuple is kept so that its id is not reused
_streams: dict[int, Any] = {}
_lock = threading.Lock()  # all threads share the memory for parameters
loading = threading.RLock()  # of two threads that load a kernel at the same time, Numba refuses the second
_MOST_TUPLES = 4096


def _leaves(value: Any) -> tuple[Any, ...]:
    return tuple(leaf for each in value for leaf in _leaves(each)) if isinstance(value, tuple) else (value,)


def _flattened(value: tuple[Any, ...]) -> tuple[tuple[Any, ...], str, tuple[Any, ...]]:
    """A tuple with its format and its numbers. Plans are kept and launched again, so this is done once per tuple."""
    found = _flat.get(id(value))
    if found is None or found[0] is not value:
        leaves = _leaves(value)
        if len(_flat) >= _MOST_TUPLES:
            _flat.clear()
        found = _flat[id(value)] = value, "".join(_FORMATS[type(leaf)] for leaf in leaves), tuple(leaf.item() for leaf in leaves)
    return found


def launch(kernel: Any, blocks: int, threads: int, shared: int, stream: int, arguments: tuple[Any, ...]) -> bool:
    """Launches a kernel on the CUDA stream at address `stream`, if Numba has launched it before with arguments of the same types. Returns
    whether it did."""
    formats: list[str] = []
    values: list[Any] = []
    dtypes = ""  # arrays of other types need another compiled kernel
    try:
        for argument in arguments:
            kind = type(argument)
            if kind is tuple:
                _, form, numbers = _flattened(argument)
                formats.append(form)
                values += numbers
                continue
            form = _FORMATS[kind]
            if form is _ARRAY:
                if argument.ndim != 1:
                    return False
                size, width = argument.size, argument.itemsize
                values += (0, 0, size, width, argument.data.ptr, size, width)
                dtypes += argument.dtype.char
            else:
                values.append(argument)
            formats.append(form)
    except KeyError as unknown:
        kind = unknown.args[0]
        if kind.__module__ == "cupy" and kind.__name__ == "ndarray":
            _FORMATS[kind] = _ARRAY
            return launch(kernel, blocks, threads, shared, stream, arguments)
        return False
    key = kernel, dtypes, *formats
    prepared = _prepared.get(key)
    if prepared is None:
        compiled = kernel.overloads.get(tuple(kernel.typeof_pyval(argument) for argument in arguments))
        if compiled is None:
            return False
        with loading:
            handle = int(compiled._codelibrary.get_cufunc().handle)
        prepared = _prepared[key] = Prepared(handle, tuple(formats), early.waits(compiled))
    return prepared.launch(blocks, threads, shared, stream, values)

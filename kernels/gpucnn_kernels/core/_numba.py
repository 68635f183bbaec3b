"""All names that the kernels use from Numba. No other module imports Numba, but _shortcuts.py, which changes how it works.

CUDA support for Numba lives in the package numba-cuda, which redirects the module `numba.cuda` to itself. Without it, plain Numba
still brings a simulator of its own, which is enough for NUMBA_ENABLE_CUDASIM=1.

Its successor is the package numba-cuda-mlir. GPUCNN_TOOLCHAIN=mlir selects it, to see how far the kernels run on it: it is slower so far,
has no disk cache, no simulator, and no way to write custom instructions.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy

TOOLCHAINS = ("numba-cuda", "mlir")
_toolchain = os.environ.get("GPUCNN_TOOLCHAIN") or TOOLCHAINS[0]
if _toolchain not in TOOLCHAINS:
    raise ImportError(f"GPUCNN_TOOLCHAIN is {_toolchain!r}: the compilers of kernels are {', '.join(TOOLCHAINS)}")
MLIR = _toolchain == "mlir"
"""Whether kernels are compiled by numba-cuda-mlir."""

try:
    if MLIR:
        from numba_cuda_mlir import cuda as _cuda
        from numba_cuda_mlir import types as _types
        from numba_cuda_mlir.numba_cuda.core import config as _config
    else:
        from numba import config as _config
        from numba import cuda as _cuda
        from numba import types as _types
except ImportError as error:
    if MLIR:
        raise ImportError(f"GPUCNN_TOOLCHAIN=mlir needs numba-cuda-mlir: pip install numba-cuda-mlir ({error})") from error
    raise ImportError(
        "the CUDA kernels need Numba and its CUDA support: "
        'pip install "numba-cuda[cu13]" (or "numba-cuda[cu12]" for a driver older than 580) to run them on a GPU, '
        f"pip install numba to simulate them ({error})"
    ) from error

__all__ = [
    "MLIR",
    "PLAIN",
    "SIMULATED",
    "CUDACache",
    "CacheFile",
    "beginning",
    "cuda",
    "dumps",
    "float32",
    "int32",
    "int64",
    "intrinsic",
    "loads",
    "quickly",
    "target",
    "types",
    "uint32",
    "uint64",
    "without_driver",
    "without_ptx",
]

# Numba has no usable type annotations: what looks like a number here is a type there.
cuda: Any = _cuda
types: Any = _types
float32: Any = _types.float32
int32: Any = _types.int32
int64: Any = _types.int64
uint32: Any = _types.uint32
uint64: Any = _types.uint64

SIMULATED = not MLIR and bool(_config.ENABLE_CUDASIM)
"""Whether kernels are run by Numba's simulator, in Python on NumPy arrays."""

PLAIN = SIMULATED or MLIR
"""Whether kernels can use plain Python only: no custom instructions, and no cache of compiled kernels."""

if not PLAIN:
    from numba.cuda.core.caching import IndexDataCacheFile as _CacheFile
    from numba.cuda.dispatcher import CUDACache as _CUDACache
    from numba.cuda.extending import intrinsic as _intrinsic
    from numba.cuda.serialize import dumps as _dumps
    from numba.cuda.serialize import loads as _loads

    CacheFile: Any = _CacheFile
    CUDACache: Any = _CUDACache
    intrinsic: Any = _intrinsic
    dumps: Any = _dumps
    loads: Any = _loads
else:
    CacheFile = CUDACache = object

    def _no_intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
        """A stand-in for chip instructions that are not available here: kernels that use one are never selected."""
        return function

    intrinsic = _no_intrinsic
    dumps = loads = None

_compiling = threading.local()


if not PLAIN:
    from numba.cuda import codegen as _codegen
    from numba.cuda import dispatcher as _dispatcher
    from numba.cuda.codegen import CUDACodeLibrary as _Library

    from gpucnn_kernels.core import _shortcuts

    quickly: Callable[[], contextlib.AbstractContextManager[None]] = _shortcuts.quickly
    without_ptx: Callable[[], contextlib.AbstractContextManager[None]] = _shortcuts.without_ptx
else:
    quickly = without_ptx = contextlib.nullcontext


def beginning(mark: str, capability: tuple[int, int], begin: Callable[[Any], None]) -> None:
    """From now on, calls `begin` with llvmlite's function of each kernel that is compiled for this compute capability or a newer one, if
    the Python function has an attribute named `mark`."""
    from numba.cuda import compiler as _compiler

    for place in (_compiler, _dispatcher):  # each has both functions under a name of its own
        place.compile_cuda = _compile_noting(place.compile_cuda, mark, capability)
        place.kernel_fixup = _fix_up_with(place.kernel_fixup, begin)


def _compile_noting(compile_cuda: Callable[..., Any], mark: str, capability: tuple[int, int]) -> Callable[..., Any]:
    def compile_and_note(function: Any, *arguments: Any, cc: Any = None, **options: Any) -> Any:
        made = compile_cuda(function, *arguments, cc=cc, **options)
        _compiling.begins = hasattr(function, mark) and tuple(cc[:2]) >= capability
        return made

    return compile_and_note


def _fix_up_with(kernel_fixup: Callable[..., None], begin: Callable[[Any], None]) -> Callable[..., None]:
    def fix_up(function: Any, debug: bool) -> None:
        kernel_fixup(function, debug)
        if _compiling.begins:
            begin(function)

    return fix_up


Target: TypeAlias = tuple[tuple[int, int], tuple[Any, ...], Any]
"""The target of a compilation: the compute capability, the same in the form that the compilers take, and what Numba derives from it for the
names of files."""


def target() -> Target:
    """The target of the current GPU, or the one given to `without_driver`."""
    architecture = _Library._ensure_cc(None, None)
    return architecture[:2], architecture, _codegen.JITCUDACodegen.magic_tuple(None)


@contextlib.contextmanager
def without_driver(wanted: Target) -> Iterator[None]:
    """Inside, kernels are compiled for this target and not loaded. This needs no GPU, and asks no driver."""
    capability, architecture, stamp = wanted
    present = SimpleNamespace(compute_capability=capability)
    before = _dispatcher.get_current_device, _Library._ensure_cc, _codegen.JITCUDACodegen.magic_tuple, _dispatcher._Kernel.bind
    _dispatcher.get_current_device = lambda: present
    _Library._ensure_cc = lambda self, cc: architecture if cc is None else cc
    _codegen.JITCUDACodegen.magic_tuple = lambda self: stamp
    _dispatcher._Kernel.bind = lambda self: self._codelibrary.get_cubin()
    try:
        yield
    finally:
        _dispatcher.get_current_device, _Library._ensure_cc, _codegen.JITCUDACodegen.magic_tuple, _dispatcher._Kernel.bind = before


if SIMULATED:
    from numba.cuda.simulator import kernel as _kernel
    from numba.cuda.simulator import kernelapi as _kernelapi

    from gpucnn_kernels.core import simulated as _simulated

    # The simulator creates a shared array for the first thread that asks, and looks it up for the others, without a lock. Now and then two
    # threads both count as first, each gets its own array, and the results are wrong. (It also walks the whole stack every time, slowly.)
    _first_thread = threading.Lock()

    def _shared_array(self: Any, shape: Any, dtype: Any, alignment: int | None = None) -> Any:
        kind = numpy.dtype(dtype)
        if shape == 0:  # what the launch asks for beside the kernel's own
            return numpy.frombuffer(self._dynshared, kind, len(self._dynshared) // kind.itemsize)
        frame = sys._getframe(1)
        place = frame.f_code, frame.f_lasti  # of the call: a line may have two
        with _first_thread:
            if place not in self._allocations:
                self._allocations[place] = numpy.empty(shape, kind)
            return self._allocations[place]

    def _run_block(self: Any, grid_point: Any, *args: Any) -> None:
        _simulated.run_block(_kernel.BlockThread, self, grid_point, args)

    # It also puts its own `cuda` into a function's module for each call of the function, and its types look up by name what NumPy calls the
    # same: together that is half of the time. Here a module gets it once for all of a launch, and numbers are made by NumPy at once.
    _call, _modules_given, _giving = _kernel.FakeCUDAKernel.__call__, set[int](), contextlib.ExitStack()

    def _call_quickly(self: Any, *args: Any) -> Any:
        launched = _kernel._kernel_context
        if launched is None:
            try:
                return _call(self, *args)
            finally:
                _modules_given.clear()
                _giving.close()
        if id(self.fn.__globals__) not in _modules_given:
            with _first_thread:
                if id(self.fn.__globals__) not in _modules_given:
                    _giving.enter_context(_kernel.swapped_cuda_module(self.fn, launched))
                    _modules_given.add(id(self.fn.__globals__))
        return self.fn(*args)

    _kernel.FakeCUDAKernel.__call__ = _call_quickly
    float32, int32, int64, uint32, uint64 = numpy.float32, numpy.int32, numpy.int64, numpy.uint32, numpy.uint64
    _kernelapi.FakeCUDAShared.array = _shared_array
    _kernelapi.FakeCUDAModule.shfl_xor_sync = staticmethod(_simulated.lane_exchange)
    _kernel.BlockThread.syncthreads = lambda self: self.block.barrier()
    _kernel.BlockManager.run = _run_block

# Numba warns about every grid under 128 blocks. A loss's last launch has one, and a small batch has few: nothing a user could change.
# (By its setting: where colorama is installed the message begins with an escape sequence, and no filter of warnings finds it.)
_config.CUDA_LOW_OCCUPANCY_WARNINGS = 0

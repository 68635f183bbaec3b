"""Everything that the kernels take from Numba, imported in this one place.

CUDA support for Numba lives in the package numba-cuda, which redirects the module `numba.cuda` to itself. Without it, plain Numba
still brings a simulator of its own, which is enough for NUMBA_ENABLE_CUDASIM=1.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy

try:
    import numba
    from numba import cuda as _cuda
except ImportError as error:
    raise ImportError(
        "the CUDA kernels need Numba and its CUDA support: "
        'pip install "numba-cuda[cu13]" (or "numba-cuda[cu12]" for a driver older than 580) to run them on a GPU, '
        f"pip install numba to simulate them ({error})"
    ) from error

__all__ = [
    "SIMULATED",
    "CUDACache",
    "CacheFile",
    "cuda",
    "float32",
    "int32",
    "int64",
    "intrinsic",
    "types",
    "uint32",
    "uint64",
]

# Numba has no type annotations worth the name: what looks like a number here is a type there.
cuda: Any = _cuda
types: Any = numba.types
float32: Any = numba.float32
int32: Any = numba.int32
int64: Any = numba.int64
uint32: Any = numba.uint32
uint64: Any = numba.uint64

SIMULATED = bool(numba.config.ENABLE_CUDASIM)
"""Whether kernels are run by Numba's simulator, in Python on NumPy arrays."""

if not SIMULATED:  # the simulator has neither: it compiles nothing, and vector.py has stand-ins
    from numba.cuda.core.caching import IndexDataCacheFile as _CacheFile
    from numba.cuda.dispatcher import CUDACache as _CUDACache
    from numba.cuda.extending import intrinsic as _intrinsic

    CacheFile: Any = _CacheFile
    CUDACache: Any = _CUDACache
    intrinsic: Any = _intrinsic
else:
    CacheFile = CUDACache = object

if SIMULATED:
    # The simulator gives out a shared array to the first thread that asks, and looks it up for the others, without a lock: now and then
    # two threads are first, each with an array of its own, and the results are wrong. (It also walks the whole stack for each, slowly.)
    from numba.cuda.simulator import kernelapi as _kernelapi

    _first_thread = threading.Lock()

    def _shared_array(self: Any, shape: Any, dtype: Any, alignment: None = None) -> Any:
        frame = sys._getframe(1)
        line = frame.f_code.co_filename, frame.f_lineno
        with _first_thread:
            if line not in self._allocations:
                self._allocations[line] = numpy.empty(shape, _kernelapi.numpy_support.as_dtype(dtype))
            return self._allocations[line]

    _kernelapi.FakeCUDAShared.array = _shared_array

    def _no_intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
        """An instruction of the chip has nothing to stand for it in the simulator: kernels that use one are not chosen there."""
        return function

    intrinsic = _no_intrinsic

# Numba warns of every grid under 128 blocks. A loss's last launch has one, and a small batch has few: nothing that a user could mend.
# (By its setting: where colorama is installed the message begins with an escape sequence, and no filter of warnings finds it.)
numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0

"""Devices: which array library and which operations a model runs on. The only module that imports CuPy.

    cpu     NumPy arrays, `gpucnn.ops.cpu`
    cuda    CuPy arrays, `gpucnn.ops.cuda` (Numba kernels)
    auto    the value of GPUCNN_DEVICE; without it, cuda if it works, otherwise cpu

With NUMBA_ENABLE_CUDASIM=1 in the environment, before Numba is imported, "cuda" is Numba's simulator: the same kernels, run by
Python on NumPy arrays. It is a million times as slow and serves to test kernels, so "auto" never selects it. Nor does it select the virtual
GPU of tests/vgpu, which is slow as well, and which CuPy takes for a real one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import os
import sys
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy

from gpucnn.arrays import on_a_gpu, to_numpy
from gpucnn.errors import ArgumentError, DeviceError
from gpucnn.surroundings import flag, install, local_rank
from gpucnn.text import first_line, shown

__all__ = ["MINIMUM_COMPUTE_CAPABILITY", "NAMES", "Device", "get_device", "of", "simulated", "to_numpy", "why_no_cuda"]

NAMES = ("auto", "cpu", "cuda")
VIRTUAL = "virtual "  # the prefix of a virtual GPU's name
MINIMUM_COMPUTE_CAPABILITY = (7, 5)  # Turing: the oldest chip that CUDA 13 compiles for


@dataclass(frozen=True)
class Device:
    """The library of a model's arrays, and the operations on them."""

    kind: str  # "cpu" or "cuda"
    name: str  # for people: the chip's name, or "CPU"
    xp: ModuleType  # numpy or cupy
    ops: ModuleType  # gpucnn.ops.cpu or gpucnn.ops.cuda

    def array(self, values: Any, dtype: Any = None) -> Any:
        """`values` on this device, C-contiguous; not copied if that is already so."""
        if self.xp.__name__ == "numpy":
            with numpy.errstate(all="ignore"):  # values out of range become infinite
                return self.xp.ascontiguousarray(to_numpy(values), dtype=dtype)
        return self.xp.ascontiguousarray(self.xp.asarray(values, dtype=dtype))

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A NumPy array in pinned memory, from which a GPU can copy directly; an ordinary array without a GPU."""
        if self.xp.__name__ != "cupy":
            return numpy.empty(shape, dtype)
        count = math.prod(shape)
        memory = self.xp.cuda.alloc_pinned_memory(max(1, count * numpy.dtype(dtype).itemsize))
        return numpy.frombuffer(memory, dtype, count).reshape(shape)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A new array that operations fill, and nothing else."""
        if self.kind != "cpu":
            return self.xp.empty(shape, dtype)
        from gpucnn.ops.cpu._threads import empty  # which a pass that is recorded lends

        return empty(shape, dtype)

    def free_bytes(self) -> int:
        """Free bytes of memory on the device, including those that CuPy keeps for reuse. Host memory is not counted."""
        if self.xp.__name__ != "cupy":
            return sys.maxsize
        return int(self.xp.cuda.runtime.memGetInfo()[0]) + int(self.xp.get_default_memory_pool().free_bytes())

    def give_back(self) -> bool:
        """Returns to the device what CuPy keeps for reuse, for others than its own pool. Whether that was anything."""
        if self.xp.__name__ != "cupy":
            return False
        pool = self.xp.get_default_memory_pool()
        kept = pool.total_bytes()
        pool.free_all_blocks()
        return bool(pool.total_bytes() < kept)

    def nccl(self) -> Any:
        """CuPy's NCCL, which sums over GPUs; None if its library is not installed."""
        if self.xp.__name__ != "cupy":
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a missing library, which the caller reports
            found = importlib.import_module("cupy.cuda.nccl")
        return found if getattr(found, "available", False) else None

    def synchronize(self) -> None:
        """Waits until everything that was launched has finished."""
        if self.xp.__name__ == "cupy":
            self.xp.cuda.get_current_stream().synchronize()


def check_dtype(dtype: object, device: Device) -> None:
    """Raises ArgumentError for a type of numbers that models on `device` cannot have."""
    if not isinstance(dtype, str) or dtype not in ("float32", "float64"):
        raise ArgumentError(f"dtype must be float32 or float64, got {shown(dtype)}")
    if dtype == "float64" and device.kind == "cuda":
        raise ArgumentError("the kernels compute in float32: use device='cpu' for float64")


def get_device(name: str | Device = "auto") -> Device:
    """The device called `name`. Raises DeviceError if "cuda" is requested and not available, and says what is missing."""
    if isinstance(name, Device):
        return name
    if not isinstance(name, str) or name not in NAMES:
        raise DeviceError(f"unknown device {shown(name)}: the devices are {', '.join(NAMES)}")
    if name == "auto":
        given = os.environ.get("GPUCNN_DEVICE") or name
        name = given.lower()  # as --device is taken
        if name not in NAMES:
            raise DeviceError(f"unknown device {shown(given)} in GPUCNN_DEVICE: the devices are {', '.join(NAMES)}")
    if name == "cpu":
        return _cpu()
    if name == "cuda" and simulated():
        return _simulator()
    if name == "auto":
        return _cpu() if why_not_auto() else _cuda()
    missing = why_no_cuda()
    if missing is not None:
        raise DeviceError(f'device "cuda" cannot be used: {missing}; use device "cpu", or "auto" to use what is available')
    return _cuda()


def simulated() -> bool:
    """Whether Numba's CUDA simulator is on (NUMBA_ENABLE_CUDASIM=1)."""
    return flag("NUMBA_ENABLE_CUDASIM")


@functools.cache
def why_no_cuda() -> str | None:
    """A message that says what is missing for the GPU, and how to fix it; None if a GPU can be used."""
    if simulated():
        return "Numba's CUDA simulator is on (unset NUMBA_ENABLE_CUDASIM)"
    several = cupy_packages()
    if len(several) > 1:
        return (
            f"{len(several)} packages of CuPy are installed, {' and '.join(several)}, which break one another "
            f"(pip uninstall {' '.join(several)}, then pip install {several[-1]})"
        )
    own = _own_gpu()
    try:
        import cupy
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a broken installation may raise anything, SystemExit too
        if isinstance(error, ImportError) and "cupy" in str(error) and getattr(error, "name", None) in ("cupy", None):
            return f"CuPy is not installed ({install('cuda13')}; for a driver of CUDA 12, {install('cuda12')})"
        # It makes a folder for its kernels when it is imported.
        folder = isinstance(error, OSError) and error.filename is not None
        mend = "let CUPY_CACHE_DIR name a folder that can be written to" if folder else "install it again"
        return f"CuPy is installed but does not import ({type(error).__name__}: {first_line(error)}); {mend}"
    try:
        missing = _why_no_driver(cupy, own)
        capability = (0, 0) if missing else _compute_capability(cupy)
    except Exception as error:  # half of an installation
        return f"CuPy is installed but does not work ({type(error).__name__}: {first_line(error)}); install it again"
    if missing is not None:
        return missing
    if capability < MINIMUM_COMPUTE_CAPABILITY:
        least = ".".join(map(str, MINIMUM_COMPUTE_CAPABILITY))
        return f"the GPU is too old (compute capability {capability[0]}.{capability[1]}; {least} or newer is needed)"
    try:
        from numba import cuda
    except Exception as error:
        return f"numba-cuda is not installed or does not import ({install('cuda13')}; {first_line(error)})"
    try:
        usable = cuda.is_available()
    except Exception as error:  # a half-installed toolkit may raise anything; the message quotes it
        return f"numba-cuda does not work ({first_line(error)})"
    if not usable:
        return f"numba-cuda finds no usable CUDA toolkit ({install('cuda13')})"
    return None


def _own_gpu() -> int | None:
    """If several ranks were started on this machine, hides all GPUs from this process except the one of its number among them. Hides
    nothing if each rank was already given its own. Returns the number if it was used.

    This is done in the environment before anything asks the driver, so that all libraries in this process use that one GPU.
    """
    rank = local_rank()
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if rank is None or len(visible) == 1:
        return None
    os.environ["CUDA_VISIBLE_DEVICES"] = str(rank) if not visible else visible[rank] if rank < len(visible) else "-1"
    return rank


def cupy_packages() -> list[str]:
    """The installed packages that contain CuPy, of which there must not be two."""
    from importlib import metadata

    found = []
    for name in ("cupy", *(f"cupy-cuda{number}x" for number in range(11, 16)), "cupy-rocm-5-0", "cupy-rocm-7-0"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(name)
            found.append(name)
    return found


def _why_no_driver(cupy: Any, own: int | None = None) -> str | None:
    """The error of the NVIDIA driver, as CuPy reports it; None if a GPU is available. own: this rank's number on its machine."""
    runtime = cupy.cuda.runtime
    failure: Exception | None = None
    count = driver = needed = 0
    try:
        count = runtime.getDeviceCount()
    except Exception as error:  # CuPy raises its own classes for a missing driver, a missing library, an old driver and hidden GPUs
        failure = error
    if count and failure is None:
        return None
    with contextlib.suppress(Exception):
        driver, needed = int(runtime.driverGetVersion()), int(runtime.runtimeGetVersion())
    said = "" if failure is None else f" ({first_line(failure)})"
    if driver and driver // 1000 < needed // 1000:
        instead = ", or install the extra cuda12 in place of cuda13" if driver // 1000 == 12 else ""
        return (
            f"the NVIDIA driver is too old: it knows CUDA {driver // 1000}.{driver % 1000 // 10}, and this CuPy needs CUDA "
            f"{needed // 1000}{said}; update the driver{instead}"
        )
    if needed and not driver:
        return f"there is no working NVIDIA driver{said}; install one, and check that nvidia-smi lists the GPU"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if own is not None and (failure is None or driver):
        return f"this machine has no GPU for its rank {own}{said}: start at most as many ranks on it as it has GPUs"
    if hidden is not None and (failure is None or driver):
        return f"the NVIDIA driver sees no GPU, because CUDA_VISIBLE_DEVICES={shown(hidden)} hides them{said}; unset it"
    if failure is None or driver:
        return f"the NVIDIA driver sees no GPU{said} (is one plugged in, and given to this container? is CUDA_VISIBLE_DEVICES empty?)"
    return f"no working NVIDIA driver{said}"


def why_not_auto() -> str | None:
    """Why "auto" does not select the GPU by itself; None if it does."""
    missing = why_no_cuda()
    if missing is None and _cuda().name.startswith(VIRTUAL):
        return f'{_cuda().name} runs on the CPU, to check kernels (GPUCNN_DEVICE=cuda, or device "cuda", uses it anyway)'
    return missing


def of(array: Any) -> Device:
    """The device on which `array` lives. Raises TypeError for anything but a NumPy or CuPy array."""
    if on_a_gpu(array):
        return _cuda()
    if isinstance(array, numpy.ndarray | numpy.generic) and not isinstance(array, numpy.ma.MaskedArray):
        return _cpu()
    raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}")


def _compute_capability(cupy: Any) -> tuple[int, int]:
    text = str(cupy.cuda.Device().compute_capability)
    return int(text[:-1]), int(text[-1])


@functools.cache
def _cpu() -> Device:
    operations = importlib.import_module("gpucnn.ops.cpu")
    # Wrong settings are refused here, before data are loaded and an earlier run is moved, and not at the first step.
    importlib.import_module("gpucnn.ops.cpu._engine").expected()
    if "GPUCNN_NUM_THREADS" in os.environ:
        importlib.import_module("gpucnn.ops.cpu._threads").threads()
    return Device("cpu", "CPU", numpy, operations)


@functools.cache
def _simulator() -> Device:
    return Device("cuda", "Numba's CUDA simulator", numpy, importlib.import_module("gpucnn.ops.cuda"))


@functools.cache
def _cuda() -> Device:
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    return Device("cuda", name, cupy, importlib.import_module("gpucnn.ops.cuda"))

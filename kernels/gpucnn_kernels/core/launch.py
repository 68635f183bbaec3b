"""The work of every launcher before it launches: it checks the arrays, counts the blocks and chooses the stream.

Kernels see flat arrays and 32-bit sizes. A flat array costs 7 kernel parameters where a 4-D one costs 13, and 32-bit arithmetic is
several times as fast as 64-bit on a GPU; so arrays of 2³¹ elements and more are refused here.

Every launch of the package goes through `run`, so that is where a profiler listens: `recording`.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from gpucnn_kernels.core import driver
from gpucnn_kernels.core._numba import MLIR, SIMULATED, cuda
from gpucnn_kernels.core.compile import Role, function_of, role_of

Array: TypeAlias = Any  # whatever Numba accepts and has shape, dtype and reshape
Stream: TypeAlias = Any  # a Numba stream, or 0 for the default one
Pair: TypeAlias = tuple[int, int]

THREADS = 128  # per block, where threads are independent: four warps, so that the last block wastes little
SIMULATED_THREADS = 32  # the simulator spends time on each thread, whether it has work or not
LIMIT = 2**31  # elements
_DTYPES = {name: np.dtype(name) for name in ("float32", "int32", "uint8", "uint32")}
PLAIN_SHARED = 48 << 10  # bytes of shared memory that a kernel may have without asking


class Window(Protocol):
    """A window of R × S taps sliding over an image. Tap (r, s) of position (p, q) reads the image at row
    p·stride[0] − padding[0][0] + r·dilation[0], and likewise for columns; outside the image is padding."""

    @property
    def input(self) -> Pair: ...  # H, W
    @property
    def kernel(self) -> Pair: ...  # R, S
    @property
    def stride(self) -> Pair: ...
    @property
    def padding(self) -> tuple[Pair, Pair]: ...  # (top, bottom), (left, right)
    @property
    def dilation(self) -> Pair: ...
    @property
    def output(self) -> Pair: ...  # P, Q
    @property
    def same(self) -> bool: ...  # padding that averages never count
    def __hash__(self) -> int: ...  # plans are cached by shape


class LaunchError(RuntimeError):
    """A kernel that could not be compiled or launched: says which, and on what."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with its grid and its arguments. The arguments are kept as they are, arrays and all, so a launch can be done again."""

    kernel: Any
    blocks: int
    threads: int
    arguments: tuple[Any, ...]
    shared: int = 0  # bytes of shared memory per block, beside what the kernel itself declares

    @property
    def name(self) -> str:
        """The kernel's Python name; under the simulator as well."""
        return function_of(self.kernel).__name__.removesuffix("_kernel")

    @property
    def role(self) -> Role:
        """The kernel's part in an operation of several launches."""
        return role_of(self.kernel)

    @property
    def signature(self) -> tuple[Any, ...]:
        """Numba's types of the arguments. There are none under the simulator."""
        return tuple(self.kernel.typeof_pyval(argument) for argument in self.arguments)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays among the arguments, each piece of memory once: a launcher passes any array in place of one that is not read."""
        return tuple({address_of(argument): argument for argument in self.arguments if getattr(argument, "shape", ())}.values())

    @property
    def array_bytes(self) -> int:
        """The bytes of all of its arrays, which a kernel moves that reads or writes every element once."""
        return sum(int(array.size) * int(array.dtype.itemsize) for array in self.arrays)

    def run(self, stream: Stream, arguments: tuple[Any, ...] | None = None) -> None:
        """Repeats the launch, on other arrays if `arguments` are given. It is not recorded."""
        self.kernel[self.blocks, self.threads, stream, self.shared](*(self.arguments if arguments is None else arguments))


class _Recorder:
    """The listener to launches."""

    def __init__(self, launching: bool) -> None:
        self.launches: list[Launch] = []
        self.launching = launching


class _Own(threading.local):
    """Each thread's listener: a recording that launches nothing must not swallow another thread's launches."""

    recorder: _Recorder | None = None


_own = _Own()


@contextmanager
def recording(*, launching: bool = True) -> Iterator[list[Launch]]:
    """Records every launch of this thread inside the block, in the list that it yields.

    With `launching=False` nothing runs: uninitialized NumPy arrays are enough as arguments, and the launchers show what a chip that is not
    present would be asked to do. Of nested recordings, the innermost one receives the launches.
    """
    outer, _own.recorder = _own.recorder, _Recorder(launching)
    try:
        yield _own.recorder.launches
    finally:
        _own.recorder = outer


def unsynchronized(array: Array) -> Array:
    """A GPU array in Numba's form. Given another library's array, a launch asks for its stream and waits for it, every time: that costs the
    host some microseconds and cannot be captured in a graph. The caller is responsible for the order of work."""
    return array if SIMULATED else cuda.as_cuda_array(array, sync=False)


def address_of(array: Array) -> tuple[int, int]:
    """The address and the length of an array. Two arrays for which both are equal are the same memory."""
    return _pointer(array), int(array.size)


def _pointer(array: Array) -> int:
    """The address of an array. CuPy's attribute is tried first: building its array interface takes microseconds, and so does testing for
    it."""
    pointer = getattr(getattr(array, "data", None), "ptr", None)
    if pointer is None and hasattr(array, "data_ptr"):  # PyTorch
        pointer = array.data_ptr()
    elif pointer is None:
        pointer = array.ctypes.data if hasattr(array, "ctypes") else array.__cuda_array_interface__["data"][0]
    return int(pointer)


def flat(array: Array, name: str, dtype: str, shape: tuple[int, ...] | None = None) -> Array:
    """`array` as one dimension, sharing its memory.

    Raises TypeError for another dtype; ValueError for another shape, for memory that is not C-contiguous, and for 2³¹ elements and
    more.
    """
    if array.dtype is not _DTYPES.get(dtype):  # NumPy has one object per dtype, and formatting its name takes longer than a launch
        given = str(array.dtype).rpartition(".")[2]  # PyTorch says torch.float32
        if given != dtype:
            raise TypeError(f"{name} is {given}, and the kernel takes {dtype}: convert it first")
    have = tuple(array.shape)
    if shape is not None and have != tuple(shape):
        raise ValueError(f"{name} has shape {have}, expected {tuple(shape)}")
    if not _contiguous(array):
        raise ValueError(f"{name} of shape {have} is not C-contiguous: make it so first (ascontiguousarray)")
    size = 1
    for side in have:
        size *= int(side)
    if size >= LIMIT:
        raise ValueError(f"{name} has {size} elements, and the kernels count to 2³¹ − 1: use a smaller batch")
    return array if len(have) == 1 else array.reshape(-1)


def floats(array: Array, name: str, shape: tuple[int, ...] | None = None) -> Array:
    """`flat` for float32."""
    return flat(array, name, "float32", shape)


def images(array: Array, name: str, shape: tuple[int, ...]) -> tuple[Array, int]:
    """`floats` for images that may lie apart, as the channels of one branch do within those of all: (the array from its first number to its
    last as one dimension, the elements from an image to the next). The second is 0 if they are adjacent.

    ValueError where an image itself is not C-contiguous, and for arrays of other libraries than NumPy and CuPy that are not.
    """
    if _contiguous(array):
        return floats(array, name, shape), 0
    have = tuple(array.shape)
    if have != tuple(shape):
        raise ValueError(f"{name} has shape {have}, expected {tuple(shape)}")
    own = int(floats(array[:1], f"an image of {name}").shape[0])
    library = sys.modules[type(array).__module__.partition(".")[0]]
    if library.__name__ not in ("numpy", "cupy"):
        raise ValueError(f"{name} of shape {have} is not C-contiguous: make it so first")
    step, rest = divmod(int(array.strides[0]), 4)
    if rest or step < own:
        raise ValueError(f"the images of {name} lie {array.strides[0]} bytes apart, and are {4 * own} bytes long")
    size = (have[0] - 1) * step + own
    if size >= LIMIT:
        raise ValueError(f"{name} reaches over {size} elements, and the kernels count to 2³¹ − 1: use a smaller batch")
    return library.lib.stride_tricks.as_strided(array, (size,), (4,)), step


def ints(array: Array, name: str, shape: tuple[int, ...] | None = None) -> Array:
    """`flat` for int32."""
    return flat(array, name, "int32", shape)


def aligned(array: Array) -> bool:
    """Whether the array begins at a multiple of 16 bytes, where four numbers can be read at a time."""
    return _pointer(array) % 16 == 0


def run(kernel: Any, blocks: int, threads: int, stream: Stream, *arguments: Any, shared: int = 0) -> None:
    """Launches `kernel` on `stream` with a one-dimensional grid, and `shared` bytes of shared memory per block beside what it declares;
    nothing to do is not a launch."""
    if blocks == 0:
        return
    if blocks >= LIMIT:
        raise ValueError(f"{blocks} thread blocks, and a grid holds 2³¹ − 1: use a smaller batch")
    recorder = _own.recorder
    if recorder is not None:
        recorder.launches.append(Launch(kernel, blocks, threads, arguments, shared))
        if not recorder.launching:
            return
    if stream and not MLIR and driver.launch(kernel, blocks, threads, shared, int(stream.handle), arguments):
        return
    try:
        with nullcontext() if SIMULATED else driver.loading:  # Numba loads what it has not launched yet
            if shared > PLAIN_SHARED and not SIMULATED:
                _allow(kernel, shared, arguments)
            kernel[blocks, threads, stream, shared](*arguments)
    except Exception as error:
        if SIMULATED:  # there an error is the kernel's own, such as an index out of bounds
            raise
        given = Launch(kernel, blocks, threads, arguments)
        sizes = ", ".join(f"{array.size} {array.dtype}" for array in given.arrays)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LaunchError(f"the kernel {given.name} failed ({reason}): {blocks} blocks of {threads} threads, arrays of {sizes}") from error


def run_each(kernel: Any, count: int, stream: Stream, *arguments: Any) -> None:
    """Launches `kernel` with one thread for each of `count` elements; threads past the last must return at once."""
    threads = SIMULATED_THREADS if SIMULATED else THREADS
    run(kernel, -(-count // threads), threads, stream, *arguments)


def _allow(kernel: Any, shared: int, arguments: tuple[Any, ...]) -> None:
    """Asks the driver, once for each kernel and GPU, to let a kernel have more shared memory than the default. Numba cannot express
    that, so this uses the handle of the compiled kernel."""
    key = kernel, int(cuda.get_current_device().id)
    if _allowed.get(key, 0) >= shared:
        return
    from cuda.bindings import driver as bindings

    compiled = kernel.compile(tuple(kernel.typeof_pyval(argument) for argument in arguments))
    (error,) = bindings.cuKernelSetAttribute(
        bindings.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
        shared,
        bindings.CUkernel(int(compiled._codelibrary.get_cufunc().handle)),
        bindings.CUdevice(key[1]),
    )
    if int(error):
        raise RuntimeError(f"{shared} bytes of shared memory were refused ({bindings.CUresult(int(error)).name})")
    _allowed[key] = shared


_allowed: dict[tuple[Any, int], int] = {}  # by kernel and GPU


@functools.lru_cache(maxsize=256)
def geometry(window: Window) -> tuple[np.int32, ...]:
    """H, W, R, S, vertical and horizontal stride, top and left padding, vertical and horizontal dilation, P, Q."""
    for size, taps, dilation, padding in zip(window.input, window.kernel, window.dilation, window.padding, strict=True):
        reach = size + sum(padding) + dilation * taps
        if reach >= LIMIT:
            raise ValueError(f"image {window.input} with padding {window.padding} and kernel {window.kernel} reaches over 2³¹ pixels")
    (top, _), (left, _) = window.padding
    numbers = (*window.input, *window.kernel, *window.stride, top, left, *window.dilation, *window.output)
    return tuple(np.int32(number) for number in numbers)


@functools.lru_cache(maxsize=64)
def external_stream(pointer: int) -> Stream:
    """Numba's stream for the CUDA stream at address `pointer`, as CuPy's `get_current_stream().ptr` gives it."""
    return 0 if SIMULATED else cuda.external_stream(pointer)


def _contiguous(array: Array) -> bool:
    flags = getattr(array, "flags", None)
    if flags is not None:  # NumPy, CuPy, Numba
        return bool(flags["C_CONTIGUOUS"])
    return bool(array.is_contiguous())  # PyTorch

"""Compiles a launch for a chip that need not be present, as Numba would compile it there.

Numba and NVVM compile a kernel to link-time intermediate code; nvJitLink turns it into machine code and reports its resources: the same
two steps, with the same options, as in a launch. They only need the compilers that `pip install "numba-cuda[cu13]"` installs.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from gpucnn.errors import UnknownNameError
from gpucnn.profiling.chip import sass
from gpucnn.profiling.chip.chips import ARCHITECTURES, Architecture
from gpucnn.profiling.chip.sass import ToolchainError as ToolchainError
from gpucnn.profiling.records import HotLoop
from gpucnn.text import first_line
from gpucnn_kernels.core._numba import SIMULATED, cuda, quickly
from gpucnn_kernels.core.launch import Launch

_REGISTER_UNIT = 256  # allocation unit of registers, per warp
_SHARED_UNIT = 256  # bytes: allocation unit of shared memory; 128 on newer chips
_OPTIONS = ("lineinfo", "fastmath", "opt", "launch_bounds")  # options of a kernel that affect its intermediate code
# In LLVM's text: the type, PTX within it, and functions whose insides are not there. The line on the layout of data names all types.
_PERHAPS_FLOAT64 = re.compile(r"^(?!target datalayout).*(?:double|f64|__nv_)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Compiled:
    """The resources of a launch's kernel on a chip. Sizes in bytes.

    registers: per thread.
    spill_stores, spill_loads: bytes of registers that did not fit and go to memory and back: slow.
    stack: per thread, of local arrays that had to be put in memory: slow.
    shared: per block.
    float64: instructions in float64, 32 or 64 times slower than in float32, and always a mistake here.
    occupancy: the share of the chip's thread slots that can be filled.
    loop: the loop that matters most, if it was looked for and there is one.
    """

    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int
    float64: int
    occupancy: float
    loop: HotLoop | None = None

    @property
    def spills(self) -> int:
        """Spilled bytes, stores and loads together."""
        return self.spill_stores + self.spill_loads


def compile_launch(launch: Launch, arch: str) -> Compiled:
    """Compiles the kernel of a launch for an architecture, for the types of its arguments and with the kernel's own options.

    Raises UnknownNameError for an architecture not in ARCHITECTURES, and ToolchainError if the compilers are missing.
    """
    if arch not in ARCHITECTURES:
        raise UnknownNameError(f"unknown chip {arch!r}: the chips are {', '.join(ARCHITECTURES)}")
    log, _ = _machine_code(launch.kernel, launch.signature, arch)
    registers = _number(r"Used (\d+) registers", log)
    shared = _number(r"(\d+) bytes smem", log, default=0) + launch.shared
    return Compiled(
        registers=registers,
        spill_stores=_number(r"(\d+) bytes spill stores", log),
        spill_loads=_number(r"(\d+) bytes spill loads", log),
        stack=_number(r"(\d+) bytes stack frame", log),
        shared=shared,
        float64=_float64(launch.kernel, launch.signature, arch),
        occupancy=occupancy(ARCHITECTURES[arch], launch.threads, registers, shared),
    )


def ptx(launch: Launch, arch: str) -> str:
    """The kernel of a launch as PTX, after linking."""
    return str(_link(launch.kernel, launch.signature, arch, "-ptx"))


def machine_code(launch: Launch, arch: str) -> bytes:
    """The kernel of a launch as a cubin, the file that a chip runs; sass.py takes it apart."""
    return _machine_code(launch.kernel, launch.signature, arch)[1]


def wgmma_remarks(launch: Launch, arch: str) -> list[str]:
    """The compiler's remarks on products of a warpgroup, each with its number (C7510 to C7519): that it runs them one after the other, or
    waits for them where the kernel does not."""
    return re.findall(r"\(C75\d\d\).*", _machine_code(launch.kernel, launch.signature, arch)[0])


def main_loop(launch: Launch, arch: str) -> HotLoop | None:
    """The instructions of the loop that matters most; None if there is none, because the work is done once or is unrolled.
    ToolchainError if there is no disassembler."""
    loop = sass.main_loop(sass.disassemble(machine_code(launch, arch)))
    return None if loop is None else HotLoop(loop.instructions, loop.ffma, loop.lds_128 + loop.sts, loop.ldg + loop.ldg_128)


def occupancy(chip: Architecture, threads: int, registers: int, shared: int) -> float:
    """The share of a multiprocessor's thread slots that blocks of `threads` can fill, given their registers and bytes of shared memory: an
    upper bound. More threads hide more latency, but only time counts."""
    warps = -(-threads // 32)
    per_warp = _round_up(registers * 32, _REGISTER_UNIT)
    # The registers are divided into four parts, one for each scheduler, and a warp's are all in one part.
    warps_by_registers = chip.registers // 4 // per_warp * 4
    memory = _round_up(shared, _SHARED_UNIT) + chip.reserved
    blocks = min(
        chip.blocks,
        chip.threads // (32 * warps),
        warps_by_registers // warps,
        chip.shared // memory if memory else chip.blocks,
    )
    return blocks * warps * 32 / chip.threads


def check_compilers() -> None:
    """Raises ToolchainError, which says what to install, if the compilers are missing."""
    _linker()


@contextmanager
def as_if_present(chip: Architecture) -> Iterator[None]:
    """Makes Numba use `chip` as the current GPU, which it looks up for device functions even if `cuda.compile` was given the target."""
    dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")
    real = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=chip.capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = real


def _linker() -> Any:
    """The module cuda.bindings.nvjitlink, after checking that everything needed for compiling is installed."""
    if SIMULATED:
        raise ToolchainError("the simulator compiles nothing: unset NUMBA_ENABLE_CUDASIM")
    install = f"install the compilers with {sass.advice()}"
    try:
        nvjitlink = importlib.import_module("cuda.bindings.nvjitlink")
        nvjitlink.version()  # loads the library
        importlib.import_module("numba.cuda.cudadrv.nvvm").NVVM()
    except Exception as error:  # each library is missing in its own way
        raise ToolchainError(f"nvJitLink or NVVM cannot be used ({first_line(error)}): {install}") from error
    return nvjitlink


@functools.lru_cache(maxsize=4)
def _intermediate(kernel: Any, signature: tuple[Any, ...], arch: str) -> bytes:
    """The kernel as link-time intermediate code."""
    library = _library(kernel, signature, arch)
    if not any(map(_PERHAPS_FLOAT64.search, library.llvm_strs)):
        _counted[kernel, signature] = 0
    return bytes(library.get_ltoir(cc=_target(arch)))


def _library(kernel: Any, signature: tuple[Any, ...], arch: str) -> Any:
    """The kernel as LLVM's text, in the object from which Numba makes all else."""
    with _what_is_compiled() as libraries, as_if_present(ARCHITECTURES[arch]), quickly():
        cuda.compile(
            kernel.py_func,
            signature,
            device=False,
            abi="numba",
            cc=_target(arch),
            output="ltoir",
            **{name: kernel.targetoptions[name] for name in _OPTIONS if name in kernel.targetoptions},
        )
    return libraries[-1]


@contextmanager
def _what_is_compiled() -> Iterator[list[Any]]:
    """The libraries of what `cuda.compile` compiles inside, which it does not return."""
    kind: Any = importlib.import_module("numba.cuda.codegen").CUDACodeLibrary
    real, found = kind.get_ltoir, []

    def get_ltoir(library: Any, cc: Any = None) -> Any:
        found.append(library)
        return real(library, cc=cc)

    kind.get_ltoir = get_ltoir
    try:
        yield found
    finally:
        kind.get_ltoir = real


def _target(arch: str) -> tuple[int | str, ...]:
    """The compute capability of an architecture as Numba wants it."""
    chip = ARCHITECTURES[arch]
    return (*chip.capability, _suffix(chip))


def _suffix(chip: Architecture) -> str:
    """The suffix for architecture-specific features, which launches use from Hopper on."""
    return "a" if chip.capability >= (9, 0) else ""


def _float64(kernel: Any, signature: tuple[Any, ...], arch: str) -> int:
    """The number of float64 instructions. It is the same for all chips, and linking takes long: they are counted only for the first chip
    that a kernel is compiled for, and not where the intermediate code has no float64 to begin with."""
    key = kernel, signature
    if key not in _counted:
        _counted[key] = len(re.findall(r"\.f64\b", _link(kernel, signature, arch, "-ptx")))
    return _counted[key]


_counted: dict[tuple[Any, tuple[Any, ...]], int] = {}


@functools.lru_cache(maxsize=4)
def _machine_code(kernel: Any, signature: tuple[Any, ...], arch: str) -> tuple[str, bytes]:
    """The log of nvJitLink for the kernel, and the cubin."""
    log, cubin = _link(kernel, signature, arch, "-verbose")
    return log, cubin


def _link(kernel: Any, signature: tuple[Any, ...], arch: str, *more: str) -> Any:
    """The log and the cubin of the kernel; with -ptx, the kernel as PTX."""
    linker = _linker()
    code = _intermediate(kernel, signature, arch)
    options = [f"-arch={arch}{_suffix(ARCHITECTURES[arch])}", "-lto", *more]
    if kernel.targetoptions.get("lineinfo"):
        options.append("-lineinfo")
    most = kernel.targetoptions.get("max_registers")
    if most:
        options.append(f"-maxrregcount={most}")
    handle = linker.create(len(options), options)
    try:
        linker.add_data(handle, linker.InputType.LTOIR, code, len(code), kernel.py_func.__name__)
        linker.complete(handle)
        if "-ptx" in options:
            return _filled(linker.get_linked_ptx_size(handle), linker.get_linked_ptx, handle).decode(errors="replace")
        log = _filled(linker.get_info_log_size(handle), linker.get_info_log, handle).decode(errors="replace")
        return log, _filled(linker.get_linked_cubin_size(handle), linker.get_linked_cubin, handle)
    finally:
        linker.destroy(handle)


def _filled(size: int, get: Any, handle: Any) -> bytes:
    buffer = bytearray(size)
    get(handle, buffer)
    return bytes(buffer)


def _number(pattern: str, log: str, default: int | None = None) -> int:
    found = re.search(pattern, log)
    if found:
        return int(found.group(1))
    if default is None:
        raise ToolchainError(f"nvJitLink did not say what {pattern!r} is in:\n{log}")
    return default


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit

"""What the compiler makes of the kernels, for chips that need not be there.

    python -m gpucnn_kernels.static --arch sm_90 [--arch sm_75 …] [--kernel conv]

Numba and NVVM compile a kernel to link-time intermediate code, nvJitLink makes machine code of it and says what it took: the same two
steps that a launch takes. Neither needs a GPU nor a driver, only the compilers that `pip install "numba-cuda[cu13]"` brings.

    regs        registers per thread
    spill       bytes of registers that did not fit and go to memory and back (stores, loads): slow
    stack       bytes per thread of local arrays that had to be put in memory: slow
    shared      bytes per block of memory that its threads share
    f64         float64 instructions: a 32nd or a 64th of the speed of float32 on most chips, and always a slip here
    occupancy   the share of the chip's thread slots that fit in registers and shared memory: an upper bound; more threads hide more
                latency, but it is time that counts
"""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from gpucnn_kernels._numba import SIMULATED, cuda
from gpucnn_kernels.catalogue import ENGINE_ENTRIES, ENTRIES, Entry


@dataclass(frozen=True, slots=True)
class Chip:
    """What a multiprocessor (SM) of a compute capability holds."""

    capability: tuple[int, int]
    threads: int
    blocks: int
    shared: int  # bytes
    reserved: int  # bytes of shared memory that the system takes of each block
    registers: int = 65536


# From the table of technical specifications per compute capability in NVIDIA's CUDA C++ Programming Guide.
CHIPS = {
    "sm_75": Chip((7, 5), 1024, 16, 64 << 10, 0),  # Turing: T4, RTX 20
    "sm_80": Chip((8, 0), 2048, 32, 164 << 10, 1 << 10),  # Ampere: A100
    "sm_86": Chip((8, 6), 1536, 16, 100 << 10, 1 << 10),  # Ampere: RTX 30
    "sm_90": Chip((9, 0), 2048, 32, 228 << 10, 1 << 10),  # Hopper: H100
    "sm_100": Chip((10, 0), 2048, 32, 228 << 10, 1 << 10),  # Blackwell: B200
    "sm_120": Chip((12, 0), 1536, 24, 100 << 10, 1 << 10),  # Blackwell: RTX 50
}
_REGISTER_UNIT = 256  # registers are given to a warp by this many
_SHARED_UNIT = 256  # bytes; newer chips give shared memory by 128


class ToolchainError(RuntimeError):
    """A compiler that is not installed, or not usable as things are."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a kernel takes on a chip: see the module's docstring. Sizes in bytes."""

    name: str
    arch: str
    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int
    float64: int
    occupancy: float


def compile_kernel(entry: Entry, arch: str) -> Report:
    """Compiles a kernel of the catalogue for a chip.

    Raises ValueError for a chip that is not in CHIPS and ToolchainError where the compilers are missing.
    """
    if arch not in CHIPS:
        raise ValueError(f"unknown chip {arch!r}: the chips are {', '.join(CHIPS)}")
    linker = _linker()
    chip = CHIPS[arch]
    code = _intermediate(entry, arch)
    log = _link(linker, code, entry.name, f"-arch={arch}", "-lto", "-verbose")
    ptx = _link(linker, code, entry.name, f"-arch={arch}", "-lto", "-ptx")
    registers = _number(r"Used (\d+) registers", log)
    shared = _number(r"(\d+) bytes smem", log, default=0)
    return Report(
        name=entry.name,
        arch=arch,
        registers=registers,
        spill_stores=_number(r"(\d+) bytes spill stores", log),
        spill_loads=_number(r"(\d+) bytes spill loads", log),
        stack=_number(r"(\d+) bytes stack frame", log),
        shared=shared,
        float64=len(re.findall(r"\.f64\b", ptx)),
        occupancy=occupancy(chip, entry.threads_per_block, registers, shared),
    )


def machine_code(entry: Entry, arch: str) -> bytes:
    """A kernel of the catalogue as a cubin, the file that a chip runs; sass.py takes it apart."""
    return bytes(_link(_linker(), _intermediate(entry, arch), entry.name, f"-arch={arch}", "-lto", "-cubin"))


def occupancy(chip: Chip, threads: int, registers: int, shared: int) -> float:
    """The share of a multiprocessor's thread slots that blocks of `threads`, at so many registers and bytes of shared memory, can fill."""
    warps = -(-threads // 32)
    per_warp = _round_up(registers * 32, _REGISTER_UNIT)
    # The registers lie in four parts, one for each scheduler, and a warp's are all in one part.
    warps_by_registers = chip.registers // 4 // per_warp * 4
    memory = _round_up(shared, _SHARED_UNIT) + chip.reserved
    blocks = min(
        chip.blocks,
        chip.threads // (32 * warps),
        warps_by_registers // warps,
        chip.shared // memory if memory else chip.blocks,
    )
    return blocks * warps * 32 / chip.threads


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0, or 2 for an unknown chip or kernel and for a missing compiler."""
    parser = argparse.ArgumentParser(
        prog="python -m gpucnn_kernels.static", description="What the compiler makes of each kernel, without a GPU."
    )
    parser.add_argument("--arch", action="append", metavar="SM", help=f"the chip: {', '.join(CHIPS)}; may be repeated (default: sm_90)")
    parser.add_argument("--kernel", default="", metavar="TEXT", help="only kernels with this in their names")
    options = parser.parse_args(arguments)
    archs = options.arch or ["sm_90"]
    entries = [entry for entry in (*ENTRIES, *ENGINE_ENTRIES) if options.kernel in entry.name]
    unknown = [arch for arch in archs if arch not in CHIPS]
    if unknown:
        parser.error(f"unknown chip {unknown[0]!r}: the chips are {', '.join(CHIPS)}")
    if not entries:
        parser.error(f"no kernel has {options.kernel!r} in its name: the kernels are {', '.join(entry.name for entry in ENTRIES)}")
    width = max(len(entry.name) for entry in entries)
    try:
        _linker()  # before the head of the table, not after
        print(f"{'kernel':{width}}  arch    threads  regs  spill (st/ld)  stack  shared  f64  occupancy")
        for arch in archs:
            for entry in entries:
                report = compile_kernel(entry, arch)
                spills = f"{report.spill_stores}/{report.spill_loads}"
                print(
                    f"{report.name:{width}}  {arch:6}  {entry.threads_per_block:7}  {report.registers:4}  {spills:>13}  {report.stack:5}  "
                    f"{report.shared:6}  {report.float64:3}  {report.occupancy:8.0%}"
                )
    except ToolchainError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def _as_if_present(chip: Chip) -> Iterator[None]:
    """Has Numba take `chip` for the current GPU: for device functions it asks what that is, even where `cuda.compile` was told."""
    dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")
    real = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=chip.capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = real


def _linker() -> Any:
    """The module cuda.bindings.nvjitlink, once everything that compiling needs is known to be there."""
    if SIMULATED:
        raise ToolchainError("the simulator compiles nothing: unset NUMBA_ENABLE_CUDASIM")
    install = 'install the compilers with pip install "numba-cuda[cu13]"'
    try:
        nvjitlink = importlib.import_module("cuda.bindings.nvjitlink")
        nvjitlink.version()  # loads the library
        importlib.import_module("numba.cuda.cudadrv.nvvm").NVVM()
    except Exception as error:  # each library has its own way of being absent
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ToolchainError(f"nvJitLink or NVVM cannot be used ({reason}): {install}") from error
    return nvjitlink


@functools.lru_cache(maxsize=4)
def _intermediate(entry: Entry, arch: str) -> bytes:
    """The kernel as link-time intermediate code."""
    chip = CHIPS[arch]
    bounds = None if entry.blocks_per_sm is None else (entry.threads_per_block, entry.blocks_per_sm)
    with _as_if_present(chip):
        code, _ = cuda.compile(
            entry.kernel.py_func,
            entry.signature,
            device=False,
            abi="numba",
            cc=chip.capability,
            output="ltoir",
            launch_bounds=bounds,
        )
    return bytes(code)


def _link(linker: Any, code: bytes, name: str, *options: str) -> Any:
    """What nvJitLink says of the kernel; with -ptx, the kernel as PTX, with -cubin, as machine code (bytes)."""
    flags = [option for option in options if option != "-cubin"]
    handle = linker.create(len(flags), flags)
    try:
        linker.add_data(handle, linker.InputType.LTOIR, code, len(code), name)
        linker.complete(handle)
        if "-cubin" in options:
            binary = bytearray(linker.get_linked_cubin_size(handle))
            linker.get_linked_cubin(handle, binary)
            return bytes(binary)
        if "-ptx" in options:
            text = bytearray(linker.get_linked_ptx_size(handle))
            linker.get_linked_ptx(handle, text)
        else:
            text = bytearray(linker.get_info_log_size(handle))
            linker.get_info_log(handle, text)
    finally:
        linker.destroy(handle)
    return text.decode(errors="replace")


def _number(pattern: str, log: str, default: int | None = None) -> int:
    found = re.search(pattern, log)
    if found:
        return int(found.group(1))
    if default is None:
        raise ToolchainError(f"nvJitLink did not say what {pattern!r} is in:\n{log}")
    return default


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


if __name__ == "__main__":
    sys.exit(main())

"""What the compiler makes of the kernels, and what the shapes worth measuring ask of a chip. Neither chip nor driver need be there.

    python -m gpucnn.profiling.chip.static [--arch sm_90 | --arch "RTX 4090"] … [--kernel conv] [--json FILE]

Numba and NVVM compile a kernel to link-time intermediate code, nvJitLink makes machine code of it and says what it took: the same two
steps that a launch takes. They need but the compilers that `pip install "numba-cuda[cu13]"` brings. The first table, of kernels:

    regs        registers per thread
    spill       bytes of registers that did not fit and go to memory and back (stores, loads): slow
    stack       bytes per thread of local arrays that had to be put in memory: slow
    shared      bytes per block of memory that its threads share
    f64         float64 instructions: a 32nd or a 64th of the speed of float32 on most chips, and always a slip here
    occupancy   the share of the chip's thread slots that fit in registers and shared memory: an upper bound; more threads hide more
                latency, but it is time that counts
    loop        instructions of the loop that matters most (sass.py), and what share of them are float32 FMAs; a dash where there is none,
                because the work is done once or is written out
    lds, ldg    reads of shared and of global memory in that loop that fetch 128 bits at once

The second, of shapes: which variant is chosen for the chip (select.py), what the operation has to do and to move, and the
least time that the chip needs with the ceiling that sets it (work.py). No measurements.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gpucnn.files import writing
from gpucnn.profiling.chip import sass
from gpucnn.profiling.chip.chips import ARCHITECTURES, Architecture, Chip, find
from gpucnn.profiling.chip.samples import CONV_SHAPES, ENTRIES, POOL_SHAPES, Entry, all_entries
from gpucnn.profiling.chip.sass import ToolchainError as ToolchainError
from gpucnn.profiling.what import work
from gpucnn.profiling.what.work import Work
from gpucnn.text import first_line
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.core._numba import SIMULATED, cuda

# For which the tests compile every kernel. The rest of ARCHITECTURES lie between these.
CHIPS = {name: ARCHITECTURES[name] for name in ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")}
_REGISTER_UNIT = 256  # registers are given to a warp by this many
_SHARED_UNIT = 256  # bytes; newer chips give shared memory by 128


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


@dataclass(frozen=True, slots=True)
class Planned:
    """What one of the shapes worth measuring asks of a chip."""

    shape: str
    operation: str
    variant: str
    slices: int
    work: Work
    seconds: float
    bound: str


def compile_kernel(entry: Entry, arch: str) -> Report:
    """Compiles a kernel of the catalogue for an architecture.

    Raises ValueError for one that is not in ARCHITECTURES and ToolchainError where the compilers are missing.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown chip {arch!r}: the chips are {', '.join(ARCHITECTURES)}")
    log, _ = _machine_code(entry, arch)
    ptx = _link(_linker(), _intermediate(entry, arch), entry.name, f"-arch={_target(arch)}", "-lto", "-ptx")
    registers = _number(r"Used (\d+) registers", log)
    shared = _number(r"(\d+) bytes smem", log, default=0)
    return Report(
        name=entry.name,
        arch=arch,
        registers=registers,
        spill_stores=_number(r"(\d+) bytes spill stores", log),
        spill_loads=_number(r"(\d+) bytes spill loads", log),
        stack=_number(r"(\d+) bytes stack frame", log),
        shared=shared + entry.more_shared,
        float64=len(re.findall(r"\.f64\b", ptx)),
        occupancy=occupancy(ARCHITECTURES[arch], entry.threads_per_block, registers, shared + entry.more_shared),
    )


def machine_code(entry: Entry, arch: str) -> bytes:
    """A kernel of the catalogue as a cubin, the file that a chip runs; sass.py takes it apart."""
    return _machine_code(entry, arch)[1]


def planned(chip: Chip) -> list[Planned]:
    """What the convolutions and poolings of the catalogue ask of a chip, by the kernels that are chosen for it."""
    rows = []

    def add(shape: str, operation: str, variant: str, slices: int, done: Work) -> None:
        times = {"compute": done.flops / chip.fp32, "memory": done.least_bytes / chip.bandwidth}
        bound = max(times, key=lambda name: times[name])
        rows.append(Planned(shape, operation, variant, slices, done, times[bound], bound))

    with select.for_chip(chip.sms, capability=chip.architecture.capability):
        for shape in CONV_SHAPES:
            for operation in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"):
                sizes = shape.n, shape.c, shape.k, shape.window, 1
                choice = select.choose(getattr(problems, operation)(*sizes))
                add(shape.name, operation, choice.name, choice.slices, getattr(work, operation)(*sizes))
    for pooling in POOL_SHAPES:
        variant = "2x2" if pooling.kernel == 2 else "plain"
        for operation in ("max_pool2d", "max_pool2d_grad"):
            add(pooling.name, operation, variant, 1, getattr(work, operation)(pooling.n, pooling.c, pooling.window))
    return rows


def occupancy(chip: Architecture, threads: int, registers: int, shared: int) -> float:
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
        prog="python -m gpucnn.profiling.chip.static", description="What the compiler makes of each kernel, and what shapes ask of a chip."
    )
    parser.add_argument("--arch", action="append", metavar="CHIP", help="a card or sm_XX; may be repeated (default: sm_90, the H200)")
    parser.add_argument("--kernel", default="", metavar="TEXT", help="only kernels and operations with this in their names")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the same there as JSON")
    options = parser.parse_args(arguments)
    entries = [entry for entry in all_entries() if options.kernel in entry.name]
    if not entries:
        parser.error(f"no kernel has {options.kernel!r} in its name: the kernels are {', '.join(entry.name for entry in ENTRIES)}")
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"there is no folder for {options.json}")  # before minutes of compiling, not after
    found = []
    try:
        chips = [find(name) for name in options.arch or ["sm_90"]]
    except ValueError as error:
        parser.error(str(error))
    try:
        _linker()  # before the head of the table, not after
        for chip in chips:
            kernels = list(_print_kernels(entries, chip.arch))
            rows = [row for row in planned(chip) if options.kernel in row.operation]
            _print_shapes(rows, chip)
            found.append({"chip": dataclasses.asdict(chip), "kernels": kernels, "shapes": [dataclasses.asdict(row) for row in rows]})
    except ToolchainError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    if sass.nvdisasm() is None:
        print("\nloop, lds and ldg want nvdisasm: pip install nvidia-cuda-nvdisasm")
    if options.json:
        _write(options.json, json.dumps(found, indent=1))
    return 0


def _print_kernels(entries: Iterable[Entry], arch: str) -> Iterator[dict[str, Any]]:
    """Prints a line for each kernel as soon as it is compiled, and yields what the line says."""
    entries = [entry for entry in entries if not entry.chips or arch in entry.chips]
    width = max(len(entry.name) for entry in entries)
    print(
        f"{'kernel':{width}}  arch    threads  regs  spill (st/ld)  stack  shared  f64  occupancy  loop  FFMA  lds  ldg",
        flush=True,
    )
    for entry in entries:
        report, loop = compile_kernel(entry, arch), _main_loop(entry, arch)
        spills = f"{report.spill_stores}/{report.spill_loads}"
        inner = f"{loop.instructions:4}  {loop.share:4.0%}  {loop.lds_128:3}  {loop.ldg_128:3}" if loop else "   -     -    -    -"
        print(
            f"{report.name:{width}}  {arch:6}  {entry.threads_per_block:7}  {report.registers:4}  {spills:>13}  {report.stack:5}  "
            f"{report.shared:6}  {report.float64:3}  {report.occupancy:9.0%}  {inner}",
            flush=True,
        )
        yield {
            **dataclasses.asdict(report),
            "threads": entry.threads_per_block,
            "loop": {**dataclasses.asdict(loop), "share": loop.share} if loop else None,
        }


def _main_loop(entry: Entry, arch: str) -> sass.Loop | None:
    """Its loop that matters most, where there is one and nvdisasm to find it."""
    return sass.main_loop(sass.disassemble(machine_code(entry, arch))) if sass.nvdisasm() else None


def _print_shapes(rows: Sequence[Planned], chip: Chip) -> None:
    if not rows:
        return
    ceilings = f"{chip.name} ({chip.sms} multiprocessors, {chip.fp32 / 1e12:g} TFLOP/s, {chip.bandwidth / 1e12:g} TB/s)"
    print(f"\n{'shape':7}  {'operation':18}  {'variant':16}  GFLOP  least MB  FLOP/byte   least µs on the {ceilings}")
    for row in rows:
        variant = row.variant + (f" / {row.slices}" if row.slices > 1 else "")
        done = row.work
        print(
            f"{row.shape:7}  {row.operation:18}  {variant:16}  {done.flops / 1e9:5.2f}  {done.least_bytes / 1e6:8.2f}  "
            f"{done.intensity:9.1f}  {row.seconds * 1e6:9.1f} {row.bound}"
        )


def _write(path: Path, text: str) -> None:
    with writing(path) as file:
        file.write(f"{text}\n".encode())


@contextmanager
def _as_if_present(chip: Architecture) -> Iterator[None]:
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
        reason = first_line(error)
        raise ToolchainError(f"nvJitLink or NVVM cannot be used ({reason}): {install}") from error
    return nvjitlink


@functools.lru_cache(maxsize=4)
def _intermediate(entry: Entry, arch: str) -> bytes:
    """The kernel as link-time intermediate code."""
    chip = ARCHITECTURES[arch]
    bounds = None if entry.blocks_per_sm is None else (entry.threads_per_block, entry.blocks_per_sm)
    with _as_if_present(chip):
        code, _ = cuda.compile(
            entry.kernel.py_func,
            entry.signature,
            device=False,
            abi="numba",
            cc=(*chip.capability, _suffix(chip)),
            output="ltoir",
            launch_bounds=bounds,
        )
    return bytes(code)


def _suffix(chip: Architecture) -> str:
    """From Hopper on, launches are compiled with what that architecture alone has: so is this."""
    return "a" if chip.capability >= (9, 0) else ""


def _target(arch: str) -> str:
    return arch + _suffix(ARCHITECTURES[arch])


@functools.lru_cache(maxsize=4)
def _machine_code(entry: Entry, arch: str) -> tuple[str, bytes]:
    """What nvJitLink says of the kernel, and the cubin."""
    log, cubin = _link(_linker(), _intermediate(entry, arch), entry.name, f"-arch={_target(arch)}", "-lto", "-verbose")
    return log, cubin


def _link(linker: Any, code: bytes, name: str, *options: str) -> Any:
    """The log and the cubin of the kernel; with -ptx, the kernel as PTX."""
    handle = linker.create(len(options), options)
    try:
        linker.add_data(handle, linker.InputType.LTOIR, code, len(code), name)
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


if __name__ == "__main__":
    sys.exit(main())

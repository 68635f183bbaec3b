"""A model on a chip that is not here: its kernels compiled for that chip, and the least time that each can take. Nothing is measured.

The operations run as they always do, on NumPy arrays that are never filled, and every launch is written down in place of being done.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import gpucnn
from gpucnn.device import Device, simulated
from gpucnn.errors import DeviceError, UnknownNameError
from gpucnn.profiling.chip.chips import Architecture, Chip, find
from gpucnn.profiling.chip.compiled import Compiled, Compiler
from gpucnn.profiling.chip.samples import ENGINE_ENTRIES, tensor_entries
from gpucnn.profiling.records import Ceilings, Profile, Row, Step
from gpucnn.profiling.what import memory, roofline
from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.operations import sizes_of, work_of
from gpucnn.profiling.what.work import Work
from gpucnn.profiling.what.workload import Selection, Workload
from gpucnn.text import bytes_text
from gpucnn_kernels.choose import select
from gpucnn_kernels.core.launch import Launch, recording

LAUNCH = 2e-6
"""Seconds that a kernel with nothing to do is taken to last, from the start of it to the start of the next. An assumption: no data sheet
has it, and it decides only which kernels are called launch bound."""
PRODUCTS = ("engine", "tensor", "conv2d", "depthwise", "gemm")
"""How the names of kernels begin that do an operation's arithmetic. What else is launched for it prepares operands, adds up parts, sums a
bias's gradient or pools: that moves the bytes of its own arrays."""
HELPERS = ("add_parts", "add_rows")  # where there is no product: what adds up parts

Say = Callable[[str], None]


def chip_of(name: str) -> Chip:
    """The chip of that name, or that stands for an architecture ("sm_90"). UnknownNameError where there is none."""
    try:
        return find(name)
    except ValueError as error:
        raise UnknownNameError(str(error)) from None


def device_of(chip: Chip) -> Device:
    """The chip as a device: the operations are those of a GPU, the arrays NumPy's. Nothing may be launched on it."""
    if simulated():
        raise DeviceError("Numba's CUDA simulator compiles nothing: unset NUMBA_ENABLE_CUDASIM to use --arch")
    return Device("cuda", chip.name, np, importlib.import_module("gpucnn.ops.cuda"))


@contextmanager
def as_if_there(chip: Chip) -> Iterator[list[Launch]]:
    """Chooses kernels as on the chip, and writes launches down instead of doing them."""
    with select.for_chip(chip.sms, capability=chip.architecture.capability), recording(launching=False) as launches:
        yield launches


def profile(workload: Workload, selection: Selection, chip: Chip, say: Say) -> Profile:
    """What the compiler and the roofline say of a workload that was made on `device_of(chip)`."""
    ceilings = Ceilings(
        bandwidth=chip.bandwidth,
        flops=chip.fp32,
        launch=LAUNCH,
        source=f"the {chip.name}'s data sheet, and {LAUNCH * 1e6:.0f} µs assumed for a launch; nothing was measured",
    )
    with as_if_there(chip):
        bytes_by_buffer = memory.of_step(workload)
    rows: list[Row] = []
    total = 0.0
    compiler = Compiler(chip.arch, say)
    recorded = record(workload, chip)
    compiler.expect([launch for call, launches, _ in recorded if selection.takes(call, workload.model) for launch in launches])
    for call, launches, work in recorded:
        for launch, part in shares(launches, work):
            least = roofline.seconds(part.flops, part.least_bytes, ceilings)
            total += least
            if selection.takes(call, workload.model):
                rows.append(_row(call, launch, part, least, ceilings, compiler.compiled(launch), chip))
    return Profile(
        kind="bounds",
        model=workload.name,
        batch=workload.batch,
        device={
            "chip": chip.name,
            "compute capability": ".".join(map(str, chip.architecture.capability)),
            "multiprocessors": str(chip.sms),
            "second-level cache": bytes_text(chip.l2),
            "memory": f"{chip.memory / 1e9:.0f} GB",
            "gpucnn": gpucnn.__version__,
        },
        ceilings=ceilings,
        rows=rows,
        step=Step(kernels=total, memory=bytes_by_buffer),
        notes=compiler.notes,
        only=selection.words,
    )


def record(workload: Workload, chip: Chip) -> list[tuple[Call, list[Launch], Work]]:
    """Every call of a step, with its launches and its work."""
    found: list[tuple[Call, list[Launch], Work]] = []
    with as_if_there(chip) as launches:

        def listener(call: Call) -> Any:
            first = len(launches)
            result = call.run()
            found.append((call, launches[first:], work_of(call)))
            return result

        with workload.observer.listening(listener):
            workload.step()
    return found


def shares(launches: Sequence[Launch], work: Work) -> list[tuple[Launch, Work]]:
    """What each launch of an operation does of its work. One that does it alone does all; the arithmetic of several products is shared by
    threads; the rest, and a product that has others beside it, moves each of its arrays once."""
    mains = [launch for launch in launches if launch.name.startswith(PRODUCTS)]
    mains = mains or [launch for launch in launches if launch.name not in HELPERS] or list(launches)
    threads = sum(launch.blocks * launch.threads for launch in mains)
    result = []
    for launch in launches:
        own = launch.array_bytes
        if not any(launch is main for main in mains):
            result.append((launch, Work(0, own)))
            continue
        part = launch.blocks * launch.threads / threads
        least = own if len(mains) == 1 < len(launches) else round(work.least_bytes * part)
        result.append((launch, Work(round(work.flops * part), least)))
    return result


def kernel_name(launch: Launch) -> str:
    """The kernel's name; of the engine's kernels that of the catalogue, which tells them apart."""
    return _catalogued().get(id(launch.kernel), launch.name)


def waves(launch: Launch, occupancy: float, architecture: Architecture, multiprocessors: int) -> float | None:
    """How many times over the launch's blocks fill the chip; None where not one fits."""
    at_once = multiprocessors * occupancy * architecture.threads / (-(-launch.threads // 32) * 32)  # blocks
    return launch.blocks / at_once if at_once else None


@functools.cache
def _catalogued() -> dict[int, str]:
    return {id(entry.kernel): entry.name for entry in (*ENGINE_ENTRIES, *tensor_entries())}


def _row(call: Call, launch: Launch, work: Work, least: float, ceilings: Ceilings, compiled: Compiled, chip: Chip) -> Row:
    return Row(
        layer=call.layer,
        phase=call.phase,
        op=call.op,
        kernel=kernel_name(launch),
        shape=sizes_of(call),
        flops=work.flops,
        bytes=work.least_bytes,
        roofline=least,
        wall=roofline.wall(work.flops, work.least_bytes, ceilings),
        blocks=launch.blocks,
        threads=launch.threads,
        registers=compiled.registers,
        spills=compiled.spills,
        shared=compiled.shared,
        occupancy=compiled.occupancy,
        waves=waves(launch, compiled.occupancy, chip.architecture, chip.sms),
        loop=compiled.loop,
    )

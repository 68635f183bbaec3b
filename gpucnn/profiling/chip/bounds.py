"""A model on a chip that is not present: its kernels compiled for that chip, a lower bound on the time of each, and a prediction of it.
Nothing is measured.

The operations run as usual, on NumPy arrays that are never filled, and every launch is recorded instead of executed.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

import gpucnn
from gpucnn.device import Device, simulated
from gpucnn.errors import DeviceError, UnknownNameError
from gpucnn.layers.beside import lent
from gpucnn.profiling.chip import listing, predict, samples
from gpucnn.profiling.chip.beside import Load, side_by_side
from gpucnn.profiling.chip.chips import Architecture, Chip
from gpucnn.profiling.chip.compiled import Compiler, for_user
from gpucnn.profiling.chip.static import Compiled
from gpucnn.profiling.records import Ceilings, Listing, Profile, Row, Step
from gpucnn.profiling.what import memory, roofline
from gpucnn.profiling.what.launches import Part, parts
from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.operations import sizes_of, work_of
from gpucnn.profiling.what.work import Work
from gpucnn.profiling.what.workload import Selection, Workload
from gpucnn.text import bytes_text
from gpucnn_kernels.choose import select
from gpucnn_kernels.core.launch import Launch, recording

LAUNCH = 2e-6
"""The assumed seconds of an empty kernel, from its start to the start of the next. No data sheet gives it, and it decides only which
kernels are called launch-bound."""
ALL, NAMED_SHAPES = "all", "shapes"  # values of --kernels that are not parts of a name
Say = Callable[[str], None]
Branch: TypeAlias = tuple[tuple[int, bool], ...]
"""The position of a call in a step's graph: the forks that it is inside, from the outermost on, each with its number and whether the call
runs apart."""


def device_of(chip: Chip) -> Device:
    """The chip as a device with the operations of a GPU and NumPy arrays. Nothing can be launched on it."""
    if simulated():
        raise DeviceError("Numba's CUDA simulator compiles nothing: unset NUMBA_ENABLE_CUDASIM to use --arch")
    return Device("cuda", chip.name, np, importlib.import_module("gpucnn.ops.cuda"))


@contextmanager
def as_if_there(chip: Chip) -> Iterator[list[Launch]]:
    """Selects kernels as on the chip, and records launches instead of executing them."""
    with select.for_chip(chip.sms, capability=chip.architecture.capability), recording(launching=False) as launches:
        yield launches


def profile(workload: Workload, selection: Selection, chip: Chip, say: Say) -> Profile:
    """Profiles a workload made on `device_of(chip)` from what the compiler reports and the roofline model."""
    ceilings = _ceilings(chip)
    with as_if_there(chip):
        bytes_by_buffer = memory.of_step(workload)
    compiler = for_user(chip.arch, say)
    forks = Forks()
    with as_if_there(chip), lent(forks):
        recorded = [(call, parts(call, launches)) for call, launches, _ in record(workload, chip, forks)]
    taken = [(call, part) for call, own in recorded if selection.takes(call, workload.model) for part in own]
    branches = [branch for branch, (_, own) in zip(forks.branches, recorded, strict=True) for _ in own]
    compiler.expect([part.launch for _, part in taken])
    everything = [part for _, own in recorded for part in own]
    total = sum(roofline.seconds(part.work, ceilings) for part in everything)
    rows: list[Row] = []
    made: list[predict.Prediction] = []
    listings: dict[Any, Listing] = {}
    for call, part in taken:
        row = _row(call, part, ceilings, compiler.compiled(part.launch), chip)
        found = _predicted(row, part, compiler, chip, listings)
        if found is not None:
            made.append(found)
            row = dataclasses.replace(row, predicted=found.seconds, limit=found.limit)
        rows.append(row)
    whole = len(made) == len(everything)
    predicted = _forked(list(zip(branches, made, strict=True)), chip) if whole else None
    words = [] if predicted is None else _of_forks(predicted, made)
    return Profile(
        kind="bounds",
        model=workload.name,
        batch=workload.batch,
        device=_words(chip),
        ceilings=ceilings,
        rows=rows,
        step=Step(kernels=total, memory=bytes_by_buffer, predicted=predicted),
        notes=[*compiler.notes, *words, *(predict.ASSUMPTIONS if made else ())],
        only=selection.words,
        listings=list(listings.values()),
    )


class Forks:
    """Records the forks around a step's calls (layers/beside.py): for each call the branch that it is on."""

    def __init__(self) -> None:
        self.branches: list[Branch] = []
        self._count = 0
        self._open: list[_Fork] = []

    @contextmanager
    def another(self) -> Iterator[_Fork]:
        """A fork inside the open ones."""
        self._open.append(_Fork(self))
        try:
            yield self._open[-1]
        finally:
            self._open.pop()

    def numbered(self) -> int:
        """The number of the next fork."""
        self._count += 1
        return self._count

    def called(self) -> None:
        """Notes the open forks of this call."""
        self.branches.append(tuple((fork.number, fork.running) for fork in self._open if fork.forked))


class _Fork:
    """forked: whether something has run apart since the last join. running: whether it does now."""

    def __init__(self, forks: Forks) -> None:
        self._forks = forks
        self.number = 0
        self.forked = self.running = False

    @contextmanager
    def apart(self) -> Iterator[None]:
        if not self.forked:
            self.number = self._forks.numbered()
        self.forked = self.running = True
        try:
            yield
        finally:
            self.running = False

    def join(self) -> None:
        """Marks that what follows is ordered after what ran apart: the next time is another fork."""
        self.forked = False


def _forked(made: list[tuple[Branch, predict.Prediction]], chip: Chip) -> float:
    """Seconds of all launches, those of each fork side by side."""
    total = sum(each.seconds for branch, each in made if not branch)
    for number in sorted({branch[0][0] for branch, _ in made if branch}):
        loads: list[Load] = []
        after: list[list[int]] = []
        _in_order([(branch, each) for branch, each in made if branch and branch[0][0] == number], 0, [], loads, after)
        total += side_by_side(loads, after, chip.sms, predict.NODE)
    return total


def _in_order(
    made: list[tuple[Branch, predict.Prediction]], level: int, before: list[int], loads: list[Load], after: list[list[int]]
) -> list[int]:
    """Adds the launches that share `level` forks, each with the numbers of those that it comes after: `before` for the first. Returns what
    comes before the next one."""
    while made:
        branch, each = made[0]
        if len(branch) == level:
            loads.append(each.load)
            after.append(before)
            before, made = [len(loads) - 1], made[1:]
            continue
        number = branch[level][0]
        count = next((at for at, (other, _) in enumerate(made) if len(other) <= level or other[level][0] != number), len(made))
        # What does not run apart has precedence (training/graph.py).
        sides = [[one for one in made[:count] if one[0][level][1] is apart] for apart in (False, True)]
        ends = [_in_order(side, level + 1, before, loads, after) for side in sides if side]
        before, made = sorted({last for each in ends for last in each}), made[count:]
    return before


def _of_forks(predicted: float, made: list[predict.Prediction]) -> list[str]:
    """The note about branches, if they make a difference."""
    saved = sum(each.seconds for each in made) - predicted
    if saved < predict.NODE / 2:
        return []
    words = "gradients of weights run beside those of inputs, and so may updates, on branches of the graph"
    return [f"{words}: {saved * 1e6:.1f} µs less than in turn"]


def _predicted(row: Row, part: Part, compiler: Compiler, chip: Chip, listings: dict[Any, Listing]) -> predict.Prediction | None:
    """The prediction for a row. Adds its kernel's listing to `listings`, once for each kernel. None without a disassembler."""
    program = compiler.program(part.launch)
    if program is None:
        return None
    made = predict.predict(part.launch, part.work, program, row.occupancy or 0.0, chip)
    compiler.notes += [note for note in made.notes if note not in compiler.notes]
    key = id(part.launch.kernel), part.launch.signature
    if key not in listings:
        listings[key] = listing.listing(row.kernel, program, made)
    return made


def record(workload: Workload, chip: Chip, forks: Forks | None = None) -> list[tuple[Call, list[Launch], Work]]:
    """Every call of a step, with its launches and its work. forks: lent to the layers, and notified of each call."""
    found: list[tuple[Call, list[Launch], Work]] = []
    with as_if_there(chip) as launches:

        def listener(call: Call) -> Any:
            first = len(launches)
            result = call.run()
            found.append((call, launches[first:], work_of(call)))
            if forks is not None:
                forks.called()
            return result

        with workload.observer.listening(listener):
            workload.step()
    return found


def waves(launch: Launch, occupancy: float, architecture: Architecture, multiprocessors: int) -> float | None:
    """The number of times that the blocks of the launch fill the chip; None if not even one block fits."""
    at_once = multiprocessors * occupancy * architecture.threads / (-(-launch.threads // 32) * 32)  # blocks
    return launch.blocks / at_once if at_once else None


def catalogue(text: str, chip: Chip, say: Say) -> Profile:
    """The compiler's report on every kernel with `text` in its name, or for all of them (ALL). For NAMED_SHAPES: on the
    kernels that are selected for the named shapes. Raises UnknownNameError if there is no such kernel."""
    if text == NAMED_SHAPES:
        found = [each for sample in samples.SHAPES for each in samples.launched(sample, chip)]
    else:
        everything = samples.kernels(chip)
        found = [each for each in everything if text in (ALL, "") or text in each.name]
        if not found:
            names = ", ".join(sorted({each.part.name for each in everything}))
            raise UnknownNameError(f"no kernel has {text!r} in its name: say {ALL}, {NAMED_SHAPES}, or a part of {names}")
    ceilings, compiler = _ceilings(chip), for_user(chip.arch, say)
    compiler.expect([each.launch for each in found])
    rows = [_row(each.call, each.part, ceilings, compiler.compiled(each.launch), chip, each.sample) for each in found]
    return Profile(
        kind="shapes" if text == NAMED_SHAPES else "kernels",
        model=text,
        batch=0,
        device=_words(chip),
        ceilings=ceilings,
        rows=rows,
        step=Step(kernels=0.0),
        notes=compiler.notes,
    )


def _ceilings(chip: Chip) -> Ceilings:
    return Ceilings(
        bandwidth=chip.bandwidth,
        flops=chip.fp32,
        launch=LAUNCH,
        source=f"the {chip.name}'s data sheet, and {LAUNCH * 1e6:.0f} µs assumed for a launch; nothing was measured",
    )


def _words(chip: Chip) -> dict[str, str]:
    return {
        "chip": chip.name,
        "compute capability": ".".join(map(str, chip.architecture.capability)),
        "multiprocessors": str(chip.sms),
        "second-level cache": bytes_text(chip.l2),
        "memory": f"{chip.memory / 1e9:.0f} GB",
        "gpucnn": gpucnn.__version__,
    }


def _row(call: Call | None, part: Part, ceilings: Ceilings, compiled: Compiled, chip: Chip, sample: str | None = None) -> Row:
    """The row of a launch in a step, or in a sample."""
    launch, work = part.launch, part.work
    return Row(
        layer=(call.layer if call else "") if sample is None else sample,
        phase=call.phase if call else "",
        op=call.op if call else "",
        kernel=part.name,
        shape=sizes_of(call) if call else "",
        flops=work.flops,
        bytes=work.least_bytes,
        roofline=roofline.seconds(work, ceilings),
        wall=roofline.wall(work, ceilings),
        blocks=launch.blocks,
        threads=launch.threads,
        registers=compiled.registers,
        spills=compiled.spills,
        stack=compiled.stack,
        float64=compiled.float64,
        shared=compiled.shared,
        occupancy=compiled.occupancy,
        waves=waves(launch, compiled.occupancy, chip.architecture, chip.sms),
        loop=compiled.loop,
    )

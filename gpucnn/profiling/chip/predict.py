"""Predicts how long a launch takes on a chip that is not present, from its machine code. The only measured inputs are latencies that
others have published (units.py), and the microsecond between kernels.

The warps of a typical block are followed through the code (warp.py), and a quarter of the busiest multiprocessor issues their instructions
(issue.py), with as many blocks as it gets (waves.py). Where the last blocks compute slices of sums (gpucnn_kernels/engine/cut.py), a
typical one of those is followed as well, as one that adds up and as one that does not. The prediction is that time, or the time that the
memory needs for the least bytes to be moved, whichever is longer, plus the gap between two nodes of a graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpucnn.profiling.chip.beside import Load
from gpucnn.profiling.chip.chips import Chip
from gpucnn.profiling.chip.constants import LaunchConstants
from gpucnn.profiling.chip.issue import Issued, Quarter
from gpucnn.profiling.chip.machine import Program
from gpucnn.profiling.chip.units import MEMORY, SECOND_LEVEL, units_of
from gpucnn.profiling.chip.warp import Walker, Way
from gpucnn.profiling.chip.waves import Waves
from gpucnn.profiling.what.work import Work
from gpucnn_kernels.core.launch import Launch
from gpucnn_kernels.engine.cut import cut_in

NODE = 1e-6
"""Seconds from one node of a recorded graph to the next, with a kernel that does nothing: 0.9 to 1.2 µs on the H100 of kernels/measured."""
REACHED = 0.9
"""The fraction of a data sheet's bandwidth that can be reached: refresh, and switching between reads and writes, take the rest."""
MOST_ISSUES = 120_000  # issues that are simulated one by one; further blocks are extrapolated
ASSUMPTIONS = (
    "predicted, not measured: a typical block's warps, followed through the machine code, on a quarter of the busiest multiprocessor",
    f"assumed: the clock of the data sheet's peak, {100 * REACHED:.0f} % of its bandwidth, {NODE * 1e6:.0f} µs between kernels",
    f"assumed: {SECOND_LEVEL:.0f} cycles to the second-level cache, {MEMORY * 1e9:.0f} ns to memory, where all arrays are; "
    "no branch on data is taken",
    "left out: misses of the instruction cache, other kernels' data in the caches, blocks that differ from one another",
)

_WAITS = {
    "memory": "waits for global memory",
    "shared": "waits for shared memory",
    "constant": "waits for its parameters",
    "exchange": "waits for values of other threads",
    "barrier": "waits at barriers",
    "pause": "waits for its own results: too few warps",
    "fma": "the FMA units are busy",
    "multiply": "the FMA units are busy with integer arithmetic",
    "alu": "the integer units are busy",
    "uniform": "waits for what all threads share",
    "special": "the units for conversions and special functions are busy",
    "tensor": "the tensor cores are busy",
    "global": "the path to memory is busy",
}


@dataclass(frozen=True)
class Prediction:
    """seconds: the kernel's time, with the gap before the next one. limit: what limits it, in words. issued and waited: for each
    instruction, how often a warp issues it, and the share of the quarter's cycles that were spent waiting for it."""

    seconds: float
    limit: str
    issued: dict[int, float]
    waited: dict[int, float]
    load: Load  # for kernels that run beside it
    notes: tuple[str, ...] = ()


def predict(launch: Launch, work: Work, program: Program, occupancy: float, chip: Chip) -> Prediction:
    """Predicts a launch of the kernel `program`, which fills the share `occupancy` of a multiprocessor's thread slots."""
    architecture = chip.architecture
    warps = -(-launch.threads // 32)
    held = max(1, round(occupancy * architecture.threads / (32 * warps)))
    spread = Waves(launch.blocks, held, chip.sms)
    walker = Walker(program, LaunchConstants(launch, architecture.capability))
    cut = cut_in(launch.arguments, launch.blocks)

    def follow(block: int, counted: int | None = None) -> list[Way]:
        return [walker.walk(block, warp, launch.threads, counted) for warp in range(0, warps, 4)]

    # The blocks of the busiest multiprocessor: those of whole tiles, and then the slices' ways.
    first, last, share = spread.most, list[list[Way]](), ""
    if cut is None or not cut.rest:
        ways = follow(launch.blocks // 2)
    else:
        first, slices, typical = -(-cut.whole // chip.sms), cut.rest * cut.slices, cut.whole + cut.rest * cut.slices // 2
        count, adding = -(-slices // chip.sms), follow(typical, cut.slices)
        adders = -(-count // cut.slices)
        last = [follow(typical, 0)] * (count - adders) + [adding] * adders
        ways, share = follow(cut.whole // 2) if cut.whole else adding, f"{cut.rest} of {cut.tiles} tiles are cut into {cut.slices} slices"
    at_once = min(held, first + len(last))
    # A block of fewer than four warps leaves some quarters out; other blocks use those.
    part = min(1.0, warps / 4)
    slots, blocks, last = max(1, math.ceil(at_once * part)), math.ceil(first * part), last[len(last) - math.ceil(len(last) * part) :]
    clock = chip.fp32 / (2 * architecture.lanes * chip.sms)
    latency = _latency(ways, program, launch, work, min(1.0, 1 / spread.count), clock)
    quarter = Quarter(program.instructions, ways, units_of(architecture), latency, min(4, warps * at_once))
    cycles, run = _cycles(quarter, ways, slots, blocks, last)
    # The first byte arrives after one access to memory, and another access writes the last one.
    on_chip, moving = cycles / clock, work.least_bytes / (REACHED * chip.bandwidth) + 2 * MEMORY
    total = sum(run.waited.values()) + run.busy
    issued: dict[int, float] = {}
    for way in ways:
        for index in way.issued:
            issued[index] = issued.get(index, 0) + 1 / len(ways)
    notes = ("a warp's way was too long to be followed to its end",) if any(way.cut for way in ways) else ()
    # A slice takes as much less than a whole tile as it issues fewer instructions.
    fraction = sum(len(way.issued) for way in last[-1]) / sum(len(way.issued) for way in ways) if last else 0.0
    seconds = max(on_chip, moving) / (math.ceil(first / at_once) + fraction * math.ceil(len(last) / at_once))
    slices = cut.rest * cut.slices if cut is not None else 0
    load = Load(launch.blocks, held, seconds, run.busy / (total or 1) / at_once, moving, (slices, seconds * fraction))
    words = _words(run, share or spread.words, on_chip, moving)
    return Prediction(max(on_chip, moving) + NODE, words, issued, {i: c / total for i, c in run.idle.items()}, load, notes)


def _cycles(quarter: Quarter, ways: list[Way], slots: int, blocks: int, last: list[list[Way]]) -> tuple[float, Issued]:
    """The cycles of this many blocks, and of the `last` ways. If there are too many to simulate, the others are issued at the rate of those
    that are."""
    rounds = max(2, min(4, MOST_ISSUES // max(1, slots * sum(len(way.issued) for way in ways))))
    some = rounds * slots
    if blocks <= some:
        run = quarter.run(slots, blocks, last)
        return run.cycles, run
    run = quarter.run(slots, some)
    each = run.each
    if last:
        run = quarter.run(slots, some, last)
    return run.cycles + (blocks - some) * each, run


def _latency(ways: list[Way], program: Program, launch: Launch, work: Work, first: float, clock: float) -> float:
    """Cycles until the first read arrives. The `first` part of the blocks runs side by side and reads from memory, also data that several
    of them share. The other blocks read shared data from the second-level cache, and the rest from memory."""
    code = program.instructions
    read = sum(
        access.new
        for way in ways
        for at, access in way.accesses.items()
        if access is not None and code[way.issued[at]].base in ("LDG", "LD", "LDGSTS", "UBLKCP")
    )
    asked = 32 * read * launch.blocks * min(4, -(-launch.threads // 32))
    part = max(first, min(1.0, work.least_bytes / asked if asked else 1.0))
    return SECOND_LEVEL + (MEMORY * clock - SECOND_LEVEL) * part


def _words(run: Issued, spread: str, on_chip: float, moving: float) -> str:
    """The limit of a kernel, in words."""
    if max(on_chip, moving) < NODE:
        return "over before the next one begins: launching it is all"
    if moving > on_chip:
        return "moves bytes as fast as memory does"
    total = sum(run.waited.values()) + run.busy
    why, cycles = max(run.waited.items(), key=lambda item: item[1], default=("", 0))
    if run.busy >= 0.8 * total or run.busy >= 2 * cycles:
        text = f"issues an instruction in {100 * run.busy / total:.0f} % of all cycles"
    else:
        text = f"{_WAITS.get(why, why)} in {100 * cycles / total:.0f} % of all cycles"
    return f"{text}; {spread}" if spread else text

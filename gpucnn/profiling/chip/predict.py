"""Predicts how long a launch takes on a chip that is not present, from its machine code. The only measured inputs are latencies that
others have published (units.py), and the microsecond between kernels.

The warps of a typical block are followed through the code (warp.py), and a quarter of the busiest multiprocessor issues their instructions
(issue.py), with as many blocks as it gets (waves.py). The prediction is that time, or the time that the memory needs for the least bytes
to be moved, whichever is longer, plus the gap between two nodes of a graph.
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
    ways = [walker.walk(launch.blocks // 2, warp, launch.threads) for warp in range(0, warps, 4)]
    at_once = min(held, spread.most)
    # A block of fewer than four warps leaves some quarters out; other blocks use those.
    part = min(1.0, warps / 4)
    slots, blocks = max(1, math.ceil(at_once * part)), max(1, math.ceil(spread.most * part))
    clock = chip.fp32 / (2 * architecture.lanes * chip.sms)
    latency = _latency(ways, program, launch, work, min(1.0, 1 / spread.count), clock)
    quarter = Quarter(program.instructions, ways, units_of(architecture), latency, min(4, warps * at_once))
    cycles, run = _cycles(quarter, ways, slots, blocks)
    # The first byte arrives after one access to memory, and another access writes the last one.
    on_chip, moving = cycles / clock, work.least_bytes / (REACHED * chip.bandwidth) + 2 * MEMORY
    total = sum(run.waited.values()) + run.busy
    issued: dict[int, float] = {}
    for way in ways:
        for index in way.issued:
            issued[index] = issued.get(index, 0) + 1 / len(ways)
    cut = ("a warp's way was too long to be followed to its end",) if any(way.cut for way in ways) else ()
    rounds = math.ceil(spread.most / at_once)
    load = Load(launch.blocks, held, max(on_chip, moving) / rounds, run.busy / (total or 1) / at_once, moving)
    return Prediction(
        max(on_chip, moving) + NODE, _words(run, spread, on_chip, moving), issued, {i: c / total for i, c in run.idle.items()}, load, cut
    )


def _cycles(quarter: Quarter, ways: list[Way], slots: int, blocks: int) -> tuple[float, Issued]:
    """The cycles of this many blocks. If there are too many to simulate, the others are issued at the rate of those that are."""
    rounds = max(2, min(4, MOST_ISSUES // max(1, slots * sum(len(way.issued) for way in ways))))
    some = rounds * slots
    if blocks <= some:
        run = quarter.run(slots, blocks)
        return run.cycles, run
    run = quarter.run(slots, some)
    return run.cycles + (blocks - some) * run.each, run


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


def _words(run: Issued, spread: Waves, on_chip: float, moving: float) -> str:
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
    return f"{text}; {spread.words}" if spread.words else text

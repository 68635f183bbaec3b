"""Simulates a quarter of a multiprocessor issuing instructions, cycle by cycle: how long blocks take, and what their warps wait for.

A multiprocessor has four parts with a scheduler each, which issues one instruction of one of its warps in a cycle. The compiler has
written into each instruction how long its warp must pause after it and which scoreboards it waits for (machine.py). The only other inputs
are how long each access takes and how often each unit can be used. One quarter is simulated; the other three are assumed to do the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpucnn.profiling.chip.machine import NO_SCOREBOARD, Instruction
from gpucnn.profiling.chip.units import SECOND_LEVEL, Units, kind_of, product_size
from gpucnn.profiling.chip.warp import Way

NEVER = float("inf")


@dataclass
class Issued:
    """The result: cycles until each block had ended, in that order; cycles in which an instruction was issued; and those in which none was,
    by the reason. full: the cycles while there was a block in every place and another one to follow, and how many of them were issues."""

    ends: list[float]
    busy: int
    waited: Counter[str]
    idle: Counter[int]  # the idle cycles by the instruction that was issued next
    full: tuple[float, int]

    @property
    def cycles(self) -> float:
        return self.ends[-1]

    @property
    def each(self) -> float:
        """Cycles for each of many more blocks: at the rate of issues while all places were full. The times between ends say less, because
        a scheduler may prefer one block to another."""
        cycles, issues = self.full
        return cycles / issues * self.busy / len(self.ends) if issues else self.cycles / len(self.ends)


@dataclass(eq=False)
class _Warp:
    way: Way
    block: _Block
    at: int = 0  # its position in the code
    ready: float = 0.0
    why: str = ""  # the reason for waiting until then
    boards: list[tuple[float, str]] = field(default_factory=lambda: [(0.0, "")] * 6)
    copies: float = 0.0  # when its copies to shared memory have arrived
    groups: list[float] = field(default_factory=list)  # the same for those of a group
    products: list[float] = field(default_factory=list)  # when groups of products on tensor cores are complete
    product: float = 0.0
    last_barrier: int | None = None
    parked: bool = False


@dataclass(eq=False)
class _Barrier:
    """A barrier in shared memory: the number of phases that have ended, when the last one did, and the arrivals in the current one."""

    phases: int = 0
    ended: float = 0.0
    latest: float = 0.0
    arrived: set[int] = field(default_factory=set)


@dataclass(eq=False)
class _Block:
    warps: list[_Warp] = field(default_factory=list)
    alive: int = 0
    at_barrier: list[_Warp] = field(default_factory=list)
    barriers: dict[int | None, _Barrier] = field(default_factory=dict)


class Quarter:
    """Runs blocks of one launch, some at a time. `ways` has the ways of a block's warps on this quarter, `latency` the cycles that a first
    read of global memory takes, and `sharing` how many quarters use the multiprocessor's memory units."""

    def __init__(self, code: Sequence[Instruction], ways: Sequence[Way], units: Units, latency: float, sharing: int) -> None:
        self.units, self.latency, self.sharing, self.ways = units, latency, sharing, ways
        self.static = [
            (kind_of(each), each.base, max(1, each.stall), each.write, each.read, [s for s in range(6) if each.wait >> s & 1], each)
            for each in code
        ]
        # The warps that arrive at a barrier in shared memory; and those that arrive with their copies, whose other announcements there
        # are not arrivals.
        self.arrivals: dict[int | None, set[int]] = {}
        self.copying: set[tuple[int, int | None]] = set()
        for number, way in enumerate(ways):
            for at, access in way.accesses.items():
                name = code[way.issued[at]].name
                if access is not None and name.startswith(("ARRIVES", "SYNCS.ARRIVE")):
                    self.arrivals.setdefault(access.barrier, set()).add(number)
                    if name.startswith("ARRIVES"):
                        self.copying.add((number, access.barrier))

    def run(self, slots: int, blocks: int, more: Sequence[Sequence[Way]] = ()) -> Issued:
        """Runs this many blocks, at most `slots` at a time, each new one as soon as another has ended; and then one with each of the ways
        `more`."""
        first, blocks = blocks, blocks + len(more)
        self.free: dict[str, float] = dict.fromkeys(("fma", "lite", "alu", "uniform", "special", "memory", "port", "tensor"), 0.0)
        self.waited: Counter[str] = Counter()
        idle: Counter[int] = Counter()
        live: list[_Warp] = []
        started = 0
        ends: list[float] = []
        full = 0.0, 0
        now, busy = -1.0, 0
        last: _Warp | None = None

        def begin(time: float) -> None:
            block = _Block()
            for way in self.ways if started < first else more[started - first]:
                warp = _Warp(way, block, ready=time + self.units.start, why="start")
                block.warps.append(warp)
                if way.issued:
                    block.alive += 1
                    live.append(warp)
                    self._prepare(warp, warp.ready)

        while started < min(slots, blocks):
            begin(0.0)
            started += 1
        while live:
            best, best_time, best_why = None, NEVER, ""
            for warp in live:
                if warp.parked:
                    continue
                time, why = warp.ready, warp.why
                kind = self.static[warp.way.issued[warp.at]][0]
                free = self._free(kind)
                if free > time:
                    time, why = free, kind
                if time < best_time or (warp is last and time <= max(best_time, now + 1)):
                    best, best_time, best_why = warp, time, why
            if best is None:  # nothing can ever arrive, because the path was cut short
                break
            time = max(best_time, now + 1)
            if time > now + 1:
                self.waited[best_why] += int(time - now - 1)
                idle[best.way.issued[best.at]] += int(time - now - 1)
            now, last = time, best
            busy += 1
            self._issue(best, now)
            if best.at >= len(best.way.issued):
                live.remove(best)
                block = best.block
                block.alive -= 1
                self._release(block, now)
                if block.alive == 0:
                    ends.append(max(now, *(warp.product for warp in block.warps)))
                    if started < blocks:
                        begin(now)
                        started += 1
                        full = now, busy
        return Issued(ends or [now], busy, self.waited, idle, full)

    def _free(self, kind: str) -> float:
        """The cycle from which a unit can take an instruction of that kind."""
        free = self.free
        if kind == "fma":
            return min(free["fma"], free["lite"]) if self.units.second_half else free["fma"]
        if kind in ("shared", "global", "constant", "exchange"):
            return free["memory"] - self.units.queue
        if kind == "multiply":
            return free["fma"]
        return free.get(kind, 0.0)

    def _issue(self, warp: _Warp, now: float) -> None:
        at = warp.at
        index = warp.way.issued[at]
        kind, base, stall, write, read, _, instruction = self.static[index]
        latency, why = self._take(kind, base, instruction, warp, at, now)
        if write != NO_SCOREBOARD and write < 6:
            done = now + latency
            if done > warp.boards[write][0]:
                warp.boards[write] = done, why
        if read != NO_SCOREBOARD and read < 6:
            done = (
                now + min(latency, self.units.operands)
                if kind not in ("global", "shared")
                else max(now + self.units.operands, self.free["memory"])
            )
            if done > warp.boards[read][0]:
                warp.boards[read] = done, kind
        warp.at += 1
        warp.ready, warp.why = now + stall, "pause"
        self._special(kind, base, instruction, warp, at, now)
        if not warp.parked and warp.at < len(warp.way.issued):
            self._prepare(warp, warp.ready)

    def _prepare(self, warp: _Warp, ready: float) -> None:
        """Computes when the scoreboards of the next instruction are free."""
        for board in self.static[warp.way.issued[warp.at]][5]:
            done, why = warp.boards[board]
            if done > ready:
                ready, warp.why = done, why
        warp.ready = ready

    def _take(self, kind: str, base: str, instruction: Instruction, warp: _Warp, at: int, now: float) -> tuple[float, str]:
        """Occupies a unit. Returns the number of cycles until the result, and the reason for waiting until then."""
        units, free = self.units, self.free
        if kind == "fma":
            if units.second_half and free["lite"] <= now:
                free["lite"] = now + 2
            else:
                free["fma"] = now + 2
            return units.arithmetic, "pause"
        if kind == "multiply":
            free["fma"] = now + 2
            return units.arithmetic, "pause"
        if kind in ("alu", "uniform"):
            free[kind] = now + 2
            return (units.arithmetic if kind == "alu" else units.uniform), kind
        if kind == "special":
            free[kind] = now + units.special
            return units.special_latency, kind
        if kind == "tensor":
            rows = product_size(instruction)
            free["tensor"] = max(now, free["tensor"]) + rows / (units.tensor * (1 if base == "HGMMA" else units.of_warps))
            if base == "HGMMA":  # four warps' product reads its second factor from shared memory: 8 rows of 4 bytes for each column
                free["memory"] = max(now, free["memory"]) + rows * 32 / units.bank_bytes
            warp.product = free["tensor"] + units.tensor_latency
            return warp.product - now, kind
        if kind not in ("shared", "global", "constant", "exchange"):
            return units.arithmetic, kind
        access = warp.way.accesses.get(at)
        if kind in ("shared", "global") and access is None:
            return units.arithmetic, kind  # no thread is involved
        cycles = 1.0 if access is None else access.cycles
        if base == "LDGSTS":  # looks up the cache, and writes to shared memory
            cycles += instruction.words
        free["memory"] = max(now, free["memory"]) + (cycles * self.sharing if kind != "exchange" else 2)
        wait = free["memory"] - now
        if kind == "global" and access is not None:
            moved = access.sectors if base.startswith(("ST", "RED")) else access.new
            if base == "UBLKCP":
                moved = 0
            free["port"] = max(now, free["port"]) + moved * 32 * self.sharing / units.port
            first = self.latency if access.new else units.first_level
            latency = max(wait, free["port"] - now) + first
            if base == "LDGSTS":
                warp.copies = max(warp.copies, now + latency)
            return latency, "memory"
        return wait + {"shared": units.shared, "constant": units.constant, "exchange": units.exchange}[kind], kind

    def _special(self, kind: str, base: str, instruction: Instruction, warp: _Warp, at: int, now: float) -> None:
        """Handles instructions that wait by other means than scoreboards."""
        if base == "BAR" and "ARV" not in instruction.name:
            warp.parked, warp.why = True, "barrier"
            warp.block.at_barrier.append(warp)
            self._release(warp.block, now)
        elif base == "MEMBAR" and "GPU" in instruction.name:  # until what the warp has written is seen in the second-level cache
            self._until(warp, max(now, self.free["port"]) + SECOND_LEVEL, "memory")
        elif base == "LDGDEPBAR":
            warp.groups.append(warp.copies)
        elif base == "DEPBAR" and warp.groups:
            left = int(instruction.operands[-1], 0)
            if left < len(warp.groups):
                self._until(warp, warp.groups[-1 - left], "memory")
        elif base == "HGMMA" and "gsb0" in instruction.operands:
            warp.products.append(warp.product)
        elif base == "WARPGROUP" and "DEPBAR" in instruction.name and warp.products:
            left = int(instruction.operands[-1], 0)
            if left < len(warp.products):
                self._until(warp, warp.products[-1 - left], "tensor")
        elif base in ("SYNCS", "ARRIVES", "UBLKCP"):
            self._barrier(base, instruction, warp, at, now)

    def _barrier(self, base: str, instruction: Instruction, warp: _Warp, at: int, now: float) -> None:
        access = warp.way.accesses.get(at)
        if access is None:
            return
        if base == "UBLKCP":  # reported to the barrier at which this warp has just announced it
            barrier = warp.block.barriers.setdefault(warp.last_barrier, _Barrier())
            self.free["port"] = max(now, self.free["port"]) + access.new * 32 / self.units.port
            barrier.latest = max(barrier.latest, self.free["port"] + self.latency)
            return
        barrier = warp.block.barriers.setdefault(access.barrier, _Barrier())
        if "PHASECHK" in instruction.name:
            if barrier.phases & 1 == access.parity:
                warp.parked, warp.why, warp.last_barrier = True, "barrier", access.barrier
            else:
                self._until(warp, barrier.ended if barrier.phases else 0.0, "barrier")
        elif base == "ARRIVES" or "ARRIVE" in instruction.name:
            warp.last_barrier = access.barrier
            number = warp.block.warps.index(warp)
            barrier.latest = max(barrier.latest, warp.copies if base == "ARRIVES" else now)
            if base == "ARRIVES" or (number, access.barrier) not in self.copying:
                barrier.arrived.add(number)
            if barrier.arrived >= self.arrivals.get(access.barrier, set()):
                barrier.phases, barrier.ended, barrier.arrived = barrier.phases + 1, barrier.latest, set()
                for other in warp.block.warps:
                    if (
                        other.parked
                        and other.last_barrier == access.barrier
                        and other.why == "barrier"
                        and other not in warp.block.at_barrier
                    ):
                        other.parked = False
                        self._until(other, barrier.ended + self.units.barrier, "barrier")
                        if other.at < len(other.way.issued):
                            self._prepare(other, other.ready)

    def _until(self, warp: _Warp, time: float, why: str) -> None:
        if time > warp.ready:
            warp.ready, warp.why = time, why

    def _release(self, block: _Block, now: float) -> None:
        """Releases the warps at the block's barrier once all that are still running have arrived."""
        if block.at_barrier and len(block.at_barrier) >= block.alive:
            for warp in block.at_barrier:
                warp.parked = False
                self._until(warp, now + self.units.barrier, "barrier")
                if warp.at < len(warp.way.issued):
                    self._prepare(warp, warp.ready)
            block.at_barrier = []

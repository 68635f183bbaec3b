"""The path of one warp through a kernel: which instructions it issues, in which order, and what each access to memory touches.

The machine code is executed with the sizes of the launch; the contents of arrays are unknown. So the number of loop iterations and the
pattern of addresses are right if they follow from sizes and positions, as they do in all kernels here except where data decide. A branch
that depends on data is assumed not to be taken: the work after it is done, and a loop that waits ends. But if data decide whether a warp
leaves a loop, or leaves the kernel after it has written results, it leaves: the rest of the code handles exceptions.

If the threads of a warp diverge, those that are furthest behind in the code run first, until they meet the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpucnn.profiling.chip import evaluate
from gpucnn.profiling.chip.arithmetic import Value, as_lanes
from gpucnn.profiling.chip.evaluate import Constants, Read, Registers, Step
from gpucnn.profiling.chip.machine import Instruction, Program
from gpucnn.profiling.chip.touched import Access, Touched

MOST_BLOCKS = 400_000  # stretches of code after which a warp is cut off
_MEMORY = ("LDG", "STG", "LDS", "STS", "LDGSTS", "ATOMS", "ATOMG", "RED", "LD", "ST", "SYNCS", "ARRIVES", "UBLKCP")
_JUMPS = ("BRA", "EXIT", "RET", "CALL", "BRX")
_ADDRESS = re.compile(r"\[(U?R\d+|RZ)?(?:\.64|\.U32|\.X\d+)*(?:\+(U?R\d+|URZ))?(?:\+)?(-?0x[0-9a-f]+)?\]")


@dataclass
class Way:
    """The issues of a warp: indices of instructions, in order; and for those that access memory the access, None if no thread takes part.

    unknown: the instructions whose branch depends on data. cut: whether it was cut off before its end. wrote: whether it has certainly
    written to global memory.
    """

    issued: list[int] = field(default_factory=list)
    accesses: dict[int, Access | None] = field(default_factory=dict)  # by index in `issued`
    unknown: set[int] = field(default_factory=set)
    cut: bool = False
    wrote: bool = False


class Walker:
    """Follows warps of one launch through a program."""

    def __init__(self, program: Program, constants: Constants) -> None:
        self.program, self.constants = program, constants
        self._place: dict[str, Value] = {}
        code = program.instructions
        self._ends = self._block_ends()
        needed = _needed(program)
        self._steps: list[tuple[list[str], Step | None] | None] = []
        self._guards: list[Read | None] = []
        self._addresses: dict[int, tuple[str, list[Read]]] = {}
        for index, instruction in enumerate(code):
            names = [name for name in evaluate.written(instruction) if name not in ("PT", "UPT", "RZ", "URZ")]
            wanted = any(name in needed for name in names)
            step = evaluate.step(instruction, constants, self._special) if wanted else None
            self._steps.append((evaluate.written(instruction), step) if wanted else None)
            self._guards.append(evaluate.operand(instruction.guard, constants) if instruction.guard else None)
            if instruction.base in _MEMORY:
                self._addresses[index] = _address(instruction, constants)
        # The steps of each stretch of code that have an effect.
        self._work: dict[int, list[int]] = {}

    def _special(self, name: str) -> Value:
        if name == "ATOMG":
            return self._place.get(name)
        return self._place.get(name, 0 if "CTAID" in name.upper() or "TID" in name else None)

    def walk(self, block: int, warp: int, threads: int, counted: int | None = None) -> Way:
        """The path of a warp in a block with this many threads. `counted`: what it finds in a counter, None if that is unknown."""
        lanes = np.arange(32, dtype=np.uint64)
        self._place = {"SR_CTAID.X": block, "SR_TID.X": lanes + np.uint64(32 * warp), "SR_LANEID": lanes}
        if counted is not None:
            self._place["ATOMG"] = int(np.float32(counted).view(np.uint32))
        steps = self._with_addresses()
        way, touched = Way(), Touched()
        registers: Registers = {}
        waiting: dict[int, np.ndarray[Any, Any] | None] = {0: None if threads >= 32 * (warp + 1) else lanes + 32 * warp < threads}
        code = self.program.instructions
        for _ in range(MOST_BLOCKS):
            if not waiting:
                return way
            first = min(waiting)
            mask = waiting.pop(first)
            end = self._ends[first]
            self._run(first, end, mask, steps, registers, way, touched)
            for target, part in self._after(end - 1, code[end - 1], mask, registers, way):
                both = waiting.get(target, part)
                together = part if target not in waiting else None if both is None or part is None else both | part
                waiting[target] = None if together is None or together.all() else together
        way.cut = True
        return way

    def _with_addresses(self) -> list[tuple[list[str], Step | None] | None]:
        """The steps, with those that read a thread's position, or a counter, made for this warp."""
        steps = list(self._steps)
        for index, instruction in enumerate(self.program.instructions):
            if steps[index] is not None and instruction.base in ("S2R", "S2UR", "ATOMG"):
                steps[index] = evaluate.written(instruction), evaluate.step(instruction, self.constants, self._special)
        return steps

    def _run(
        self,
        first: int,
        end: int,
        mask: Any,
        steps: list[tuple[list[str], Step | None] | None],
        registers: Registers,
        way: Way,
        touched: Touched,
    ) -> None:
        work = self._work.get(first)
        if work is None:
            work = [i for i in range(first, end) if steps[i] is not None or i in self._addresses]
            self._work[first] = work
        base = len(way.issued) - first
        way.issued.extend(range(first, end))
        for index in work:
            active = mask
            guard, condition = self._guards[index], True
            if guard is not None:
                condition = guard(registers)
                if condition is not None:
                    active = _both(mask, condition)
                    if active is False:
                        if index in self._addresses:
                            way.accesses[base + index] = None
                        continue
            if index in self._addresses:
                way.accesses[base + index] = touched.access(self.program.instructions[index], *self._read(index, registers), active)
                way.wrote |= condition is not None and self.program.instructions[index].base == "STG"
            action = steps[index]
            if action is not None:
                names, step = action
                _store(registers, names, [None] * len(names) if step is None else step(registers), active)

    def _read(self, index: int, registers: Registers) -> tuple[Value, Value]:
        """The address of an access and, for a barrier, the parity that is waited for."""
        _, reads = self._addresses[index]
        values = [read(registers) for read in reads]
        if any(value is None for value in values[:-1]):
            return None, values[-1]
        # Offsets may be negative, which unsigned lanes cannot hold.
        return sum(value.astype(np.int64) if isinstance(value, np.ndarray) else value for value in values[:-1]), values[-1]

    def _after(self, index: int, instruction: Instruction, mask: Any, registers: Registers, way: Way) -> list[tuple[int, Any]]:
        """The places where threads continue after a stretch: (index, which of the threads)."""
        behind = [(index + 1, mask)] if index + 1 < len(self.program.instructions) else []
        if instruction.base not in _JUMPS:
            return behind
        guard = self._guards[index]
        condition = True if guard is None else guard(registers)
        if instruction.base == "BRA" and instruction.operands and _is_predicate(instruction.operands[0]):
            second = evaluate.operand(instruction.operands[0], self.constants)(registers)
            condition = None if condition is None or second is None else condition & second
        if condition is None:
            way.unknown.add(index)
            if instruction.base == "CALL":  # ptxas leaves some loops by a call
                target = self._target(instruction, registers)
                return behind if target is None else [(target, mask)]
            return [] if instruction.base == "EXIT" and way.wrote else behind
        if isinstance(condition, np.ndarray) and mask is None and condition.all():
            condition = True
        goes = _both(mask, condition)
        target = self._target(instruction, registers)
        result = [] if goes is False or target is None else [(target, goes)]
        if goes is False:
            return behind
        stays = _both(mask, ~condition if isinstance(condition, np.ndarray) else not condition)
        return result if stays is False or not behind else [*result, (index + 1, stays)]

    def _target(self, instruction: Instruction, registers: Registers) -> int | None:
        """The target of a jump; None if it leaves the kernel."""
        if instruction.base in ("EXIT", "BRX"):
            return None
        if instruction.base == "RET":
            address = registers.get(instruction.operands[0].split(" ")[0])
            address = int(address[0]) if isinstance(address, np.ndarray) else address
            return self._at(address) if address is not None else None
        return self.program.find(instruction.target)

    def _at(self, address: int) -> int | None:
        code = self.program.instructions
        index = (address - code[0].address) // 16
        return index if 0 <= index < len(code) else None

    def _block_ends(self) -> dict[int, int]:
        """For the first instruction of every stretch without a jump or a label inside, the end of the stretch."""
        code, starts = self.program.instructions, {0, *self.program.labels.values()}
        for index, instruction in enumerate(code):
            if instruction.base in _JUMPS:
                starts.add(index + 1)
        ordered = sorted(start for start in starts if start < len(code))
        return dict(zip(ordered, [*ordered[1:], len(code)], strict=True))


def _both(mask: Any, condition: Value) -> Any:
    """The threads that are in both: None for all, False for none."""
    if isinstance(condition, (bool, np.bool_)):
        return mask if condition else False
    both = condition if mask is None else mask & condition
    return None if both.all() else both if both.any() else False


def _store(registers: Registers, names: list[str], values: list[Value], active: Any) -> None:
    for name, value in zip(names, values, strict=False):
        if name in ("PT", "UPT", "RZ", "URZ"):
            continue
        if value is not None and active is not None and name in registers and "U" not in name:
            value = np.where(active, as_lanes(value), as_lanes(registers[name]))
        if value is None:
            registers.pop(name, None)
        else:
            registers[name] = value


def _is_predicate(text: str) -> bool:
    return re.match(r"!?U?P[\dT]$", text) is not None


def _address(instruction: Instruction, constants: Constants) -> tuple[str, list[Read]]:
    """Functions that read the parts of an instruction's address, whose sum is its low 32 bits, and the parity that it waits for."""
    text = next((part for part in instruction.operands if "[" in part and not part.startswith(("c[", "gdesc"))), "")
    found = _ADDRESS.search(text[text.rindex("[") :]) if text else None
    last: Callable[[Registers], Value] = evaluate.operand(instruction.operands[-1], constants) if instruction.operands else lambda _: None
    if found is None:
        return text, [lambda registers: None, last]
    first, second, offset = found.groups()
    reads = [evaluate.operand(name, constants) for name in (first, second) if name]
    number = int(offset, 16) if offset else 0
    return text, [*reads, lambda registers: number, last]


def _needed(program: Program) -> set[str]:
    """The registers and predicates that determine branches and addresses."""
    code = program.instructions
    found: set[str] = set()
    for instruction in code:
        if instruction.base in (*_JUMPS, *_MEMORY):
            found |= _names(instruction.guard)
        if instruction.base in ("RET", "BRA"):
            found |= _names(" ".join(instruction.operands))
        if instruction.base in _MEMORY:
            for operand in instruction.operands:
                if "[" in operand:
                    found |= {name for name in _names(operand[operand.rindex("[") :]) if "." not in name}
            if instruction.base == "SYNCS":
                found |= _names(instruction.operands[-1])
    known = [(evaluate.written(each), _names(each.guard) | _names(" ".join(each.operands), pairs=True), each) for each in code]
    grows = True
    while grows:
        grows = False
        for results, sources, instruction in known:
            if instruction.base in evaluate.UNKNOWN or not any(name in found for name in results) or sources <= found:
                continue
            found |= sources
            grows = True
    return found - {"PT", "UPT", "RZ", "URZ"}


def _names(text: str, *, pairs: bool = False) -> set[str]:
    """The registers and predicates in a text; with `pairs`, also the one after each."""
    names = set(re.findall(r"\bU?[RP]\d+\b", text))
    return names | {evaluate.next_register(name) for name in names if "R" in name} if pairs else names

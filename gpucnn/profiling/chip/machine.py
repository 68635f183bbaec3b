"""A kernel's machine code as instructions: what each reads and writes, and the compiler's timing for it.

An instruction of 128 bits holds, from bit 105 on, its timing for chips since Volta (Z. Jia et al., "Dissecting the NVIDIA
Volta GPU architecture via microbenchmarking", 2018, section 2.1): 4 bits of stall, the cycles until the warp's next instruction may
issue; a bit of yield; 3 bits each for a scoreboard that is released when the result is written, and one when the operands have been
read, 7 being none; and 6 bits for the scoreboards that the instruction waits for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NO_SCOREBOARD = 7
_LABEL = re.compile(r"\s*([.$\w]+):\s*$")
_FIRST = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P[\dT]+)\s+)?(\S.*?)?\s*;\s*/\* (0x[0-9a-f]{16}) \*/\s*$")
_SECOND = re.compile(r"\s*/\* (0x[0-9a-f]{16}) \*/\s*$")
_LINE = re.compile(r'\s*//## File "([^"]*)", line (\d+)')
_PREDICATE = re.compile(r"!?U?P[\dT]$")
_STORE = ("ST", "RED", "LDGSTS", "UBLKCP", "UTMA", "CCTL")
_BRANCH = ("NOP", "BRA", "BRX", "CALL", "RET", "EXIT", "KILL", "BSSY", "BSYNC", "YIELD", "NANOSLEEP")
_WAIT = ("BAR", "WARPSYNC", "WARPGROUP", "DEPBAR", "LDGDEPBAR", "MEMBAR", "ERRBAR", "FENCE", "ARRIVES")
_NO_RESULT = _STORE + _BRANCH + _WAIT
_CARRIES = ("IADD3", "LEA", "IMAD", "IADD", "SETMAXREG")  # predicates after a result are further results


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. `guard` is the predicate under which it does anything, such as "!P0", or "" for always."""

    address: int
    guard: str
    name: str  # with its modifiers: "LDG.E.128"
    operands: tuple[str, ...]
    stall: int
    write: int  # the scoreboard that its result releases
    read: int  # the scoreboard that its operands release
    wait: int  # a bit for each scoreboard that it waits for
    line: tuple[str, int] | None = None  # the source line that it comes from

    @property
    def base(self) -> str:
        """The name without modifiers."""
        return self.name.partition(".")[0]

    @property
    def text(self) -> str:
        """The text that a disassembler prints."""
        return f"{'@' + self.guard + ' ' if self.guard else ''}{self.name} {', '.join(self.operands)}".rstrip()

    @property
    def words(self) -> int:
        """32-bit words that each thread moves."""
        return 4 if ".128" in self.name else 2 if ".64" in self.name else 1

    @property
    def target(self) -> str:
        """The label that it jumps to, or ""."""
        found = re.search(r"`\(([^)]+)\)", self.operands[-1]) if self.operands else None
        return found.group(1) if found else ""

    @property
    def results(self) -> tuple[str, ...]:
        """The operands that it writes, with PT and RZ, which stand for none."""
        base, first = self.base.removeprefix("U"), self.operands[0] if self.operands else ""
        if not first or first.startswith("[") or self.base.startswith(_NO_RESULT):
            return ()
        if base.endswith("SETP") or base in ("PLOP3", "SHFL", "ELECT") or (_PREDICATE.match(first) and base in ("LOP3", "ATOMG", "ATOM")):
            return self.operands[:2]
        count = 1
        while base in _CARRIES and count < len(self.operands) and _PREDICATE.match(self.operands[count]):
            count += 1
        return self.operands[:count]


@dataclass(frozen=True)
class Program:
    """The instructions of a kernel, and the positions of its labels."""

    instructions: Sequence[Instruction]
    labels: dict[str, int]

    def find(self, label: str) -> int | None:
        """The index of the instruction at a label."""
        return self.labels.get(label)


def parse(listing: str) -> Program:
    """The program in what `nvdisasm -c -hex` prints, with `-g` with lines of the source. Raises ValueError if there is no instruction."""
    found: list[Instruction] = []
    labels: dict[str, int] = {}
    line: tuple[str, int] | None = None
    rows = listing.splitlines()
    for number, row in enumerate(rows):
        label = _LABEL.match(row)
        if label:
            labels[label.group(1)] = len(found)
            continue
        source = _LINE.match(row)
        if source:
            line = source.group(1), int(source.group(2))
            continue
        first = _FIRST.match(row)
        second = _SECOND.match(rows[number + 1]) if first and number + 1 < len(rows) else None
        if first is None or second is None:
            continue
        address, guard, text, _ = first.groups()
        name, _, rest = (text or "NOP").partition(" ")
        control = int(second.group(1), 16) >> 41
        operands = tuple(part.strip() for part in rest.split(", ")) if rest.strip() else ()
        found.append(
            Instruction(
                int(address, 16), guard or "", name, operands, control & 15, control >> 5 & 7, control >> 8 & 7, control >> 11 & 63, line
            )
        )
    if not found:
        raise ValueError("there are no instructions in what was disassembled")
    return Program(found, labels)

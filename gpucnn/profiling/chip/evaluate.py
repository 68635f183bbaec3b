"""The effect of an instruction on the registers of a warp, as far as control flow and addresses need it: `step` makes it a function."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from gpucnn.profiling.chip.arithmetic import (
    MASK,
    Value,
    added,
    as_bits,
    as_float,
    as_lanes,
    compare,
    half_pair,
    lanes_alike,
    logic,
    no,
    pick,
    predicate_logic,
    rearranged,
    set_predicate,
    shifted,
    signed,
    unsigned64,
)
from gpucnn.profiling.chip.machine import Instruction

Registers: TypeAlias = dict[str, Value]  # without the unknown ones
Read: TypeAlias = Callable[[Registers], Value]
Step: TypeAlias = Callable[[Registers], list[Value]]
Constants: TypeAlias = Callable[[int], "int | None"]  # the word at an offset of a kernel's constants, if it is known

_REGISTER = re.compile(r"(-|~)?(\|)?(U?)R(\d+|Z)(?:\.\w+)*\|?$")
_PREDICATE = re.compile(r"(!)?(U?P)([\dT])$")
_CONSTANT = re.compile(r"(-|~)?c\[0x0\]\[(?:(U?R\d+|RZ)\+?)?(0x[0-9a-f]+)?\]")
_WORD = 1 << 32
UNKNOWN = ("FFMA", "FADD", "FMUL", "FSEL", "FSETP", "FMNMX", "LDG", "LDS", "LDL", "LD", "HGMMA", "HMMA", "SHFL", "ATOMG", "ATOMS", "SYNCS")
"""Instructions whose results are unknown, whatever their operands are."""
_UNKNOWN: Read = lambda registers: None  # noqa: E731


def operand(text: str, constants: Constants) -> Read:
    """A function that reads an operand: a register, a predicate, a constant or a number."""
    found = _PREDICATE.match(text)
    if found:
        inverted, kind, number = found.groups()
        if number == "T":
            truth = not inverted
            return lambda registers: truth
        name = kind + number
        return (lambda registers: no(registers.get(name))) if inverted else (lambda registers: registers.get(name))
    found = _REGISTER.match(text)
    if found:
        sign, absolute, uniform, number = found.groups()
        if number == "Z":
            fixed = MASK if sign == "~" else 0
            return lambda registers: fixed
        if absolute:
            return _UNKNOWN
        name = f"{uniform}R{number}"
        return _with_sign(sign, lambda registers: registers.get(name))
    found = _CONSTANT.match(text)
    if found:
        sign, index, offset = found.groups()
        at = int(offset or "0", 16)
        if index not in (None, "RZ"):
            return lambda registers: None if not isinstance(registers.get(index), int) else constants(registers[index] + at)
        word = constants(at)
        return _with_sign(sign, lambda registers: word)
    try:
        constant = int(text, 0) & MASK
    except ValueError:
        return _UNKNOWN
    return lambda registers: constant


def _with_sign(sign: str | None, read: Read) -> Read:
    if sign == "-":
        return lambda registers: None if (value := read(registers)) is None else _WORD - value
    if sign == "~":
        return lambda registers: None if (value := read(registers)) is None else MASK - (value & MASK)
    return read


def next_register(name: str) -> str:
    """The next register: R5 after R4, UR5 after UR4."""
    kind, _, number = name.rpartition("R")
    return name if number in ("", "Z") else f"{kind}R{int(number) + 1}"


def _behind(text: str) -> str:
    """The operand that is the high word of a pair."""
    found = re.match(r"(U?R)(\d+)", text.lstrip("-~"))
    if found:
        return f"{found.group(1)}{int(found.group(2)) + 1}"
    constant = re.match(r"c\[0x0\]\[(0x[0-9a-f]+)\]", text.lstrip("-~"))
    return f"c[0x0][{hex(int(constant.group(1), 16) + 4)}]" if constant else "RZ"


def written(instruction: Instruction) -> list[str]:
    """The names of everything that an instruction writes, with both words of a pair, and PT and RZ."""
    names = list(instruction.results)
    if not names or "P" in names[0]:
        return names
    base, more = instruction.base.removeprefix("U"), 0
    if "WIDE" in instruction.name or (base == "CS2R" and ".32" not in instruction.name):
        more = 1
    elif base in ("LDC", "LDCU", "LDG", "LDS", "LDL", "LD", "IADD3", "MOV", "ATOMG"):
        more = instruction.words - 1
    first = names[:1]
    for _ in range(more):
        first.append(next_register(first[-1]))
    return first + names[1:]


def step(instruction: Instruction, constants: Constants, special: Callable[[str], Value]) -> Step | None:
    """A function of the registers that gives the values of `written`; None if none of them is known. `special` has the registers that hold
    a thread's position."""
    base, parts, results = instruction.base.removeprefix("U"), instruction.name.split("."), instruction.results
    sources = instruction.operands[len(results) :]
    read = [operand(text, constants) for text in sources]
    if base == "IMAD" and ("WIDE" in parts or "HI" in parts):  # the summand has 64 bits
        read.append(operand(_behind(sources[2]), constants))
    if base in ("S2R", "S2UR"):
        value = special(sources[0])
        return lambda registers: [value]
    if base == "ATOMG":  # an addition that counts who has come: `special` has what it finds
        found = special(base)
        return lambda registers: [found] if len(results) == 1 else [None, found]
    if base == "CS2R":
        value = 0 if sources[0] == "SRZ" else None
        return lambda registers: [value, value]
    if base in ("LDC", "LDCU"):
        reads = [read[0], operand(_behind(sources[0]), constants)][: 2 if ".64" in instruction.name else 1]
        return (lambda registers: [each(registers) for each in reads]) if instruction.words < 4 else None
    if base == "HFMA2":
        constant = half_pair(sources[2], sources[3]) if sources[:2] == ("-RZ", "RZ") and len(sources) == 4 else None
        return lambda registers: [constant]
    if base == "FCHK":  # whether a division is one of the rare ones that need the slow path
        return lambda registers: [False]
    if base == "VOTE":
        whole = "ALL" in parts
        return lambda registers: [_vote(read[0](registers), whole)]
    work = _WORK.get(base)
    return None if work is None else lambda registers: work(parts, [each(registers) for each in read], results)


def _vote(value: Value, whole: bool) -> Value:
    if value is None:
        return None
    return bool(np.all(value)) if whole else bool(np.any(value))


def _imad(parts: Sequence[str], sources: Sequence[Value], results: Sequence[str]) -> list[Value]:
    a, b, c = sources[:3]
    unknown: list[Value] = [None] * (2 if "WIDE" in parts else len(results))
    if a is None or b is None or c is None:
        zero = any(isinstance(each, int) and each == 0 for each in (a, b))
        if c is None or not zero:
            return unknown
        a = b = 0
    if "WIDE" in parts or "HI" in parts:
        high = sources[-1]
        if high is None:
            return unknown
        a, b = a & MASK, b & MASK
        product = a * b if "U32" in parts else signed(a) * signed(b)
        total = unsigned64(product) + ((high << 32) + (c & MASK))
        total = unsigned64(total)
        return [total & MASK, total >> 32] + [None] * (len(results) - 1) if "WIDE" in parts else [total >> 32]
    carry = sources[3:4] if "X" in parts else []
    total, _ = added([(a & MASK) * (b & MASK) & MASK, c], carry)
    return [total] + [None] * (len(results) - 1)


def _iadd3(parts: Sequence[str], sources: Sequence[Value], results: Sequence[str]) -> list[Value]:
    numbers, carries = sources[:3], (list(sources[3:5]) if "X" in parts else [])
    if "X" in parts:
        numbers = [None if number is None else number & MASK for number in numbers]
    if "64" in parts:
        return [None, None]
    total, over = added(numbers, [carry for carry in carries if carry is not False])
    over = bool(over) if isinstance(over, (bool, np.bool_)) else over
    return [total, over, None][: len(results)]


def _lea(parts: Sequence[str], sources: Sequence[Value], results: Sequence[str]) -> list[Value]:
    carries = [sources[-1]] if "X" in parts else []
    rest = list(sources[: len(sources) - len(carries)])
    by = rest.pop()
    a, b = rest[:2]
    if a is None or b is None or by is None:
        return [None] * len(results)
    a = a & MASK
    if "HI" in parts:
        high = rest[2] if len(rest) > 2 else 0 if "SX32" not in parts else unsigned64(signed(a) >> 31) & MASK
        if high is None:
            return [None] * len(results)
        part = ((high << 32 | a) << by) >> 32 & MASK
    else:
        part = (a << by) & MASK
    total, over = added([part, b], carries)
    return [total, bool(over) if isinstance(over, (bool, np.bool_)) else over, None][: len(results)]


def _smaller(parts: Sequence[str], a: Value, b: Value, least: Value) -> Value:
    if a is None or b is None or least is None:
        return None
    x, y = (a, b) if "U32" in parts else (signed(a & MASK), signed(b & MASK))
    less = compare("LT", x, y)
    low, high = pick(less, a, b), pick(less, b, a)
    return pick(least, low, high) & MASK


def _conversion(parts: Sequence[str], sources: Sequence[Value], results: Sequence[str]) -> list[Value]:
    """An integer as float32; rounded up if the instruction says so, as integer division needs it."""
    value = sources[0]
    if value is None or "U64" in parts or "U8" in parts:
        return [None] * len(results)
    exact = as_lanes(value & MASK).astype(np.float64) if "S32" not in parts else as_lanes(signed(value & MASK)).astype(np.float64)
    rounded = exact.astype(np.float32)
    if "RP" in parts:
        rounded = np.where(rounded.astype(np.float64) < exact, np.nextafter(rounded, np.float32(np.inf)), rounded)
    return [as_bits(rounded)]


def _whole(parts: Sequence[str], sources: Sequence[Value], results: Sequence[str]) -> list[Value]:
    value = sources[0]
    if value is None or "U64" in parts or "TRUNC" not in parts:
        return [None] * len(results)
    with np.errstate(invalid="ignore"):
        number = np.trunc(as_float(value).astype(np.float64))
    number = np.nan_to_num(number, nan=0.0, posinf=MASK, neginf=0.0)
    low, high = (0, MASK) if "U32" in parts else (-(1 << 31), (1 << 31) - 1)
    return [lanes_alike((np.clip(number, low, high).astype(np.int64) & MASK).astype(np.uint64))]


def _special(parts: Sequence[str], sources: Sequence[Value], results: Sequence[str]) -> list[Value]:
    if sources[0] is None or "RCP" not in parts:
        return [None]
    with np.errstate(divide="ignore", over="ignore"):
        return [as_bits(np.float32(1) / as_float(sources[0] & MASK))]


def _choice(parts: Sequence[str], sources: Sequence[Value], results: Sequence[str]) -> list[Value]:
    a, b, condition = sources[:3]
    chosen = pick(condition, a, b)
    return [None if chosen is None else chosen & MASK]


def _sum_smaller(parts: Sequence[str], sources: Sequence[Value], results: Sequence[str]) -> list[Value]:
    total, _ = added(sources[:2], [])
    return [_smaller(parts, total, sources[2], sources[3])]


_Work: TypeAlias = Callable[[Sequence[str], Sequence[Value], Sequence[str]], list[Value]]
_WORK: dict[str, _Work] = {
    "IMAD": _imad,
    "IADD3": _iadd3,
    "IADD": _iadd3,
    "VIADD": lambda parts, sources, results: [added(sources[:2], [])[0]],
    "LEA": _lea,
    "SHF": lambda parts, sources, results: [shifted(parts, *sources[:3])],
    "LOP3": lambda parts, sources, results: logic(sources, results),
    "PLOP3": lambda parts, sources, results: predicate_logic(sources)[: len(results)],
    "ISETP": lambda parts, sources, results: set_predicate(parts, sources)[: len(results)],
    "SEL": _choice,
    "IMNMX": lambda parts, sources, results: [_smaller(parts, *sources[:3])],
    "VIMNMX": lambda parts, sources, results: [_smaller(parts, *sources[-3:])],  # on Blackwell two predicates come before
    "VIADDMNMX": _sum_smaller,
    "PRMT": lambda parts, sources, results: [rearranged(*sources[:3])],
    "MOV": lambda parts, sources, results: [None if sources[0] is None else sources[0] & MASK],
    "R2UR": lambda parts, sources, results: [int(sources[0][0]) if isinstance(sources[0], np.ndarray) else sources[0]],
    "2UR": lambda parts, sources, results: [sources[0]],
    "I2F": _conversion,
    "I2FP": _conversion,
    "F2I": _whole,
    "MUFU": _special,
}

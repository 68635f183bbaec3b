"""Integer arithmetic of a chip's instructions, for the 32 threads of a warp at once, as addresses and loop counters need it.

A number is a Python int if all threads have the same one, otherwise an array of 32 uint64, always within 0 … 2³² − 1; a predicate is a bool
or an array of 32. None is an unknown value: anything read from memory, and all of floating point except the steps of an integer division.
The result of an instruction that is not here is unknown as well; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = Any  # int, bool, an array of 32, or None

MASK = 0xFFFFFFFF
_WORD = 1 << 32


def signed(value: Value) -> Value:
    """A 32-bit number as a signed one, in two's complement."""
    if isinstance(value, np.ndarray):
        return (value ^ np.uint64(1 << 31)).astype(np.int64) - (1 << 31)
    return (value ^ 1 << 31) - (1 << 31)


def unsigned64(value: Value) -> Value:
    """The low 64 bits."""
    return value.astype(np.uint64) if isinstance(value, np.ndarray) else value & ((1 << 64) - 1)


def pick(condition: Value, first: Value, second: Value) -> Value:
    """`first` where the condition holds, and `second` elsewhere."""
    if condition is None:
        return None
    if isinstance(condition, np.ndarray):
        return None if first is None or second is None else np.where(condition, as_lanes(first), as_lanes(second))
    return first if condition else second


def as_lanes(value: Value) -> np.ndarray[Any, Any]:
    """One number for each thread."""
    if isinstance(value, np.ndarray):
        return value
    return np.full(32, value, bool if isinstance(value, bool) else np.uint64)


def no(value: Value) -> Value:
    """The negation of a predicate."""
    return None if value is None else ~value if isinstance(value, np.ndarray) else not value


def compare(name: str, a: Value, b: Value) -> Value:
    """a and b by the name of a comparison."""
    return {"EQ": a == b, "NE": a != b, "LT": a < b, "LE": a <= b, "GT": a > b, "GE": a >= b}[name]


def combined(name: str, a: Value, b: Value) -> Value:
    """Two predicates by AND, OR or XOR. If one is known, that may be enough."""
    if name in ("AND", "OR"):
        decides = name == "OR"
        for one in (a, b):
            if isinstance(one, bool) and one is decides:
                return decides
    if a is None or b is None:
        return None
    return a & b if name == "AND" else a | b if name == "OR" else a ^ b


def set_predicate(parts: Sequence[str], sources: Sequence[Value]) -> list[Value]:
    """ISETP and UISETP: the comparison of two numbers, with a third predicate; and the other way round."""
    a, b, other = sources[:3]
    answer: Value = None
    if a is not None and b is not None:
        kind = parts[1]
        x, y = (a, b) if "U32" in parts else (signed(a), signed(b))
        answer = compare(kind, x, y)
        if "EX" in parts:  # the high words of a comparison: if they are equal, the low ones decide
            low = sources[3] if len(sources) > 3 else None
            same = a == b
            if low is None:
                answer = None if np.any(same) else answer
            else:
                answer = pick(same, low, compare(kind, x, y)) if not isinstance(same, bool) else low if same else answer
        answer = answer if isinstance(answer, np.ndarray) else None if answer is None else bool(answer)
    joined = next((part for part in parts if part in ("AND", "OR", "XOR")), "AND")
    return [combined(joined, answer, other), combined(joined, no(answer), other)]


def table_of_three(a: Value, b: Value, c: Value, table: int) -> Value:
    """LOP3: for each bit the entry of a table of eight, a being its highest bit."""
    result: Value = 0
    for index in range(8):
        if table >> index & 1:
            term: Value = MASK
            for value, bit in ((a, 4), (b, 2), (c, 1)):
                term = term & (value if index & bit else value ^ MASK)
            result = result | term
    return result


def logic(sources: Sequence[Value], results: Sequence[str]) -> list[Value]:
    """LOP3.LUT, and whether its result is not 0."""
    a, b, c, table = sources[:4]
    # If the table ignores a number, it may be unknown, as in (x & 0).
    needs = [any((table >> i ^ table >> (i ^ bit)) & 1 for i in range(8)) for bit in (4, 2, 1)]
    a, b, c = (value if need else 0 for value, need in zip((a, b, c), needs, strict=True))
    value = None if a is None or b is None or c is None else table_of_three(a, b, c, table)
    return [(None if value is None else value != 0) if name.lstrip("U").startswith("P") else value for name in results]


def predicate_logic(sources: Sequence[Value]) -> list[Value]:
    """PLOP3.LUT: two tables of three predicates."""
    values = [as_lanes(value) if value is not None else None for value in sources[:3]]
    answers: list[Value] = []
    for table in sources[3:5]:
        needs = [any((table >> i ^ table >> (i ^ bit)) & 1 for i in range(8)) for bit in (4, 2, 1)]
        known = [value if need else np.zeros(32, bool) for value, need in zip(values, needs, strict=True)]
        if any(value is None for value in known):
            answers.append(None)
            continue
        index = np.zeros(32, int)
        for value, bit in zip(known, (4, 2, 1), strict=True):
            index = index + as_lanes(value).astype(int) * bit
        found = (table >> index & 1).astype(bool)
        answers.append(bool(found[0]) if found.all() or not found.any() else found)
    return answers


def shifted(parts: Sequence[str], low: Value, by: Value, high: Value) -> Value:
    """SHF: the low or the high word of two words that are shifted together."""
    if by is None:
        return None
    wide, right, upper, wraps = "U64" in parts or "S64" in parts, "R" in parts, "HI" in parts, "W" in parts
    by = by & (63 if wide else 31) if wraps else by
    if not wide and not wraps and np.any(by > 31):
        by = np.minimum(by, 32) if isinstance(by, np.ndarray) else min(by, 32)
    if upper and right:  # the low word is not needed
        if high is None:
            return None
        source = signed(high) if "S32" in parts else high
        by = np.minimum(by, 31).astype(np.int64) if "S32" in parts and isinstance(by, np.ndarray) else by
        return unsigned64(source >> by) & MASK
    if not upper and not right:
        return None if low is None else (low << by) & MASK
    if low is None or high is None:
        return None
    both = (high << 32) | low
    return (both >> by) & MASK if right else (both << by) >> 32 & MASK


def added(values: Sequence[Value], carries: Sequence[Value]) -> tuple[Value, Value]:
    """A sum of numbers and predicates, and the carry into the next word."""
    if any(value is None for value in (*values, *carries)):
        return None, None
    total: Value = 0
    for value in values:
        total = total + value
    for carry in carries:
        total = total + (carry.astype(np.uint64) if isinstance(carry, np.ndarray) else int(carry))
    over = total >> 32
    return total & MASK, over != 0


def rearranged(a: Value, selector: Value, b: Value) -> Value:
    """PRMT: four bytes chosen among the eight of two words; with bit 3 of a choice, its sign all over."""
    if selector is None or isinstance(selector, np.ndarray):
        return None
    result: Value = 0
    for number in range(4):
        choice = selector >> 4 * number & 15
        source = a if choice & 7 < 4 else b
        if source is None:
            return None
        byte = source >> 8 * (choice & 3) & 255
        if choice & 8:
            byte = (byte >> 7) * 255
        result = result | byte << 8 * number
    return result


def as_float(value: Value) -> np.ndarray[Any, Any]:
    """The float32 whose bits a number is."""
    return as_lanes(value).astype(np.uint32).view(np.float32)


def as_bits(value: np.ndarray[Any, Any]) -> Value:
    """The bits of float32."""
    bits = value.astype(np.float32).view(np.uint32).astype(np.uint64)
    return int(bits[0]) if (bits == bits[0]).all() else bits


def lanes_alike(value: Value) -> Value:
    """An array with this number for every thread."""
    if isinstance(value, np.ndarray) and (value == value[0]).all():
        return value[0].item()
    return value


def half_pair(high: str, low: str) -> int:
    """Two half-precision numbers as the word that holds them: how a compiler writes a constant into a register with HFMA2."""
    words = np.array([float(low), float(high)], np.float16).view(np.uint16)
    return int(words[0]) | int(words[1]) << 16

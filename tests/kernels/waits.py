"""Where a loop of machine code waits for global memory, read from its instructions and their control codes.

A load names a scoreboard that counts it until its result is there; an instruction names those that must be empty before it issues. Loads of
global memory, of shared memory and of parameters share six scoreboards, so a wait for a parameter may be one for an LDG as well: it
counts, because the warp stands still. What an instruction reads says what the wait was meant for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpucnn.profiling.chip import evaluate
from gpucnn.profiling.chip.machine import NO_SCOREBOARD, Instruction, Program


@dataclass(frozen=True)
class Wait:
    """The first wait for a load of global memory. `asked` and `waited` are positions in the loop, from 0 to 1, of the load and of what
    waits for it, `by`; `turns` is how many turns lie between. `meant`: whether it reads what an LDG on this scoreboard has loaded."""

    asked: float
    waited: float
    turns: int
    meant: bool
    by: str

    @property
    def way(self) -> float:
        """The part of a turn from the load to the wait."""
        return self.turns + self.waited - self.asked


def main_loop(program: Program) -> Sequence[Instruction]:
    """The innermost loop with the most FFMAs: from a label to the jump back to it. Raises ValueError where there is no loop."""
    code, loops = program.instructions, []
    for index, each in enumerate(code):
        first = program.find(each.target) if each.base == "BRA" else None
        if first is not None and first < index:
            loops.append((first, index + 1))
    if not loops:
        raise ValueError("there is no loop")
    inner = [loop for loop in loops if not any(other != loop and loop[0] <= other[0] and other[1] <= loop[1] for other in loops)]
    return max((code[first:end] for first, end in inner), key=lambda loop: (sum(each.base == "FFMA" for each in loop), -len(loop)))


def waits(loop: Sequence[Instruction]) -> list[Wait]:
    """For each load in the loop, in the order in which they are waited for, the first wait. The loop is followed for three turns, of which
    the second one's loads count."""
    length = len(loop)
    on_way: list[list[int]] = [[] for _ in range(6)]  # by scoreboard, the issues that it still counts
    found = []
    for issue in range(3 * length):
        each = loop[issue % length]
        for board in _waited(each):
            left = int(each.operands[1], 0) if each.base == "DEPBAR" and len(each.operands) > 1 else 0
            done, on_way[board] = on_way[board][: len(on_way[board]) - left], on_way[board][len(on_way[board]) - left :]
            reads = " ".join((each.guard, *each.operands[len(each.results) :]))
            own = [at for at in done if loop[at % length].base == "LDG"]
            meant = any(_holds(reads, name) for at in own for name in evaluate.written(loop[at % length]))
            found += [
                Wait(at % length / length, issue % length / length, issue // length - at // length, meant, each.text)
                for at in own
                if at // length == 1
            ]
        if each.write != NO_SCOREBOARD and each.write < 6:
            on_way[each.write].append(issue)
    return found


def copies(loop: Sequence[Instruction]) -> tuple[float, float]:
    """Where a turn has begun its last asynchronous copy, and where it first waits for any; positions in the loop as in `Wait`. ValueError
    where it does one without the other."""
    begun = [at for at, each in enumerate(loop) if each.base == "LDGSTS"]
    waited = [at for at, each in enumerate(loop) if each.base == "DEPBAR"]
    if not begun or not waited:
        raise ValueError(f"{len(begun)} copies are begun, and there are {len(waited)} waits for copies")
    return begun[-1] / len(loop), waited[0] / len(loop)


def _waited(each: Instruction) -> list[int]:
    boards = [board for board in range(6) if each.wait >> board & 1]
    if each.base == "DEPBAR" and each.operands and each.operands[0].startswith("SB"):
        boards.append(int(each.operands[0][2:]))
    return boards


def _holds(text: str, name: str) -> bool:
    return name in text.replace("[", " ").replace("]", " ").replace(",", " ").replace("+", " ").replace(".", " ").split()

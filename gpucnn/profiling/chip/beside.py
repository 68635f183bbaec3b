"""Predicts how long kernels on branches of a graph take side by side, from the time that each takes alone.

Blocks are assigned as on a chip: to the multiprocessor with the most room, from each kernel that has begun. Blocks of two kernels on
one multiprocessor do not slow each other down as long as there are free issue cycles; otherwise they share the cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_WAVES = 12  # beyond that, several consecutive blocks count as one


@dataclass(frozen=True, slots=True)
class Load:
    """A kernel's demands on a chip: its blocks, and how many of them fit on a multiprocessor; the seconds that each takes beside the others
    when the kernel runs alone; the share of a multiprocessor's cycles in which one block issues; and the seconds that memory needs for
    its bytes. last: how many of the blocks come last and take other seconds, and these."""

    blocks: int
    held: int
    seconds: float
    share: float
    moving: float
    last: tuple[int, float] = (0, 0.0)


@dataclass(eq=False)
class _Resident:
    kernel: int
    room: float
    share: float
    left: float  # seconds, by itself


def side_by_side(loads: Sequence[Load], after: Sequence[Sequence[int]], multiprocessors: int, node: float) -> float:
    """Seconds from the fork to the join, for kernels of which each begins `node` seconds after the last of those that it comes `after`, by
    their numbers, or after the fork."""
    chip: list[list[_Resident]] = [[] for _ in range(multiprocessors)]
    now = 0.0
    left = [set(before) for before in after]  # kernels that have not ended, of those that each comes after
    begins = [node if not before else None for before in after]
    waiting = [_folded(load, multiprocessors) for load in loads]
    running = [0] * len(loads)
    going = set(range(len(loads)))
    while going:
        for at in sorted(going):
            begin = begins[at]
            while begin is not None and begin <= now and waiting[at]:
                load, (blocks, seconds) = loads[at], waiting[at][0]
                given = _give(chip, blocks, _Resident(at, 1 / load.held, load.share, seconds))
                running[at] += given
                if given < blocks:
                    waiting[at][0] = blocks - given, seconds
                    break
                del waiting[at][0]
        slow = [max(1.0, sum(block.share for block in held)) for held in chip]
        steps = [block.left * slow[at] for at, held in enumerate(chip) for block in held]
        steps += [begin - now for at in going if (begin := begins[at]) is not None and begin > now]
        step = min(steps)
        now += step
        for at, held in enumerate(chip):
            for block in held:
                block.left -= step / slow[at]
                running[block.kernel] -= block.left <= 1e-15
            chip[at] = [block for block in held if block.left > 1e-15]
        for at in sorted(going):
            begin = begins[at]
            if begin is not None and begin <= now and not waiting[at] and not running[at]:
                going.remove(at)
                for other in going:
                    if at in left[other]:
                        left[other].remove(at)
                        begins[other] = None if left[other] else now + node
    return max(now, sum(load.moving for load in loads) + node)


def _folded(load: Load, multiprocessors: int) -> list[tuple[int, float]]:
    """(blocks, seconds of one) of the first blocks, and of the last, with several counted as one so that there are only a few waves."""
    found = []
    for blocks, seconds in ((load.blocks - load.last[0], load.seconds), load.last):
        if blocks:
            times = -(-blocks // (_WAVES * load.held * multiprocessors))
            found.append((-(-blocks // times), seconds * times))
    return found


def _give(chip: list[list[_Resident]], count: int, block: _Resident) -> int:
    """Places up to this many equal blocks evenly where there is room. Returns how many were placed."""
    given = 0
    taken = [sum(each.room for each in blocks) for blocks in chip]
    while given < count:
        at = min(range(len(chip)), key=taken.__getitem__)
        if taken[at] + block.room > 1 + 1e-9:
            break
        chip[at].append(_Resident(block.kernel, block.room, block.share, block.left))
        taken[at] += block.room
        given += 1
    return given

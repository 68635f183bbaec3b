"""Kernels on two branches of a graph: how long they take side by side, from what each takes by itself.

Blocks are given out as a chip does it: to the multiprocessor with the most room, from each branch's kernel that has begun. Blocks of two
kernels on one multiprocessor take nothing from one another as long as there are cycles to issue in, and share them where there are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_WAVES = 12  # beyond that, several blocks one after the other count as one


@dataclass(frozen=True, slots=True)
class Load:
    """What a kernel asks of a chip: blocks, and how many of them fit on a multiprocessor; the seconds that each takes among as many as
    there are when the kernel is alone; the part of a multiprocessor's cycles in which one of them issues; and the seconds that memory
    needs for its bytes."""

    blocks: int
    held: int
    seconds: float
    share: float
    moving: float


@dataclass(eq=False)
class _Resident:
    branch: int
    room: float
    share: float
    left: float  # seconds, by itself


def side_by_side(branches: Sequence[Sequence[Load]], multiprocessors: int, node: float) -> float:
    """Seconds from the fork to the join, for kernels that each come `node` seconds after the one before on their branch."""
    chip: list[list[_Resident]] = [[] for _ in range(multiprocessors)]
    now = 0.0
    number = [0] * len(branches)  # of the kernel that a branch is at
    begins = [node] * len(branches)
    waiting = [_folded(loads[0], multiprocessors)[0] if loads else 0 for loads in branches]  # blocks
    running = [0] * len(branches)
    while any(at < len(loads) for at, loads in zip(number, branches, strict=True)):
        for branch, loads in enumerate(branches):
            if number[branch] < len(loads) and begins[branch] <= now and waiting[branch]:
                load = loads[number[branch]]
                seconds = _folded(load, multiprocessors)[1]
                given = _give(chip, waiting[branch], _Resident(branch, 1 / load.held, load.share, seconds))
                waiting[branch], running[branch] = waiting[branch] - given, running[branch] + given
        slow = [max(1.0, sum(block.share for block in blocks)) for blocks in chip]
        steps = [block.left * slow[at] for at, blocks in enumerate(chip) for block in blocks]
        steps += [begin - now for begin, at, loads in zip(begins, number, branches, strict=True) if begin > now and at < len(loads)]
        step = min(steps)
        now += step
        for at, blocks in enumerate(chip):
            for block in blocks:
                block.left -= step / slow[at]
                running[block.branch] -= block.left <= 1e-15
            chip[at] = [block for block in blocks if block.left > 1e-15]
        for branch, loads in enumerate(branches):
            if number[branch] < len(loads) and begins[branch] <= now and not waiting[branch] and not running[branch]:
                number[branch] += 1
                begins[branch] = now + node
                if number[branch] < len(loads):
                    waiting[branch] = _folded(loads[number[branch]], multiprocessors)[0]
    return max(now, sum(load.moving for loads in branches for load in loads) + node)


def _folded(load: Load, multiprocessors: int) -> tuple[int, float]:
    """(blocks, seconds of one), where so many count as one that there are no more than some waves."""
    times = -(-load.blocks // (_WAVES * load.held * multiprocessors))
    return -(-load.blocks // times), load.seconds * times


def _give(chip: list[list[_Resident]], count: int, block: _Resident) -> int:
    """Puts up to so many blocks like this one where there is room, evenly. Returns how many."""
    given = 0
    taken = [sum(each.room for each in blocks) for blocks in chip]
    while given < count:
        at = min(range(len(chip)), key=taken.__getitem__)
        if taken[at] + block.room > 1 + 1e-9:
            break
        chip[at].append(_Resident(block.branch, block.room, block.share, block.left))
        taken[at] += block.room
        given += 1
    return given

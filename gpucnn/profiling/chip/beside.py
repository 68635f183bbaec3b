"""Predicts how long kernels on two branches of a graph take side by side, from the time that each takes alone.

Blocks are assigned as on a chip: to the multiprocessor with the most room, from the running kernel of each branch. Blocks of two kernels on
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
    branch: int
    room: float
    share: float
    left: float  # seconds, by itself


def side_by_side(branches: Sequence[Sequence[Load]], multiprocessors: int, node: float) -> float:
    """Seconds from the fork to the join, for kernels that each come `node` seconds after the one before on their branch."""
    chip: list[list[_Resident]] = [[] for _ in range(multiprocessors)]
    now = 0.0
    number = [0] * len(branches)  # of a branch's current kernel
    begins = [node] * len(branches)
    waiting = [_folded(loads[0], multiprocessors) if loads else [] for loads in branches]
    running = [0] * len(branches)
    while any(at < len(loads) for at, loads in zip(number, branches, strict=True)):
        for branch, loads in enumerate(branches):
            while number[branch] < len(loads) and begins[branch] <= now and waiting[branch]:
                load, (blocks, seconds) = loads[number[branch]], waiting[branch][0]
                given = _give(chip, blocks, _Resident(branch, 1 / load.held, load.share, seconds))
                running[branch] += given
                if given < blocks:
                    waiting[branch][0] = blocks - given, seconds
                    break
                del waiting[branch][0]
        slow = [max(1.0, sum(block.share for block in held)) for held in chip]
        steps = [block.left * slow[at] for at, held in enumerate(chip) for block in held]
        steps += [begin - now for begin, at, loads in zip(begins, number, branches, strict=True) if begin > now and at < len(loads)]
        step = min(steps)
        now += step
        for at, held in enumerate(chip):
            for block in held:
                block.left -= step / slow[at]
                running[block.branch] -= block.left <= 1e-15
            chip[at] = [block for block in held if block.left > 1e-15]
        for branch, loads in enumerate(branches):
            if number[branch] < len(loads) and begins[branch] <= now and not waiting[branch] and not running[branch]:
                number[branch] += 1
                begins[branch] = now + node
                if number[branch] < len(loads):
                    waiting[branch] = _folded(loads[number[branch]], multiprocessors)
    return max(now, sum(load.moving for loads in branches for load in loads) + node)


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
        chip[at].append(_Resident(block.branch, block.room, block.share, block.left))
        taken[at] += block.room
        given += 1
    return given

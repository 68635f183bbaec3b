"""Distributes the blocks of a grid over the multiprocessors of a chip, and describes the result in words."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waves:
    """blocks: of the grid. held: at most at a time on a multiprocessor."""

    blocks: int
    held: int
    multiprocessors: int

    @property
    def most(self) -> int:
        """The blocks of the busiest multiprocessor, if they are distributed evenly."""
        return -(-self.blocks // self.multiprocessors)

    @property
    def count(self) -> float:
        """How many times the grid fills the chip."""
        return self.blocks / (self.held * self.multiprocessors)

    @property
    def idle(self) -> float:
        """The average share of the busiest multiprocessor's time in which the others are idle."""
        return 1 - self.blocks / (self.most * self.multiprocessors)

    @property
    def words(self) -> str:
        """The problem with how the grid fills the chip, or "" if less than a tenth is lost."""
        if self.idle < 0.1:
            return ""
        if self.blocks < self.multiprocessors:
            return f"{self.blocks} {'blocks' if self.blocks > 1 else 'block'} for {self.multiprocessors} multiprocessors"
        whole = math.floor(self.count)
        if self.count <= 1:
            each = self.blocks / self.multiprocessors
            return f"{each:.1f} blocks for each multiprocessor: some have {self.most} and some {self.most - 1}"
        empty = 1 - (self.count - whole)
        how = "half empty" if 0.4 <= empty <= 0.6 else f"{100 * empty:.0f} % empty"
        return f"{self.count:.1f} waves: the {_ordinal(whole + 1)} is {how}"


def _ordinal(number: int) -> str:
    names = {2: "second", 3: "third", 4: "fourth", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth", 9: "ninth", 10: "tenth"}
    return names.get(number, "last")

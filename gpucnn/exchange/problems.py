"""What is said of a model that cannot be taken: every layer that is in the way, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpucnn.errors import CheckpointError
from gpucnn.text import message, shortened

DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, RecursionError, RuntimeError)
"""What comes of going through a damaged file: something of another type, a number out of its range, a name that is not there."""


class NotTakenError(CheckpointError):
    """A model of which some layers cannot be had here; `problems` names each, and says why."""

    def __init__(self, path: str | Path, problems: Sequence[str]) -> None:
        self.problems = [message(problem) for problem in problems]
        room = 360 // min(3, len(self.problems)) if self.problems else 0
        first = "; ".join(shortened(problem, room) for problem in self.problems[:3])
        more = f"; and {len(self.problems) - 3} more" if len(self.problems) > 3 else ""
        super().__init__(f"{path} was not imported: {first}{more}")


class Problem(Exception):
    """What is in the way of one layer; its text goes behind the layer's name."""

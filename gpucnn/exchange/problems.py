"""Errors about a model that cannot be imported, which name every unsupported layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpucnn.errors import CheckpointError
from gpucnn.text import message, shortened

DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, RecursionError, RuntimeError)
"""Errors from reading a damaged file: a value of another type, a number out of range, a missing name."""


class NotTakenError(CheckpointError):
    """The model has layers that gpucnn does not support; `problems` names each and gives the reason."""

    def __init__(self, path: str | Path, problems: Sequence[str]) -> None:
        self.problems = [message(problem) for problem in problems]
        room = 360 // min(3, len(self.problems)) if self.problems else 0
        first = "; ".join(shortened(problem, room) for problem in self.problems[:3])
        more = f"; and {len(self.problems) - 3} more" if len(self.problems) > 3 else ""
        super().__init__(f"{path} was not imported: {first}{more}")


class Problem(Exception):
    """The reason why one layer cannot be imported; the text follows the layer's name."""

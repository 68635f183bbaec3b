"""A kernel's Python beside its machine code: which line became which instructions, how often those are issued, and where its warps wait."""

from __future__ import annotations

import linecache
from pathlib import Path

from gpucnn.profiling.chip.machine import Program
from gpucnn.profiling.chip.predict import Prediction
from gpucnn.profiling.records import Listing, SourceLine


def listing(kernel: str, program: Program, prediction: Prediction) -> Listing:
    """The lines in the order in which the code has them first; instructions that no warp came by are left out, and so is what nobody wrote
    a line for, but for its part of the time."""
    total = sum(prediction.issued.values()) or 1.0
    waits = sum(prediction.waited.values()) or 1.0
    found: dict[tuple[str, int] | None, list[int]] = {}
    for index, instruction in enumerate(program.instructions):
        if index in prediction.issued:
            found.setdefault(instruction.line, []).append(index)
    lines = []
    for line, indices in found.items():
        place, text = ("", "what the compiler added") if line is None else (_place(*line), linecache.getline(*line).strip())
        lines.append(
            SourceLine(
                place,
                text,
                [(program.instructions[index].text, prediction.issued[index]) for index in indices],
                sum(prediction.issued[index] for index in indices) / total,
                sum(prediction.waited.get(index, 0.0) for index in indices) / waits,
            )
        )
    return Listing(kernel, lines)


def _place(file: str, number: int) -> str:
    """A file's last two parts, and the line: where it is installed says nothing."""
    return f"{'/'.join(Path(file).parts[-2:])}:{number}"

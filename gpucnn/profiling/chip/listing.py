"""A kernel's Python beside its machine code: the instructions of each line, how often they are issued, and where the warps wait."""

from __future__ import annotations

import linecache
from pathlib import Path

from gpucnn.profiling.chip.machine import Program
from gpucnn.profiling.chip.predict import Prediction
from gpucnn.profiling.records import Listing, SourceLine


def listing(kernel: str, program: Program, prediction: Prediction) -> Listing:
    """The lines in the order of their first instruction. Instructions that no warp reached are left out, and so is code without a line,
    except for its share of the time."""
    total = sum(prediction.issued.values()) or 1.0
    waits = sum(prediction.waited.values()) or 1.0
    found: dict[tuple[str, int] | None, list[int]] = {}
    for index, instruction in enumerate(program.instructions):
        if index in prediction.issued:
            found.setdefault(instruction.line, []).append(index)
    lines = []
    for line, indices in found.items():
        location, text = ("", "what the compiler added") if line is None else (_location(*line), linecache.getline(*line).strip())
        lines.append(
            SourceLine(
                location,
                text,
                [(program.instructions[index].text, prediction.issued[index]) for index in indices],
                sum(prediction.issued[index] for index in indices) / total,
                sum(prediction.waited.get(index, 0.0) for index in indices) / waits,
            )
        )
    return Listing(kernel, lines)


def _location(file: str, number: int) -> str:
    """The last two parts of a file's path, and the line: where it is installed does not matter."""
    return f"{'/'.join(Path(file).parts[-2:])}:{number}"

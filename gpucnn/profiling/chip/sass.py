"""The machine code (SASS) of a kernel, and the instruction mix of its innermost loop.

In a matrix product the FFMAs (float32 multiply-and-add) are the work, and everything else in the loop is overhead: a multiprocessor
issues a fixed number of instructions per cycle, whatever they are. So the fraction of FFMAs in the loop bounds the fraction of peak.

The disassembler, nvdisasm, comes with `pip install nvidia-cuda-nvdisasm` (in the extra compilers), with Triton, or with the CUDA toolkit.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpucnn.surroundings import install


class ToolchainError(RuntimeError):
    """A compiler or disassembler that is not installed or not usable."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop: its instructions, and how many of them are float32 FMAs, vector reads of shared and global memory, single and vector writes
    to shared memory, and single reads of global memory; `first_load` is the position in the loop, from 0 to 1, of the first such read."""

    instructions: int
    ffma: int
    lds_128: int
    ldg_128: int
    ldg: int
    sts: int
    first_load: float

    @property
    def share(self) -> float:
        """The fraction of instructions that are FFMAs."""
        return self.ffma / self.instructions


def nvdisasm() -> str | None:
    """The path of the disassembler, or None."""
    packages = Path(sysconfig.get_paths()["purelib"])
    for pattern in ("nvidia/*/bin/nvdisasm", "triton/backends/nvidia/bin/nvdisasm"):
        found = sorted(packages.glob(pattern))
        if found:
            return str(found[-1])
    return shutil.which("nvdisasm")


def advice() -> str:
    """How to install the compilers and the disassembler."""
    return f"{install('compilers')}, which brings numba-cuda[cu13] and nvidia-cuda-nvdisasm"


def disassemble(cubin: bytes, *options: str) -> str:
    """The SASS of a cubin; `options` are passed to nvdisasm. Raises ToolchainError if nvdisasm is missing."""
    tool = nvdisasm()
    if tool is None:
        raise ToolchainError(f"there is no nvdisasm: {advice()}")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        result = subprocess.run([tool, "-c", *options, file.name], capture_output=True, text=True, check=False)
    if result.returncode:
        raise ToolchainError(f"nvdisasm failed: {result.stderr.strip()}")
    return result.stdout


def hot_loop(sass: str) -> Loop:
    """The innermost loop with the most FFMAs, then the most reads of global memory. A loop is the code between a label and a jump back to
    it.

    Raises ValueError if there is no loop.
    """
    loop, _ = _hot_loop(sass)
    return loop


def main_loop(sass: str) -> Loop | None:
    """`hot_loop`, or None if there is none, if more FFMAs are outside of it than it has instructions, because the work is unrolled,
    or if tensor cores do the work."""
    if "HGMMA" in sass:
        return None
    try:
        loop, all_ffma = _hot_loop(sass)
    except ValueError:
        return None
    return loop if all_ffma - loop.ffma <= loop.instructions else None


def _hot_loop(sass: str) -> tuple[Loop, int]:
    """The hot loop, and the FFMAs of the whole kernel."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for line in sass.splitlines():
        label = re.match(r"\s*(\.L_x_\d+):", line)
        if label:
            labels[label.group(1)] = len(instructions)
        found = re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+ )?(.*?)\s*;", line)
        if found:
            instructions.append(found.group(1))
            target = re.match(r"BRA.*?(\.L_x_\d+)", found.group(1))
            first = labels.get(target.group(1)) if target else None
            if first is not None and first < len(instructions) - 1:  # after its end a kernel has a jump to itself, which is not a loop
                loops.append((first, len(instructions)))
    inner = [loop for loop in loops if not any(other != loop and loop[0] <= other[0] and other[1] <= loop[1] for other in loops)]
    if not inner:
        raise ValueError("there is no loop")
    bodies = [instructions[first:end] for first, end in inner]
    body = max(bodies, key=lambda loop: (_count(loop, "FFMA"), _count(loop, "LDG"), -len(loop)))
    loads = [index for index, text in enumerate(body) if text.startswith("LDG")]
    wide = _count(body, r"LDG\S*\.128")
    loop = Loop(
        len(body),
        _count(body, "FFMA"),
        _count(body, r"LDS\S*\.128"),
        wide,
        len(loads) - wide,
        _count(body, "STS"),
        loads[0] / len(body) if loads else 1.0,
    )
    return loop, _count(instructions, "FFMA")


def _count(loop: Sequence[str], pattern: str) -> int:
    return sum(bool(re.match(pattern, text)) for text in loop)

"""What a kernel is in the chip's own instructions (SASS), and what its innermost work costs.

    python -m gpucnn_kernels.sass --arch sm_90 [--kernel tile128x128]

In a product of matrices the FFMAs (float32 multiply-and-add) are the work, and everything else in the loop is its price: a multiprocessor
issues so many instructions a cycle, whatever they are. So the share of FFMAs in the loop is a bound on the share of the chip's peak.

The disassembler, nvdisasm, comes with `pip install nvidia-cuda-nvdisasm`, with Triton, or with the CUDA toolkit.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpucnn_kernels.catalogue import ENGINE_ENTRIES, ENTRIES
from gpucnn_kernels.static import CHIPS, ToolchainError, machine_code


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop: its instructions, and how many of them are float32 FMAs, vector reads of shared and global memory, writes to shared memory
    by one and by four, and reads of global memory by one; `first_load` is where in the loop, from 0 to 1, global memory is first asked."""

    instructions: int
    ffma: int
    lds_128: int
    ldg_128: int
    ldg: int
    sts: int
    first_load: float

    @property
    def share(self) -> float:
        """FFMAs among the instructions."""
        return self.ffma / self.instructions


def nvdisasm() -> str | None:
    """Where the disassembler is, or None."""
    packages = Path(sysconfig.get_paths()["purelib"])
    for pattern in ("nvidia/*/bin/nvdisasm", "triton/backends/nvidia/bin/nvdisasm"):
        found = sorted(packages.glob(pattern))
        if found:
            return str(found[-1])
    return shutil.which("nvdisasm")


def disassemble(cubin: bytes) -> str:
    """SASS of a cubin. Raises ToolchainError where there is no nvdisasm."""
    tool = nvdisasm()
    if tool is None:
        raise ToolchainError("no nvdisasm: pip install nvidia-cuda-nvdisasm")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        result = subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=False)
    if result.returncode:
        raise ToolchainError(f"nvdisasm failed: {result.stderr.strip()}")
    return result.stdout


def hot_loop(sass: str) -> Loop:
    """The loop with the most FFMAs: from a label to a jump back to it. Raises ValueError where there is no loop."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    loops: list[list[str]] = []
    for line in sass.splitlines():
        label = re.match(r"\s*(\.L_x_\d+):", line)
        if label:
            labels[label.group(1)] = len(instructions)
        found = re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+ )?(.*?)\s*;", line)
        if found:
            instructions.append(found.group(1))
            target = re.match(r"BRA.*?(\.L_x_\d+)", found.group(1))
            if target and target.group(1) in labels:
                loops.append(instructions[labels[target.group(1)] :])
    if not loops:
        raise ValueError("there is no loop")
    body = max(loops, key=lambda loop: (_count(loop, "FFMA"), -len(loop)))
    loads = [place for place, text in enumerate(body) if text.startswith("LDG")]
    wide = _count(body, r"LDG\S*\.128")
    return Loop(
        len(body), _count(body, "FFMA"), _count(body, r"LDS\S*\.128"), wide, len(loads) - wide, _count(body, "STS"),
        loads[0] / len(body) if loads else 1.0,
    )  # fmt: skip


def _count(loop: Sequence[str], pattern: str) -> int:
    return sum(bool(re.match(pattern, text)) for text in loop)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0, or 2 where something is missing."""
    parser = argparse.ArgumentParser(prog="python -m gpucnn_kernels.sass", description="The main loop of each kernel, without a GPU.")
    parser.add_argument("--arch", choices=CHIPS, default="sm_90")
    parser.add_argument("--kernel", default="tile", metavar="TEXT", help="only kernels with this in their names (default: the engine's)")
    options = parser.parse_args(arguments)
    try:
        print(f"{'kernel':34}  instructions  FFMA  share  LDS.128  LDG.128  LDG  STS  first load")
        for entry in (entry for entry in (*ENTRIES, *ENGINE_ENTRIES) if options.kernel in entry.name):
            loop = hot_loop(disassemble(machine_code(entry, options.arch)))
            print(
                f"{entry.name:34}  {loop.instructions:12}  {loop.ffma:4}  {loop.share:5.0%}  {loop.lds_128:7}  {loop.ldg_128:7}  "
                f"{loop.ldg:3}  {loop.sts:3}  {loop.first_load:10.0%}"
            )
    except (ToolchainError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

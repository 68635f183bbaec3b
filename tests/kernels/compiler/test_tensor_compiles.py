"""The kernels on tensor cores, compiled for the one architecture that has these: no spills, and the products written out in the loop."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gpucnn.ops.shapes import conv_window
from gpucnn.profiling.chip import sass, static
from gpucnn.profiling.chip.samples import Entry, tensor_entries
from gpucnn_kernels.choose import select
from gpucnn_kernels.conv import tensor
from gpucnn_kernels.core import launch
from gpucnn_kernels.tensor import hopper

pytestmark = pytest.mark.skipif(bool(select.SIMULATED), reason="the simulator compiles nothing")
QUICK = ("conv2d-tensor128x64", "conv2d_weight_grad-tensor128x128-odd", "pack_split")


def slow_but_for_some() -> list[object]:
    return [pytest.param(entry, id=entry.name, marks=() if entry.name in QUICK else pytest.mark.slow) for entry in tensor_entries()]


@pytest.mark.parametrize("entry", slow_but_for_some())
def test_compiles_without_spills(entry: Entry, tmp_path: Path) -> None:
    try:
        report = static.compile_kernel(entry, "sm_90")
        code = static.machine_code(entry, "sm_90")
    except static.ToolchainError as error:
        pytest.skip(str(error))
    assert (report.spill_stores, report.spill_loads, report.stack, report.float64) == (0, 0, 0, 0)
    assert report.registers <= entry.max_registers
    assert report.shared <= 227 << 10
    disassembler = sass.nvdisasm()
    if disassembler is None or "tensor" not in entry.name:
        return
    file = tmp_path / "kernel.cubin"
    file.write_bytes(code)
    text = subprocess.run([disassembler, "-c", str(file)], capture_output=True, text=True, check=True).stdout
    assert len(re.findall(r"\bHGMMA\b", text)) == 12  # three products for each 8 of 32 steps
    assert not re.findall(r"\b(LDL|STL)\b", text)


def test_swizzled_rows_touch_every_bank_once() -> None:
    """Eight rows' pieces of 16 bytes at the same depth, which are read together; and the tile is filled without gaps."""
    for piece in range(8):
        banks = {hopper.swizzled(row, 4 * piece + i) % 32 for row in range(8) for i in range(4)}
        assert len(banks) == 32
    places = {hopper.swizzled(row, depth) for row in range(64) for depth in range(hopper.ROW)}
    assert places == set(range(64 * hopper.ROW))


def test_signatures_and_blocks_are_those_of_the_launchers() -> None:
    window, odd = conv_window((8, 8), (3, 3), 1, 1), conv_window((7, 7), (3, 3), 1, 1)
    weight, space = np.empty((40, 32, 3, 3), np.float32), np.empty(1 << 22, np.float32)
    said = {(id(entry.kernel), entry.signature, entry.threads_per_block, entry.more_shared): entry.name for entry in tensor_entries()}
    seen = set()
    with launch.recording(launching=False) as launches:
        for each in (window, odd):
            x, dy = np.empty((2, 32, *each.input), np.float32), np.empty((2, 40, *each.output), np.float32)
            for variants in tensor.ALL:
                launcher = {operation: variant.launch for operation, variant in variants.items()}
                launcher["conv2d"](x, weight, None, dy, each, workspace=space)
                launcher["conv2d_input_grad"](dy, weight, x, each, workspace=space)
                launcher["conv2d_weight_grad"](dy, x, weight, each, workspace=space)
    for item in launches:
        seen.add(said[id(item.kernel), item.signature, item.threads, item.shared])
    assert seen == set(said.values())

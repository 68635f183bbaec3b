"""Every rung of the CPU's ladder gives the right numbers, and the program that times them runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpucnn.ops.cpu import fused
from gpucnn.ops.shapes import conv_window, pool_window
from gpucnn_loops.transforms import matrices
from ladder.cpu import RUNGS, Layer, Rung
from tolerances import check, winograd

PROGRAM = Path(__file__).parents[2] / "kernels" / "ladder" / "cpu.py"


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
@pytest.mark.parametrize("sizes", [(3, 5, 32, 12), (2, 17, 16, 18)], ids=str)
def test_the_numbers_are_the_references(rung: Rung, sizes: tuple[int, int, int, int]) -> None:
    layer = Layer(*sizes, seed=1)
    layer.y[...], layer.convolved[...], layer.indices[...] = np.nan, np.nan, -1
    rung.run(layer)
    side, out = sizes[3], layer.out
    window, pool = conv_window((side, side), 3), pool_window((out, out), 2)
    x, weight, bias = (array.astype(np.float64) for array in (layer.x, layer.weight, layer.bias))
    expected, _ = fused.conv2d_relu_max_pool2d(x, weight, bias, window, pool)
    # The bound of a maximum is the largest of those that it is chosen from; Winograd's is above a plain sum's.
    magnitude, terms = winograd(x, weight, window.padding, matrices(3))
    largest = (magnitude + np.abs(bias)[:, None, None]).reshape(*magnitude.shape[:2], out // 2, 2, out // 2, 2).max((3, 5))
    check(layer.y, expected, magnitude=largest, terms=terms, direction="forward")
    rows, columns = np.divmod(layer.indices, out)
    assert (rows // 2 == np.arange(out // 2)[:, None]).all() and (columns // 2 == np.arange(out // 2)).all()


def test_the_ladder_runs() -> None:
    command = [sys.executable, str(PROGRAM), "--images", "1", "--channels", "2", "--filters", "16", "--side", "8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"GPUCNN_NUM_THREADS": "2"})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["peak", *(rung.name for rung in RUNGS)]
    assert all(float(line.split()[1]) > 0 for line in lines[1:])


def test_sizes_that_hide_the_idea_are_refused() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM), "--filters", "20"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "filters must be a multiple of 16" in done.stderr and "Traceback" not in done.stderr

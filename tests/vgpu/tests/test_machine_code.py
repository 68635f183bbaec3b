"""Link-time code with and without machine code: the same results, and the registers of ptxas only with it."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from numba import cuda

@cuda.jit(lto=True)
def scaled(x, factor):
    i = cuda.grid(1)
    if i < x.size:
        x[i] *= factor

@cuda.jit(lto=True)
def broken(x):
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        cuda.syncwarp(1)
        x[40] = 1

x = cuda.to_device(np.arange(40, dtype=np.float32))
scaled[2, 32](x, np.float32(2))
print(x.copy_to_host().sum(), "registers", next(iter(scaled.get_regs_per_thread().values())))
try:
    broken[1, 32](x)
    cuda.synchronize()
except Exception as error:
    print("broken:", type(error).__name__)
"""


@pytest.mark.parametrize("wish", ["1", "0"])
def test_machine_code_changes_no_result(wish, tmp_path):
    environment = {**os.environ, "VGPU_MACHINE_CODE": wish, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    total, _, registers = first.split()
    assert float(total) == 40 * 39
    assert (int(registers) == 32) == (wish == "0"), "a kernel this small needs fewer than 32"
    assert second.startswith("broken: "), "an address out of bounds is found either way"
    assert "out of bounds" in done.stderr or "x[40]" in done.stderr or "write" in done.stderr

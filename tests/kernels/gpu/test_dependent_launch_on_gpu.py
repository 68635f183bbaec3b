"""Launches that begin before the kernel before them has ended (core/early.py), where a GPU or the virtual one runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpucnn.device import Device

pytestmark = pytest.mark.gpu

# Three launches in a row, each of which reads what the one before has written, recorded and replayed; a copy before them, and two branches.
CHAIN = """
import json, sys
from gpucnn_kernels.core import early
if "never wait" in sys.argv:
    early.begin, early.waits = lambda function: None, lambda compiled: True
import cupy
from gpucnn_kernels import activations
from gpucnn_kernels.core.launch import external_stream
launched = []
real = early.launch
early.launch = lambda *arguments: launched.append(arguments) or real(*arguments)
n = 5000
x, y, z, dy = (cupy.full(n, value, "float32") for value in (-1, 7, 7, 3))
stream, beside = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
cupy.cuda.runtime.deviceSynchronize()
def chain(stream):
    own = external_stream(stream.ptr)
    x.data.copy_from_device_async(dy.data, 4 * n, stream)
    activations.relu(x, y, own)          # after a copy
    activations.relu(y, z, own)          # early
    activations.relu_grad(dy, z, y, own) # early
with stream:
    chain(stream)
    none = len(launched)
    stream.begin_capture()
    chain(stream)
    beside.wait_event(stream.record())
    activations.relu(dy, x, external_stream(beside.ptr))  # early: one kernel comes before it, and it has an edge of its own
    stream.wait_event(beside.record())
    activations.relu(x, z, external_stream(stream.ptr))   # after both branches
    graph = stream.end_capture()
    for i in range(3):
        graph.launch(stream)
    stream.synchronize()
print(json.dumps([none, len(launched), float(y.sum()), float(z.sum())]))
"""

STEP = """
import json
import numpy as np
import gpucnn
from gpucnn.device import to_numpy
from gpucnn.networks import network
from gpucnn_kernels.core import early
launched = []
real = early.launch
early.launch = lambda *arguments: launched.append(arguments) or real(*arguments)
random = np.random.default_rng(0)
images, labels = random.integers(0, 256, (40, 1, 12, 12)).astype(np.uint8), random.integers(0, 10, 40).astype(np.int32)
model = network("keras").build((1, 12, 12), seed=4, device="cuda").compile(gpucnn.Adam(0.001))
history = model.fit(images, labels, batch_size=16, epochs=2, verbose=False)
print(json.dumps([len(launched), history["loss"], to_numpy(model.buffers.values).tobytes().hex()[:4000]]))
"""


def run(program: str, folder: Path, *arguments: str, on: bool = True) -> subprocess.CompletedProcess[str]:
    own = {"GPUCNN_DEPENDENT_LAUNCH": "1" if on else "0", "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **own}, timeout=600)


def test_kernels_that_follow_one_kernel_begin_early_when_recorded(gpu: Device, tmp_path: Path) -> None:
    done = run(CHAIN, tmp_path)
    assert done.returncode == 0, done.stderr
    none, early, y, z = json.loads(done.stdout)
    assert (none, early) == (0, 3)
    assert (y, z) == (15000, 15000)
    if "vgpu" in sys.modules:
        assert "vgpu:" not in done.stderr
        hasty = run(CHAIN, tmp_path / "hasty", "never wait")
        assert "no griddepcontrol.wait" in hasty.stderr


@pytest.mark.slow  # compiles a step's kernels
def test_a_step_has_the_same_bits(gpu: Device, tmp_path: Path) -> None:
    early, usual = run(STEP, tmp_path), run(STEP, tmp_path, on=False)
    assert early.returncode == usual.returncode == 0, early.stderr + usual.stderr
    assert "vgpu:" not in early.stderr and "CUDA graph" not in early.stderr
    (count, *found), (none, *expected) = json.loads(early.stdout.splitlines()[-1]), json.loads(usual.stdout.splitlines()[-1])
    assert found == expected
    assert count >= 10 and none == 0

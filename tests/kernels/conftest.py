"""Kernel tests: on Numba's simulator, on a GPU, or on the compiler alone.

    simulator/   the kernels' results: as they are on a GPU, or in NUMBA_ENABLE_CUDASIM=1 pytest tests/kernels/simulator
    compiler/    what the compiler makes of them: needs no GPU, but no simulator either
    gpu/         with real launches, streams and graphs: sizes that the simulator would take days for, training, the commands

A GPU is a real one, or the virtual one of tests/vgpu (tests/vgpu/vgpu-run pytest tests/kernels): the same launches and the same compiled
kernels, run on the CPU with every access checked. The simulator is chosen once, when Numba is imported, so it takes a run of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpucnn.device import Device, get_device, simulated, why_no_cuda
from gpucnn_kernels.choose import select
from gpucnn_kernels.conv import tiled
from gpucnn_kernels.core.problem import FLOAT32
from gpucnn_kernels.tensor import accuracy

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # kernel_harness, tolerances


@pytest.fixture(scope="session")
def device() -> Device:
    """The device "cuda": a GPU where there is one, or the simulator where it is on."""
    missing = None if simulated() else why_no_cuda()
    if missing:
        pytest.skip(f"no GPU ({missing}); run with NUMBA_ENABLE_CUDASIM=1 to simulate one")
    return get_device("cuda")


@pytest.fixture(scope="session")
def gpu() -> Device:
    """The device "cuda", on a GPU only, real or virtual."""
    missing = why_no_cuda()
    if missing:
        pytest.skip(f"needs a GPU: {missing}")
    return get_device("cuda")


@pytest.fixture
def short_sums(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves sums of 32 terms to tensor cores too, so that small arrays try them: tensor/accuracy.py has the rule, test_tensor_accuracy.py
    its tests. What was chosen and planned by the rule is forgotten, before and after."""
    kept = select._choose, tiled._forward, tiled._input_grad
    for each in kept:
        each.cache_clear()
    monkeypatch.setitem(accuracy.LEAST_TERMS, FLOAT32, 32)
    yield
    for each in kept:
        each.cache_clear()


@pytest.fixture(autouse=True)
def memory_given_back() -> Iterator[None]:
    """What CuPy keeps for reuse goes back after each test: a new allocation has bounds of its own, and it shows what is read too early."""
    yield
    if "vgpu" in sys.modules and "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()

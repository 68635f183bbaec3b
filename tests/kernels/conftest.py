"""Kernel tests: on Numba's simulator, on a GPU, or on the compiler alone.

    simulator/   the kernels' results: NUMBA_ENABLE_CUDASIM=1 pytest tests/kernels/simulator, or on a GPU as it is
    compiler/    what the compiler makes of them: needs no GPU, but no simulator either
    gpu/         sizes that the simulator would take days for

The simulator is chosen once, when Numba is imported, so the first two take two runs of pytest. Each skips the other's tests.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gpucnn.device import Device, get_device, simulated, why_no_cuda

if simulated():
    # The simulator's threads wait for one another by looking again and again, and Python hands its lock on every 5 ms: a barrier would
    # take that long for each warp. Ten times as often halves the time of the tests.
    sys.setswitchinterval(5e-4)
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # kernel_harness, tolerances


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU")


@pytest.fixture(scope="session")
def device() -> Device:
    """The device "cuda": a GPU where there is one, or the simulator where it is on."""
    missing = None if simulated() else why_no_cuda()
    if missing:
        pytest.skip(f"no GPU ({missing}); run with NUMBA_ENABLE_CUDASIM=1 to simulate one")
    return get_device("cuda")


@pytest.fixture(scope="session")
def gpu() -> Device:
    """The device "cuda", on a real GPU only."""
    missing = why_no_cuda()
    if missing:
        pytest.skip(f"needs a GPU: {missing}")
    return get_device("cuda")

"""The plugin of pytest: a finding fails the test that left it behind, even where it was passed over, and no other."""

import subprocess
import sys

TESTS = """
import cupy
import pytest

OUTSIDE = cupy.RawKernel('extern "C" __global__ void k(float *x) { x[threadIdx.x + 100000000] = 1; }', "k")


def outside():
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="ILLEGAL_ADDRESS"):
        OUTSIDE((1,), (32,), (cupy.ones(4, "f"),))


def test_passes_over_an_error():
    outside()


def test_leaves_a_capture_open():
    cupy.cuda.Stream(non_blocking=True).begin_capture()


@pytest.mark.vgpu_findings
def test_means_to():
    outside()


def test_after_them():
    assert float(cupy.ones(4, "f").sum()) == 4
"""


def test_a_finding_fails_its_own_test_alone(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", "test_it.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert "1 failed, 3 passed" in done.stdout, done.stdout
    assert "test_passes_over_an_error" in done.stdout and "findings of the virtual GPU: 1" in done.stdout
    assert "vgpu: access out of bounds in k, " in done.stdout


def test_options_that_cannot_change():
    import pytest

    import vgpu

    with pytest.raises(ValueError, match="MEMORY cannot be changed in a process that runs"):
        vgpu.set("MEMORY", 1)

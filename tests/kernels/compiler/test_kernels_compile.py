"""What the compiler makes of every kernel, for chips that need not be there."""

from __future__ import annotations

import pytest

from gpucnn.device import simulated
from gpucnn_kernels import static
from gpucnn_kernels._numba import cuda, float32, kernel
from gpucnn_kernels.catalogue import ENTRIES, Entry


def missing() -> str | None:
    try:
        static._linker()
    except static.ToolchainError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(simulated() or missing() is not None, reason=f"cannot compile kernels: {missing()}")


@pytest.mark.parametrize("arch", static.CHIPS)
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_kernel_fits_the_chip(entry: Entry, arch: str) -> None:
    report = static.compile_kernel(entry, arch)
    assert report.spill_stores == report.spill_loads == 0, report
    assert report.stack == 0, "a local array, or something else indexed at run time, went to memory"
    assert report.float64 == 0, "a float64 instruction: write float32(0), pass np.float32"
    assert 0 < report.registers <= entry.max_registers, report
    assert report.shared <= 48 * 1024, report
    assert report.occupancy > 0, report


def test_unknown_chip() -> None:
    with pytest.raises(ValueError, match=r"unknown chip 'sm_1': the chips are sm_75"):
        static.compile_kernel(ENTRIES[0], "sm_1")


def test_float64_and_local_arrays_are_seen() -> None:
    """The checks above would say so if there were anything to say."""
    entry = Entry("slips", kernel(_slips), ENTRIES[0].signature[:2])
    report = static.compile_kernel(entry, "sm_90")
    assert report.float64 > 0
    assert report.stack == 256


def _slips(x, y):  # type: ignore[no-untyped-def]
    local = cuda.local.array(64, float32)
    i = cuda.grid(1)
    for j in range(64):
        local[j] = x[i + j] * 0.1
    for j in range(int(x[0])):
        y[j] = local[int(x[j]) % 64]


def test_occupancy() -> None:
    """Figures that follow from the numbers in the programming guide by hand."""
    ampere = static.CHIPS["sm_80"]
    assert static.occupancy(ampere, 256, 32, 0) == 1  # 65536 / (32 · 32) = 64 warps: all of them
    assert static.occupancy(ampere, 256, 128, 0) == 0.25  # 65536 / (32 · 128) = 16 warps of 64
    assert static.occupancy(ampere, 32, 16, 0) == 0.5  # 32 blocks of a warp
    assert static.occupancy(ampere, 1024, 64, 0) == 0.5  # one block's registers
    assert static.occupancy(ampere, 128, 32, 40 << 10) == 4 * 4 / 64  # 164 KB / 41 KB
    assert static.occupancy(static.CHIPS["sm_75"], 256, 64, 0) == 1  # 32 warps are all there are


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert static.main(["--arch", "sm_75", "--kernel", "relu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["kernel", "arch", "threads"]
    assert [line.split()[:2] for line in lines[1:]] == [["relu", "sm_75"], ["relu_grad", "sm_75"]]


@pytest.mark.parametrize(("arguments", "text"), [(["--arch", "sm_1"], "unknown chip 'sm_1'"), (["--kernel", "nothing"], "no kernel has")])
def test_command_line_errors(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        static.main(arguments)
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err


def test_command_line_without_compilers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(static, "SIMULATED", True)
    assert static.main([]) == 2
    assert "unset NUMBA_ENABLE_CUDASIM" in capsys.readouterr().err

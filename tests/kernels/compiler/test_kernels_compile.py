"""What the compiler makes of every kernel, for chips that need not be there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpucnn.device import simulated
from gpucnn.profiling.chip import chips, sass, static
from gpucnn.profiling.chip.samples import ENTRIES, Entry
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.core._numba import cuda, float32
from gpucnn_kernels.core.compile import kernel


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


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "static.json"
    assert static.main(["--arch", "sm_75", "--arch", "rtx4090", "--kernel", "sigmoid", "--json", str(file)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:3] == ["kernel", "arch", "threads"]
    names = ["sigmoid", "sigmoid_grad"]
    assert [line[:2] for line in lines if line and line[0] in names] == [[name, arch] for arch in ("sm_75", "sm_89") for name in names]
    assert not any(line[:1] == ["shape"] for line in lines)
    turing, ada = json.loads(file.read_text())
    assert (turing["chip"]["name"], ada["chip"]["name"]) == ("T4", "RTX 4090")
    assert [kernel["name"] for kernel in ada["kernels"]] == names
    assert turing["kernels"][0]["registers"] > 0
    assert turing["kernels"][0]["loop"] is None
    assert list(tmp_path.iterdir()) == [file]


def test_command_line_prints_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    """Convolutions and poolings, by the kernels that the chip's size makes best."""
    static._print_shapes(static.planned(chips.find("H200")), chips.find("H200"))
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].endswith("on the H200 (132 multiprocessors, 67 TFLOP/s, 4.8 TB/s)")
    assert len(lines) == 1 + 10 * 3 + 4 * 2
    rows = {(row.shape, row.operation): row for row in static.planned(chips.find("H200"))}
    assert rows["c2", "conv2d"].work.flops == 2 * 256 * 256 * 16 * 16 * 128 * 9
    assert (rows["c2", "conv2d"].bound, rows["c2", "conv2d"].seconds) == ("compute", rows["c2", "conv2d"].work.flops / 67e12)
    assert rows["m1", "conv2d"].bound == rows["c1-2x2", "max_pool2d"].bound == "memory"
    with select.for_chip(40):
        few = select.choose(problems.conv2d_weight_grad(256, 128, 256, static.CONV_SHAPES[5].window))
        assert rows["c2", "conv2d_weight_grad"].slices > few.slices


def test_command_line_without_a_disassembler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sass, "nvdisasm", lambda: None)
    assert static.main(["--kernel", "sigmoid_grad"]) == 0
    head, line, _, note = capsys.readouterr().out.splitlines()
    assert head.split()[-4:] == ["loop", "FFMA", "lds", "ldg"]
    assert line.split()[-4:] == ["-"] * 4
    assert "nvidia-cuda-nvdisasm" in note


@pytest.mark.skipif(sass.nvdisasm() is None, reason="no nvdisasm: pip install nvidia-cuda-nvdisasm")
def test_loops_of_plain_kernels() -> None:
    """The inner loop, not one around it; none where there is none, whatever stands behind the end."""
    by_name = {entry.name: entry for entry in ENTRIES}
    loop = static._main_loop(by_name["gemm"], "sm_90")
    assert loop is not None
    assert (loop.ffma, loop.ldg, loop.sts) == (16, 2, 2)
    assert static._main_loop(by_name["relu"], "sm_90") is None


def test_loops_in_text() -> None:
    loop = "    .L_x_1:\n" + "/*0010*/ FFMA R2, R3, R4, R2 ;\n/*0020*/ LDG.E R2, [R4] ;\n/*0030*/ @P0 BRA `(.L_x_1) ;\n"
    end = "/*0100*/ EXIT ;\n    .L_x_9:\n/*0110*/ BRA `(.L_x_9);\n"
    around = "    .L_x_0:\n/*0000*/ FFMA R2, R3, R4, R2 ;\n" + loop + "/*0040*/ @P1 BRA `(.L_x_0) ;\n"
    assert sass.main_loop(end) is None
    assert sass.main_loop(around + end) == sass.hot_loop(around) == sass.Loop(3, 1, 0, 0, 1, 0, 1 / 3)
    written_out = "/*0050*/ FFMA R2, R3, R4, R2 ;\n"
    assert sass.main_loop(3 * written_out + loop + end) is not None
    assert sass.main_loop(4 * written_out + loop + end) is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--arch", "sm_1"], "unknown chip 'sm_1'"),
        (["--kernel", "nothing"], "no kernel has"),
        (["--json", "/nowhere/static.json"], "there is no folder for /nowhere/static.json"),
    ],
)
def test_command_line_errors(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        static.main(arguments)
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err


def test_command_line_without_compilers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(static, "SIMULATED", True)
    assert static.main([]) == 2
    assert "unset NUMBA_ENABLE_CUDASIM" in capsys.readouterr().err

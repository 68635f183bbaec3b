"""Launches written down instead of being done, and what of a step they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn.device import simulated
from gpucnn.errors import UnknownNameError
from gpucnn.profiling.chip import bounds, compiled, samples, static
from gpucnn.profiling.chip.chips import CHIPS, find
from gpucnn.profiling.records import Profile
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.launches import parts, shares
from gpucnn.profiling.what.observe import Observer
from gpucnn.profiling.what.operations import sizes_of
from gpucnn.profiling.what.work import Work
from gpucnn.profiling.what.workload import Selection, Workload
from gpucnn_kernels import activations
from gpucnn_kernels.choose import select
from gpucnn_kernels.core import launch
from gpucnn_kernels.core.compile import Role
from gpucnn_kernels.core.launch import Launch, recording

pytestmark = pytest.mark.skipif(simulated(), reason="the simulator has no signatures")


def relu(size: int = 1000) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x, y = np.ones(size, np.float32), np.full(size, np.nan, np.float32)
    activations.relu(x, y)
    return x, y


def test_a_launch_is_written_down_and_not_done() -> None:
    with recording(launching=False) as launches:
        x, y = relu()
    assert np.isnan(y).all()
    (only,) = launches
    assert (only.name, only.blocks, only.threads) == ("relu", -(-1000 // launch.THREADS), launch.THREADS)
    assert [array is own for array, own in zip(only.arrays, (x, y), strict=True)] == [True, True]
    assert only.array_bytes == 8000
    assert [(str(kind.dtype), kind.ndim, kind.layout) for kind in only.signature] == [("float32", 1, "C")] * 2


def test_recordings_within_one_another() -> None:
    with recording(launching=False) as outer:
        relu()
        with recording(launching=False) as inner:
            relu()
        relu()
        with pytest.raises(ZeroDivisionError), recording(launching=False):
            raise ZeroDivisionError
        relu()
    assert (len(outer), len(inner)) == (3, 1)
    assert launch._own.recorder is None, "nobody listens any more"


def test_an_array_that_stands_for_another_counts_once() -> None:
    array = np.zeros(100, np.float32)
    once = Launch(None, 1, 1, (array, array, array[:], np.float32(3), (np.uint32(1),), array[:50]))
    assert [each.size for each in once.arrays] == [100, 50]


def on(chip: str, name: str = "keras", batch: int = 128) -> Workload:
    found = find(chip)
    with bounds.as_if_there(found):
        return workload.of_model(name, batch, bounds.device_of(found), Observer())


def test_a_step_of_a_chip_that_is_not_there() -> None:
    recorded = bounds.record(on("H100"), find("H100"))
    assert {call.phase for call, _, _ in recorded} == {"batch", "forward", "loss", "backward", "update"}
    for call, launches, work in recorded:
        assert launches, f"{call.op} launched nothing"
        assert all(launch.blocks > 0 and launch.signature for launch in launches)
        assert work.least_bytes > 0 or call.op in ("next_call", "tally")


def test_the_chip_decides_which_kernels_there_are() -> None:
    """Few multiprocessors need no long sums cut into many slices."""
    blocks = {}
    for chip in ("T4", "B200"):
        recorded = bounds.record(on(chip, "lenet5x5"), find(chip))
        blocks[chip] = [launch.blocks for call, launches, _ in recorded if call.op == "conv2d_weight_grad" for launch in launches]
    assert blocks["T4"] != blocks["B200"]
    assert select._chip.get() is None


@pytest.mark.parametrize("name", ["keras", "tf2", "lenet5x5"])
def test_all_work_is_shared_out(name: str) -> None:
    for call, launches, work in bounds.record(on("A100", name, 32), find("A100")):
        shared = [part for _, part in shares(launches, work)]
        assert sum(part.flops for part in shared) == pytest.approx(work.flops, abs=len(shared)), call.op
        assert all(part.least_bytes > 0 for part in shared)


def stand_in(role: Role = "", blocks: int = 1, size: int = 10) -> Launch:
    def function() -> None: ...

    function.gpucnn_role = role  # type: ignore[attr-defined]
    return Launch(function, blocks, 128, (np.zeros(size, np.float32),))


def test_arithmetic_goes_to_the_products() -> None:
    work = Work(1000, 400)
    pack, engine, relu_grad = stand_in(), stand_in("engine", 3, 50), stand_in("", 9, 20)
    assert [part for _, part in shares([pack, engine, relu_grad], work)] == [Work(0, 40), Work(1000, 200), Work(0, 80)]
    classes = [stand_in("engine", 3), stand_in("engine", 1)]
    assert [part.flops for _, part in shares(classes, work)] == [750, 250]
    assert shares([relu_grad], work) == [(relu_grad, work)], "alone it does all"
    assert shares([stand_in(), stand_in("adder")], work)[0][1].flops == 1000


def test_unknown_chips_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownNameError, match="H100") as caught:
        find("X9")
    assert all(chip in str(caught.value) for chip in CHIPS)


def test_what_the_compiler_says_is_in_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One small kernel of a model, compiled in earnest; and the second time not."""
    try:
        static.check_compilers()
    except static.ToolchainError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(compiled, "folder", lambda: tmp_path / "kept")
    chip = find("H100")
    work = on("H100")
    said: list[str] = []
    result: Profile = bounds.profile(work, Selection(op="bias"), chip, said.append)
    if not result.rows:  # the gradients of the biases go along with others
        result = bounds.profile(work, Selection(op="update"), chip, said.append)
    (row, *_) = result.rows
    assert 8 <= (row.registers or 0) <= 64 and row.spills == 0 and 0 < (row.occupancy or 0) <= 1
    assert row.time is None and row.waves and row.blocks
    assert result.kind == "bounds" and not result.measured and result.step.time is None
    assert result.step.kernels > sum(row.roofline for row in result.rows), "the whole step's, not only of what was compiled"
    assert "nothing was measured" in result.ceilings.source
    assert any(line.startswith("compiling for sm_90, 1 of ") for line in said)

    said.clear()
    options = {"op": "bias"} if row.op == "bias_grad" else {"op": "update"}
    again = bounds.profile(on("H200"), Selection(**options), find("H200"), said.append)
    assert said == [], "another chip of the same architecture, and nothing to compile"
    assert [each.registers for each in again.rows] == [each.registers for each in result.rows]
    for file in (tmp_path / "kept").iterdir():
        file.write_text("cut short", encoding="utf-8")
    bounds.profile(on("H200"), Selection(**options), find("H200"), said.append)
    assert said, "what cannot be read is compiled again"


def test_shapes_in_words() -> None:
    def words(op: str, shape: str, phase: str = "forward") -> str:
        found = find("H100")
        with bounds.as_if_there(found):
            work = workload.of_operation(op, shape, bounds.device_of(found), Observer())
        return next(sizes_of(call) for call, _, _ in bounds.record(work, found) if call.phase == phase)

    assert words("conv", "m2") == "128×32×14×14 → 64, 5×5, padding 2"
    assert words("conv", "r2", "backward") == "64×64×56×56 → 128, 3×3, stride 2, padding 1"
    assert words("conv", "2,4,8x8,4,3x3,1,same,2") == "2×4×8×8 → 4, 3×3, padding 1, groups 2"
    assert words("pool", "2,3,8x8,2x2") == "2×3×8×8, 2×2"
    assert words("pool", "2,3,9x9,3x3,2,1") == "2×3×9×9, 3×3, stride 2, padding 1"
    assert words("dense", "8,20,30") == words("dense", "8,20,30", "backward") == "8×20 → 30"
    assert words("relu", "2,3,8x8") == "2×3×8×8"


def test_what_an_h100_does_on_tensor_cores_has_names_and_its_share_of_the_work() -> None:
    """What is chosen for that chip is what is shown; on one without such kernels it is the engine."""
    kernels: dict[str, list[str]] = {}
    for chip in ("H100", "A100"):
        kernels[chip] = []
        with bounds.as_if_there(find(chip)):
            for call, launches, work in bounds.record(on(chip, "tf2"), find(chip)):
                if not (call.op.startswith("conv2d") and "conv2d_2" in call.layer):
                    continue
                mains = [part for part in parts(call, launches) if part.work.flops]
                kernels[chip] += [part.name for part in mains]
                assert sum(part.work.flops for part in mains) == work.flops and len(mains) == 1
                if chip == "H100":
                    assert mains[0].launch.shared > launch.PLAIN_SHARED and mains[0].launch.threads in (384, 512)
    assert kernels["H100"] == ["conv2d-tensor128x64", "conv2d_weight_grad-tensor128x64", "conv2d_input_grad-tensor128x64-cut"]
    assert all("-tile" in name for name in kernels["A100"])


def test_a_class_of_pixels_that_the_engine_does_has_its_name() -> None:
    """Of r2's gradient of the input: pixels that gather 128 terms, and those that gather more."""
    found = find("H100")
    sample = next(each for each in samples.SHAPES if each.name == "r2")
    names = [each.part.name for each in samples.launched(sample, found) if each.part.name.startswith("conv2d_input_grad")]
    assert names == ["conv2d_input_grad-tile128x64", *["conv2d_input_grad-tensor128x64"] * 3]


def test_a_product_within_a_fused_operation_has_its_own_name() -> None:
    found = find("A100")
    with bounds.as_if_there(found):
        names = [part.name for call, launches, _ in bounds.record(on("A100", "lenet5x5"), found) for part in parts(call, launches)]
    assert any(name.startswith("conv2d-tile") for name in names) and "conv2d_relu_max_pool" in names
    assert not any(name.startswith("conv2d_relu_max_pool2d-") for name in names)

"""The CPU measured in earnest, on little: what is in the profile, not how long it took."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import threadpoolctl

from gpucnn.device import get_device
from gpucnn.errors import GpucnnError, MissingExtraError
from gpucnn.ops.cpu import _engine, _threads
from gpucnn.profiling import run
from gpucnn.profiling.measure import against_torch, cpu
from gpucnn.profiling.measure.timing import HostClock
from gpucnn.profiling.records import Ceilings
from gpucnn.profiling.run import Options
from gpucnn.profiling.show import report
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.observe import Call, Observer
from gpucnn.profiling.what.workload import Selection


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "MOST_STEPS", 3)
    monkeypatch.setattr(cpu, "LEAST_STEPS", 3)
    monkeypatch.setattr(cpu, "measure_ceilings", lambda: Ceilings(1e10, 1e11, 1e-6, "assumed"))


def test_every_operation_of_a_step_is_measured() -> None:
    profile = run.make(Options(model="keras", batch_size=4, device="cpu"), lambda text: None)
    assert profile.kind == "cpu" and profile.batch == 4 and profile.measured
    assert profile.rows[0].phase == "forward" and profile.rows[-1].op == "adam_update"
    for row in profile.rows:
        assert row.time is not None and row.time.samples == 3 and row.start is not None
        assert row.error is None or row.error <= 1
    assert profile.step.time is not None and 0 < profile.step.kernels <= profile.step.time.p90 * 1.01
    assert profile.step.gaps is not None
    text = "\n".join(report.lines(profile))
    assert "images/s" in text and "look at" in text and "regs" not in text, "columns that are empty are left out"
    assert text.count(" road ") == 1
    assert profile.step.graph is not None and profile.step.graph.samples == 3
    assert "\nrecorded  " in text and "without Python between" in text


def test_each_operation_says_which_road_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    def roads() -> dict[str, str | None]:
        profile = run.make(Options(model="tf2", batch_size=3, device="cpu"), lambda text: None)
        return {row.op: row.road for row in profile.rows if row.op != "tally"}

    found = roads()
    assert found["conv2d"] == found["conv2d_weight_grad"] == found["conv2d_input_grad"] == "winograd"
    assert found["conv2d_relu_max_pool2d"] in ("first", "pooled") and found["dense"] == "dense" and found["adam_update"] == "update"
    assert "numpy" not in found.values()
    monkeypatch.setattr(_engine, "_found", [None])
    assert set(roads().values()) == {"numpy"}


def test_a_step_that_is_not_recorded_has_no_time_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engine, "_found", [None])
    profile = run.make(Options(model="keras", batch_size=4, device="cpu"), lambda text: None)
    assert profile.step.graph is None and "recorded" not in "\n".join(report.lines(profile))


def test_a_wrong_operation_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = get_device("cpu").ops
    right = ops.dense_weight_grad

    def wrong(*args: Any, **kwargs: Any) -> Any:
        result = right(*args, **kwargs)
        if result.dtype == np.float32:
            result[0, 0] += 1
        return result

    monkeypatch.setattr(ops, "dense_weight_grad", wrong)
    monkeypatch.setattr(wrong, "__signature__", __import__("inspect").signature(right), raising=False)
    with pytest.raises(GpucnnError, match=r"dense_weight_grad of dense_\d \(backward\) gives a wrong result"):
        run.make(Options(model="keras", batch_size=4, device="cpu", op="pool"), lambda text: None)


def test_ceilings_are_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(cpu, "COPY", 1 << 20)
    monkeypatch.setattr(cpu, "SIDE", 64)
    found = cpu.measure_ceilings()
    assert 1e7 < found.bandwidth < 1e13 and 1e7 < found.flops < 1e14 and 0 < found.launch < 0.1
    assert "measured before the steps and after" in found.source


def test_the_product_that_is_a_ceiling_has_as_many_threads_as_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(cpu, "COPY", 1 << 20)
    monkeypatch.setattr(cpu, "SIDE", 64)
    monkeypatch.setattr(_threads, "threads", lambda: 1)
    found, matmul = set(), np.matmul

    def watched(a: Any, b: Any, out: Any) -> None:
        found.update(library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas")
        matmul(a, b, out=out)

    monkeypatch.setattr(np, "matmul", watched)
    cpu.measure_ceilings()
    assert found == {1}


def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.parametrize(
    ("op", "shape", "ops"),
    [
        ("conv", "2,3,9x9,4,3x3,2,1", {"conv2d", "conv2d_weight_grad", "conv2d_input_grad"}),
        ("conv", "2,4,8x8,6,3x3,1,1,2", {"conv2d", "conv2d_weight_grad", "conv2d_input_grad"}),
        ("pool", "2,3,8x8,3x3,2,1", {"max_pool2d", "max_pool2d_grad"}),
        ("dense", "5,33,7", {"dense", "dense_weight_grad", "dense_input_grad"}),
        ("conv", "2,3,8x8,4,2x2,1,same", set()),  # one pixel more at the bottom than at the top: PyTorch has no such padding
        ("relu", "2,3,8x8", set()),
    ],
)
def test_pytorch_does_the_same(op: str, shape: str, ops: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`compare` gives a ratio only where the results agree."""
    monkeypatch.setattr(against_torch, "alternate", lambda clock, works: [1 for _ in works])
    work = workload.of_operation(op, shape, get_device("cpu"), Observer())
    compared = _compared(work)
    assert {name for name, found in compared.items() if found} == ops


def test_pytorch_does_the_same_for_fused_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against_torch, "alternate", lambda clock, works: [1 for _ in works])
    compared = _compared(workload.of_model("lenet5x5", 3, get_device("cpu"), Observer()))
    for op, found in compared.items():
        assert found or not op.startswith(("conv", "max_pool", "dense")), f"{op} has no equal in PyTorch, or another result"


def _compared(work: workload.Workload) -> dict[str, Any]:
    module, compared = torch(), {}

    def listener(call: Call) -> Any:
        compared[call.op] = against_torch.compare(call, module, HostClock())
        return call.run()

    with work.observer.listening(listener):
        work.step()
    return compared


def test_without_pytorch_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="pip install torch"):
        run.make(Options(device="cpu", compare="torch"), lambda text: None)


def test_only_a_part_is_in_the_rows() -> None:
    profile = run.make(Options(model="keras", batch_size=2, device="cpu", layer="dense_2"), lambda text: None)
    assert {row.layer for row in profile.rows} == {"dense_2"} and profile.only == "layer dense_2"
    assert profile.step.kernels > sum(row.seconds for row in profile.rows)
    assert Selection(op="conv", layer="1").words == "layer 1, only conv"

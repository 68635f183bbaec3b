"""The table of operations: a row for each, and what the rows say of calls."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn.profiling
from gpucnn.device import get_device
from gpucnn.errors import GpucnnError
from gpucnn.profiling.what import correct
from gpucnn.profiling.what.observe import Call, Observer
from gpucnn.profiling.what.operations import KINDS, OPERATIONS, kind_of, sizes_of, work_of
from gpucnn.profiling.what.operations.row import OTHER
from gpucnn.profiling.what.work import Work


def called(op: str, *args: Any, function: Any = None, **kwargs: Any) -> Call:
    """The call of an operation on the CPU, not run."""
    seen: list[Call] = []
    observer = Observer()
    device = observer.device(get_device("cpu"))
    with observer.listening(seen.append):
        getattr(device.ops, op)(*args, **kwargs)
    return seen[0]


def floats(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def test_every_operation_has_a_row_of_a_kind_that_there_is() -> None:
    assert set(get_device("cpu").ops.__all__) == set(OPERATIONS)
    assert {row.kind for row in OPERATIONS.values()} == set(KINDS)
    assert kind_of("conv2d_weight_grad") == "conv" and kind_of("next_call") == "dropout" and kind_of("something_else") == OTHER


def test_no_other_file_of_the_profiler_asks_which_operation_a_call_is_of() -> None:
    """But tune.py, which asks what there is to choose for it. "relu" is the name of an argument as well."""
    for path in Path(gpucnn.profiling.__file__).parent.rglob("*.py"):
        if path.parent.name == "operations" or path.name == "tune.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                names = {item.value for item in ast.walk(node) if isinstance(item, ast.Constant) and isinstance(item.value, str)}
                assert not (names - {"relu"}) & set(OPERATIONS), f"{path.name}, line {node.lineno}"


def test_what_relu_takes_along_counts() -> None:
    dy, weight, x = floats(4, 3), floats(3, 5), floats(4, 5)
    alone, masked = called("dense_input_grad", dy, weight), called("dense_input_grad", dy, weight, relu=x)
    assert work_of(masked) == work_of(alone) + Work(20, 80)
    assert sizes_of(masked) == "4×5 → 3"


def test_an_operation_without_a_row_moves_each_array_once(monkeypatch: pytest.MonkeyPatch) -> None:
    call = called("relu_grad", floats(6), floats(6))
    monkeypatch.delitem(OPERATIONS, "relu_grad")
    assert work_of(call) == Work(0, 48) and sizes_of(call) == "6" and correct.expect(call) is None


def gather(dtype: str) -> Call:
    images = np.random.default_rng(0).integers(0, 255, (20, 1, 4, 4)).astype(dtype)
    labels, order = np.arange(20, dtype=np.int32), np.arange(20, dtype=np.int32)[::-1].copy()
    position = np.array([1, 0], np.int32)
    return called("gather_batch", images, labels, order, position, floats(8, 1, 4, 4), np.zeros(8, np.int32), batch_size=8)


@pytest.mark.parametrize(("dtype", "width"), [("uint8", 1), ("float32", 4)])
def test_a_batch_is_counted_and_checked(dtype: str, width: int) -> None:
    call = gather(dtype)
    numbers = 8 * 16
    assert work_of(call) == Work(numbers if width == 1 else 0, numbers * (width + 4) + 2 * 8 * 4 + 8 * 4)
    assert sizes_of(call) == "8×1×4×4"
    expected = correct.expect(call)
    assert expected is not None
    call.run()
    assert expected.error(None) <= 1
    call.arguments["targets"][3] += 1
    with pytest.raises(GpucnnError, match="gather_batch of"):
        expected.error(None)


def test_what_a_step_counts_is_checked() -> None:
    table, rates, counters, sums = floats(4, 3), np.zeros(4, np.float32), np.zeros(6, np.int32), np.zeros(2, np.float32)
    call = called("tally", np.float32(2.5).reshape(()), np.int32(3).reshape(()), 8, table, rates, counters, sums)
    expected = correct.expect(call)
    assert expected is not None and work_of(call).least_bytes > 0
    call.run()
    assert expected.error(None) <= 1 and counters[2] == 3 and sums[0] == 20
    counters[2] = 4
    with pytest.raises(GpucnnError, match="tally of"):
        expected.error(None)


def test_calls_of_dropout_and_orders_are_checked() -> None:
    once, order = called("next_call", np.zeros(2, np.uint32)), called("permutation", np.zeros(9, np.int32), 1, 2)
    for call, name in ((once, "calls"), (order, "order")):
        expected = correct.expect(call)
        assert expected is not None
        with pytest.raises(GpucnnError):
            expected.error(None)  # nothing has been done
        call.run()
        assert expected.error(None) == 0 and call.arguments[name].any()

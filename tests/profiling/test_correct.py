"""No time before a right answer: right results pass, wrong ones do not."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpucnn.device import get_device
from gpucnn.errors import GpucnnError
from gpucnn.ops.shapes import conv_window
from gpucnn.profiling.what import correct, workload
from gpucnn.profiling.what.observe import Call, Observer
from gpucnn.profiling.what.operations import OPERATIONS
from gpucnn_kernels.choose import select

SHAPES = [
    ("conv", "3,2,9x9,4,3x3"),
    ("conv", "2,4,9x8,6,3x3,2,1,2"),
    ("pool", "2,3,8x8,3x3,2,1"),
    ("avg_pool", "2,3,8x8,2x2"),
    ("dense", "5,33,7"),
    ("relu", "2,3,8x8"),
    ("sigmoid", "2,70"),
    ("softmax", "5,7"),
    ("dropout", "6,70"),
]


def check(call: Call, spoil: Any = None) -> tuple[Any, float | None]:
    expected = correct.expect(call)
    result = call.run()
    if spoil is not None:
        spoil(call, result)
    return result, None if expected is None else expected.error(result)


@pytest.mark.parametrize("sample", [1 << 27, 64], ids=["whole", "sampled"])
@pytest.mark.parametrize(("op", "shape"), SHAPES)
def test_right_results_pass(op: str, shape: str, sample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correct, "SAMPLE", sample)
    work = workload.of_operation(op, shape, get_device("cpu"), Observer())
    errors: dict[str, float | None] = {}

    def listener(call: Call) -> Any:
        result, errors[call.op] = check(call)
        return result

    with work.observer.listening(listener):
        work.step()
    assert errors and all(error is None or error <= 1 for error in errors.values()), errors


@pytest.mark.parametrize("name", ["keras", "lenet5x5", "inception", "mobilenet"])
def test_a_whole_step_passes(name: str) -> None:
    work = workload.of_model(name, 3, get_device("cpu"), Observer())
    seen: dict[str, float | None] = {}

    def listener(call: Call) -> Any:
        result, seen[call.op] = check(call)
        return result

    with work.observer.listening(listener):
        work.step()
    unchecked = {op for op, error in seen.items() if error is None}
    assert unchecked <= {"next_call", "tally"}, unchecked


def test_what_winograd_has_from_pixels_beside_a_tap_is_rounding() -> None:
    """A gradient of the weight that is 0, because no tap with a gradient meets the pixels that are not 0, is a sum over whole tiles."""
    window = conv_window((13, 13), 3)
    rng = np.random.default_rng(0)
    x, dy = np.zeros((4, 16, 13, 13), np.float32), np.zeros((4, 16, 11, 11), np.float32)
    x[:, :, :2, :2] = rng.standard_normal((4, 16, 2, 2))
    dy[:, :, 3, 3] = rng.standard_normal((4, 16))
    gradient = get_device("cpu").ops.conv2d_weight_grad
    bound = inspect.signature(gradient).bind(dy, x, window)
    bound.apply_defaults()
    call = Call("conv", "backward", "conv2d_weight_grad", bound, gradient)
    result, error = check(call)
    assert result.any() and error is not None and error <= 1

    def spoil(call: Call, result: Any) -> None:
        result[3, 3, 1, 1] += 0.01

    with pytest.raises(GpucnnError, match="gives a wrong result"):
        check(call, spoil)


def test_what_winograd_has_from_pixels_that_a_mask_makes_zero_is_rounding() -> None:
    """A gradient of the input that is 0 where the mask lets it through, in a tile whose other pixels have one."""
    window = conv_window((13, 13), 3)
    rng = np.random.default_rng(0)
    dy, relu = np.zeros((4, 16, 11, 11), np.float32), np.zeros((4, 16, 13, 13), np.float32)
    dy[:, :, 1, 1] = rng.standard_normal((4, 16))
    relu[:, :, 0, 0] = 1
    weight = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    gradient = get_device("cpu").ops.conv2d_input_grad
    bound = inspect.signature(gradient).bind(dy, weight, window, relu=relu)
    bound.apply_defaults()
    call = Call("conv", "backward", "conv2d_input_grad", bound, gradient)
    result, error = check(call)
    assert result.any() and error is not None and error <= 1


@pytest.mark.parametrize("variant", ["winograd", "tile128x128"])
def test_a_gpu_has_tiles_where_their_variant_is_selected(variant: str) -> None:
    x, weight = SimpleNamespace(shape=(4, 16, 13, 13)), SimpleNamespace(shape=(32, 16, 3, 3))  # not NumPy's
    forward = get_device("cpu").ops.conv2d
    bound = inspect.signature(forward).bind(x, weight, None, conv_window((13, 13), 3))
    bound.apply_defaults()
    with select.for_chip(108, capability=(8, 0)), select.override(conv2d=variant):
        assert correct.by_tiles(Call("conv", "forward", "conv2d", bound, forward)) == (variant == "winograd")


def first(result: Any) -> np.ndarray[Any, Any]:
    return np.asarray(result[0] if isinstance(result, tuple) else result)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 3.0])
@pytest.mark.parametrize(("op", "shape"), SHAPES)
def test_a_wrong_number_is_found(op: str, shape: str, wrong: float) -> None:
    """In the last place of every result, one after the other."""
    work = workload.of_operation(op, shape, get_device("cpu"), Observer())
    calls: list[Call] = []

    def listener(call: Call) -> Any:
        if not OPERATIONS[call.op].rule.written:
            calls.append(call)

            def spoil(call: Call, result: Any) -> None:
                values = first(result)
                values.flat[-1] = values.flat[-1] + wrong

            with pytest.raises(GpucnnError, match=f"{call.op} of .* gives a wrong result"):
                check(call, spoil)
        return call.run()

    with work.observer.listening(listener):
        work.step()
    assert calls


def test_a_wrong_update_is_found() -> None:
    work = workload.of_model("keras", 2, get_device("cpu"), Observer())

    def listener(call: Call) -> Any:
        if call.op != "adam_update":
            return call.run()

        def spoil(call: Call, result: Any) -> None:
            call.arguments["parameters"][5] += 0.1

        with pytest.raises(GpucnnError, match="adam_update of adam"):
            check(call, spoil)
        return None

    with work.observer.listening(listener):
        work.step()

"""How exact products are: the setting, a layer's own, and that both reach the operations. What kernels make of it:
tests/kernels/gpu/test_tensor_cores_on_gpu.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import functional as F
from gpucnn.device import Device
from gpucnn.errors import ArgumentError
from gpucnn.ops import cpu
from gpucnn.precision import MODES, bits, using


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    with using("highest"):
        yield


def test_the_setting_has_pytorchs_names() -> None:
    assert gc.get_float32_matmul_precision() == "highest" and bits() == 24
    for name, kept in zip(MODES, (24, 11, 8), strict=True):
        gc.set_float32_matmul_precision(name)
        assert gc.get_float32_matmul_precision() == name and bits() == kept == bits(name) and bits("high") == 11
    gc.set_float32_matmul_precision("HIGH")  # type: ignore[arg-type]
    assert gc.get_float32_matmul_precision() == "high"


@pytest.mark.parametrize("wrong", ["tf32", 3, None, "", ["high"]])
def test_other_words_are_refused_and_change_nothing(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match="precision must be one of highest, high, medium, got "):
        gc.set_float32_matmul_precision(wrong)
    assert gc.get_float32_matmul_precision() == "highest"


def test_the_setting_is_what_it_was_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), using("high"):
        raise ZeroDivisionError
    assert gc.get_float32_matmul_precision() == "highest"


class Listening:
    """The CPU's operations, which note how many bits they were told to keep."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        operation = getattr(cpu, name)

        def run(*arguments: Any, **more: Any) -> Any:
            if name.startswith(("conv2d", "dense")):
                self.told.append((name, more["bits"]))
            return operation(*arguments, **more)

        return run


def told(layers: list[gc.Layer], own: Any = None) -> list[tuple[str, int]]:
    """What the operations of a step of these layers are told."""
    model = gc.Sequential(*layers, gc.Flatten(), gc.Dense(3, precision=own)).build((2, 8, 8), seed=0, device="cpu")
    ops = Listening()
    device = Device("cpu", "CPU", np, ops)  # type: ignore[arg-type]
    for layer in model.layers:
        layer.to_device(device, 0)
    y = model.forward(np.ones((2, 2, 8, 8), np.float32), training=True)
    model.backward(np.ones_like(y))
    return ops.told


@pytest.mark.parametrize("own", [None, "highest", "high", "medium"])
@pytest.mark.parametrize("setting", ["highest", "medium"])
def test_every_product_of_a_step_is_told(setting: Any, own: Any) -> None:
    gc.set_float32_matmul_precision(setting)
    layers = [
        gc.Conv2D(4, 3, precision=own),
        gc.ConvTranspose2D(4, 3, precision=own),
        gc.Conv2D(4, 3, padding=1, activation="relu", precision=own),
        gc.MaxPool2D(2),
    ]
    found = told(layers, own)
    dense = {"dense", "dense_input_grad", "dense_weight_grad"}
    assert {name for name, _ in found} >= dense | {
        "conv2d",
        "conv2d_input_grad",
        "conv2d_weight_grad",
        "conv2d_relu_max_pool2d",
    }
    assert {kept for _, kept in found} == {bits(own or setting)}


def test_the_gradient_of_a_first_layer_is_told_too() -> None:
    found = dict(told([gc.Conv2D(4, 3, activation="relu", precision="high"), gc.MaxPool2D(2)]))
    assert found["conv2d_relu_max_pool2d"] == found["conv2d_relu_max_pool2d_weight_grad"] == 11


def test_functions_take_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = Listening()
    monkeypatch.setattr("gpucnn.functional.arrays_of", lambda **given: (Device("cpu", "CPU", np, ops), [a for a, _ in given.values()]))  # type: ignore[arg-type]
    x, weight = np.ones((1, 2, 5, 5), np.float32), np.ones((2, 2, 3, 3), np.float32)
    dy = np.ones((1, 2, 3, 3), np.float32)
    with using("high"):
        F.conv2d(x, weight)
        F.conv2d_input_grad(dy, weight, x.shape)
        F.conv2d_weight_grad(dy, x, weight.shape)
        F.conv_transpose2d(x, weight)
        F.dense(x[0, 0], weight[0, 0, :, :].repeat(2, 1)[:, :5])
    F.conv2d(x, weight)
    assert [kept for _, kept in ops.told] == [11] * 5 + [24]


def test_a_layer_keeps_its_own_through_config_and_file(tmp_path: Any) -> None:
    layer = gc.Conv2D(4, 3, precision="high")
    assert "precision='high'" in repr(layer) and layer.config()["precision"] == "high"
    assert "precision" not in gc.Conv2D(4, 3).config() and "precision" not in gc.Dense(4).config()
    model = gc.Sequential(layer, gc.Flatten(), gc.Dense(3, precision="medium")).build((2, 8, 8), seed=0, device="cpu")
    model.save(tmp_path / "m.safetensors")
    read = gc.load(tmp_path / "m.safetensors").layers
    assert (read[0].precision, read[2].precision) == ("high", "medium")
    layer.precision = "medium"
    assert layer.precision == "medium"
    with pytest.raises(ArgumentError, match="precision must be one of"):
        layer.precision = "exact"  # type: ignore[assignment]


def test_on_a_cpu_the_bits_are_the_same() -> None:
    random = np.random.default_rng(0)
    x, weight = (random.normal(size=size).astype(np.float32) for size in ((2, 8, 6, 6), (4, 8, 3, 3)))
    expected = F.conv2d(x, weight)
    with using("high"):
        np.testing.assert_array_equal(F.conv2d(x, weight), expected)

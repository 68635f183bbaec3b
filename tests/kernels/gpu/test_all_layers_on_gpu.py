"""Every layer in one network on the kernels: it learns what it does on the CPU, and a recorded step has the bits of a launched one."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.device import Device, get_device, to_numpy
from gpucnn.layers import LAYERS
from gpucnn.training.step import VARIABLE

pytestmark = pytest.mark.gpu

X, Y = np.random.default_rng(0).random((22, 1, 8, 8), np.float32), np.random.default_rng(1).integers(0, 3, 22)


def layers() -> list[gc.Layer]:
    """All of them. There is no ReLU whose input may be a rounding away from zero on one device alone: that would be another network."""
    return [
        gc.Conv2D(4, 3, padding="same", use_bias=False),
        gc.BatchNorm2D(),
        gc.Concat(
            gc.SeparableConv2D(3, 3, padding="same", activation="silu"),
            [gc.DepthwiseConv2D(3, padding="same", activation="gelu"), gc.GELU(approximate=True)],
            gc.MaxPool2D(3, stride=1, padding="same"),
            gc.Conv2D(2, 1),
            gc.AvgPool2D(3, stride=1, padding="same"),
        ),
        gc.Residual(gc.Conv2D(6, 3, padding="same"), gc.BatchNorm2D(affine=False), shortcut=gc.Conv2D(6, 1), activation="tanh"),
        gc.Residual(gc.Stack(gc.LocallyConnected2D(6, 3, padding=1), gc.ELU()), activation="elu"),
        gc.ZeroPad2D(((1, 0), (0, 1))),
        gc.ConvTranspose2D(4, 3, stride=2, padding=1, output_padding=1, activation="leaky_relu"),
        gc.AvgPool2D(2),
        gc.Concat(gc.GlobalAvgPool2D(), gc.GlobalMaxPool2D(), [gc.Conv2D(2, 2, activation="sigmoid"), gc.Flatten()]),
        gc.Dropout(0.1),
        gc.Dense(6),
        gc.BatchNorm2D(momentum=0.3),
        gc.Concat(gc.Tanh(), gc.SiLU(), gc.Sigmoid(), gc.LeakyReLU(), [gc.Dense(4), gc.Softmax()], [gc.Dense(2), gc.ReLU()]),
        gc.Concat(gc.HardSigmoid(), gc.HardSwish(), gc.ReLU6()),
        gc.Dense(3),
    ]


def trained(device: Device, steps: int = 2) -> tuple[Any, Any, list[float]]:
    model = gc.Sequential(*layers()).build((1, 8, 8), seed=5, device=device).compile(gc.SGD(0.05, momentum=0.5))
    loss = model.fit(X, Y, batch_size=8, epochs=steps, shuffle=False, verbose=False)["loss"]
    return to_numpy(model.buffers.copy()), model.predict(X), loss


def test_every_layer_is_in_the_network() -> None:
    model = gc.Sequential(*layers()).build((1, 8, 8), device="cpu")
    assert {type(part).__name__ for layer in model.layers for part in layer.walk().values()} == set(LAYERS)


def test_all_layers_learn_what_they_do_on_the_cpu(gpu: Device) -> None:
    values, answers, loss = trained(gpu, 1)
    others, expected, other_loss = trained(get_device("cpu"), 1)
    # Three steps, each some dozen layers of sums of up to a hundred products: a few hundred roundings of numbers around one.
    np.testing.assert_allclose(values, others, rtol=0, atol=300 * 2**-24)
    np.testing.assert_allclose(answers, expected, rtol=0, atol=300 * 2**-24)
    np.testing.assert_allclose(loss, other_loss, rtol=300 * 2**-24)


def test_a_recorded_step_of_all_layers_has_the_bits_of_a_launched_one(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*CUDA graph")
        recorded = trained(gpu)
    monkeypatch.setenv(VARIABLE, "0")
    launched = trained(gpu)
    for one, other in zip(recorded, launched, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.isfinite(recorded[0]).all() and recorded[2][0] != recorded[2][1]

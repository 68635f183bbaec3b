"""Optimizer steps over flat buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, double, normal

from gpucnn.device import Device
from gpucnn.ops import cpu
from tolerances import check


def buffers(device: Device, *values: Any) -> list[Output]:
    """The values on the device, each in the middle of a longer buffer."""
    outputs = [Output(device, value.shape) for value in values]
    for output, value in zip(outputs, values, strict=True):
        output.array[...] = device.array(value)
    return outputs


@pytest.mark.parametrize("size", [1, 7, 131])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.01},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
)
def test_sgd(device: Device, size: int, options: dict[str, Any]) -> None:
    p, g, v = normal(0, size), normal(1, size), normal(2, size)
    parameters, gradients, velocity = buffers(device, p, g, v)
    moving = "momentum" in options
    device.ops.sgd_update(parameters.array, gradients.array, velocity.array if moving else None, learning_rate=0.25, **options)
    ref, ref_v = double(p), double(v)
    cpu.sgd_update(ref, double(g), ref_v if moving else None, learning_rate=0.25, **options)
    magnitude = np.abs(p) + np.abs(g) + np.abs(v)
    check(parameters.result(), ref, magnitude=magnitude, terms=6, direction="elementwise")
    check(velocity.result(), ref_v, magnitude=magnitude, terms=4, direction="elementwise")
    np.testing.assert_array_equal(gradients.result(), g)


@pytest.mark.parametrize("size", [1, 7, 131])
@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled": True}])
def test_adam(device: Device, size: int, step: int, options: dict[str, Any]) -> None:
    p, g, m, v = normal(0, size), normal(1, size), normal(2, size), normal(3, size) ** 2
    parameters, gradients, mean, variance = buffers(device, p, g, m, v)
    arrays = parameters.array, gradients.array, mean.array, variance.array
    device.ops.adam_update(*arrays, step=step, learning_rate=0.01, **options)
    ref = [double(p), double(g), double(m), double(v)]
    cpu.adam_update(*ref, step=step, learning_rate=0.01, **options)
    m_magnitude = np.abs(m) + np.abs(g) + np.abs(p)
    check(mean.result(), ref[2], magnitude=m_magnitude, terms=4, direction="elementwise")
    check(variance.result(), ref[3], magnitude=v + 2 * (np.abs(g) + np.abs(p)) ** 2, terms=4, direction="elementwise")
    # The step is off by a few roundings, and by those of m, relatively more where m is a small difference.
    rate = 0.01 / (1 - 0.9**step)
    moved = rate * m_magnitude / (np.sqrt(ref[3]) / np.sqrt(1 - 0.999**step) + 1e-8)
    check(parameters.result(), ref[0], magnitude=np.abs(p) + 4 * moved, terms=6, direction="elementwise")
    np.testing.assert_array_equal(gradients.result(), g)


def test_nan_gradients_reach_the_parameters(device: Device) -> None:
    p, g = normal(0, 3), np.array([1, np.nan, 2], np.float32)
    parameters, gradients, mean, variance = buffers(device, p, g, np.zeros_like(p), np.zeros_like(p))
    device.ops.adam_update(parameters.array, gradients.array, mean.array, variance.array, step=1, learning_rate=0.1)
    np.testing.assert_array_equal(np.isnan(parameters.result(nan=True)), [False, True, False])

"""Sums of branches, and channels side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu


@pytest.mark.parametrize("shape", [(1, 1), (3, 43), (2, 3, 5, 7)])
@pytest.mark.parametrize(("relu", "masked"), [(False, False), (True, False), (False, True)])
def test_add_is_exact(device: Device, shape: tuple[int, ...], relu: bool, masked: bool) -> None:
    a, b, mask = (normal(seed, *shape) for seed in range(3))
    out = Output(device, shape)
    given = device.array(mask) if masked else None
    device.ops.add(device.array(a), device.array(b), relu=relu, mask=given, out=out.array)
    np.testing.assert_array_equal(out.result(), cpu.add(a, b, relu=relu, mask=mask if masked else None))


def test_add_in_place_and_of_special_numbers(device: Device) -> None:
    a = np.array([np.nan, np.inf, np.inf, -np.inf, 1, -1], np.float32)
    b = np.array([1, -np.inf, 1, 1, np.nan, 1], np.float32)
    for options in ({}, {"relu": True}, {"mask": np.array([1, 0, 0, 1, np.nan, 1], np.float32)}):
        on_device: Any = {name: device.array(value) if name == "mask" else value for name, value in options.items()}
        x = device.array(a.copy())
        device.ops.add(x, device.array(b), out=x, **on_device)
        np.testing.assert_array_equal(to_numpy(x), cpu.add(a, b, **options))  # type: ignore[arg-type]

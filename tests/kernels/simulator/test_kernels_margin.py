"""Hinge loss and the root of the mean squared error, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu
from tolerances import check

SIZES = [(1, 1), (3, 10), (2, 37), (5, 1)]


def both(device: Device, name: str, y: Any, targets: Any) -> tuple[Any, Any]:
    out = Output(device, y.shape)
    loss, correct, dy = getattr(device.ops, name)(device.array(y), device.array(targets), out=out.array)
    assert dy is out.array and loss.shape == () and correct.shape == ()
    ref = getattr(cpu, name)(double(y), double(targets))
    assert int(correct) == int(ref[1])
    return (to_numpy(loss), out.result(nan=True)), (ref[0], ref[2])


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_hinge(device: Device, n: int, k: int) -> None:
    y, targets = 2 * normal(0, n, k), np.where(normal(1, n, k) > 0, 1, -1).astype(np.float32)
    (loss, dy), (ref, ref_dy) = both(device, "hinge", y, targets)
    check(loss, ref, magnitude=1 + np.abs(y).max(), terms=n + k + 2, direction="forward")
    check(dy, ref_dy, magnitude=np.abs(ref_dy), terms=2, direction="elementwise")


def test_hinge_of_nan_and_at_the_margin(device: Device) -> None:
    y = np.array([[1.0, -1.0], [np.nan, 0.0], [2.0, -3.0]], np.float32)
    targets = np.array([[1, -1], [1, -1], [-1, 1]], np.float32)
    loss, correct, dy = device.ops.hinge(device.array(y), device.array(targets))
    assert np.isnan(to_numpy(loss)) and int(correct) == 1
    np.testing.assert_allclose(to_numpy(dy), np.array([[0, 0], [-1, 1], [1, -1]]) / 6, rtol=1e-6)


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_root_mean_squared_error(device: Device, n: int, k: int) -> None:
    y, targets = normal(0, n, k), normal(1, n, k)
    (loss, dy), (ref, ref_dy) = both(device, "root_mean_squared_error", y, targets)
    check(loss, ref, magnitude=np.abs(ref), terms=n + k + 4, direction="forward")
    check(dy, ref_dy, magnitude=np.abs(ref_dy) + np.abs(double(y) / (n * k * ref)), terms=n + k + 6, direction="elementwise")


def test_the_root_of_nothing_has_no_slope(device: Device) -> None:
    y = normal(0, 2, 3)
    loss, _, dy = device.ops.root_mean_squared_error(device.array(y), device.array(y.copy()))
    assert float(to_numpy(loss)) == 0 and not to_numpy(dy).any()


def test_the_slope_of_a_root_that_is_nan_is_nan(device: Device) -> None:
    """Of numbers as well, whose gradient is a share of it."""
    (_, dy), (_, ref_dy) = both(
        device, "root_mean_squared_error", np.array([[1, 2], [np.nan, 0]], np.float32), np.zeros((2, 2), np.float32)
    )
    assert np.isnan(dy).all() and np.isnan(ref_dy).all()

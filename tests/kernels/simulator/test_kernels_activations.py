"""Activations and dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu
from gpucnn.ops.cpu.dropout import philox
from tolerances import check

SPECIAL = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 88.0, -88.0, 1e30, -1e30]], np.float32)
SHAPES = [(1, 1), (3, 43), (2, 3, 5, 7)]


def calls(number: int) -> Any:
    """A number of calls as dropout takes it: the low word first."""
    return np.array([number & 0xFFFFFFFF, number >> 32], np.uint32)


@pytest.mark.parametrize("x", [*(normal(0, *shape) for shape in SHAPES), SPECIAL])
def test_relu_is_exact(device: Device, x: Any) -> None:
    y, dx, dy = Output(device, x.shape), Output(device, x.shape), np.where(np.isfinite(x), x, 2).astype(np.float32) + 3
    device.ops.relu(device.array(x), out=y.array)
    np.testing.assert_array_equal(y.result(nan=True), cpu.relu(x))
    device.ops.relu_grad(device.array(dy), device.array(x), out=dx.array)
    np.testing.assert_array_equal(dx.result(), cpu.relu_grad(dy, x))


def test_relu_grad_makes_no_nan_of_infinity(device: Device) -> None:
    dy, y = np.array([[np.inf, np.nan]], np.float32), np.zeros((1, 2), np.float32)
    assert to_numpy(device.ops.relu_grad(device.array(dy), device.array(y))).tolist() == [[0, 0]]


@pytest.mark.parametrize("x", [*(normal(1, *shape) for shape in SHAPES), SPECIAL])
def test_sigmoid(device: Device, x: Any) -> None:
    out = Output(device, x.shape)
    device.ops.sigmoid(device.array(x), out=out.array)
    ref = cpu.sigmoid(double(x))
    # e to a power 2 roundings (1 unit in the last place), the sum and the quotient one each, of which the sum's counts at most once
    check(out.result(nan=True), ref, magnitude=ref, terms=5, direction="elementwise")
    y, dy = cpu.sigmoid(x), normal(2, *x.shape)
    out = Output(device, x.shape)
    device.ops.sigmoid_grad(device.array(dy), device.array(y), out=out.array)
    ref = cpu.sigmoid_grad(double(dy), double(y))
    check(out.result(nan=True), ref, magnitude=ref, terms=3, direction="elementwise")


@pytest.mark.parametrize("shape", [(1, 1), (3, 10), (2, 33), (1, 70), (2, 2, 3)])
def test_softmax(device: Device, shape: tuple[int, ...]) -> None:
    x = 5 * normal(3, *shape)
    out = Output(device, shape)
    device.ops.softmax(device.array(x), out=out.array)
    ref = cpu.softmax(double(x))
    # The shift is rounded, and e to its power is off by as much, relatively: a rounding for each unit of the shift. Then the sum.
    spread = int(np.ceil(x.max() - x.min()))
    check(out.result(), ref, magnitude=ref, terms=2 * spread + shape[-1] + 6, direction="elementwise")
    y, dy = ref.astype(np.float32), normal(4, *shape)
    out = Output(device, shape)
    device.ops.softmax_grad(device.array(dy), device.array(y), out=out.array)
    wide = double(y)
    magnitude = wide * (np.abs(dy) + (np.abs(dy) * wide).sum(axis=-1, keepdims=True))
    check(out.result(), cpu.softmax_grad(double(dy), wide), magnitude=magnitude, terms=shape[-1] + 3, direction="elementwise")


def test_softmax_of_extremes(device: Device) -> None:
    x = np.array([[1e30, 0, -1e30], [np.nan, 0, 1], [-np.inf, 0, 0], [500, 500, 500]], np.float32)
    y = to_numpy(device.ops.softmax(device.array(x)))
    np.testing.assert_array_equal(y[0], [1, 0, 0])
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[2], [0, 0.5, 0.5])
    np.testing.assert_allclose(y[3], 1 / 3, rtol=2**-22)


def test_in_place(device: Device) -> None:
    for name in ("relu", "sigmoid", "softmax"):
        x = device.array(normal(5, 3, 7))
        apart = to_numpy(getattr(device.ops, name)(x)).copy()
        getattr(device.ops, name)(x, out=x)
        np.testing.assert_array_equal(to_numpy(x), apart)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 130])
@pytest.mark.parametrize(("seed", "offset"), [(0, 0), (2**64 - 1, 2**63 + 12345), (987654321987, 7)])
def test_dropout_drops_the_same_as_the_cpu(device: Device, size: int, seed: int, offset: int) -> None:
    x = normal(6, size) + np.float32(10)
    for rate in (0.0, 0.3, 0.5):
        out = Output(device, (size,))
        device.ops.dropout(device.array(x), device.array(calls(offset)), rate, seed, out=out.array)
        np.testing.assert_array_equal(out.result(), cpu.dropout(x, calls(offset), rate, seed))


def test_dropout_keeps_nan(device: Device) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1] * 4, np.float32)
    with np.errstate(invalid="ignore"):
        expected = cpu.dropout(x, calls(2), 0.5, 1)
    np.testing.assert_array_equal(to_numpy(device.ops.dropout(device.array(x), device.array(calls(2)), 0.5, 1)), expected)


def test_a_word_at_the_threshold_is_kept(device: Device) -> None:
    x = np.ones(1, np.float32)
    word = int(philox(1, 3, 4)[0])
    for at, kept in ((word, True), (word + 1, False)):
        y = device.ops.dropout(device.array(x), device.array(calls(4)), at / 2**32, 3)
        assert bool(to_numpy(y)[0]) is kept

"""Batch normalization against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import REAL, Output, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu
from gpucnn_kernels import norm
from tolerances import ROUNDOFF

SHAPES = [(4, 1), (5, 3), (3, 2, 3, 5), (7, 1, 4, 3), *([(64, 40, 14, 14)] if REAL else [])]
EPS = 1e-3


def close(got: Any, ref: Any, magnitude: Any, roundings: float) -> None:
    assert got.dtype == np.float32
    assert (np.abs(got - ref) <= roundings * ROUNDOFF["float32"] * np.broadcast_to(magnitude, ref.shape)).all(), np.abs(got - ref).max()


def case(shape: tuple[int, ...], offset: float = 0.5) -> tuple[Any, ...]:
    x, dy = normal(1, *shape) + np.float32(offset), normal(2, *shape)
    weight, bias, mean, variance = (normal(seed, shape[1]) for seed in range(3, 7))
    return x, dy, weight, bias, (mean, np.abs(variance) + np.float32(0.5))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm(device: Device, shape: tuple[int, ...], relu: bool) -> None:
    x, _, weight, bias, running = case(shape)
    wide, count = double(x), x.size // shape[1]
    moved = tuple(double(array) for array in running)
    ref, mean, rstd = cpu.batch_norm(wide, double(weight), double(bias), moved, momentum=0.1, eps=EPS, relu=relu)
    out = Output(device, shape)
    arrays = tuple(device.array(array.copy()) for array in running)
    _, got_mean, got_rstd = device.ops.batch_norm(
        device.array(x), device.array(weight), device.array(bias), arrays, momentum=0.1, eps=EPS, relu=relu, out=out.array
    )
    # A lane adds up to count / 128 numbers, then come 7 merges of lanes and the merges of slices, 6 roundings each.
    roundings = 2 * (count / 128 + 1 + 6 * (7 + norm.slices(shape[0], shape[1]).number))
    largest = np.abs(wide).max()
    close(to_numpy(got_mean), mean, largest, roundings)
    close(to_numpy(got_rstd), rstd, rstd * (1 + (largest * rstd) ** 2), roundings)
    column = (-1, *(1,) * (len(shape) - 2))
    scale = np.abs(weight * rstd).reshape(column) * largest * (2 + (largest * rstd.reshape(column)) ** 2) + np.abs(bias).reshape(column)
    close(out.result(), ref, scale, roundings)
    for got, expected in zip(arrays, moved, strict=True):
        close(to_numpy(got), expected, 1 + largest**2, roundings)
    out = Output(device, shape)
    device.ops.batch_norm_apply(
        device.array(x), device.array(weight), device.array(bias), tuple(map(device.array, running)), eps=EPS, relu=relu, out=out.array
    )
    ref = cpu.batch_norm_apply(wide, double(weight), double(bias), tuple(map(double, running)), eps=EPS, relu=relu)
    close(out.result(), ref, (np.abs(wide).max() + 5) * np.abs(weight).max() * 2 + np.abs(bias).max(), 8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm_grad(device: Device, shape: tuple[int, ...], relu: bool) -> None:
    x, dy, weight, bias, running = case(shape)
    x = np.maximum(x, 0) if relu else x
    _, mean, rstd = cpu.batch_norm(double(x), double(weight), double(bias), tuple(map(double, running)), momentum=0.1, eps=EPS)
    kept = mean.astype(np.float32), rstd.astype(np.float32)
    wide_kept = tuple(map(double, kept))
    ref_dweight, ref_dbias = np.empty(shape[1]), np.empty(shape[1])
    ref = cpu.batch_norm_grad(double(dy), double(x), double(weight), wide_kept, relu=relu, dweight=ref_dweight, dbias=ref_dbias)
    assert ref is not None
    out, dweight, dbias = Output(device, shape), Output(device, (shape[1],)), Output(device, (shape[1],))
    on_device = [device.array(array) for array in (dy, x, weight)]
    on_device_kept = tuple(map(device.array, kept))
    device.ops.batch_norm_grad(*on_device, on_device_kept, relu=relu, out=out.array, dweight=dweight.array, dbias=dbias.array)
    count = x.size // shape[1]
    axes = (0, *range(2, len(shape)))
    normalized = np.abs(double(x) - mean.reshape(-1, *(1,) * (len(shape) - 2))) * rstd.reshape(-1, *(1,) * (len(shape) - 2))
    roundings = min(count, 6 * count**0.5) + 8
    close(dbias.result(), ref_dbias, np.abs(dy).sum(axis=axes), roundings)
    close(dweight.result(), ref_dweight, (np.abs(dy) * (normalized + np.abs(mean * rstd).max())).sum(axis=axes), roundings)
    scale = np.abs(weight * rstd).max() * (np.abs(dy).max() + np.abs(dy).max() * normalized.max() ** 2 + np.abs(dy).max())
    close(out.result(), ref, scale * (1 + np.abs(mean * rstd).max()), roundings + 8)
    in_place, again = device.array(dy.copy()), Output(device, shape)
    device.ops.batch_norm_grad(in_place, *on_device[1:], on_device_kept, relu=relu, out=in_place)
    np.testing.assert_array_equal(to_numpy(in_place), out.result())
    assert device.ops.batch_norm_grad(*on_device, on_device_kept, input_grad=False, dbias=again.array.reshape(-1)[: shape[1]]) is None


def test_the_mean_may_be_large(device: Device) -> None:
    x = normal(0, 16, 2, 3, 3) + np.float32(1e4)
    running = tuple(device.array(np.full(2, value, np.float32)) for value in (0, 1))
    one = device.array(np.ones(2, np.float32))
    _, mean, rstd = device.ops.batch_norm(device.array(x), one, one, running, momentum=0.1, eps=1e-5)
    wide = double(x)
    np.testing.assert_allclose(to_numpy(rstd), 1 / np.sqrt(wide.var(axis=(0, 2, 3)) + 1e-5), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(mean), wide.mean(axis=(0, 2, 3)), rtol=1e-7)


def test_nan_moves_nothing_and_comes_out(device: Device) -> None:
    x = normal(0, 4, 2, 2, 2)
    x[1, 1, 0, 0] = np.nan
    running = tuple(device.array(np.full(2, value, np.float32)) for value in (0, 1))
    one = device.array(np.ones(2, np.float32))
    y, *_ = device.ops.batch_norm(device.array(x), one, one, running, momentum=0.5, eps=1e-5)
    assert np.isnan(to_numpy(y)[:, 1]).all() and np.isfinite(to_numpy(y)[:, 0]).all()
    assert to_numpy(running[0])[1] == 0 and to_numpy(running[1])[1] == 1 and to_numpy(running[0])[0] != 0


def test_slices_cover_all_images() -> None:
    for n in (1, 2, 7, 128, 513):
        for c in (1, 3, 64, 600):
            parts = norm.slices(n, c)
            assert (parts.number - 1) * parts.images < n <= parts.number * parts.images
            assert parts.number == 1 or parts.number * c <= 2 * norm.BLOCKS

"""Small passes: the bits of NumPy's sums, copies, and counts that carry."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import pytest

from gpucnn.ops import cpu
from gpucnn.ops.cpu import norm as reference
from gpucnn_loops import elementwise, norm, pixels, sums
from gpucnn_loops.threads import address

Array = np.ndarray[Any, Any]


def random(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return rng.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("size", [1, 15, 16, 33, 4097, 9000])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("in_place", [False, True])
def test_groups_are_added_in_order(count: int, size: int, in_place: bool, rng: np.random.Generator) -> None:
    given = random((count, size + 5), rng)
    expected = functools.reduce(np.add, given[:, :size])
    to = given[0] if in_place else np.full(size + 5, np.nan, np.float32)
    behind = to[size:].copy()
    sums.add_up(address(given), count, size + 5, size, address(to))
    np.testing.assert_array_equal(to[:size], expected)
    np.testing.assert_array_equal(to[size:], behind)


@pytest.mark.parametrize("shape", [(1, 1), (7, 10), (128, 33)])
def test_bias_gradient_of_a_dense_layer(shape: tuple[int, int], rng: np.random.Generator) -> None:
    dy, out = random(shape, rng), np.full(shape[1], np.nan, np.float32)
    assert cpu.bias_grad(dy, out=out) is out
    np.testing.assert_array_equal(out, np.add.reduce(dy, axis=0))


def test_columns() -> None:
    rows, to = np.arange(35, dtype=np.float32).reshape(5, 7), np.full((5, 3), np.nan, np.float32)
    sums.columns_of(address(rows), 5, 7, 2, 3, address(to))
    np.testing.assert_array_equal(to, rows[:, 2:5])


@pytest.mark.parametrize("shape", [(1, 6, 3, 3), (5, 6, 7, 2), (4, 6)])
def test_copies_of_parts_of_images(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    whole, to = random(shape, rng), np.full(shape, np.nan, np.float32)
    part, into = whole[:, 1:4], to[:, 2:5]
    np.testing.assert_array_equal(cpu.copied(part), part)
    assert cpu.copied(part).flags.c_contiguous
    assert cpu.copied(part, out=into) is into
    np.testing.assert_array_equal(into, part)
    assert np.isnan(to[:, :2]).all() and np.isnan(to[:, 5:]).all()


@pytest.mark.parametrize("size", [1, 1024, 3000])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38])
def test_numbers_that_are_not_finite(size: int, number: float) -> None:
    x, flag = np.full(size, -3e38, np.float32), np.ones(1, np.float32)
    sums.not_finite(address(x), size, address(flag))
    assert flag[0] == 0
    for place in {0, size // 2, size - 1}:
        x[...] = 0
        x[place] = number
        sums.not_finite(address(x), size, address(flag))
        assert np.isnan(flag[0]) == (not np.isfinite(number))


def test_the_number_of_calls_carries() -> None:
    for calls in (np.array([5, 7], np.uint32), np.array([0x7FFFFFFF, 1], np.uint32), np.array([0xFFFFFFFF, 2], np.uint32)):
        before = int(calls[0]) | int(calls[1]) << 32
        cpu.next_call(calls)
        assert int(calls[0]) | int(calls[1]) << 32 == before + 1


def test_dropout_reads_both_words_of_the_calls(rng: np.random.Generator) -> None:
    by_numpy, x = importlib.import_module("gpucnn.ops.cpu.dropout").dropout, random((5, 13), rng)
    for calls in ([1, 0], [0xFFFFFFF0, 0], [3, 0x80000001]):
        given = np.array(calls, np.uint32)
        np.testing.assert_array_equal(cpu.dropout(x, given, 0.4, 2**63 + 5), by_numpy(x, given, 0.4, 2**63 + 5))


@pytest.mark.parametrize("broken", [None, np.nan, np.inf, 3e38])
def test_running_statistics_move_as_in_the_reference(broken: float | None, rng: np.random.Generator) -> None:
    c, count = 37, 50
    mean, variance, weight = random((c,), rng), rng.random(c, np.float32), random((c,), rng)
    if broken is not None:
        mean[3], variance[5] = broken, broken
    running = random((c,), rng), rng.random(c, np.float32)
    expected = running[0].copy(), running[1].copy()
    with np.errstate(all="ignore"):
        reference.move(expected, mean, variance, count, 0.1)
        root = np.sqrt(variance + np.float32(1e-5))
        scales = weight / root
    rstd, scale = (np.full(c, np.nan, np.float32) for _ in range(2))
    numbers = [address(each) for each in (mean, variance, weight, rstd, scale, *running)]
    norm.settle(c, *numbers, 1e-5, 0.1, count / (count - 1))
    for got, wanted in zip((*running, rstd, scale), (*expected, 1 / root, scales), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (14, 14)])
def test_gradient_of_a_plane_s_mean(size: tuple[int, int], rng: np.random.Generator) -> None:
    from gpucnn.ops.cpu import planes

    dy, out = random((3, 5), rng), np.full((3, 5, *size), np.nan, np.float32)
    assert cpu.global_avg_pool2d_grad(dy, size, out=out) is out
    np.testing.assert_array_equal(out, planes.global_avg_pool2d_grad(dy, size))


def test_kernels_turned_by_input(rng: np.random.Generator) -> None:
    weight, packed = random((2, 3, 4, 5), rng), np.full((2, 4, 3, 5), np.nan, np.float32)
    pixels.turned_by_input(address(weight), 2, 3, 4, 5, address(packed))
    np.testing.assert_array_equal(packed, weight[..., ::-1].swapaxes(1, 2))


def test_calls_are_counted_by_the_loop(rng: np.random.Generator) -> None:
    calls = np.array([9, 0], np.uint32)
    elementwise.next_call(calls)
    assert calls.tolist() == [10, 0]

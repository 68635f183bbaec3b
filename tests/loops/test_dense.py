"""Dense layers of every size against float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_cases import nan_like

from gpucnn.ops import cpu
from gpucnn_loops import dense
from tolerances import check

SIZES = [
    (1, 1, 1),
    (1, 500, 10),
    (1, 601, 530),
    (8, 300, 45),
    (2, 17, 3),
    (3, 129, 16),
    (4, 335, 50),
    (5, 16, 17),
    (6, 15, 40),
    (9, 400, 33),
    (7, 31, 37),
    (16, 64, 64),
    (61, 130, 11),
    (64, 128, 65),
    (131, 257, 97),
    (33, 2100, 130),
    (260, 75, 131),
    (140, 336, 300),
]


def hold(n: int, c: int, k: int, rng: np.random.Generator) -> None:
    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32)

    x, weight, bias, dy = draw(n, c), draw(k, c), draw(k), draw(n, k)
    ex, ew, eb, edy = (array.astype(np.float64) for array in (x, weight, bias, dy))
    magnitude = np.abs(ex) @ np.abs(ew).T
    y = cpu.dense(x, weight, bias, out=nan_like(dy))
    check(y, ex @ ew.T + eb, magnitude=magnitude + np.abs(eb), terms=c, direction="forward")
    np.testing.assert_array_equal(cpu.dense(x, weight, bias, relu=True), np.maximum(y, 0))
    check(cpu.dense(x, weight), ex @ ew.T, magnitude=magnitude, terms=c, direction="forward")
    dx = cpu.dense_input_grad(dy, weight, out=nan_like(x))
    check(dx, edy @ ew, magnitude=np.abs(edy) @ np.abs(ew), terms=k, direction="input_grad")
    np.testing.assert_array_equal(cpu.dense_input_grad(dy, weight, relu=x), np.where(x > 0, dx, 0))
    dbias = nan_like(bias)
    dweight = cpu.dense_weight_grad(dy, x, out=nan_like(weight), dbias=dbias)
    check(dweight, edy.T @ ex, magnitude=np.abs(edy).T @ np.abs(ex), terms=n, direction="weight_grad")
    check(dbias, edy.sum(axis=0), magnitude=np.abs(edy).sum(axis=0), terms=n, direction="weight_grad")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_each_pass_is_the_product(size: tuple[int, int, int], rng: np.random.Generator) -> None:
    hold(*size, rng)


@given(st.integers(1, 140), st.integers(1, 300), st.integers(1, 100), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_any_size(n: int, c: int, k: int, seed: int) -> None:
    hold(n, c, k, np.random.default_rng(seed))


def test_an_example_has_the_same_bits_in_every_batch(rng: np.random.Generator) -> None:
    x, weight = rng.standard_normal((300, 2077), dtype=np.float32), rng.standard_normal((135, 2077), dtype=np.float32)
    y = cpu.dense(x, weight)
    dx = cpu.dense_input_grad(y, weight)
    for size in (*range(1, 10), 16, 32, 65, 255):
        np.testing.assert_array_equal(cpu.dense(x[:size], weight), y[:size])
        np.testing.assert_array_equal(cpu.dense_input_grad(np.ascontiguousarray(y[:size]), weight), dx[:size])


@pytest.mark.parametrize(("n", "shared"), [(128, "examples"), (114, "examples"), (111, "outputs"), (192, "outputs"), (256, "examples")])
def test_threads_share_examples_where_these_suffice_and_the_bits_are_the_same(
    n: int, shared: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias = (rng.standard_normal(shape, dtype=np.float32) for shape in ((n, 70), (200, 70), (200,)))
    pieces, results = [], []

    def one_by_one(count: int, body: Callable[[int, int], object], work: int) -> None:
        pieces.append(count)
        for piece in reversed(range(count)):
            body(piece, piece + 1)

    monkeypatch.setattr(dense, "share", one_by_one)
    for threads in (2, 5):  # the second for outputs
        monkeypatch.setattr(dense, "number", lambda threads=threads: threads)
        y = np.full((n + 2, 200), 7, np.float32)
        dense.dense(x, weight, bias, True, y[1:-1])
        assert (y[0] == 7).all() and (y[-1] == 7).all()
        results.append(y)
    strips, blocks = -(-n // dense.BLOCK), -(-200 // dense.ROWS)
    assert pieces == [strips if shared == "examples" else blocks, blocks]
    np.testing.assert_array_equal(*results)


def test_a_negative_zero_stays_one_without_a_bias() -> None:
    """A sum of products that are all too small is −0, and −0 + 0 would be 0."""
    for inputs, size in itertools.product((3, 16, 19), (1, 8, 64)):
        x, weight = np.full((64, inputs), -1e-30, np.float32), np.full((128, inputs), 1e-30, np.float32)
        np.testing.assert_array_equal(np.signbit(cpu.dense(x[:size], weight)), np.signbit(cpu.dense(x[:1], weight))[0, 0])
        assert not np.signbit(cpu.dense(x[:size], weight, np.zeros(128, np.float32))).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(value: float, rng: np.random.Generator) -> None:
    x, weight = rng.standard_normal((20, 50), dtype=np.float32), rng.standard_normal((30, 50), dtype=np.float32)
    x[3, 7] = value
    y = cpu.dense(x, weight)
    assert not np.isfinite(y[3]).any() and np.isfinite(np.delete(y, 3, axis=0)).all()

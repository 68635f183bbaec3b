"""Winograd's matrices, and that the loops multiply by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn_loops import transforms
from gpucnn_loops.after import Norm, after_sums
from gpucnn_loops.transforms import SKEW, TOGETHER, matrices, planes_of

TILES, ROW = 5, 24
PLANE = TILES * ROW + SKEW


@pytest.mark.parametrize("r", [3, 5])
def test_the_matrices_convolve(r: int, rng: np.random.Generator) -> None:
    bt, g, at = matrices(r)
    d, kernel = rng.normal(size=6), rng.normal(size=r)
    np.testing.assert_allclose(at @ ((g @ kernel) * (bt @ d)), np.correlate(d, kernel, "valid"), rtol=1e-12, atol=1e-13)


def address(array: Any) -> int:
    return int(array.ctypes.data)


def planes(v: Any, tiles: int, c: int) -> Any:
    """V as (6, 6, tiles, c)."""
    return v.reshape(6, 6, PLANE)[:, :, : TILES * ROW].reshape(6, 6, TILES, ROW)[:, :, :tiles, :c]


@pytest.mark.parametrize("r", [3, 5])
def test_the_loops_multiply_by_them(r: int, rng: np.random.Generator) -> None:
    bt, g, at = matrices(r)
    m, c, tiles = 7 - r, 16, 2
    wide = m + 6
    rows = rng.standard_normal((6, wide, c), dtype=np.float32)
    corners, scratch = np.array([0, m]), np.empty(50 * 16, np.float32)
    v = np.empty(36 * PLANE, np.float32)
    transforms.patches_in(address(rows), wide, c, address(corners), tiles, address(v), ROW, PLANE, address(scratch))
    patches = np.stack([rows[:, corner : corner + 6] for corner in corners]).astype(np.float64)
    np.testing.assert_allclose(planes(v, tiles, c), np.einsum("ai,tijc,bj->abtc", bt, patches, bt), atol=1e-5)

    outputs = rng.standard_normal((m, wide, c), dtype=np.float32)
    transforms.gradients_in(address(outputs), wide, c, address(corners), tiles, m, address(v), ROW, PLANE, address(scratch))
    parts = np.stack([outputs[:, corner : corner + m] for corner in corners]).astype(np.float64)
    np.testing.assert_allclose(planes(v, tiles, c), np.einsum("ia,tijc,jb->abtc", at, parts, at), atol=2e-4)

    y = np.zeros((m, wide, c), np.float32)
    v[:] = rng.standard_normal(v.shape, dtype=np.float32)
    bias, mean, weight, shift = (rng.standard_normal(c, dtype=np.float32) for _ in range(4))
    variance = rng.random(c, dtype=np.float32) + np.float32(0.1)
    scale = weight / np.sqrt(variance + np.float32(1e-3))
    _vectors, after = after_sums(c, c, 1, bias, True, Norm(mean, variance, weight, shift, 1e-3))
    bad = np.zeros((2, 16), np.float32)
    out = address(v), ROW, PLANE, c, address(corners), tiles, wide, m, address(y), address(scratch), *after[0]
    transforms.tiles_out(*out, 3, 4, address(bad))
    expected = np.einsum("ia,abtc,jb->tijc", at, planes(v, tiles, c).astype(np.float64), at)
    for tile, corner in enumerate(corners):
        np.testing.assert_allclose(y[:, corner : corner + m], np.maximum((expected[tile] + bias - mean) * scale + shift, 0), atol=4e-3)
    assert not bad.any()
    planes(v, tiles, c)[2, 3, 1, 5] = np.inf
    transforms.tiles_out(*out, 3, 4, address(bad))  # the second tile is the first of the second image
    np.testing.assert_array_equal(np.isnan(bad), [[False] * 16, [lane == 5 for lane in range(16)]])

    k = 32
    weight, u = rng.standard_normal((k // 16, c, r, r, 16), dtype=np.float32), np.empty((6, 6, c, k), np.float32)
    transforms.kernels_in(0, c, k, address(weight), c * r * r * 16, r, address(u), k, c * k, address(scratch))
    np.testing.assert_allclose(u.reshape(6, 6, c, -1, 16), np.einsum("ai,scijk,bj->abcsk", g, weight.astype(np.float64), g), atol=1e-5)
    k = TOGETHER + 16
    size = planes_of.py_func(c, k)
    small = g.astype(np.float32)
    du, weight = rng.standard_normal((3, size), dtype=np.float32), np.full((c, r, r, k + 16), 7, np.float32)
    given = address(du), 3, size, address(small), r, c, k, address(weight), k + 16, address(scratch)
    transforms.kernels_out(0, c, *given)
    total = du.sum(axis=0, dtype=np.float64)
    blocks = [(0, TOGETHER), (TOGETHER, 16)]
    parts = [total[planes_of.py_func(c, lane) :][: 36 * (c * own + SKEW)].reshape(6, 6, -1)[:, :, : c * own] for lane, own in blocks]
    summed = np.concatenate([part.reshape(6, 6, c, own) for part, (_, own) in zip(parts, blocks, strict=True)], axis=3)
    np.testing.assert_allclose(weight[..., :k], np.einsum("ai,abck,bj->cijk", g, summed, g), atol=1e-4)
    assert (weight[..., k:] == 7).all()

"""The inner loop, for every height and width of a tile, on numbers whose sums are exact: a wrong index is a wrong number."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gpucnn_loops.tables import Tables
from gpucnn_loops.threads import address
from gpucnn_loops.tile import product, product_of_columns, product_of_rows

LANES = 16, 32, 48, 64, 80, 96, 112, 128, 144


def whole(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.integers(-9, 10, shape).astype(np.float32)


@pytest.mark.parametrize("lanes", LANES)
def test_products_of_rows_of_columns_and_by_tables(lanes: int, rng: np.random.Generator) -> None:
    for m in range(1, 25):
        for n in (0, 1, 3, 4, 5, 8, 11):
            apart, ws, ys = n + 3, lanes + 5, lanes + 2
            x, w, before = whole(rng, m, apart), whole(rng, n, ws), whole(rng, m, ys)
            columns = np.ascontiguousarray(x.T)  # (apart, m)
            tables = Tables(rows=np.arange(m) * apart, cols=np.arange(n))
            expected = x[:, :n].astype(np.float64) @ w[:, :lanes]
            for mode in (0, 1):
                found = [before.copy() for _ in range(3)]
                by_table, by_rows, by_columns = map(address, found)
                given = address(w), ws, lanes
                product(m, n, address(x), tables.at.rows, tables.at.cols, *given, by_table, ys, mode)
                product_of_rows(m, n, address(x), apart, *given, by_rows, ys, mode)
                product_of_columns(m, n, address(columns), m, *given, by_columns, ys, mode)
                for y in found:
                    np.testing.assert_array_equal(y[:, :lanes], expected + (before[:, :lanes] if mode else 0))
                    np.testing.assert_array_equal(y[:, lanes:], before[:, lanes:])  # nothing is written behind the lanes

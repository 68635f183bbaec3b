"""Transpositions: every number arrives, and nothing is written beside where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gpucnn_loops import turn
from gpucnn_loops.threads import address

SIZES = 1, 2, 15, 16, 17, 31, 32, 40, 64, 70


def numbered(rows: int, columns: int) -> NDArray[np.float32]:
    return np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)


@pytest.mark.parametrize("n", SIZES)
def test_a_transposition_writes_what_it_should_and_no_more(n: int) -> None:
    for m in SIZES:
        a, b = numbered(n, m + 3), np.full((m, n + 5), -1, np.float32)
        turn.transpose(address(a), m + 3, n, m, address(b), n + 5)
        np.testing.assert_array_equal(b[:, :n], a[:, :m].T)
        np.testing.assert_array_equal(b[:, n:], -1)


@pytest.mark.parametrize("n", SIZES)
def test_lanes_of_no_row_hold_what_the_last_row_does(n: int) -> None:
    width = -(-n // 16) * 16
    for m in SIZES:
        a, b = numbered(n, m + 3), np.full((m, width + 16), -1, np.float32)
        turn.to_lanes(address(a), m + 3, n, m, address(b), width + 16)
        np.testing.assert_array_equal(b[:, :width], a[np.minimum(np.arange(width), n - 1), :m].T)
        np.testing.assert_array_equal(b[:, width:], -1)

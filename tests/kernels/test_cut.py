"""Which sums are cut into slices, and that slices are all of a sum."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucnn_kernels.choose import problems
from gpucnn_kernels.core.problem import Chip
from gpucnn_kernels.engine.cut import Cut, best_cut, cut_of
from gpucnn_kernels.engine.merit import weigh
from gpucnn_kernels.engine.tiles import NARROW, TILES
from gpucnn_kernels.tensor.product import TensorTile

HOPPERS, ENGINES = TensorTile(64), TILES["tile128x64"]
M2, K2_GRAD = (128 * 14 * 14, 64, 25 * 32), (128 * 13 * 13, 64, 9 * 64)


@pytest.mark.parametrize(
    ("tile", "sizes", "multiprocessors", "expected"),
    [
        (HOPPERS, M2, 132, Cut(132, 64, 2, 13)),  # 1.5 waves: 25 turns and 13
        (HOPPERS, K2_GRAD, 132, Cut(132, 37, 3, 6)),  # 1.3 waves
        (HOPPERS, (128 * 11 * 11, 64, 9 * 64), 132, Cut(121, 0, 1, 18)),  # 121 tiles: nobody has two
        (HOPPERS, (32 * 11 * 11, 64, 9 * 64), 132, Cut(0, 31, 4, 5)),  # 31 tiles: four times as many blocks
        (HOPPERS, (64 * 56 * 56, 64, 9 * 64), 132, Cut(1568, 0, 1, 18)),  # 12 waves
        (ENGINES, K2_GRAD, 128, Cut(0, 169, 3, 24)),
        (ENGINES, (1, 1, 8), 128, Cut(1, 0, 1, 1)),  # a sum of one turn
    ],
)
def test_the_last_wave_is_cut(tile: TensorTile, sizes: tuple[int, int, int], multiprocessors: int, expected: Cut) -> None:
    time, cut = best_cut(tile, sizes, 1, multiprocessors)
    assert cut == cut_of(tile, sizes, 1, multiprocessors) == expected
    assert time < 0.9 if cut.rest else time == 1
    assert cut_of(tile, sizes, 1, 1) is None


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.sampled_from([HOPPERS, TensorTile(128), *{**TILES, **NARROW}.values()]),
    st.integers(1, 1 << 17),
    st.integers(1, 600),
    st.integers(2, 170),
)
def test_slices_are_all_of_a_sum(tile: TensorTile, M: int, turns: int, multiprocessors: int) -> None:
    time, cut = best_cut(tile, (M, tile.BN, turns * tile.BK), 3, multiprocessors)
    assert cut.whole + cut.rest == -(-M // tile.BM) * 3
    assert cut.slices * cut.turns >= turns > (cut.slices - 1) * cut.turns, "no slice is empty, and none is missing"
    assert cut.blocks == cut.whole + cut.rest * cut.slices
    assert 0 < time <= 1 and (cut.slices > 1) == (cut.rest > 0) == (time < 1)
    assert cut.sums(tile) == 4 * (cut.sums(tile) // 4) <= 5 << 20
    for unit in (4, 4096):
        zeroed = cut.zeroed(tile, unit)
        assert zeroed % unit == 0 and cut.rest * tile.threads <= zeroed < cut.rest * tile.threads + unit


def test_sums_of_dense_layers_are_cut_evenly() -> None:
    """Every multiprocessor has as many blocks as the others, where one more on some would keep all waiting."""
    chip = Chip("H100", 132, (9, 0))
    forward, backward = problems.dense(128, 5408, 256), problems.dense_input_grad(128, 5408, 256)
    tile = TILES["tile128x64"]
    asked = {"tile": tile, "best": 1.0, "evenly": True}
    assert weigh(forward, chip, **asked) == (1.0, 33)  # 4 tiles: 132 blocks, and not 160
    assert weigh(backward, chip, **asked)[1] == 1  # 85 tiles in whole: 170 blocks would be two on some
    assert weigh(forward, chip, tile=tile, best=1.0)[1] > 33

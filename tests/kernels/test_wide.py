"""16 × 8 results per thread (kernels/gpucnn_kernels/conv/wide_loop.py) without a GPU: every result belongs to one thread, no bank of shared
memory is asked for two words at a time, and the rules never choose what no chip has confirmed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.ops.shapes import conv_window
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.conv import wide
from gpucnn_kernels.conv.wide_ends import WideTile, own_column, own_row
from gpucnn_kernels.conv.wide_loop import wide_kernel

BOTH = (problems.conv2d, problems.conv2d_input_grad)
SMALL = WideTile(32, 16, TM=4, TN=4)  # of one warp
each_tile = pytest.mark.parametrize("tile", [*wide.TILES.values(), SMALL], ids=lambda tile: f"{tile.BM}x{tile.BN}")


def first_of(tile: WideTile, thread: int) -> tuple[int, int]:
    """The first row and column of a thread."""
    lanes = *tile.lanes, tile.BN // tile.TN // tile.lanes[1]
    return own_row(*lanes, tile.TM, thread), own_column(*lanes, tile.TN, thread)


def by_fours(first: int, count: int, lanes: int) -> list[int]:
    """A thread's rows or columns, as the kernel's reads and its writer count them."""
    return [first + i // 4 * 4 * lanes + i % 4 for i in range(count)]


@each_tile
def test_every_result_belongs_to_one_thread(tile: WideTile) -> None:
    results = np.zeros((tile.BM, tile.BN), int)
    for thread in range(tile.threads):
        row, column = first_of(tile, thread)
        results[np.ix_(by_fours(row, tile.TM, tile.lanes[0]), by_fours(column, tile.TN, tile.lanes[1]))] += 1
    assert (results == 1).all()


def in_one_go(words: set[int]) -> bool:
    """Whether the banks of shared memory give a warp all these words at once: different words of one bank come one after the other."""
    return len({word % 32 for word in words}) == len(words) <= 32


@each_tile
def test_no_bank_is_asked_for_two_words(tile: WideTile) -> None:
    """Reads by fours of all 32 lanes ask for 32 and 16 different words; copies, word by word or by fours, fill lines of 32."""
    for warp, k in itertools.product(range(tile.threads // 32), range(tile.BK)):
        places = [first_of(tile, thread) for thread in range(32 * warp, 32 * warp + 32)]
        for i in range(0, tile.TM, 4):
            assert in_one_go({k * tile.BM + by_fours(row, tile.TM, tile.lanes[0])[i] + word for row, _ in places for word in range(4)})
        for j in range(0, tile.TN, 4):
            first = tile.BK * tile.BM + k * tile.BN
            assert in_one_go({first + by_fours(column, tile.TN, tile.lanes[1])[j] + word for _, column in places for word in range(4)})
        for p in range(tile.pixels):
            assert in_one_go({k * tile.BM + p * tile.threads + thread for thread in range(32 * warp, 32 * warp + 32)})
    assert tile.BK * tile.BM % 4 == tile.stage % 4 == 0, "fours begin at a multiple of 16 bytes"


@each_tile
def test_what_is_copied_is_what_is_multiplied(tile: WideTile) -> None:
    """All threads together copy the words of a stage once: a[k, row], then b[k, column]."""
    copied = [
        channel * tile.BM + p * tile.threads + thread
        for channel in range(tile.BK)
        for p in range(tile.pixels)
        for thread in range(tile.threads)
    ]
    for i, thread, word in itertools.product(range(tile.fours), range(tile.threads), range(4)):
        copied.append(tile.BK * tile.BM + 4 * (i * tile.threads + thread) + word)
        k, column = thread // (tile.BN // 4) + i * (4 * tile.threads // tile.BN), thread % (tile.BN // 4) * 4 + word
        assert copied[-1] == tile.BK * tile.BM + k * tile.BN + column, "not where this thread's weights belong"
    assert sorted(copied) == list(range(tile.stage))


@pytest.mark.parametrize("tile", wide.TILES.values(), ids=wide.TILES)
def test_two_blocks_fit_on_every_chip(tile: WideTile) -> None:
    assert 4 * tile.stages * tile.stage <= 48 << 10 and tile.blocks_per_sm * tile.threads * 255 <= 65536


@pytest.mark.parametrize(
    "wrong",
    [{"BM": 96}, {"BN": 32}, {"TM": 6}, {"TN": 4}, {"BK": 7}, {"stages": 1}, {"copies": 1}, {"BM": 192}],
    ids=str,
)
def test_tiles_that_do_not_come_out_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="not a tile that this kernel can do"):
        wide_kernel(replace(WideTile(), **wrong), True)


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (9, 0), (12, 0)])
def test_they_come_by_their_names_alone_from_ampere_on(make: type, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_TUNED", "none")
    problem = make(256, 64, 128, conv_window((32, 32), 3, 1, 1))
    with select.for_chip(108, capability=capability):
        there = set(select.variants(problem)) & set(wide.TILES)
        assert there == (set() if capability < (8, 0) else set(wide.TILES)) and select.choose(problem).name not in wide.TILES
        for name in there:
            choice = select.choose(problem, name)
            padded = -(-problem.N // wide.TILES[name].BN) * wide.TILES[name].BN
            assert choice.name == name and choice.workspace == 9 * problem.channels * padded
            found = next(variant for variant in VARIANTS[problem.operation] if variant.name == name)
            assert found.weigh(problem, select.current_chip())[0] == 0, "a chip's confirmation is a number in conv/wide.py"

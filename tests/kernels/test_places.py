"""Where the numbers of a matrix lie for products of warps (kernels/gpucnn_kernels/tensor/places.py): all of them once, as lanes read them,
and no bank of shared memory touched twice at a time; and when such products are chosen."""

from __future__ import annotations

import itertools

import pytest
from test_warps import CHIPS, LANES, banks, needs_instructions

from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.core.problem import KINDS
from gpucnn_kernels.dense.tensor import NAME
from gpucnn_kernels.tensor import fragments, places
from gpucnn_kernels.tensor.matrices import MatrixTile
from gpucnn_kernels.tensor.parts import ENDING

TILE = MatrixTile()
EACH = pytest.mark.parametrize(
    ("by_rows", "rows"), [(by_rows, rows) for by_rows in (False, True) for rows in (TILE.BM, TILE.BN)], ids=lambda value: str(value)
)


@EACH
def test_every_number_has_a_word(by_rows: bool, rows: int) -> None:
    words = [places.word(by_rows, rows, row, depth) for row in range(rows) for depth in range(places.DEPTHS)]
    assert len(set(words)) == len(words) and min(words) == 0 and max(words) < places.words(by_rows, rows)
    assert places.words(by_rows, rows) % 4 == places.pitch(by_rows, rows) % 4 == 0  # 16 bytes


@pytest.mark.parametrize("width", [4, 1])
@EACH
def test_threads_copy_every_number_once(by_rows: bool, rows: int, width: int) -> None:
    """And neighbours in memory together: a copy of 16 bytes is done by eight lanes at a time, one of a word by all."""
    across = places.across(by_rows, rows, width)
    lines, copied = TILE.threads // across, []
    at_once = 8 if width == 4 else 32
    for i in range(rows * places.DEPTHS // width // TILE.threads):
        words = []
        for thread in range(TILE.threads):
            place, line = thread % across * width, places.own_line(by_rows, thread // across) + i * lines
            own = [(place + j, line) if by_rows else (line, place + j) for j in range(width)]
            copied += own
            words.append([places.word(by_rows, rows, row, depth) for row, depth in own])
            assert words[-1] == list(range(words[-1][0], words[-1][0] + width))
            first_line = places.own_line(by_rows, thread // across)  # as the thread works it out
            first = places.word(by_rows, rows, place, first_line) if by_rows else places.word(by_rows, rows, first_line, place)
            assert words[-1][0] == first + i * lines * places.pitch(by_rows, rows)
        for first in range(0, TILE.threads, at_once):
            assert banks([word for own in words[first : first + at_once] for word in own]) == 1
    assert sorted(copied) == list(itertools.product(range(rows), range(places.DEPTHS)))


@EACH
def test_lanes_have_every_row_of_their_warp_once(by_rows: bool, rows: int) -> None:
    own = TILE.WM if rows == TILE.BM else TILE.WN
    found = [places.own_row(by_rows, 4 * group, number) for group in range(8) for number in range(own // 8)]
    assert sorted(found) == list(range(own))


@pytest.mark.parametrize("k", [0, 8])
def test_pieces_are_the_registers(k: int) -> None:
    """Along depths: what ldmatrix makes of the addresses that lanes give is what the products want."""
    for rows, first_of, piece_of in ((TILE.BM, places.first_of_a, places.piece_of_a), (TILE.BN, places.first_of_b, places.piece_of_b)):
        for lane in LANES:
            assert first_of(False, rows, lane) == places.word(False, rows, *piece_of(lane))
        for i in range(2):
            given = [first_of(False, rows, lane) + i * 16 * places.pitch(False, rows) + k for lane in LANES]
            for piece in range(4):  # eight rows of 16 bytes, at multiples of these
                eight = given[8 * piece : 8 * piece + 8]
                assert banks([word + j for word in eight for j in range(4)]) == 1 and all(word % 4 == 0 for word in eight)
            for lane, piece in itertools.product(LANES, range(4)):
                word = given[8 * piece + lane // 4] + lane % 4
                if rows == TILE.BM:
                    _, depth = fragments.a_place(lane, piece)
                    row = places.own_row(False, lane, 2 * i + piece % 2)
                else:
                    depth, _ = fragments.b_place(lane, piece % 2)
                    row = places.own_row(False, lane, 2 * i + piece // 2)
                assert word == places.word(False, rows, row, k + depth)


@pytest.mark.parametrize("k", [0, 8])
def test_four_rows_are_those_of_products(k: int) -> None:
    """Along rows."""
    for rows, first_of in ((TILE.BM, places.first_of_a), (TILE.BN, places.first_of_b)):
        for i, half in itertools.product(range(2 if rows == TILE.BM else 1), range(2)):
            read = [first_of(True, rows, lane) + 32 * i + (k + 4 * half) * places.pitch(True, rows) for lane in LANES]
            for first in range(0, 32, 8):
                assert banks([word + j for word in read[first : first + 8] for j in range(4)]) == 1
            for lane, j in itertools.product(LANES, range(4)):
                assert read[lane] % 4 == 0
                assert read[lane] + j == places.word(True, rows, places.own_row(True, lane, 4 * i + j), k + lane % 4 + 4 * half)


def test_stages_fit_twice_on_every_chip() -> None:
    for by_rows in itertools.product((False, True), repeat=2):
        assert TILE.stages >= 3 and TILE.blocks_per_sm * (TILE.shared(*by_rows) + 1024) <= 100 << 10


OPERATIONS = [problems.dense, problems.dense_input_grad, problems.dense_weight_grad]


@needs_instructions
@pytest.mark.parametrize("chip", CHIPS)
def test_they_are_there_from_ampere_on_and_never_chosen_by_the_rules(chip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_TUNED", "none")
    with select.for_chip(108, capability=CHIPS[chip]):
        for operation, bits in itertools.product(OPERATIONS, KINDS):
            problem = operation(512, 1024, 256, bits)
            there = {name for name in select.variants(problem) if name.startswith("mma")}
            assert there == (set() if chip == "T4" else {NAME + ENDING[kept] for kept in KINDS if kept >= bits})
            assert select.choose(problem).name.startswith("tile")
            for name in there:
                with select.override({problem.operation: name}):
                    assert select.choose(problem).name == name
                monkeypatch.setenv(select.VARIABLE, f"{problem.operation}={name}")
                assert select.choose(problem).name == name
                monkeypatch.delenv(select.VARIABLE)
        for shape in ((1, 40, 1), (3, 33, 200), (600, 32, 8)):
            assert not select.choose(problems.dense(*shape)).name.startswith("mma")

"""Where the numbers of a product of warpgroups lie (kernels/gpucnn_kernels/tensor/making.py, groups.py): all of them once, as wgmma reads
them, and no bank of shared memory touched twice at a time, all of it counted from the expressions that the kernels index by; and when such
products are chosen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from test_warps import CHIPS, LANES, banks, needs_instructions

from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32, KINDS
from gpucnn_kernels.dense.tensor import GROUPS
from gpucnn_kernels.tensor import fragments, groups, hopper, making
from gpucnn_kernels.tensor.groups import COLUMNS, GroupTile
from gpucnn_kernels.tensor.parts import ENDING, words_of
from gpucnn_kernels.tensor.stages import DEPTH, MOST_SHARED

THREADS = range(making.THREADS)
each_kind = pytest.mark.parametrize("bits", [FLOAT32, BFLOAT16], ids=["tf32", "bf16"])
each_size = pytest.mark.parametrize(  # tiles of 32 are those of weight_grad.py
    ("by_rows", "rows"), [(False, 32), (False, 64), (False, 128), (True, 64), (True, 128)]
)
each_width = pytest.mark.parametrize("width", [4, 1])
along_rows = pytest.mark.parametrize("by_rows", [False, True], ids=["along-depths", "along-rows"])


def in_turn(lanes: int, requests: list[list[int]]) -> Iterator[list[int]]:
    """The words that so many lanes touch together, of the requests of all threads."""
    for first in range(0, len(requests), lanes):
        yield [word for own in requests[first : first + lanes] for word in own]


def swizzled(bits: int, row: int, place: int) -> int:
    return hopper.swizzled_pair(row, place) if bits == BFLOAT16 else hopper.swizzled(row, place)


def held(bits: int, row: int, place: int) -> list[tuple[int, int]]:
    """The numbers (row, depth) of a word, the lower half first."""
    depth = fragments.first_of_pair(place) if bits == BFLOAT16 else place
    return [(row, depth), (row, depth + 4)] if bits == BFLOAT16 else [(row, depth)]


def copied(by_rows: bool, rows: int, width: int) -> Iterator[tuple[list[list[int]], list[list[tuple[int, int]]]]]:
    """Each copy of all threads: the words of their own that it fills, and the numbers."""
    if not by_rows:
        for i in range(rows // making.rows_step(width)):
            own = [(thread // making.across(width), thread % making.across(width) * width) for thread in THREADS]
            yield (
                [[i * making.THREADS * width + thread * width + v for v in range(width)] for thread in THREADS],
                [[(row + i * making.rows_step(width), depth + v) for v in range(width)] for row, depth in own],
            )
        return
    for i in range(rows // making.ROWS_AT_ONCE * 4 * (4 // width)):
        square, down, first = (i // 4, i % 4, 0) if width == 4 else (i // 16, i // 4 % 4, i % 4)
        own = [making.own_square(thread) for thread in THREADS]
        yield (
            [[i * making.THREADS * width + thread * width + v for v in range(width)] for thread in THREADS],
            [[(row + square * making.ROWS_AT_ONCE + first + v, depth + down) for v in range(width)] for row, depth in own],
        )


def written(by_rows: bool, rows: int, width: int, bits: int) -> Iterator[tuple[int, list[list[int]], list[list[tuple[int, int]]]]]:
    """Each write of all threads, to the first tile: how many lanes it takes at a time, the words, as the kernel finds them from its first,
    and the places (row, place) that belong there."""
    row_words = DEPTH // 2 if bits == BFLOAT16 else DEPTH
    if by_rows:
        for j, v in itertools.product(range(rows // making.ROWS_AT_ONCE), range(2 if bits == BFLOAT16 else 4)):
            down, turn = (2 * v, v) if bits == BFLOAT16 else (v, v)
            words, places = [], []
            for thread in THREADS:
                row, place = making.first_turned(bits, *making.own_square(thread))
                at = swizzled(bits, row, place) + j * making.ROWS_AT_ONCE * row_words
                words.append([(at ^ 4 * turn) + down * row_words + i for i in range(4)])
                places.append([(row + j * making.ROWS_AT_ONCE + down, place + i) for i in range(4)])
            yield 8, words, places
        return
    size = 1 if width == 1 else 2 if bits == BFLOAT16 else 4
    for i in range(rows // making.rows_step(width)):
        words, places = [], []
        for thread in THREADS:
            row, along = thread // making.across(width), thread % making.across(width)
            place = making.first_place(width, bits, along)
            turn = i % 2 * (8 if bits == BFLOAT16 else 16) if width == 1 else 0
            at = (swizzled(bits, row, place) + i * making.rows_step(width) * row_words) ^ turn
            if not (bits == BFLOAT16 and width == 1 and along // 4 % 2):
                words.append([at + v for v in range(size)])
                places.append([(row + i * making.rows_step(width), place + v) for v in range(size)])
        yield 32 // size // (2 if bits == BFLOAT16 and width == 1 else 1), words, places


@each_width
@each_size
def test_threads_copy_every_number_once(by_rows: bool, rows: int, width: int) -> None:
    """To words of their own, and neighbours in memory together."""
    filled, numbers = [], []
    for words, of in copied(by_rows, rows, width):
        assert all(banks(together) == 1 for together in in_turn(32 // width, words))
        assert width == 1 or all(own[0] % 4 == 0 for own in words)
        filled += [word for own in words for word in own]
        numbers += [number for own in of for number in own]
        if width == 4:
            memory = [number[0][:: 1 if by_rows else -1] for number in of[:32]]  # place along a line, and the line
            for line in {each for _, each in memory}:
                along = sorted(place for place, own in memory if own == line)
                assert len(along) >= 4 and all(b - a in (4, 12) for a, b in itertools.pairwise(along)), "whole sectors of 32 bytes"
    assert sorted(filled) == list(range(rows * DEPTH))
    assert sorted(numbers) == list(itertools.product(range(rows), range(DEPTH)))


@each_kind
@each_width
@each_size
def test_what_is_made_lies_as_wgmma_reads_it(by_rows: bool, rows: int, width: int, bits: int) -> None:
    found: list[int] = []
    for lanes, words, places in written(by_rows, rows, width, bits):
        for own, of in zip(words, places, strict=True):
            assert own == [swizzled(bits, row, place) for row, place in of]
            assert own[0] % len(own) == 0
        assert all(banks(together) == 1 for together in in_turn(lanes, words))
        found += [word for own in words for word in own]
    assert sorted(found) == list(range(words_of(min(bits, 11), rows * DEPTH)))


@each_kind
@each_width
@along_rows
def test_threads_have_what_they_write(by_rows: bool, width: int, bits: int) -> None:
    """Or in bfloat16 have half of it, and the thread that they exchange it with the other half."""
    copies: dict[tuple[int, int], int] = {}
    for _, of in copied(by_rows, 128, width):
        copies |= {number: thread for thread, own in enumerate(of) for number in own}
    beside = {(False, 4): 1, (False, 1): 4, (True, 4): 2, (True, 1): 2}[by_rows, width]
    for _, _, places in written(by_rows, 128, width, bits):
        for of in places:
            owners = [{copies[number] for number in held(bits, *place)} for place in of]
            assert len(set(map(frozenset, owners))) == 1
            if bits == BFLOAT16:
                first, second = sorted(owners[0])
                assert second == first ^ beside and first // 32 == second // 32
            else:
                assert len(owners[0]) == 1


def test_rows_are_summed_over_all_depths_of_a_warp() -> None:
    """As groups.py adds them up for the gradient of the bias: over the lanes whose numbers differ by 2, 4 and 16."""
    for thread in THREADS:
        together = [thread ^ (2 * (i & 1) + 4 * (i >> 1 & 1) + 16 * (i >> 2)) for i in range(8)]
        assert {making.own_square(each)[0] for each in together} == {making.own_square(thread)[0]}
        assert sorted(making.own_square(each)[1] for each in together) == list(range(0, DEPTH, 4))


@each_width
@along_rows
def test_b_is_copied_once_and_read_as_registers(by_rows: bool, width: int) -> None:
    column_step, depth_step = groups.steps(by_rows)
    lines = making.THREADS // groups.across(by_rows, width)
    numbers = []
    for i in range((DEPTH if by_rows else COLUMNS) // lines):
        words = []
        for thread in THREADS:
            column, depth = groups.first_copied(by_rows, width, thread)
            first = column * column_step + depth * depth_step + i * lines * (depth_step if by_rows else column_step)
            words.append([first + v for v in range(width)])
            own = (column, depth + i * lines) if by_rows else (column + i * lines, depth)
            numbers += [(own[0] + v, own[1]) if by_rows else (own[0], own[1] + v) for v in range(width)]
            assert words[-1] == [c * column_step + d * depth_step for c, d in numbers[-width:]] and first % width == 0
        assert all(banks(together) == 1 for together in in_turn(32 // width, words))
    assert sorted(numbers) == list(itertools.product(range(COLUMNS), range(DEPTH)))
    assert max(c * column_step + d * depth_step for c, d in numbers) < groups.words(by_rows)
    for warp, step, (register, (down, deeper)) in itertools.product(range(8), range(4), enumerate(((0, 0), (8, 0), (0, 4), (8, 4)))):
        read = []
        for lane in LANES:
            column, depth = 16 * warp + lane // 4, lane % 4 + 8 * step
            read.append((column + down) * column_step + (depth + deeper) * depth_step)
            row, along = fragments.group_a_place(warp % 4 * 32 + lane, register)
            assert (warp // 4 * 64 + row, 8 * step + along) == (column + down, depth + deeper)
        assert banks(read) == 1


def test_stages_fit() -> None:
    for rows, bits in itertools.product((64, 128), KINDS):
        tile = GroupTile(rows, bits)
        assert tile.stages >= 3 and tile.shared <= MOST_SHARED and tile.stage % 1024 == 0 and tile.raw % 16 == 0


@needs_instructions
@pytest.mark.parametrize("chip", CHIPS)
def test_they_are_there_for_hopper_and_never_chosen_by_the_rules(chip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_TUNED", "none")
    with select.for_chip(132, capability=CHIPS[chip]):
        for make, bits in itertools.product((problems.dense, problems.dense_input_grad, problems.dense_weight_grad), KINDS):
            problem = make(512, 1024, 256, bits)
            there = {name for name in select.variants(problem) if name.startswith("tensor")}
            assert there == ({name + ENDING[kept] for name in GROUPS for kept in KINDS if kept >= bits} if chip == "H100" else set())
            assert select.choose(problem).name.startswith("tile")
            for name in there:
                with select.override({problem.operation: name}):
                    assert select.choose(problem).name == name


@needs_instructions
def test_sums_are_cut_to_fill_a_chip_and_lines_too_long_for_32_bits_are_left_to_others() -> None:
    with select.for_chip(132, capability=(9, 0)):
        for name, slices in (("tensor128x128", 16), ("tensor64x128", 8)):
            with select.override(dense=name):
                assert select.choose(problems.dense(128, 3136, 1024)).slices == slices
        for length, there in ((1 << 23, False), ((1 << 23) - 1, True)):
            assert bool(set(GROUPS) & set(select.variants(problems.dense(1, length, 64)))) == there

"""How accurate dense layers are on tensor cores, by warps (tensor/matrices.py) and by warpgroups (tensor/groups.py), worked out in NumPy.

Numbers go the way that they go on a chip: from memory to the words of a stage, from there to the registers of lanes, or to what wgmma reads
by its descriptor, through tensor cores that cut sums off where float32 rounds (test_warps.py), and from their registers to the result;
each step by the very functions that the kernels call. So a number that is read from a wrong place, or twice, gives a wrong result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tensor_cases import rounded as rounded_to
from test_making import copied, written
from test_warps import LANES, at_once, cancelling, cut, in_tf32, normal, positive, rounded, wide

from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32, TF32
from gpucnn_kernels.tensor import fragments, groups, hopper, making, places
from gpucnn_kernels.tensor.matrices import MatrixTile
from gpucnn_kernels.tensor.simulated import described
from gpucnn_kernels.tensor.stages import DEPTH, TOGETHER
from tolerances import check

Array = npt.NDArray[np.float32]
Indices = Any
TILE = MatrixTile()
M, N = 64, 32  # of the warp that is followed; of a warpgroup 64 columns of c
FORMS = {"forward": (False, False), "input-grad": (False, True), "weight-grad": (True, True)}  # whether a and b lie along their rows


def parts(x: Array, bits: int, in_memory: bool) -> list[Array]:
    """What tensor cores get of a number: both parts, of which one that is written to memory is rounded, or the one."""
    if bits == BFLOAT16:
        return [np.float32(rounded_to(x, BFLOAT16))]
    big = rounded(x)
    small = x - big
    return [big, rounded(small) if in_memory else in_tf32(small)] if bits == FLOAT32 else [big]


def product(c: Array, a: Array, b: Array) -> Array:
    """c + a · b by one instruction."""
    return cut(np.float64(c) + np.float64(a) @ np.float64(b))


def scattered(x: Array, place: Callable[[int, int], tuple[int, int]], size: tuple[int, int]) -> Array:
    """What lanes hold in registers, x (…, lanes, registers), as matrices (…, *size)."""
    rows, columns = places_of(place, *x.shape[-2:])
    matrix = np.full((*x.shape[:-2], *size), np.nan, np.float32)
    matrix[..., rows, columns] = x
    return matrix


@functools.cache
def places_of(place: Callable[[int, int], tuple[int, int]], lanes: int, registers: int) -> tuple[Indices, Indices]:
    found = np.array([[place(lane, register) for register in range(registers)] for lane in range(lanes)])
    return found[..., 0], found[..., 1]


# By warps.


@functools.cache
def words_of_stage(by_rows: bool, rows: int) -> Indices:
    return np.array([[places.word(by_rows, rows, row, depth) for depth in range(places.DEPTHS)] for row in range(rows)])


@functools.cache
def words_read(by_rows: bool, rows: int, of_a: bool, k: int) -> Indices:
    """The words (products, lanes, registers) of 8 steps of depth: by ldmatrix, which hands pieces of 16 bytes round, or by fours."""
    own, registers = (M, 4) if of_a else (N, 2)
    count, first, pitch = own // (8 * registers // 2), places.first_of_a if of_a else places.first_of_b, places.pitch(by_rows, rows)
    found = np.empty((count, 32, registers), int)
    if by_rows:
        for i, lane in np.ndindex(own // 32, 32):
            low = [first(True, rows, lane) + 32 * i + k * pitch + v for v in range(4)]
            high = [word + 4 * pitch for word in low]
            if of_a:
                found[2 * i, lane], found[2 * i + 1, lane] = [*low[:2], *high[:2]], [*low[2:], *high[2:]]
            else:
                for v in range(4):
                    found[4 * i + v, lane] = low[v], high[v]
        return found
    for i, lane in np.ndindex(own // 16, 32):
        given = [first(False, rows, other) + i * 16 * pitch + k for other in LANES]
        four = [given[8 * piece + lane // 4] + lane % 4 for piece in range(4)]
        if of_a:
            found[i, lane] = four
        else:
            found[2 * i, lane], found[2 * i + 1, lane] = four[:2], four[2:]
    return found


def pairs(first: Array, second: Array) -> Array:
    """The numbers of a product in bfloat16, two to a register: those of two products in TF32, by registers 0 and 2, then 1 and 3, of a;
    0 and 1 of b."""
    both = [first[..., [0, 2, 1, 3]], second[..., [0, 2, 1, 3]]] if first.shape[-1] == 4 else [first, second]
    return np.concatenate(both, axis=-1)


def by_warps(a: Array, b: Array, by_rows: tuple[bool, bool], bits: int) -> Array:
    """a (64, K) · b (K, 32) as a warp of matrices_kernel works it out, sums taken out every 16 terms."""
    depths = 16 if bits == BFLOAT16 else 8
    sums = np.zeros((M // 16, N // 8, 16, 8), np.float32)
    for first in range(0, a.shape[1], places.DEPTHS):
        stages = []
        for matrix, along, rows in ((a[:, first : first + 16], by_rows[0], TILE.BM), (b[first : first + 16].T, by_rows[1], TILE.BN)):
            stage = np.full(places.words(along, rows), np.nan, np.float32)
            stage[words_of_stage(along, rows)[: len(matrix)]] = matrix
            stages.append(stage)
        part, big_ones = np.zeros_like(sums), []
        for k in range(0, places.DEPTHS, depths):
            x, y = (stages[i][words_read(by_rows[i], (TILE.BM, TILE.BN)[i], i == 0, k)] for i in (0, 1))
            if bits == BFLOAT16:
                more = [stages[i][words_read(by_rows[i], (TILE.BM, TILE.BN)[i], i == 0, k + 8)] for i in (0, 1)]
                x, y = scattered(pairs(x, more[0]), a_pair, (16, 16)), scattered(pairs(y, more[1]), b_pair, (16, 8))
            else:
                x, y = scattered(x, fragments.a_place, (16, 8)), scattered(y, fragments.b_place, (8, 8))
            big, *small = (each[:, None] for each in parts(x, bits, False))
            big_of_b, *small_of_b = (each[None] for each in parts(y, bits, False))
            if small:
                part = product(product(part, small[0], big_of_b), big, small_of_b[0])
            big_ones.append((big, big_of_b))
        for each in big_ones:
            part = product(part, *each)
        sums = sums + part
    result = np.full((M, N), np.nan, np.float32)
    product_step, column_step = (1, 4) if by_rows[1] else (8, 1)
    for i, j, lane, register in np.ndindex(M // 16, N // 8, 32, 4):
        row = places.own_row(by_rows[0], lane, 2 * i + register // 2)
        column = lane % 4 * 2 * column_step + j * product_step + register % 2 * column_step
        result[row, column] = sums[i, j][fragments.c_place(lane, register)]
    return result


def a_pair(lane: int, number: int) -> tuple[int, int]:
    """Where along a product the numbers of `pairs` are: which 16 depths those stand for does not matter."""
    return lane // 4 + number // 2 % 2 * 8, lane % 4 * 2 + number % 2 + number // 4 * 8


def b_pair(lane: int, number: int) -> tuple[int, int]:
    return lane % 4 * 2 + number % 2 + number // 2 * 8, lane // 4


# By warpgroups: a is M rows of c, b 64 columns.


@functools.cache
def made(by_rows: bool, bits: int) -> tuple[Indices, Indices, Indices]:
    """Words of a's first tile, the halves of them, and the numbers (row, depth) there: as threads have copied and write them."""
    copies = {number for _, of in copied(by_rows, M, 4) for own in of for number in own}
    words, halves, numbers = [], [], []
    for _, written_words, row_places in written(by_rows, M, 4, bits):
        for word, (row, place) in zip(np.concatenate(written_words), np.concatenate(row_places), strict=True):
            depth = fragments.first_of_pair(int(place)) if bits == BFLOAT16 else int(place)
            for half in range(2 if bits == BFLOAT16 else 1):
                assert (int(row), depth + 4 * half) in copies
                words.append(word), halves.append(half), numbers.append((row, depth + 4 * half))
    return np.array(words), np.array(halves), np.array(numbers)


@functools.cache
def words_described(bits: int, step: int) -> Indices:
    """The words (M, 8) of a's tile that wgmma reads for a step."""
    descriptor = hopper.PAIR_DESCRIPTOR if bits == BFLOAT16 else hopper.DESCRIPTOR
    return np.int64(described(descriptor + 2 * step, M, lambda address, size: np.arange(address // 4, (address + size) // 4)))


def by_groups(a: Array, b: Array, by_rows: tuple[bool, bool], bits: int) -> Array:
    """a (64, K) · b (K, 64) as a warpgroup of groups_kernel works it out, sums taken out every 16 terms, those of one part every 32."""
    column_step, depth_step = groups.steps(by_rows[1])
    columns, depths = np.divmod(np.arange(64 * DEPTH), DEPTH)
    own = np.arange(making.THREADS)
    first = (own // 32 * 16 + own % 32 // 4) * column_step + own % 4 * depth_step
    per_word = 2 if bits == BFLOAT16 else 1
    words, halves, numbers = made(by_rows[0], bits)
    of_rows, of_depths = numbers.T
    sums = np.zeros((64, M), np.float32)
    for k in range(0, a.shape[1], DEPTH):
        stage = np.full(groups.words(by_rows[1]), np.nan, np.float32)
        stage[columns * column_step + depths * depth_step] = b[k + depths, columns]
        tiles = []
        for part_of_a in parts(a[:, k : k + DEPTH], bits, True):
            tile = np.full((M * DEPTH // per_word, per_word), np.nan, np.float32)
            tile[words, halves] = part_of_a[of_rows, of_depths]
            tiles.append(tile)
        part, big_ones = np.zeros_like(sums), []
        steps = DEPTH // (8 * per_word)
        for step in range(steps):
            at = first + step * 8 * per_word * depth_step
            x = stage[at[:, None] + np.array([0, 8 * column_step, 4 * depth_step, 8 * column_step + 4 * depth_step])]
            if bits == BFLOAT16:
                more = at + 8 * depth_step
                y = stage[more[:, None] + np.array([0, 8 * column_step, 4 * depth_step, 8 * column_step + 4 * depth_step])]
                matrix = scattered(pairs(x, y), group_a_pair, (64, 16))
            else:
                matrix = scattered(x, fragments.group_a_place, (64, 8))
            big_of_a, *small_of_a = (tile[words_described(bits, step)].reshape(M, -1).T for tile in tiles)
            big, *small = parts(matrix, bits, False)
            if small:
                part = product(product(part, small[0], big_of_a), big, small_of_a[0])
            big_ones.append((big, big_of_a))
            if step + 1 == steps or (small and (step + 1) % TOGETHER == 0):
                for each in big_ones:
                    part = product(part, *each)
                sums, part, big_ones = sums + part, np.zeros_like(sums), []
    result = np.full((M, 64), np.nan, np.float32)
    for thread, register in np.ndindex(making.THREADS, M // 2):
        column = thread // 32 * 16 + thread % 32 // 4 + (8 if register % 4 >= 2 else 0)
        row = thread % 4 * 2 + register // 4 * 8 + register % 2
        result[row, column] = sums[fragments.group_c_place(thread, register)]
    return result


def group_a_pair(thread: int, number: int) -> tuple[int, int]:
    row, depth = a_pair(thread % 32, number)
    return thread // 32 * 16 + row, depth


def factors(kind: Callable[..., Array], columns: int, depth: int) -> tuple[Array, Array]:
    random = np.random.default_rng(1)
    return kind(random, M, depth), kind(random, depth, columns)


def fmas(a: Array, b: Array) -> Array:
    """One after the other."""
    sums = np.zeros((len(a), b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        sums = np.float32(np.float64(sums) + np.outer(np.float64(a[:, k]), np.float64(b[k])))
    return sums


ways = pytest.mark.parametrize(("multiply", "columns"), [(by_warps, N), (by_groups, 64)], ids=["warps", "warpgroups"])


def cases(*kinds: Callable[..., Array]) -> list[Any]:
    """(kind, form): those that are quick are every kind forward, and every form with the hardest numbers."""
    return [
        pytest.param(kind, form, id=f"{kind.__name__}-{name}", marks=() if name == "forward" or kind is wide else pytest.mark.slow)
        for kind in kinds
        for name, form in FORMS.items()
    ]


@ways
@pytest.mark.parametrize(("kind", "by_rows"), cases(normal, positive, wide, cancelling, at_once))
def test_three_products_are_at_least_as_accurate_as_fmas(
    kind: Callable[..., Array], by_rows: tuple[bool, bool], multiply: Callable[..., Array], columns: int
) -> None:
    a, b = factors(kind, columns, 576)
    exact, magnitude = np.float64(a) @ np.float64(b), np.abs(np.float64(a)) @ np.abs(np.float64(b))

    def error(result: Array) -> float:
        return float(np.sqrt(np.mean(((result - exact) / magnitude) ** 2)))

    three, one = error(multiply(a, b, by_rows, FLOAT32)), error(multiply(a, b, by_rows, TF32))
    if kind is at_once:  # FMAs add nothing but small numbers then, by luck of their order: both are below one rounding of the terms
        assert three < 2.0**-24
        return
    assert three <= error(fmas(a, b)) and three < 2.0**-22, (three, error(fmas(a, b)))
    assert one > 16 * three, "what one product leaves out would be seen"


@ways
@pytest.mark.parametrize("bits", [TF32, BFLOAT16])
@pytest.mark.parametrize(("kind", "by_rows"), cases(normal, wide, cancelling))
def test_one_product_loses_what_rounding_its_factors_does_and_no_more(
    kind: Callable[..., Array], bits: int, by_rows: tuple[bool, bool], multiply: Callable[..., Array], columns: int
) -> None:
    a, b = factors(kind, columns, 288)
    wider = [rounded_to(each, bits) for each in (a, b)]
    exact, magnitude = wider[0] @ wider[1], np.abs(wider[0]) @ np.abs(wider[1])
    check(multiply(a, b, by_rows, bits), exact, magnitude=magnitude, terms=288, direction="forward")
    lost = np.abs(exact - np.float64(a) @ np.float64(b)) / magnitude
    assert lost.max() > 2.0 ** -(bits + 6), "what rounding costs would be seen"

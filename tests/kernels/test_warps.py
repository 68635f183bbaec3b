"""Products of warps (kernels/gpucnn_kernels/tensor/fragments.py, warps.py) without a GPU: where each number lies, that no bank of shared
memory is touched twice at a time, how accurate three products in TF32 are, and that the rules never choose what no chip has confirmed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tensor_cases import rounded as rounded_to

from gpucnn.ops.shapes import conv_window
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.conv import tensor
from gpucnn_kernels.core.problem import BFLOAT16, KINDS, TF32
from gpucnn_kernels.tensor import fragments as lie
from gpucnn_kernels.tensor.parts import ENDING, parts_of
from gpucnn_kernels.tensor.warps import WarpTile
from gpucnn_kernels.tensor.warps_grad import WarpGradTile
from tolerances import check

Array = npt.NDArray[np.float32]
TILES = [WarpTile(64), WarpTile(64, TF32), WarpTile(128)]
PAIRS = [WarpTile(64, BFLOAT16), WarpTile(128, BFLOAT16)]
each_tile = pytest.mark.parametrize("tile", TILES, ids=lambda tile: f"{tile.BM}x{tile.BN}-{tile.bits}")
LANES = range(32)


def banks(words: list[int]) -> int:
    """The passes over the 32 banks that a request for these words takes: the most different words in one bank."""
    held: dict[int, set[int]] = {}
    for word in words:
        held.setdefault(word % 32, set()).add(word)
    return max(map(len, held.values()))


def test_lanes_hold_every_number_once() -> None:
    for place, registers, size in ((lie.a_place, 4, (16, 8)), (lie.b_place, 2, (8, 8)), (lie.c_place, 4, (16, 8))):
        places = [place(lane, register) for lane in LANES for register in range(registers)]
        assert sorted(places) == list(itertools.product(*map(range, size)))


@each_tile
def test_a_lies_as_lanes_read_it(tile: WarpTile) -> None:
    words = {(row, depth): lie.a_word(tile.BM, row, depth) for row in range(tile.BM) for depth in range(tile.BK)}
    assert sorted(words.values()) == list(range(tile.BM * tile.BK))
    for (row, depth), word in words.items():  # as the copying threads work it out, in bytes
        assert (4 * words[row, 0] ^ lie.a_twist(depth)) + lie.a_step(tile.BM, depth) == 4 * word
    for k, number, lane in itertools.product(range(tile.BK // 8), range(tile.BM // 16), LANES):
        first = k * tile.BM * 8 + number * lie.WORDS + lie.a_read(lane)
        for register in range(4):
            row, depth = lie.a_place(lane, register)
            assert words[16 * number + row, 8 * k + depth] == first + (register ^ 2 * (number % 2))


@each_tile
def test_b_lies_as_lanes_read_it(tile: WarpTile) -> None:
    BN, parts = tile.BN, parts_of(tile.bits)
    words = {
        (column, depth, part): lie.b_word(BN, parts, column, depth, part)
        for column in range(BN)
        for depth in range(tile.BK)
        for part in range(parts)
    }
    assert sorted(words.values()) == list(range(parts * BN * tile.BK))
    for k, pair, lane in itertools.product(range(tile.BK // 8), range(BN // 16 * parts), LANES):
        first = k * BN * 8 * parts + pair * lie.WORDS + lie.b_read(lane)
        for half, register in itertools.product(range(2), range(2)):
            depth, column = lie.b_place(lane, register)
            number, part = (pair, half) if parts == 2 else (2 * pair + half, 0)
            assert words[8 * number + column, 8 * k + depth, part] == first + 2 * half + register


def test_lanes_hold_every_number_once_in_bfloat16() -> None:
    """And of a those that they hold of two products in TF32."""
    for place, registers, size in ((lie.a_pair, 4, (16, 16)), (lie.b_pair, 2, (16, 8))):
        places = [place(lane, register, half) for lane in LANES for register in range(registers) for half in range(2)]
        assert sorted(places) == list(itertools.product(*map(range, size)))
    for lane in LANES:
        own = {lie.a_pair(lane, register, half) for register in range(4) for half in range(2)}
        assert own == {(row, depth + k) for row, depth in (lie.a_place(lane, register) for register in range(4)) for k in (0, 8)}
        # The kernel packs registers 0 and 2, then 1 and 3, of the first product, and then of the second.
        for register, half in itertools.product(range(4), range(2)):
            row, depth = lie.a_place(lane, register % 2 + 2 * half)
            assert lie.a_pair(lane, register, half) == (row, depth + register // 2 * 8)
        for register, half in itertools.product(range(2), range(2)):
            depth, column = lie.b_place(lane, half)
            assert lie.b_pair(lane, register, half) == (depth + register * 8, column)


@pytest.mark.parametrize("tile", PAIRS, ids=lambda tile: f"{tile.BM}x{tile.BN}")
def test_b_lies_as_lanes_read_it_in_bfloat16(tile: WarpTile) -> None:
    firsts = [lie.first_of_pair(number) for number in range(tile.BK // 2)]
    assert sorted([*firsts, *(depth + 4 for depth in firsts)]) == list(range(tile.BK))
    words = {(column, depth): lie.b_pair_word(tile.BN, column, depth) for column in range(tile.BN) for depth in firsts}
    assert sorted(words.values()) == list(range(tile.BN * tile.BK // 2))
    for k, pair, lane in itertools.product(range(tile.BK // 16), range(tile.BN // 16), LANES):
        first = k * tile.BN * 8 + pair * lie.WORDS + lie.b_read(lane)
        for number, register in itertools.product(range(2), range(2)):
            (depth, column), (upper, same) = (lie.b_pair(lane, register, half) for half in range(2))
            assert (upper, same) == (depth + 4, column)
            assert words[16 * pair + 8 * number + column, 16 * k + depth] == first + 2 * number + register


@each_tile
def test_no_bank_is_touched_twice(tile: WarpTile) -> None:
    """By a read of 16 bytes eight lanes at a time, by a copy of a word all 32."""
    for read in (lie.a_read, lie.b_read):
        for eight in range(4):
            assert banks([read(lane) + i for lane in range(8 * eight, 8 * eight + 8) for i in range(4)]) == 1
    for depth, warp in itertools.product(range(tile.BK), range(tile.BM // 32)):
        assert banks([lie.a_word(tile.BM, 32 * warp + lane, depth) for lane in LANES]) == 1
    for eight in range(4):  # a copy of 16 bytes by each thread, side by side
        assert banks([4 * lane + i for lane in range(8 * eight, 8 * eight + 8) for i in range(4)]) == 1
    assert banks([32 * lane for lane in LANES]) == 32  # what would be found


def test_what_threads_copy_for_the_gradient_of_the_weight() -> None:
    """Everything once, where it belongs, and no bank twice at a time."""
    tile = WarpGradTile()
    BM, BN, warps = tile.BM, tile.BN, tile.threads // 32
    rows, columns = BM // warps, BN // warps
    places = []
    for thread, half, i in itertools.product(range(tile.threads), range(2), range(rows // 4)):
        own, depth = lie.grad_own(thread, rows), thread % 8
        byte = (4 * lie.a_word(BM, own, depth) ^ lie.grad_twist(i)) + lie.grad_step(i) + half * BM * 8 * 4
        assert byte == 4 * lie.a_word(BM, own + lie.grad_row(i), depth + 8 * half)
        places.append(byte)
    assert sorted(places) == list(range(0, 4 * BM * tile.BK, 4))
    places = []
    for thread, half, i in itertools.product(range(tile.threads), range(2), range(columns // 4)):
        own, depth = lie.grad_own(thread, columns), thread % 8
        byte = 4 * lie.b_word(BN, 1, own, depth, 0) + i * lie.GRAD_COLUMN + half * BN * 8 * 4
        assert byte == 4 * lie.b_word(BN, 1, own + 2 * i, depth + 8 * half, 0)
        places.append(byte)
    assert sorted(places) == list(range(0, 4 * BN * tile.BK, 4))
    for first in range(0, tile.threads, 32):
        assert banks([lie.a_word(BM, lie.grad_own(thread, rows), thread % 8) for thread in range(first, first + 32)]) == 1
        assert banks([lie.b_word(BN, 1, lie.grad_own(thread, columns), thread % 8, 0) for thread in range(first, first + 32)]) == 1


def test_stages_fit_twice_on_every_chip() -> None:
    for both in tensor.WARPS.values():
        for tile, bits in itertools.product(both, KINDS):
            one, table = replace(tile, bits=bits), 1024  # the gradient of the weight has one
            assert one.stages >= 3 and one.blocks_per_sm * (one.shared + 1024 + (table if tile is both[1] else 0)) <= 100 << 10


# Accuracy: what the tensor cores make of registers, by the maps above. They cut sums off where float32 rounds (M. Fasi et al., "Numerical
# behavior of NVIDIA tensor cores", PeerJ Computer Science, 2021, sections 4.2 and 4.3).


def cut(x: Any) -> Array:
    """Float64 to float32, toward zero."""
    near = np.float32(x)
    return np.where(np.abs(np.float64(near)) > np.abs(x), np.nextafter(near, np.float32(0)), near)


def in_tf32(x: Array) -> Array:
    """The upper 19 bits, all that a tensor core looks at."""
    return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def rounded(x: Array) -> Array:
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def mma(a: Array, b: Array, c: Array) -> Array:
    """One instruction on registers: a (32, 4), b (32, 2), c (32, 4)."""
    A, B, C = np.zeros((16, 8)), np.zeros((8, 8)), np.zeros((16, 8))
    for array, held, place in ((A, in_tf32(a), lie.a_place), (B, in_tf32(b), lie.b_place), (C, c, lie.c_place)):
        for lane, register in np.ndindex(held.shape):
            array[place(lane, register)] = held[lane, register]
    result = cut(C + A @ B)
    return np.array([[result[lie.c_place(lane, register)] for register in range(4)] for lane in LANES], np.float32)


def by_warps(a: Array, b: Array, parts: int) -> Array:
    """a (16, K) · b (K, 8) as warps_kernel works it out, sums taken out every 16 terms."""
    sums = np.zeros((32, 4), np.float32)
    for first in range(0, a.shape[1], 16):
        part, big_ones = np.zeros((32, 4), np.float32), []
        for k in (first, first + 8):
            x = np.array([[a[row, k + depth] for row, depth in (lie.a_place(lane, i) for i in range(4))] for lane in LANES])
            y = np.array([[b[k + depth, column] for depth, column in (lie.b_place(lane, i) for i in range(2))] for lane in LANES])
            big_x, big_y = rounded(x), rounded(y)
            if parts == 2:
                part = mma(x - big_x, big_y, part)
                part = mma(big_x, rounded(y - big_y), part)
            big_ones.append((big_x, big_y))
        for each in big_ones:
            part = mma(*each, part)
        sums = sums + part
    result = np.zeros((16, 8), np.float32)
    for lane, register in np.ndindex(sums.shape):
        result[lie.c_place(lane, register)] = sums[lane, register]
    return result


def mma_in_bfloat16(a: Array, b: Array, c: Array) -> Array:
    """One instruction on registers: a (32, 4, 2), b (32, 2, 2), c (32, 4), of which a and b are exact in bfloat16."""
    A, B, C = np.zeros((16, 16)), np.zeros((16, 8)), np.zeros((16, 8))
    for array, held, place in ((A, a, lie.a_pair), (B, b, lie.b_pair)):
        for lane, register, half in np.ndindex(held.shape):
            array[place(lane, register, half)] = held[lane, register, half]
    for lane, register in np.ndindex(c.shape):
        C[lie.c_place(lane, register)] = c[lane, register]
    result = cut(C + A @ B)
    return np.array([[result[lie.c_place(lane, register)] for register in range(4)] for lane in LANES], np.float32)


def by_warps_in_bfloat16(a: Array, b: Array) -> Array:
    """a (16, K) · b (K, 8), sums taken out every 16 terms."""
    a, b = (np.float32(rounded_to(each, BFLOAT16)) for each in (a, b))
    sums = np.zeros((32, 4), np.float32)
    for k in range(0, a.shape[1], 16):
        x, y = np.zeros((32, 4, 2), np.float32), np.zeros((32, 2, 2), np.float32)
        for lane, register, half in np.ndindex(x.shape):
            row, depth = lie.a_pair(lane, register, half)
            x[lane, register, half] = a[row, k + depth]
        for lane, register, half in np.ndindex(y.shape):
            depth, column = lie.b_pair(lane, register, half)
            y[lane, register, half] = b[k + depth, column]
        sums = sums + mma_in_bfloat16(x, y, np.zeros((32, 4), np.float32))
    result = np.zeros((16, 8), np.float32)
    for lane, register in np.ndindex(sums.shape):
        result[lie.c_place(lane, register)] = sums[lane, register]
    return result


@pytest.mark.parametrize("depth", [32, 576])
def test_sums_of_bfloat16_are_those_of_float32(depth: int) -> None:
    """Once factors are rounded nothing more is lost than in a float32's sum."""
    random = np.random.default_rng(2)
    a, b = normal(random, 16, depth), normal(random, depth, 8)
    wide = [rounded_to(each, BFLOAT16) for each in (a, b)]
    exact, magnitude = wide[0] @ wide[1], np.abs(wide[0]) @ np.abs(wide[1])
    check(by_warps_in_bfloat16(a, b), exact, magnitude=magnitude, terms=depth, direction="forward")
    assert np.abs(exact - np.float64(a) @ np.float64(b)).max() > 2.0**-10, "what rounding costs would be seen"


def normal(random: Any, *shape: int) -> Array:
    return random.standard_normal(shape).astype(np.float32)


def wide(random: Any, *shape: int) -> Array:
    return normal(random, *shape) * np.float32(10.0) ** random.integers(-6, 7, shape).astype(np.float32)


def positive(random: Any, *shape: int) -> Array:
    return np.abs(normal(random, *shape))


def cancelling(random: Any, *shape: int) -> Array:
    """The second half of the depth nearly cancels the first."""
    x = normal(random, *shape)
    half = max(shape) // 2
    if shape[0] < shape[1]:
        x[:, half:] = -x[:, :half] * np.float32(1 + 2**-18)
    else:
        x[half:] = x[:half]
    return x


def at_once(random: Any, *shape: int) -> Array:
    """The same with each number beside the one that cancels it."""
    x = cancelling(random, *shape)
    order = np.arange(max(shape)).reshape(2, -1).T.ravel()
    return np.ascontiguousarray(x[:, order] if shape[0] < shape[1] else x[order])


@pytest.mark.parametrize("kind", [normal, positive, wide, cancelling, at_once])
def test_three_products_are_at_least_as_accurate_as_fmas(kind: Callable[..., Array]) -> None:
    random = np.random.default_rng(1)
    a, b = kind(random, 16, 576), kind(random, 576, 8)
    exact, magnitude = np.float64(a) @ np.float64(b), np.abs(np.float64(a)) @ np.abs(np.float64(b))
    fmas = np.zeros((16, 8), np.float32)
    for k in range(a.shape[1]):
        fmas = np.float32(np.float64(fmas) + np.outer(np.float64(a[:, k]), np.float64(b[k])))

    def error(result: Array) -> float:
        return float(np.sqrt(np.mean(((result - exact) / magnitude) ** 2)))

    three, one = error(by_warps(a, b, 2)), error(by_warps(a, b, 1))
    if kind is at_once:  # FMAs add nothing but small numbers then, by luck of their order: both are below one rounding of the terms
        assert three < 2.0**-24
        return
    assert three <= error(fmas) and three < 2.0**-22, (three, error(fmas))
    assert one > 16 * three, "what one product leaves out would be seen"


# Selection.

BIG = (256, 64, 128, conv_window((32, 32), (3, 3), 1, 1))
CHIPS = {"T4": (7, 5), "A100": (8, 0), "RTX 3090": (8, 6), "RTX 4090": (8, 9), "H100": (9, 0), "B200": (10, 0), "RTX 5090": (12, 0)}
OPERATIONS = [problems.conv2d, problems.conv2d_input_grad, problems.conv2d_weight_grad]
needs_instructions = pytest.mark.skipif(tensor.MLIR, reason="numba-cuda-mlir has no instructions of ours")


@needs_instructions
@pytest.mark.parametrize("chip", CHIPS)
def test_they_are_there_from_ampere_on_and_never_chosen_by_the_rules(chip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_TUNED", "none")
    with select.for_chip(108, capability=CHIPS[chip]):
        for operation, bits in itertools.product(OPERATIONS, KINDS):
            problem = operation(*BIG, bits=bits)
            there = {name for name in select.variants(problem) if name.startswith("mma")}
            all_kinds = {name + ENDING[kept] for name in tensor.WARPS for kept in KINDS if kept >= bits}
            assert there == (set() if chip == "T4" else all_kinds)
            assert select.choose(problem).name.startswith("tensor" if chip == "H100" else "tile")
            for name in there:
                with select.override({problem.operation: name}):
                    assert select.choose(problem).name == name
                monkeypatch.setenv(select.VARIABLE, f"{problem.operation}={name}")
                assert select.choose(problem).name == name
                monkeypatch.delenv(select.VARIABLE)


@needs_instructions
def test_images_too_large_for_32_bits_are_left_to_fmas() -> None:
    with select.for_chip(108, capability=(8, 0)):
        for depth, side, there in ((256, 2047, True), (256, 2048, False)):
            found = select.variants(problems.conv2d(1, depth, 64, conv_window((side, side), (1, 1))))
            assert ("mma128x64" in found) == there


def test_a_weight_of_nothing_is_what_keeps_them_back() -> None:
    """So a chip's confirmation is a number in conv/tensor.py, and nothing else."""
    for make in OPERATIONS:
        problem = make(*BIG)
        found = [variant for variant in VARIANTS[problem.operation] if variant.name.startswith("mma")]
        assert len(found) == len(KINDS) * len(tensor.WARPS)
        assert all(variant.weigh(problem, select.Chip("", 108, (8, 0)))[0] == 0 for variant in found)

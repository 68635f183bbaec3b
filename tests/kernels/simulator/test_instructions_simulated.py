"""What tensor/simulated.py and core/simulated_copies.py say that each instruction means, against the PTX ISA: which lane holds what, what
has arrived when, what is an error. A block of threads runs a function of Python for each."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensor_cases import rounded

from gpucnn.device import simulated
from gpucnn_kernels.core import asynchronous, simulated_copies
from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.problem import BFLOAT16, TF32
from gpucnn_kernels.core.simulated import Stopped, Stuck
from gpucnn_kernels.tensor import hopper, instructions
from gpucnn_kernels.tensor import simulated as meaning

in_the_simulator = pytest.mark.skipif(not simulated(), reason="a block of the simulator's threads: NUMBA_ENABLE_CUDASIM=1")
whole = np.random.default_rng(3).integers


def run(function: Callable[..., None], threads: int, *arrays: Any, shared: int = 0) -> None:
    kernel(function)[1, threads, 0, shared](*arrays)


def number(bits: Any) -> Any:
    return np.asarray(bits, np.uint32).view(np.float32)


def word(numbers: Any) -> Any:
    return np.asarray(numbers, np.float32).view(np.uint32)


def halves(low: Any, high: Any) -> Any:
    """Numbers of few bits as bfloat16, two to a word."""
    return word(low) >> np.uint32(16) | word(high)


def test_every_instruction_has_a_meaning() -> None:
    """By its name, with as many arguments: those of constants come first."""
    names: dict[str, tuple[Any, int]] = {}
    for module, meanings in ((asynchronous, simulated_copies), (instructions, meaning), (hopper, meaning)):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(getattr(each, "id", "") == "intrinsic" for each in node.decorator_list):
                names[node.name] = meanings, len(node.args.args) - 1
            called = getattr(getattr(node, "func", None), "id", "")
            if isinstance(node, ast.Call) and called == "instruction":
                assert isinstance(node.args[0], ast.Constant)
                constants = [
                    len(each.value.elts) for each in node.keywords if each.arg == "constants" and isinstance(each.value, ast.Tuple)
                ]
                names[str(node.args[0].value)] = meanings, len(node.args) - 3 + sum(constants)
    del names["multiply"]  # what multiply_add and the two products of warps are made of
    assert {"copy_word", "load_pieces", "has_ended", "take_registers"} <= set(names) and len(names) >= 24
    for name, (meanings, arguments) in names.items():
        assert getattr(meanings, name).__code__.co_argcount == arguments, name


@in_the_simulator
def test_product_of_a_warp() -> None:
    """mma.m16n8k8, lanes as the PTX ISA draws them (9.7.14.5.6): of lane 4·g + t, a0 is row g, depth t, a1 is row g + 8, a2 depth t + 4."""
    a, b, c = whole(-99, 99, (16, 8)), whole(-99, 99, (8, 8)), whole(-99, 99, (16, 8))
    held, got = np.zeros((32, 10), np.float32), np.full((32, 4), np.nan, np.float32)
    for g, t in np.ndindex(8, 4):
        held[4 * g + t] = [
            *(a[g, t], a[g + 8, t], a[g, t + 4], a[g + 8, t + 4], b[t, g], b[t + 4, g]),
            *(c[g, 2 * t], c[g, 2 * t + 1], c[g + 8, 2 * t], c[g + 8, 2 * t + 1]),
        ]

    def multiply(held, words, got):
        lane = cuda.threadIdx.x
        own = [words[lane, i] for i in range(6)] + [held[lane, 6 + i] for i in range(4)]
        for i, value in enumerate(instructions.multiply_warp(*own)):
            got[lane, i] = value

    run(multiply, 32, held, word(held), got)
    expected = c + a @ b
    for g, t in np.ndindex(8, 4):
        rows = [(g, 2 * t), (g, 2 * t + 1), (g + 8, 2 * t), (g + 8, 2 * t + 1)]
        np.testing.assert_array_equal(got[4 * g + t], [expected[place] for place in rows])


@in_the_simulator
def test_product_of_a_warp_in_bfloat16() -> None:
    """mma.m16n8k16 (9.7.14.5.8): of lane 4·g + t, a0 is row g, depths 2t and 2t + 1, a1 is row g + 8, a2 depths 2t + 8 and 2t + 9."""
    a, b, c = whole(-99, 99, (16, 16)), whole(-99, 99, (16, 8)), whole(-99, 99, (16, 8))
    words, sums, got = np.zeros((32, 6), np.uint32), np.zeros((32, 4), np.float32), np.full((32, 4), np.nan, np.float32)
    for g, t in np.ndindex(8, 4):
        of_a = [halves(*a[row, depth : depth + 2]) for depth in (2 * t, 2 * t + 8) for row in (g, g + 8)]
        words[4 * g + t] = [*of_a, halves(*b[2 * t : 2 * t + 2, g]), halves(*b[2 * t + 8 : 2 * t + 10, g])]
        sums[4 * g + t] = [*c[g, 2 * t : 2 * t + 2], *c[g + 8, 2 * t : 2 * t + 2]]

    def multiply(words, sums, got):
        lane = cuda.threadIdx.x
        own = [words[lane, i] for i in range(6)] + [sums[lane, i] for i in range(4)]
        for i, value in enumerate(instructions.multiply_warp_bfloat16(*own)):
            got[lane, i] = value

    run(multiply, 32, words, sums, got)
    expected = c + a @ b
    for g, t in np.ndindex(8, 4):
        np.testing.assert_array_equal(got[4 * g + t], [*expected[g, 2 * t : 2 * t + 2], *expected[g + 8, 2 * t : 2 * t + 2]])


@in_the_simulator
def test_four_pieces_of_a_warp() -> None:
    """ldmatrix.x4 (9.7.14.5.15): rows wherever lanes say; of lane 4·row + word, that word of each piece's row."""
    places, got = np.random.default_rng(5).permutation(40)[:32], np.zeros((32, 4), np.uint32)

    def load(places, got):
        lane = cuda.threadIdx.x
        shared = cuda.shared.array(0, uint32)
        if lane == 0:
            shared[:160] = range(160)
        cuda.syncthreads()
        address = instructions.shared_address(shared) + 16 * int(places[lane])
        got[lane] = instructions.load_pieces(uint32(address))

    run(load, 32, places, got, shared=640)
    for row, at, piece in np.ndindex(8, 4, 4):
        assert got[4 * row + at, piece] == 4 * places[8 * piece + row] + at


def of_warpgroup(thread: int) -> list[tuple[int, int]]:
    """Row and depth of a's registers in a thread of a warpgroup (PTX ISA, 9.7.16.5.1.1)."""
    row, depth = 16 * (thread // 32) + thread % 32 // 4, thread % 4
    return [(row, depth), (row + 8, depth), (row, depth + 4), (row + 8, depth + 4)]


def group_product(got: Any, bits: int, *, ordered: bool = True, waited: bool = True) -> Any:
    """Runs a · b of 64 × 16 sums, 8 steps of k, or 16 in bfloat16, in the second place of a row of b, twice over, and returns what is
    expected."""
    wide = bits == BFLOAT16
    a, b = whole(-99, 99, (64, 16 if wide else 8)), whole(-99, 99, (16, 16 if wide else 8))
    tile = np.full(16 * hopper.ROW, 0xFFFFFFFF, np.uint32)
    place = hopper.swizzled_pair if wide else hopper.swizzled
    words_of_b = halves(b[:, ::2], b[:, 1::2]) if wide else word(b)
    for column, at in np.ndindex(16, 8):
        tile[place(column, 8 + at)] = words_of_b[column, at]
    words_of_a = halves(a[:, ::2], a[:, 1::2]) if wide else word(a)
    words = np.array([[words_of_a[place] for place in of_warpgroup(thread)] for thread in range(128)])
    multiply, first_descriptor = hopper.multiply_add(16, bits), hopper.PAIR_DESCRIPTOR if wide else hopper.DESCRIPTOR

    def product(words, tile, got):
        thread = cuda.threadIdx.x
        shared = cuda.shared.array(0, uint32)
        sums = cuda.local.array(8, float32)
        begin = instructions.shared_address(shared)
        first = (-int(begin) % 1024) // 4
        for i in range(thread, 512, 128):
            shared[first + i] = tile[i]
        cuda.syncthreads()
        descriptor = first_descriptor | (int(begin) + 4 * first) >> 4
        own = [words[thread, i] for i in range(4)]
        if ordered:
            hopper.products_begin()
        multiply(sums, *own, descriptor + 2, uint32(0))
        multiply(sums, *own, descriptor + 2, uint32(1))
        hopper.products_commit()
        if waited:
            hopper.products_wait()
        for i in range(8):
            got[thread, i] = sums[i]

    run(product, 128, words, tile, got, shared=4 * 512 + 1024)
    return 2 * a @ b.T


@in_the_simulator
@pytest.mark.parametrize("bits", [TF32, BFLOAT16])
def test_product_of_a_warpgroup(bits: int) -> None:
    """wgmma.m64n16k8, or k16 in bfloat16, a in registers, b swizzled; c as 9.7.16.5.1.1 draws it."""
    got = np.full((128, 8), np.nan, np.float32)
    expected = group_product(got, bits)
    for thread, j in np.ndindex(128, 2):
        row, column = 16 * (thread // 32) + thread % 32 // 4, 8 * j + thread % 4 * 2
        np.testing.assert_array_equal(got[thread, 4 * j : 4 * j + 2], expected[row, column : column + 2])
        np.testing.assert_array_equal(got[thread, 4 * j + 2 : 4 * j + 4], expected[row + 8, column : column + 2])


@in_the_simulator
def test_sums_of_a_warpgroup_are_nan_until_they_are_waited_for() -> None:
    got = np.zeros((128, 8), np.float32)
    group_product(got, TF32, waited=False)
    assert np.isnan(got).all()
    with pytest.raises(ValueError, match="the registers are not ordered"):
        group_product(got, TF32, ordered=False)


@in_the_simulator
def test_numbers_rounded() -> None:
    every = np.array(
        [0, 1, 0x1000, 0x7F7FF000, 0x3F800FFF, 0x3F801000, 0xBF803000, 0x3F808000, 0x3F818000, 0x7F800000, 0xFF800000], np.uint32
    )
    for each, expected in zip(number(every), rounded(number(every)), strict=True):
        assert instructions.number_of(instructions.to_tf32(each)) == np.float32(expected)
        assert instructions.bits_of(instructions.number_of(word(each))) == word(each)
    for low, high in itertools.product(number(every), repeat=2):
        got = instructions.to_bfloat16(low, high)
        np.testing.assert_array_equal(number([got << np.uint32(16), got & np.uint32(0xFFFF0000)]), rounded([low, high], BFLOAT16))
    for nan in (0x7F800001, 0x7FFFFFFF, 0xFFC00000, 0x7F80FFFF):
        assert np.isnan(number(instructions.to_tf32(number(nan))))
        assert instructions.to_bfloat16(number(nan), number(nan)) == 0x7FFF7FFF


@in_the_simulator
def test_copies_arrive_when_they_are_waited_for() -> None:
    """NaN until then, group by group; 0 where nothing is read, wherever that is."""
    source, got = np.arange(1, 13, dtype=np.float32), np.zeros((4, 12), np.float32)

    def copy(source, got):
        shared = cuda.shared.array(0, float32)
        to, begin = instructions.shared_address(shared), instructions.global_address(source)
        shared[:12] = 0
        instructions.copy_word(to, begin + 8, uint32(4))
        instructions.copy_word(to + 4, uint32(12345), uint32(0))
        instructions.copies_commit()
        instructions.copy_four(to + 16, begin + 16, uint32(16))
        instructions.copies_commit()
        instructions.copy_four(to + 32, begin, uint32(0))
        instructions.copies_commit()
        got[0] = shared[:12]
        for left in (2, 1, 0):
            instructions.copies_wait(left)()
            got[3 - left] = shared[:12]

    run(copy, 1, source, got, shared=48)
    nan = [np.nan] * 4
    np.testing.assert_array_equal(got[0], [np.nan, np.nan, 0, 0, *nan, *nan])
    np.testing.assert_array_equal(got[1], [3, 0, 0, 0, *nan, *nan])
    np.testing.assert_array_equal(got[2], [3, 0, 0, 0, 5, 6, 7, 8, *nan])
    np.testing.assert_array_equal(got[3], [3, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0])


@in_the_simulator
@pytest.mark.parametrize(
    ("to", "source", "count", "error", "words"),
    [
        (48, 0, 16, IndexError, "16 bytes of shared memory at .*, outside of every array"),
        (0, 48, 16, IndexError, "16 bytes of global memory at .*, outside of every array"),
        (4, 0, 16, ValueError, "both must be multiples of 16"),
        (0, 4, 16, ValueError, "both must be multiples of 16"),
        (0, 0, 8, ValueError, "of which 8 are read: all or none"),
        (2, 0, 16, ValueError, "it must be a multiple of 4"),
    ],
)
def test_copies_from_or_to_nowhere(to: int, source: int, count: int, error: type[Exception], words: str) -> None:
    array = np.zeros(16, np.float32)
    array = array[-array.ctypes.data // 4 % 4 :][:12]  # from a multiple of 16 bytes on

    def copy(array):
        begin = instructions.shared_address(cuda.shared.array(0, float32))
        instructions.copy_four(begin + to, instructions.global_address(array) + source, uint32(count))

    with pytest.raises(error, match=words):
        run(copy, 1, array, shared=48)


@in_the_simulator
def test_a_barrier_ends_when_all_have_arrived_and_all_bytes_are_there() -> None:
    """Thread 0 copies in bulk, thread 1 word by word, thread 2 arrives alone; thread 3 waits, two phases one after the other."""
    source, got = np.arange(32, dtype=np.float32), np.full((2, 9), np.nan, np.float32)
    source = np.concatenate([source, source])[-source.ctypes.data // 4 % 4 :]

    def pass_on(source, got):
        thread = cuda.threadIdx.x
        shared = cuda.shared.array(0, float32)
        barrier = instructions.shared_address(shared)
        to, begin = barrier + 16, instructions.global_address(source)
        if thread == 0:
            hopper.barrier_begin(barrier, uint32(3))
            hopper.barriers_begun()
        cuda.syncthreads()
        for phase in range(2):
            if thread == 0:
                hopper.arrive_expecting(barrier, uint32(32))
                hopper.copy_bulk(to, begin + 64 * phase, uint32(32), barrier)
            elif thread == 1:
                instructions.copy_word(to + 32, begin + 64 * phase + 36, uint32(4))
                hopper.arrive_with_copies(barrier)
            elif thread == 2:
                hopper.arrive(barrier)
            while hopper.has_ended(barrier, uint32(phase)) == 0:
                pass
            if thread == 3:
                got[phase] = shared[4:13]
            cuda.syncthreads()

    run(pass_on, 4, source, got, shared=64)
    for phase in range(2):
        first = 16 * phase
        np.testing.assert_array_equal(got[phase], [*source[first : first + 8], source[first + 9]])


@in_the_simulator
def test_a_barrier_waits_for_bytes_and_for_no_more_arrivals_than_announced() -> None:
    def expect(times, count):
        barrier = instructions.shared_address(cuda.shared.array(0, float32))
        hopper.barrier_begin(barrier, uint32(2))
        for _ in range(times):
            hopper.arrive_expecting(barrier, uint32(count))
        hopper.has_ended(barrier, uint32(0))

    run(expect, 1, 2, 0, shared=8)
    with pytest.raises(Stuck, match=r"of its threads 1 have not ended, and these wait: 1 for parity 0 of the barrier at 0x"):
        run(expect, 1, 2, 16, shared=8)
    with pytest.raises(ValueError, match="more than 2 arrivals"):
        run(expect, 1, 3, 16, shared=8)
    with pytest.raises(ValueError, match="no barrier was begun"):
        run(lambda: hopper.arrive(uint32(64)), 1)


@in_the_simulator
def test_lanes_exchange_their_values() -> None:
    got = np.zeros(64, np.int64)

    def exchange(got):
        thread = cuda.threadIdx.x
        got[thread] = cuda.shfl_xor_sync(0xFFFFFFFF, thread, 5)

    run(exchange, 64, got)
    np.testing.assert_array_equal(got, np.arange(64) ^ 5)


@in_the_simulator
def test_threads_that_wait_for_ever_are_told() -> None:
    def part(at_barrier):
        if cuda.threadIdx.x < at_barrier:
            cuda.syncthreads()
        else:
            cuda.shfl_xor_sync(0xFFFFFFFF, 0, 1)

    with pytest.raises(Stuck, match=r"of its threads 32 have not ended, and these wait: ") as caught:
        run(part, 32, 3)
    assert "3 for syncthreads" in str(caught.value) and "29 for shfl_xor_sync in warp 0" in str(caught.value)
    run(part, 32, 32)  # and the next block runs


@in_the_simulator
def test_threads_that_end_are_waited_for_no_longer() -> None:
    got = np.zeros(4, np.float32)

    def leave(got):
        if cuda.threadIdx.x:
            cuda.syncthreads()
            got[cuda.threadIdx.x] = 1

    run(leave, 4, got)
    np.testing.assert_array_equal(got, [0, 1, 1, 1])


@in_the_simulator
def test_the_error_is_that_of_the_first_thread_that_failed() -> None:
    def fail(got):
        if cuda.threadIdx.x == 5:
            raise KeyError("its own")
        cuda.syncthreads()

    with pytest.raises(KeyError, match="its own"):
        run(fail, 8, np.zeros(1, np.float32))
    assert issubclass(Stopped, RuntimeError)


@in_the_simulator
def test_two_shared_arrays_of_one_line() -> None:
    got = np.zeros((2, 4), np.float32)

    def write(got):
        first, second = cuda.shared.array(4, float32), cuda.shared.array(4, float32)
        thread = cuda.threadIdx.x
        first[thread], second[thread] = thread, -thread
        cuda.syncthreads()
        got[0, thread], got[1, thread] = first[3 - thread], second[3 - thread]

    run(write, 4, got)
    np.testing.assert_array_equal(got, [[3, 2, 1, 0], [-3, -2, -1, 0]])

"""Dropout and its generator. The oracle is a slow Philox in plain integers, itself held to Random123's published vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucnn.ops import cpu
from gpucnn.ops.cpu.dropout import drop_threshold, philox, philox_block

MASK = 0xFFFFFFFF


def calls(number: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """A number of calls as dropout takes it: the low word first."""
    return np.array([number & MASK, number >> 32], np.uint32)


def slow_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Philox4x32-10, from figure 2 of Salmon et al. 2011: ten rounds, the key bumped between rounds by Weyl constants."""
    c, k = list(counter), list(key)
    for round in range(10):
        if round:
            k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
        product0, product1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(product1 >> 32) ^ c[1] ^ k[0], product1 & MASK, (product0 >> 32) ^ c[3] ^ k[1], product0 & MASK]
    return tuple(c)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # kat_vectors of Random123, philox4x32 10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_oracle_and_generator_give_the_published_words(counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert slow_philox(counter, key) == expected
    words = philox_block([np.array([word], np.uint64) for word in counter], *key)
    assert [int(word[0]) for word in words] == list(expected)


def test_the_first_words_are_random123s_published_ones() -> None:
    assert philox(4, 0, 0).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@given(st.integers(1, 70), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_every_word_is_the_slow_generators(count: int, seed: int, offset: int) -> None:
    words = philox(count, seed, offset)
    assert words.dtype == np.uint32
    expected = [
        word for block in range(-(-count // 4)) for word in slow_philox((block, offset & MASK, offset >> 32, 0), (seed & MASK, seed >> 32))
    ]
    assert words.tolist() == expected[:count]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_dropped_element_is_zero_whatever_it_was(value: float) -> None:
    y = cpu.dropout(np.full(100, value, np.float32), calls(1), 0.5, 1)
    kept = philox(100, 1, 1) >= 2**31
    np.testing.assert_array_equal(y[~kept], 0)
    np.testing.assert_array_equal(y[kept], np.float32(value))


def test_a_shorter_draw_is_the_beginning_of_a_longer_one() -> None:
    np.testing.assert_array_equal(philox(10, 3, 4), philox(1000, 3, 4)[:10])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_an_element_is_dropped_just_where_its_word_is_below_the_threshold(rate: float, dtype: str) -> None:
    x = np.random.default_rng(1).normal(size=(3, 5, 7)).astype(dtype)
    y = cpu.dropout(x, calls(5), rate, 11)
    words = philox(x.size, 11, 5).reshape(x.shape)
    kept = words >= round(rate * 2**32)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y[~kept], 0)
    np.testing.assert_allclose(y[kept], x[kept] / (1 - rate), rtol=4 * np.finfo(dtype).eps)


def test_thresholds_are_exact_and_fit_a_word() -> None:
    assert drop_threshold(0.0) == 0
    assert drop_threshold(0.5) == 2**31
    assert drop_threshold(0.25) == 2**30
    assert drop_threshold(1 - 1e-15) == 2**32 - 1


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_the_dropped_part_is_the_rate_and_the_mean_stays(rate: float) -> None:
    n = 1 << 18
    y = cpu.dropout(np.ones(n), calls(1), rate, 7)
    deviation = (rate * (1 - rate) / n) ** 0.5
    assert abs((y == 0).mean() - rate) < 5 * deviation  # five standard deviations: one in two million, and the seed is fixed
    assert abs(y.mean() - 1) < 5 * deviation / (1 - rate)


def test_neighbours_and_calls_are_not_correlated() -> None:
    n = 1 << 18
    first, second, other = (cpu.dropout(np.ones(n), calls(offset), 0.5, seed) - 1 for seed, offset in ((7, 1), (7, 2), (8, 1)))
    for a, b in ((first[:-1], first[1:]), (first, second), (first, other), (second, other)):
        assert abs((a * b).mean()) < 5 / n**0.5


def test_the_mask_is_a_function_of_seed_and_offset_alone() -> None:
    x = np.ones((16, 16))
    first = cpu.dropout(x, calls(1), 0.5, 1)
    cpu.dropout(x, calls(2), 0.5, 1)  # drawing in between changes nothing: there is no hidden state
    np.testing.assert_array_equal(cpu.dropout(x, calls(1), 0.5, 1), first)
    for seed, offset in ((1, 2), (2, 1), (1 << 32, 1), (1, 1 << 32), (1 + (1 << 32), 1), (1, 1 + (1 << 32))):
        assert (cpu.dropout(x, calls(offset), 0.5, seed) != first).any()


def test_x_is_left_as_it_is_and_out_is_written() -> None:
    x = np.random.default_rng(0).normal(size=100)
    kept, out = x.copy(), np.full(100, np.nan)
    y = cpu.dropout(x, calls(1), 0.5, 1)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(cpu.dropout(x, calls(1), 0.5, 1, out=out), y)
    np.testing.assert_array_equal(out, y)


@pytest.mark.parametrize("number", [0, 1, MASK - 1, MASK, 2**32, 2**64 - 1])
def test_calls_are_counted_in_two_words(number: int) -> None:
    counted = calls(number)
    cpu.next_call(counted)
    assert int(counted[0]) | int(counted[1]) << 32 == (number + 1) % 2**64


def test_an_element_whose_word_is_the_threshold_itself_is_kept() -> None:
    words = philox(64, 3, 9)
    for place in (0, 17, 63):
        rate = int(words[place]) / 2**32  # exact, and so is the threshold
        assert drop_threshold(rate) == words[place]
        kept = cpu.dropout(np.ones(64), calls(9), rate, 3) != 0
        assert kept[place]
        np.testing.assert_array_equal(kept, words >= words[place])

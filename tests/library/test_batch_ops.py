"""The order of an epoch and the batches out of it, as NumPy makes them: the reference for the kernels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucnn.ops import cpu
from gpucnn.ops.augment import Augment
from gpucnn.ops.cpu import batch
from gpucnn.ops.cpu.dropout import philox_block

MASK = 0xFFFFFFFF
LAST = 2**64 - 1


def order_of(size: int, seed: int, epoch: int) -> Any:
    order = np.full(size, -1, np.int32)
    cpu.permutation(order, seed, epoch)
    return order


def slow_order(size: int, seed: int, epoch: int) -> list[int]:
    """The cipher in plain integers, a number at a time."""

    def mixed(word: int) -> int:  # fmix32 of MurmurHash3.cpp
        word ^= word >> 16
        word = word * 0x85EBCA6B & MASK
        word ^= word >> 13
        word = word * 0xC2B2AE35 & MASK
        return word ^ word >> 16

    counter = [np.array([word], np.uint64) for word in (epoch & MASK, epoch >> 32, 0, 1)]
    keys = [int(word[0]) for word in philox_block(counter, seed & MASK, seed >> 32)]
    half = 1
    while 4**half < size:
        half += 1

    def encipher(number: int) -> int:
        left, right = divmod(number, 2**half)
        for turn in range(24):
            left, right = right, left ^ mixed((right + keys[turn % 4] + turn // 4 * 0x9E3779B9) & MASK) % 2**half
        number = left * 2**half + right
        return number ^ mixed((keys[0] + 6 * 0x9E3779B9) & MASK) & 1 if number < 2 else number

    def walk(number: int) -> int:
        number = encipher(number)
        return number if number < size else walk(number)

    return [walk(number) for number in range(size)]


@given(st.integers(1, 90), st.integers(0, LAST), st.integers(0, LAST))
@settings(max_examples=40, deadline=None)
def test_every_number_is_the_slow_ciphers(size: int, seed: int, epoch: int) -> None:
    assert order_of(size, seed, epoch).tolist() == slow_order(size, seed, epoch)


@pytest.mark.parametrize("seed", [0, 7, LAST])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 1000, 60000, 2**19 + 1])
def test_it_is_a_permutation(size: int, seed: int) -> None:
    order = order_of(size, seed, 3)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_it_is_a_function_of_seed_and_epoch_alone() -> None:
    first = order_of(1000, 1, 1)
    np.testing.assert_array_equal(order_of(1000, 1, 1), first)
    for seed, epoch in ((1, 2), (2, 1), (1 << 32, 1), (1, 1 << 32), (1 + (1 << 32), 1), (1, 1 + (1 << 32)), (LAST, 1)):
        other = order_of(1000, seed, epoch)
        assert (other == first).sum() < 10  # one place in a thousand is the same by chance
    np.testing.assert_array_equal(order_of(1000, LAST + 2, 1), first)


@pytest.mark.parametrize(("size", "draws"), [(3, 300), (4, 600)])
def test_all_permutations_are_equally_likely(size: int, draws: int) -> None:
    """χ² over all permutations, half of the draws by seed and half by epoch. Its mean is one less than the classes, its variance twice
    that; five deviations, and the draws are the same every time."""
    number = {permutation: at for at, permutation in enumerate(itertools.permutations(range(size)))}
    counts = np.zeros(len(number))
    for draw in range(draws):
        counts[number[tuple(order_of(size, draw, 0) if draw % 2 else order_of(size, 5, draw))]] += 1
    expected, freedom = draws / len(number), len(number) - 1
    assert abs(((counts - expected) ** 2 / expected).sum() - freedom) < 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("size", [7, 16])
def test_every_number_stands_everywhere_and_half_of_all_permutations_are_even(size: int) -> None:
    draws = 600
    orders = np.array([order_of(size, seed, 1) for seed in range(draws)])
    counts = (orders[:, :, None] == np.arange(size)).sum(axis=0)
    chance = 1 / size
    assert np.abs(counts - draws * chance).max() < 5 * (draws * chance * (1 - chance)) ** 0.5
    inversions = sum((orders[:, i] > orders[:, j]) for i in range(size) for j in range(i + 1, size))
    assert abs((inversions % 2).mean() - 0.5) < 5 * 0.5 / draws**0.5


def test_long_orders_have_no_trend() -> None:
    size = 60000
    first, second = order_of(size, 3, 0) / size - 0.5, order_of(size, 3, 1) / size - 0.5
    places = np.arange(size) / size - 0.5
    for a, b in ((first, places), (first, second), (first[1:], first[:-1]), (first[256:], first[:-256])):
        assert abs(np.mean(a * b) * 12) < 5 / size**0.5  # the variance of each is 1/12


IMAGES = np.random.default_rng(0).integers(0, 256, (11, 2, 5, 4), dtype=np.uint8)
CLASSES = np.arange(11, dtype=np.int32) + 100
ROWS = np.random.default_rng(1).random((11, 3)).astype(np.float32)
ORDER = order_of(11, 1, 1)


def gather(images: Any, labels: Any, order: Any, step: int, epoch: int, n: int, dtype: str = "float32", **options: Any) -> tuple[Any, Any]:
    x, targets = np.full((n, *images.shape[1:]), np.nan, dtype), np.full((n, *labels.shape[1:]), -1, labels.dtype)
    kept = images.copy()
    cpu.gather_batch(images, labels, order, np.array([step, epoch], np.int32), x, targets, **{"batch_size": n, **options})
    np.testing.assert_array_equal(images, kept)
    return x, targets


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", [CLASSES, ROWS], ids=["classes", "rows"])
@pytest.mark.parametrize(("step", "n"), [(0, 4), (1, 4), (2, 3)])
def test_a_batch_is_what_the_order_says(step: int, n: int, labels: Any, dtype: str) -> None:
    chosen = ORDER[4 * step : 4 * step + n]
    x, targets = gather(IMAGES, labels, ORDER, step, 9, n, dtype, batch_size=4)
    np.testing.assert_array_equal(x, np.divide(IMAGES[chosen], 255, dtype=dtype))
    np.testing.assert_array_equal(targets, labels[chosen])
    floats = IMAGES.astype(dtype) / 3
    np.testing.assert_array_equal(gather(floats, labels, ORDER, step, 9, n, dtype, batch_size=4)[0], floats[chosen])


def test_images_may_have_any_shape_and_the_last_example_fills_up() -> None:
    x, targets = gather(ROWS, CLASSES, ORDER, 2, 0, 4)
    np.testing.assert_array_equal(x, ROWS[ORDER[[8, 9, 10, 10]]])
    np.testing.assert_array_equal(targets, CLASSES[ORDER[[8, 9, 10, 10]]])


MANY = 4000
ONES = np.ones((1, 1, 9, 7), np.float32)
EVERY = np.zeros(MANY, np.int32)  # the same image again and again
ALL = Augment(2, 20.0, 0.2, 1.5, True, 3, 1.0, 3)


def changed(images: Any, augment: Augment, n: int = MANY, step: int = 0, epoch: int = 0, seed: int = 3, batch_size: int = MANY) -> Any:
    labels = np.zeros(len(images), np.int32)
    return gather(images, labels, EVERY[: max(n, 1)], step, epoch, n, augment=augment, seed=seed, batch_size=batch_size)[0]


def test_changes_are_those_of_the_place_in_the_epoch_whatever_the_batch() -> None:
    image = np.random.default_rng(2).random((1, 2, 6, 6)).astype(np.float32)
    labels, order = np.zeros(1, np.int32), EVERY[:12]
    whole, _ = gather(image, labels, order, 0, 5, 12, augment=ALL, seed=LAST)
    parts = [gather(image, labels, order, step, 5, 3, augment=ALL, seed=LAST)[0] for step in (2, 0, 3, 1)]
    np.testing.assert_array_equal(np.concatenate([parts[1], parts[3], parts[0], parts[2]]), whole)
    assert len({each.tobytes() for each in whole}) == 12
    for step, epoch, seed in ((0, 6, LAST), (0, 5, LAST >> 1), (0, 5, LAST - 1)):
        other, _ = gather(image, labels, order, step, epoch, 12, augment=ALL, seed=seed)
        assert not {each.tobytes() for each in other} & {each.tobytes() for each in whole}


def evenly(values: Any, classes: int) -> None:
    counts = np.bincount(values, minlength=classes)
    assert len(counts) == classes
    chance = 1 / classes
    assert np.abs(counts - len(values) * chance).max() < 5 * (len(values) * chance * (1 - chance)) ** 0.5


def test_shifts_and_flips_are_drawn_evenly() -> None:
    image = np.zeros((1, 1, 9, 7), np.float32)
    image[0, 0, 4, 3] = 1  # in the middle, where a flip does not show
    x = changed(image, Augment(shift=2, flip=True))[:, 0]
    assert (x.sum(axis=(1, 2)) == 1).all()
    row, column = np.nonzero(x)[1:]
    evenly(row - 2, 5)
    evenly(column - 1, 5)
    evenly((row - 2) * 5 + column - 1, 25)
    image[0, 0, 4] = [0, 0, 1, 2, 3, 0, 0]
    mirrored = changed(image, Augment(flip=True))[:, 0, 4, 2] == 3
    evenly(mirrored.astype(int), 2)
    evenly(2 * mirrored[1:] + mirrored[:-1], 4)


def test_shift_then_flip() -> None:
    image = np.random.default_rng(3).random((1, 1, 5, 4)).astype(np.float32)
    both = changed(image, Augment(shift=1, flip=True), 50)
    moved = changed(image, Augment(shift=1), 50)  # the same draws
    mirrored = np.array([np.array_equal(a, b[:, :, ::-1]) for a, b in zip(both, moved, strict=True)])
    assert mirrored.any() and not mirrored.all()
    np.testing.assert_array_equal(both[~mirrored], moved[~mirrored])


@pytest.mark.parametrize("side", [1, 2, 3, 20])
def test_cutout_is_a_square_about_a_pixel(side: int) -> None:
    x = changed(ONES, Augment(cutout=side))[:, 0]
    assert set(np.unique(x)) <= {0.0, 1.0}
    if side == 20:
        assert not x.any()
        return
    heights, widths = (x.min(axis=2) == 0).sum(axis=1), (x.min(axis=1) == 0).sum(axis=1)
    assert heights.max() == widths.max() == side
    np.testing.assert_array_equal((x == 0).sum(axis=(1, 2)), heights * widths)
    if side == 1:
        evenly(np.nonzero(x.reshape(len(x), -1) == 0)[1], 63)


def test_the_warps_draws_fill_their_ranges_evenly() -> None:
    angle, factor, down, right = (2.0**-23 * word - 1 for word in batch._draws(LAST, 3, np.arange(MANY), batch.WARP, 24))
    for draws in (angle, factor, down, right):
        assert draws.min() >= -1 and draws.max() < 1
        evenly(((draws + 1) * 8).astype(int), 16)
    correlations = np.corrcoef([angle, factor, down, right, np.roll(angle, 1)])
    assert np.abs(correlations - np.eye(5)).max() < 5 / MANY**0.5


def test_warps_of_nothing_change_nothing() -> None:
    x = np.random.default_rng(4).random((3, 2, 6, 5)).astype(np.float32)
    none = np.zeros((3, 1, 1))
    np.testing.assert_array_equal(batch.warp(x, none, none + 1, none, none, np.zeros((2, 3, 4, 4))), x)
    assert not (Augment(elastic_grid=9).warps or Augment(elastic_grid=9).moves)


def test_a_gather_warps_as_the_function_does_with_its_draws() -> None:
    image = np.random.default_rng(5).random((1, 2, 8, 7)).astype(np.float32)
    got = changed(image, Augment(rotate_degrees=90, scale=0.5, translate=2, elastic=1.5, elastic_grid=3), 20, epoch=2)
    places = np.arange(20)
    draws = [(2.0**-23 * word - 1)[:, None, None] for word in batch._draws(3, 2, places, batch.WARP, 24)]
    bend = np.empty((2, 20, 3, 3))
    for number in range(9):
        words = batch._draws(3, 2, places, batch.NODES + number, 24)
        bend[:, :, number // 3, number % 3] = 1.5 * (np.stack(words[:2]) * 2.0**-23 - 1)
    x = np.repeat(image, 20, axis=0)
    expected = batch.warp(x, np.pi / 2 * draws[0], 1 + 0.5 * draws[1], 2 * draws[2], 2 * draws[3], bend)
    np.testing.assert_array_equal(got, expected)


def test_what_is_drawn_are_philoxs_words_of_the_place_the_epoch_and_the_change() -> None:
    """Counter (place, epoch, change, 2) under the seed's two halves; changes are 0 for a warp, 1 a move, 2 a cutout, from 4 on the grid."""
    seed, epoch, n = 0x0123456789ABCDEF, 3, 40
    x = np.random.default_rng(8).random((n, 2, 8, 7))

    def words(change: int) -> list[Any]:
        return philox_block(
            [np.arange(n, dtype=np.uint64), *(np.full(n, word, np.uint64) for word in (epoch, change, 2))], 0x89ABCDEF, 0x01234567
        )

    def below(word: Any, count: int) -> Any:
        return np.array([int(each) * count >> 32 for each in word])

    def even(word: Any) -> Any:  # the first 24 bits, from −1 up to and without 1
        return np.array([(int(each) >> 8) / 2**23 - 1 for each in word])

    def got(**options: Any) -> Any:
        return batch.augmented(x, Augment(**options), seed, epoch, np.arange(n))

    top, left, mirrored, _ = words(1)
    moved = batch.shift(x, below(top, 5), below(left, 5), 2)
    turned = np.array([each[..., ::-1] if int(word) >= 2**31 else each for each, word in zip(moved, mirrored, strict=True)])
    np.testing.assert_array_equal(got(shift=2, flip=True), turned)
    row, column, _, _ = words(2)
    np.testing.assert_array_equal(got(cutout=3), batch.cutout(x, below(row, 8), below(column, 7), 3))
    angle, factor, down, right = (even(word)[:, None, None] for word in words(0))
    none = np.zeros((n, 1, 1))
    np.testing.assert_array_equal(got(rotate_degrees=180.0, scale=0.5), batch.warp(x, np.pi * angle, 1 + 0.5 * factor, none, none))
    np.testing.assert_array_equal(got(translate=2.0), batch.warp(x, none, none + 1, 2 * down, 2 * right))
    bend = np.stack([[even(word) for word in words(4 + node)[:2]] for node in range(9)], axis=-1).reshape(2, n, 3, 3)
    np.testing.assert_array_equal(got(elastic=1.5, elastic_grid=3), batch.warp(x, none, none + 1, none, none, 1.5 * bend))


def test_a_grid_that_bends_evenly_is_a_move() -> None:
    x = np.random.default_rng(6).random((2, 1, 8, 7))
    none = np.zeros((2, 1, 1))
    bend = np.zeros((2, 2, 4, 4))
    bend[0], bend[1] = 2, -1  # a pixel comes from two rows below and one column to the left
    y = batch.warp(x, none, none + 1, none, none, bend)
    np.testing.assert_allclose(y[..., :6, 1:], x[..., 2:, :-1], atol=1e-12)
    np.testing.assert_allclose(y[..., 6:, :], 0, atol=1e-12)


def test_displacements_are_the_nodes_at_the_corners_and_bilinear_between() -> None:
    parts = batch._between(9, 5)
    np.testing.assert_allclose(parts[::2], np.eye(5), atol=1e-12)
    np.testing.assert_allclose(parts[1::2] @ np.arange(5), np.arange(4) + 0.5)
    np.testing.assert_array_equal(batch._between(1, 3), [[1, 0, 0]])
    np.testing.assert_allclose(batch._between(28, 4).sum(axis=1), 1)


def test_changes_in_one_call_are_those_one_after_another() -> None:
    image = np.random.default_rng(7).random((1, 2, 9, 8)).astype(np.float32)
    places = np.arange(30)
    x = np.repeat(image, 30, axis=0)
    for one in (
        Augment(rotate_degrees=20.0, scale=0.2, translate=1.5, elastic=1.0, elastic_grid=3),
        Augment(2, flip=True),
        Augment(cutout=3),
    ):
        x = batch.augmented(x, one, 3, 0, places)
    np.testing.assert_array_equal(changed(image, ALL, 30), x)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"shift": -1}, ValueError),
        ({"shift": 1.5}, TypeError),
        ({"cutout": -1}, ValueError),
        ({"scale": 1.0}, ValueError),
        ({"rotate_degrees": 361}, ValueError),
        ({"translate": np.nan}, ValueError),
        ({"elastic": -1}, ValueError),
        ({"elastic_grid": 1}, ValueError),
    ],
)
def test_changes_that_cannot_be(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Augment(**options)


def test_bounds_of_the_changes_are_themselves_allowed() -> None:
    assert Augment() == Augment(0, 0.0, 0.0, 0.0, False, 0, 0.0, 4)
    assert Augment(elastic_grid=2, rotate_degrees=360.0).elastic_grid == 2
    for options in ({"elastic_grid": 1}, {"rotate_degrees": 360.5}):
        with pytest.raises(ValueError):
            Augment(**options)
    with pytest.raises(AttributeError):
        Augment().shift = 1  # type: ignore[misc]

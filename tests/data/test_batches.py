"""Mini-batches and augmentation: the same bytes for the same seed, epoch and step."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gpucnn.data import Affine, Augmentation, Batches, Shift, augmentation
from gpucnn.data.augment import RandomChange
from gpucnn.errors import ArgumentError, DataError, UnknownNameError

IMAGES = np.arange(10 * 4, dtype=np.uint8).reshape(10, 1, 2, 2)
LABELS = np.arange(10)


def whole(batches, epoch=0, start=0):
    return list(batches.epoch(epoch, start))


def test_one_epoch_has_every_image_once():
    batches = Batches(IMAGES, LABELS, 4)
    got = whole(batches)
    assert batches.steps_per_epoch == 3 and [len(x) for x, _ in got] == [4, 4, 2]
    for x, y in got:
        assert x.dtype == np.float32 and y.dtype == np.int32 and x.flags.c_contiguous and x.flags.writeable
        np.testing.assert_array_equal(x, IMAGES[y] / np.float32(255))
    assert sorted(np.concatenate([y for _, y in got]).tolist()) == list(range(10))


def test_orders():
    def order(seed, epoch, **options):
        return np.concatenate([y for _, y in whole(Batches(IMAGES, LABELS, 4, seed=seed, **options), epoch)]).tolist()

    assert order(0, 0) == order(0, 0) != order(0, 1) != order(1, 1)
    assert order(3, 5, shuffle=False) == list(range(10))
    assert order(0, 0) == np.random.default_rng([0, 0]).permutation(10).tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**70), st.integers(0, 9), st.integers(1, 12), st.booleans(), st.sampled_from([None, Shift(1), Affine()]))
def test_any_position_gives_the_same_bytes(seed, epoch, batch_size, shuffle, augment):
    def batches():
        return Batches(IMAGES, LABELS, batch_size, seed=seed, shuffle=shuffle, augment=augment)

    full = whole(batches(), epoch)
    for start in range(batches().steps_per_epoch + 1):
        rest = whole(batches(), epoch, start)
        assert len(rest) == len(full) - start
        for (x, y), (expected, labels) in zip(rest, full[start:], strict=True):
            assert x.tobytes() == expected.tobytes() and y.tobytes() == labels.tobytes()


def test_the_scale_is_exact_at_both_ends():
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    for dtype in (np.float32, np.float64):
        ((x, _),) = whole(Batches(images, [0, 1, 2], 3, shuffle=False, dtype=dtype))
        assert x.dtype == dtype and x.ravel().tolist() == [0, dtype(0.2), 1]


def test_floats_pass_as_they_are():
    images = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    kept = images.copy()
    for x, y in Batches(images, LABELS, 4, shuffle=False).epoch(0):
        np.testing.assert_array_equal(x, images[y])
        x[:] = 0  # a caller may write into a batch
        y[:] = 0
    np.testing.assert_array_equal(images, kept)
    assert LABELS.tolist() == list(range(10))


def test_rows_of_probabilities_are_labels_too():
    rows = np.random.default_rng(0).random((10, 4))
    got = np.concatenate([y for _, y in whole(Batches(IMAGES, rows, 3, shuffle=False))])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, rows.astype(np.float32))


BAD = np.zeros((3000, 2, 2), np.float32)
BAD[2500, 1, 1] = np.nan
BAD[2700] = np.inf


@pytest.mark.parametrize(
    ("images", "labels", "options", "error", "match"),
    [
        (IMAGES, LABELS[:9], {}, DataError, "there are 10 images and 9 labels"),
        (IMAGES[:1], LABELS[:2], {}, DataError, "there is 1 image and 2 labels"),
        (IMAGES, LABELS[:1], {}, DataError, "there are 10 images and 1 label:"),
        (IMAGES, 3, {}, DataError, "single number"),
        (IMAGES[:0], LABELS[:0], {}, DataError, "no images"),
        (IMAGES[:, :, :0], LABELS, {}, DataError, "no images"),
        (LABELS.astype(np.uint8), LABELS, {}, DataError, "shape"),
        (BAD, np.zeros(3000, int), {}, DataError, "image 2500 contains NaN"),
        (IMAGES, np.full((10, 2), np.inf), {}, DataError, "label 0"),
        (IMAGES, LABELS - 1, {}, DataError, "from -1 to 8"),
        (IMAGES, LABELS + 2**40, {}, DataError, "class numbers"),
        (IMAGES.astype(int), LABELS, {}, TypeError, "int64"),
        (IMAGES, LABELS.astype(str), {}, TypeError, "labels"),
        (IMAGES, np.eye(10, dtype=int), {}, TypeError, "labels"),
        (IMAGES, LABELS, {"batch_size": 0}, ArgumentError, "batch_size must be at least 1"),
        (IMAGES, LABELS, {"batch_size": 2.0}, TypeError, "batch_size"),
        (IMAGES, LABELS, {"batch_size": True}, TypeError, "batch_size"),
        (IMAGES, LABELS, {"seed": -1}, ArgumentError, "seed"),
        (IMAGES, LABELS, {"dtype": np.int32}, TypeError, "dtype"),
        (IMAGES, LABELS, {"augment": "shift"}, TypeError, "augmentation builds one"),
    ],
)
def test_what_is_refused(images, labels, options, error, match):
    with pytest.raises(error, match=match):
        Batches(images, labels, **{"batch_size": 4, **options})


def test_positions_are_checked_at_once():
    batches = Batches(IMAGES, LABELS, 4)
    for arguments, error in (((-1,), ArgumentError), ((0, 4), ArgumentError), ((0, -1), ArgumentError), ((0.5,), TypeError)):
        with pytest.raises(error):
            batches.epoch(*arguments)
    assert whole(batches, 0, 3) == []


def test_an_augmentation_must_keep_the_shape():
    batches = Batches(IMAGES, LABELS, 4, augment=lambda x, rng: x[..., :1])
    with pytest.raises(DataError, match="must keep"):
        whole(batches)


X = np.random.default_rng(1).random((64, 3, 9, 7)).astype(np.float32)


def test_shift_is_a_translation_of_its_own_for_each_image():
    kept = X.copy()
    y = Shift(2)(X, np.random.default_rng(0))
    np.testing.assert_array_equal(X, kept)
    seen = set()
    for before, after in zip(X, y, strict=True):
        fits = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if np.array_equal(ndimage.shift(before, (0, dy, dx), order=0, cval=0), after)
        ]
        assert len(fits) == 1
        seen.update(fits)
    assert len(seen) > 15 and {dy for dy, _ in seen} == {dx for _, dx in seen} == set(range(-2, 3))
    np.testing.assert_array_equal(Shift(0)(X, np.random.default_rng(0)), X)
    assert Shift(20)(X, np.random.default_rng(0)).shape == X.shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [Affine(2, 30, 0.3), Affine(20, 0, 0), Affine(0, 360, 0.9)])
def test_affine_against_scipy(kind, dtype):
    x = X.astype(dtype)
    y = kind(x, np.random.default_rng(3))
    assert y.dtype == dtype and y.shape == x.shape and y.flags.c_contiguous
    draws = np.random.default_rng(3).uniform(-1, 1, size=(4, len(x)))
    middle = (np.array(x.shape[2:]) - 1) / 2
    for image, got, (turn, grow, down, right) in zip(x, y, draws.T, strict=True):
        angle, factor = np.deg2rad(kind.rotate_degrees * turn), 1 + kind.scale * grow
        back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / factor
        offset = middle - back @ (middle + np.array([kind.shift * down, kind.shift * right]))
        for plane, result in zip(image, got, strict=True):
            # a ring of zeros: SciPy's constant mode does not interpolate towards the outside
            padded = np.pad(plane.astype(np.float64), 3)
            expected = ndimage.affine_transform(padded, back, offset + 3 - back @ [3, 3], order=1, cval=0)[3:-3, 3:-3]
            np.testing.assert_allclose(result, expected, atol=2e-5 if dtype == np.float32 else 1e-12)


def test_affine_of_nothing_changes_nothing():
    np.testing.assert_array_equal(Affine(0, 0, 0)(X, np.random.default_rng(0)), X)


@pytest.mark.parametrize("kind", [Shift(3), Affine(1.5, 5, 0.2)])
def test_configs_come_back(kind):
    assert isinstance(kind, Augmentation)
    assert augmentation(kind.config()) == kind and augmentation(kind) is kind
    assert augmentation(kind.config()["name"]) == type(kind)()


def test_the_factory():
    assert augmentation("none") is augmentation(None) is augmentation({"name": "none"}) is None
    with pytest.raises(UnknownNameError, match="unknown augmentation 'flip': there are none, shift, crop-flip"):
        augmentation("flip")
    with pytest.raises(TypeError, match="cannot be built"):
        augmentation({"name": "shift", "degrees": 3})
    with pytest.raises(TypeError, match="must be a name"):
        augmentation(3)
    with pytest.raises(TypeError, match="must be a name"):
        augmentation(Shift)  # the class, where one of its objects was meant


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: Shift(-1), ArgumentError),
        (lambda: Shift(1.5), TypeError),
        (lambda: Affine(-1), ArgumentError),
        (lambda: Affine(float("inf")), ArgumentError),
        (lambda: Affine(float("nan")), ArgumentError),
        (lambda: Affine(scale=1), ArgumentError),
        (lambda: Affine(rotate_degrees="3"), TypeError),
        (lambda: Shift(1)(X[0], np.random.default_rng(0)), DataError),
        (lambda: Affine()(X.astype(np.uint8), np.random.default_rng(0)), DataError),
    ],
)
def test_augmentations_that_cannot_be(build, error):
    with pytest.raises(error):
        build()


def test_every_step_of_every_epoch_of_every_seed_draws_numbers_of_its_own():
    """And which they are depends on nothing else: neither on where one starts, nor on the batches before."""
    drawn = {}

    def note(x, rng):
        drawn[seed, epoch, start + len(now)] = int(rng.integers(1 << 62))
        now.append(None)
        return x

    images, labels = np.zeros((12, 1, 2, 2), np.uint8), np.arange(12)
    for seed in (0, 1):
        batches = Batches(images, labels, 3, seed=seed, augment=note)
        for epoch in (0, 1, 2):
            start, now = 0, []
            list(batches.epoch(epoch))
            before = dict(drawn)
            start, now = 2, []
            list(batches.epoch(epoch, 2))
            assert drawn == before
    assert len(drawn) == 2 * 3 * 4 == len(set(drawn.values()))
    for (seed, epoch, step), number in drawn.items():
        assert number == np.random.default_rng([seed, epoch, step + 1]).integers(1 << 62)


@pytest.mark.parametrize("count", [3, 5])
def test_a_label_too_few_and_one_too_many(count):
    with pytest.raises(DataError, match=f"there are 4 images and {count} labels"):
        Batches(np.zeros((4, 1, 2, 2), np.uint8), np.zeros(count, int), 2)


@pytest.mark.parametrize("change", [lambda x: x[:, :, :1], lambda x: np.concatenate([x, x], axis=2), lambda x: x.astype(np.float64)])
def test_an_augmentation_that_changes_sizes_or_types(change):
    with pytest.raises(DataError, match="it must keep type and shape"):
        list(Batches(np.zeros((4, 1, 2, 2), np.uint8), np.zeros(4, int), 2, augment=lambda x, rng: change(x)).epoch(0))


def test_what_is_left_out():
    given, usual = Batches(IMAGES, LABELS, 4), Batches(IMAGES, LABELS, 4, shuffle=True, seed=0, augment=None, dtype="float32")
    assert (given.shuffle, given.seed, given.augment, given.dtype) == (True, 0, None, np.dtype("float32"))
    for (x, y), (expected, labels) in zip(whole(given), whole(usual), strict=True):
        assert x.tobytes() == expected.tobytes() and y.tobytes() == labels.tobytes()


@pytest.mark.parametrize(("size", "steps"), [(1, 10), (9, 2), (10, 1), (11, 1)])
def test_steps_of_an_epoch(size, steps):
    batches = Batches(IMAGES, LABELS, size)
    assert batches.steps_per_epoch == steps == len(whole(batches))


def test_the_largest_class_number():
    most = 2**31 - 1
    ((_, labels),) = whole(Batches(IMAGES[:2], [0, most], 2, shuffle=False))
    assert labels.dtype == np.int32 and labels.tolist() == [0, most]
    for wrong in ([0, most + 1], [0, 2**32], [-1, 0]):
        with pytest.raises(DataError, match="class numbers from 0 on"):
            Batches(IMAGES[:2], wrong, 2)


def test_images_may_be_rows_of_values_and_labels_rows_of_anything_floating():
    ((x, y),) = whole(Batches(np.zeros((3, 1), np.uint8), np.arange(6.0).reshape(3, 1, 2), 3, shuffle=False, dtype=np.float64))
    assert x.shape == (3, 1) and y.shape == (3, 1, 2) and x.dtype == y.dtype == np.float64
    ((_, y),) = whole(Batches(np.zeros((3, 1), np.uint8), [0.5, 1.5, 2.5], 3, shuffle=False))
    assert y.dtype == np.float32 and y.tolist() == [0.5, 1.5, 2.5]
    with pytest.raises(DataError, match="there are no images"):
        Batches(np.zeros((0, 0), np.uint8), np.zeros(0, int), 1)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.float16, "float31", object(), bool, None])
def test_types_that_no_batch_has(dtype):
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        Batches(IMAGES, LABELS, 4, dtype=dtype)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, bool, np.complex64])
def test_types_that_no_image_has(dtype):
    with pytest.raises(TypeError):
        Batches(np.zeros((4, 1, 2, 2), dtype), np.zeros(4, int), 2)


def test_labels_of_a_batch_are_its_own():
    for labels in (LABELS, np.eye(10)):
        batches = Batches(IMAGES, labels, 10, shuffle=False)
        ((_, first),) = whole(batches)
        first[...] = 7
        ((_, again),) = whole(batches)
        np.testing.assert_array_equal(again, labels)


def test_what_batches_say_of_themselves():
    batches = Batches(np.zeros((1234, 3, 5, 7), np.uint8), np.zeros(1234, int), 4)
    assert repr(batches) == "<Batches of 4: 1,234 images 3×5×7, 309 steps an epoch>"
    assert Batches(IMAGES, LABELS, 4).fingerprint == [10, zlib.crc32(IMAGES.tobytes()), zlib.crc32(LABELS.astype(np.int32).tobytes())]


def test_labels_need_not_begin_at_0():
    ((_, labels),) = whole(Batches(IMAGES, LABELS + 1, 10, shuffle=False))
    assert labels.tolist() == list(range(1, 11))


class Noise(RandomChange):
    """Writes down how many images it was given."""

    def __init__(self):
        self.changed = []

    def draws(self, shape, rng):
        return (rng.random(shape),)

    def change(self, x, *drawn):
        self.changed.append(len(x))
        return x + drawn[0].astype(x.dtype)


def brighter(x, rng):
    """Looks at the whole batch, so that nobody can do it to a part."""
    return x + x.mean() + rng.random(x.shape).astype(x.dtype)


@pytest.mark.parametrize("batch_size", [3, 4])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("make", [lambda: None, lambda: brighter, lambda: Shift(1), Noise])
def test_a_part_of_a_batch_is_that_of_the_whole_batch(make, shuffle, batch_size):
    whole_batches, augment, sizes = whole(Batches(IMAGES, LABELS, batch_size, augment=make(), shuffle=shuffle), 3), make(), []

    def second_half(size):
        sizes.append(size)
        return slice(size // 2, size)

    parts = list(Batches(IMAGES, LABELS, batch_size, augment=augment, shuffle=shuffle).epoch(3, part=second_half))
    assert sizes == {3: [3, 3, 3, 1], 4: [4, 4, 2]}[batch_size]
    for (x, y), (expected, labels) in zip(parts, whole_batches, strict=True):
        assert x.tobytes() == expected[len(expected) // 2 :].tobytes() and y.tolist() == labels[len(labels) // 2 :].tolist()
    if isinstance(augment, Noise):  # which is requested the part alone
        assert augment.changed == {3: [2, 2, 2, 1], 4: [2, 2, 1]}[batch_size]

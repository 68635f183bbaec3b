"""Random changes to images with NumPy's generator, and what a device is told of them. Shift and Affine are in test_batches.py too."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gpucnn.data import Affine, Augmentation, Shift, augmentation
from gpucnn.data.augment import AUGMENTATIONS, CropFlip, Cutout, Elastic, RandomChange, device_augment, for_images, on_device
from gpucnn.errors import ArgumentError, DataError
from gpucnn.ops.augment import Augment
from gpucnn.ops.cpu import batch

X = np.random.default_rng(1).random((64, 3, 9, 7)).astype(np.float32)


def draw(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_kind_keeps_type_and_shape_and_its_argument(name, dtype):
    kind, x = AUGMENTATIONS[name](), X.astype(dtype)
    kept = x.copy()
    y = kind(x, draw())
    assert y.dtype == dtype and y.shape == x.shape and not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(kind(x, draw()), y)
    assert (kind(x, draw(1)) != y).any()
    assert kind(x[:1, :, :1, :1], draw()).shape == (1, 3, 1, 1)


def test_what_is_drawn_for_a_generator_stays_what_it_was():
    """Runs are taken up again with the generator of their step: another order of drawing would change them."""
    top, left = draw().integers(0, 7, size=(2, 64))
    np.testing.assert_array_equal(Shift(3)(X, draw()), batch.shift(X, top, left, 3))
    assert (top[:4].tolist(), left[:4].tolist()) == ([5, 4, 3, 1], [6, 0, 4, 5])
    angle, factor, down, right = draw().uniform(-1, 1, size=(4, 64, 1, 1))
    expected = batch.warp(X, np.deg2rad(30) * angle, 1 + 0.3 * factor, 2 * down, 2 * right)
    np.testing.assert_array_equal(Affine(2, 30, 0.3)(X, draw()), expected)
    x = np.arange(12, dtype=np.float64).reshape(1, 1, 3, 4)
    values = [
        [0.4178709620016499, 0.944911110591728, 1.342556305624491, 1.3135838750492537],
        [3.0317876898099767, 3.59034185837209, 4.148896026934204, 3.4983952870914834],
        [6.545489098590176, 7.104043267152292, 7.662597435714403, 5.582684645288269],
    ]
    np.testing.assert_allclose(Affine(1, 20, 0.2)(x, draw(7))[0, 0], values, rtol=0, atol=1e-12)


def test_crop_flip_is_a_shift_and_a_mirror_image_of_half():
    generator = draw()
    top, left = generator.integers(0, 5, size=(2, 64))
    mirrored = generator.integers(0, 2, size=64) == 1
    y = CropFlip(2)(X, draw())
    moved = batch.shift(X, top, left, 2)
    np.testing.assert_array_equal(y[~mirrored], moved[~mirrored])
    np.testing.assert_array_equal(y[mirrored], moved[mirrored][..., ::-1])
    assert 16 < mirrored.sum() < 48
    flipped = (CropFlip(0)(X, draw()) == X[..., ::-1]).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(CropFlip(0)(X, draw())[~flipped], X[~flipped])
    assert 16 < flipped.sum() < 48


def test_cutout_sets_squares_to_zero():
    x = X + 1
    y = Cutout(3)(x, draw())
    zero = y[:, 0] == 0
    np.testing.assert_array_equal(y, np.where(zero[:, None], 0, x))
    assert set(zero.any(axis=2).sum(axis=1)) == {2, 3} and set(zero.any(axis=1).sum(axis=1)) == {2, 3}
    np.testing.assert_array_equal(Cutout(0)(X, draw()), X)
    assert not Cutout(100)(X, draw()).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [Elastic(1.5, 3, 0, 0, 0), Elastic(2, 4, 1, 30, 0.2)])
def test_elastic_against_scipy(kind, dtype):
    x = X.astype(dtype)
    y = kind(x, draw(3))
    generator = draw(3)
    draws = generator.uniform(-1, 1, size=(4, len(x)))
    nodes = generator.uniform(-1, 1, size=(2, len(x), kind.grid, kind.grid))
    rows, columns = np.mgrid[: x.shape[2], : x.shape[3]].astype(np.float64)
    middle, centre = (x.shape[2] - 1) / 2, (x.shape[3] - 1) / 2
    on_grid = [rows * (kind.grid - 1) / (x.shape[2] - 1), columns * (kind.grid - 1) / (x.shape[3] - 1)]
    for image, got, (turn, grow, down, right), bend in zip(x, y, draws.T, nodes.transpose(1, 0, 2, 3), strict=True):
        angle, factor = np.deg2rad(kind.rotate_degrees * turn), 1 + kind.scale * grow
        row, column = rows - middle - kind.shift * down, columns - centre - kind.shift * right
        source = np.array([np.cos(angle) * row - np.sin(angle) * column, np.sin(angle) * row + np.cos(angle) * column]) / factor
        source += kind.pixels * np.array([ndimage.map_coordinates(field, on_grid, order=1, mode="nearest") for field in bend])
        for plane, result in zip(image, got, strict=True):
            padded = np.pad(plane.astype(np.float64), 3)
            expected = ndimage.map_coordinates(padded, source + np.array([middle + 3, centre + 3])[:, None, None], order=1, cval=0)
            np.testing.assert_allclose(result, expected, atol=2e-5 if dtype == np.float32 else 1e-12)


def test_elastic_without_bending_is_affine():
    np.testing.assert_array_equal(Elastic(0, 2, 1.5, 20, 0.2)(X, draw()), Affine(1.5, 20, 0.2)(X, draw()))


@pytest.mark.parametrize("kind", [CropFlip(3), Cutout(5), Elastic(1.5, 3, 1, 5, 0.2)])
def test_configs_come_back(kind):
    assert isinstance(kind, Augmentation)
    assert augmentation(kind.config()) == kind and augmentation(kind) is kind
    assert augmentation(kind.config()["name"]) == type(kind)()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (Shift(3), Augment(shift=3)),
        (Shift(0), None),
        (Affine(1.5, 5, 0.2), Augment(rotate_degrees=5, scale=0.2, translate=1.5)),
        (Affine(0, 0, 0), None),
        (Elastic(1.5, 3, 1, 5, 0.2), Augment(rotate_degrees=5, scale=0.2, translate=1, elastic=1.5, elastic_grid=3)),
        (CropFlip(0), Augment(flip=True)),
        (CropFlip(4), Augment(shift=4, flip=True)),
        (Cutout(5), Augment(cutout=5)),
        (Cutout(0), None),
    ],
)
def test_what_a_device_is_told(given, expected):
    assert on_device(given)
    assert device_augment(given) == expected


def test_every_kind_can_be_done_on_a_device():
    for kind in AUGMENTATIONS.values():
        assert device_augment(kind()) is not None


class Own(Shift):
    def __call__(self, x, rng):
        return x[::-1]


@pytest.mark.parametrize(("given", "name"), [(Own(1), "Own"), (lambda x, rng: x, "<lambda>"), (np.flip, "flip"), (Shift, "Shift")])
def test_what_a_device_cannot_do(given, name):
    assert not on_device(given)
    with pytest.raises(ArgumentError, match=f"augmentation .*{name} cannot run on a device"):
        device_augment(given)


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: CropFlip(-1), ArgumentError),
        (lambda: CropFlip(True), TypeError),
        (lambda: Cutout(1.5), TypeError),
        (lambda: Cutout(-1), ArgumentError),
        (lambda: Elastic(-1), ArgumentError),
        (lambda: Elastic(float("nan")), ArgumentError),
        (lambda: Elastic(grid=1), ArgumentError),
        (lambda: Elastic(grid=2.5), TypeError),
        (lambda: Elastic(scale=1), ArgumentError),
        (lambda: Elastic(rotate_degrees=361), ArgumentError),
        (lambda: Cutout(1)(X[0], draw()), DataError),
        (lambda: CropFlip(1)(X.astype(np.uint8), draw()), DataError),
        (lambda: Elastic()(X[:, 0], draw()), DataError),
    ],
)
def test_augmentations_that_cannot_be(build, error):
    with pytest.raises(error):
        build()


def test_settings_that_are_left_out():
    turned = {"rotate_degrees": 10.0, "scale": 0.1}
    assert Shift().config() == {"name": "shift", "pixels": 2}
    assert CropFlip().config() == {"name": "crop-flip", "pixels": 4}
    assert Cutout().config() == {"name": "cutout", "pixels": 8}
    assert Affine().config() == {"name": "affine", "shift": 2.0, **turned}
    assert Elastic().config() == {"name": "elastic", "pixels": 2.0, "grid": 5, "shift": 1.0, **turned}


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("none", 28, None),
        *(("shift", side, Shift(pixels)) for side, pixels in ((1, 1), (28, 1), (55, 1), (56, 2), (84, 3))),
        *(("crop-flip", side, CropFlip(pixels)) for side, pixels in ((1, 1), (8, 1), (28, 3), (32, 4))),
        *(("cutout", side, Cutout(pixels)) for side, pixels in ((1, 1), (2, 1), (32, 16), (33, 16))),
        *(("affine", side, Affine(shift, 8.0, 0.08)) for side, shift in ((8, 0.5), (32, 2.0))),
        *(("elastic", side, Elastic(pixels, 5, shift, 8.0, 0.08)) for side, pixels, shift in ((28, 1.75, 1.0), (56, 3.5, 2.0))),
    ],
)
def test_as_strong_as_suits_the_images(name, side, expected):
    assert for_images(name, side) == expected


def test_bounds_are_themselves_allowed():
    assert Affine(0, 360, np.nextafter(1, 0)).rotate_degrees == 360
    assert Elastic(0, 2, 0, 0, 0).grid == 2
    assert Shift(0).pixels == CropFlip(0).pixels == Cutout(0).pixels == 0


def test_numbers_become_pythons_and_stay_whole_where_they_were():
    for given, kind in ((2, int), (2.0, float), (np.int64(2), int), (np.float32(2), float), (np.float64(2), float)):
        shift = Affine(given).shift
        assert shift == 2 and type(shift) is kind
    pixels = Shift(np.uint8(3)).pixels
    assert pixels == 3 and type(pixels) is int


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_settings_do_not_change(name):
    kind = AUGMENTATIONS[name]()
    with pytest.raises(AttributeError):
        kind.shift = kind.pixels = 3
    assert kind == type(kind)() and hash(kind) == hash(type(kind)())


def test_a_kind_that_does_not_say_what_a_device_does_is_done_by_numpy():
    class Negative(RandomChange):
        def __call__(self, x, rng):
            return -x

    assert not on_device(Negative())
    assert Negative.for_side(3).config() == {"name": Negative.__qualname__}
    assert Negative().on_device() is None
    with pytest.raises(ArgumentError, match="Negative cannot run on a device"):
        device_augment(Negative())
    with pytest.raises(NotImplementedError):
        RandomChange()(X, draw())


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_only_floats_are_augmented(dtype):
    for shape in ((2, 1, 4, 4), (2, 4, 4), (2, 1, 1, 4, 4)):
        with pytest.raises(DataError, match="only floating images"):
            Shift(1)(np.zeros(shape, dtype), draw())
    for shape in ((2, 4, 4), (2, 1, 1, 4, 4)):
        with pytest.raises(DataError, match="only floating images"):
            Shift(1)(np.zeros(shape, np.float32), draw())

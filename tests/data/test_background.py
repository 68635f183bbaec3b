"""What images have for a background, and which are the other way round."""

import numpy as np
import pytest

from gpucnn.data.background import DARK, LIGHT, background, borders, inverted


def strokes(count=40, channels=1, seed=0):
    """Bright shapes on black, a part of which reach the border."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, channels, 12, 12), np.uint8)
    for image in images:
        at, wide = rng.integers(2, 8), rng.integers(2, 5)
        image[:, :, at : at + wide] = 255
    return images


@pytest.mark.parametrize("channels", [1, 3])
def test_backgrounds(channels):
    images = strokes(channels=channels)
    assert background(images) == DARK and background(255 - images) == LIGHT
    assert background(np.concatenate([images, 255 - images])) is None
    assert background(np.random.default_rng(0).integers(0, 256, (40, channels, 12, 12)).astype(np.uint8)) is None
    few = images.copy()
    few[0] = 255 - few[0]
    assert background(few) == DARK  # one in forty does not make a set mixed
    assert inverted(few, DARK).tolist() == [True] + [False] * 39
    assert inverted(255 - few, LIGHT).tolist() == [True] + [False] * 39
    assert not inverted(few, None).any()


def test_the_border_alone_counts():
    image = np.full((1, 1, 6, 9), 200, np.uint8)
    image[..., 1:-1, 1:-1] = 0
    assert borders(image).tolist() == [200]
    assert borders(np.full((2, 3, 1, 1), 7, np.uint8)).tolist() == [7, 7] and borders(np.full((2, 1, 1, 5), 7, np.uint8)).tolist() == [7, 7]


def test_a_large_set_is_looked_at_in_part():
    images = np.zeros((9000, 1, 4, 4), np.uint8)
    images[1::3] = 255  # of which the part that is looked at must not be only one kind
    assert background(images) is None


def test_the_real_sets_have_one():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from gpucnn.data import load_dataset

    digits = load_dataset("digits")
    assert background(digits.train_images) == DARK and background(255 - digits.train_images) == LIGHT
    assert inverted(255 - digits.test_images, DARK).mean() > 0.95 and inverted(digits.test_images, DARK).mean() < 0.01

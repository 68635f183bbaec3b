"""Whether images are light on dark or dark on light, judged by their borders.

A model trained on white digits on black gives wrong answers with high confidence for black digits on white.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DARK, LIGHT = "dark", "light"
DARKEST, LIGHTEST = 64, 191  # of 255: a border whose median is below is dark, one above is light
SHARE = 0.95  # the fraction of a set's images that must agree
SAMPLE = 4096  # images that are examined, evenly spread


def borders(images: NDArray[np.uint8]) -> NDArray[Any]:
    """The median of the border pixels of each image (N, C, H, W), all channels together."""
    edge = np.concatenate([images[..., 0, :], images[..., -1, :], images[..., 1:-1, 0], images[..., 1:-1, -1]], axis=-1)
    level: NDArray[Any] = np.median(edge.reshape(len(images), -1), axis=1)
    return level


def background(images: NDArray[np.uint8]) -> str | None:
    """DARK or LIGHT if nearly all images (N, C, H, W) have such a background; None for photographs and mixed sets."""
    chosen = np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(np.int64)
    level = borders(images[chosen])
    if (level < DARKEST).mean() >= SHARE:
        return DARK
    return LIGHT if (level > LIGHTEST).mean() >= SHARE else None


def inverted(images: NDArray[np.uint8], usual: str | None) -> NDArray[np.bool_]:
    """Whether each of the images (N, C, H, W) has a light background although `usual` is dark, or the other way round."""
    level = borders(images)
    if usual == DARK:
        return np.asarray(level > LIGHTEST)
    return np.asarray(level < DARKEST) if usual == LIGHT else np.zeros(len(images), np.bool_)

"""scikit-learn's 8×8 digits: small enough to train on in seconds, and available without a download.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (CC BY 4.0).
"""

from __future__ import annotations

from importlib import import_module

import numpy as np

from gpucnn.data.dataset import DATASETS, Dataset, Request, counted
from gpucnn.data.split import held_back, shares
from gpucnn.errors import MissingExtraError
from gpucnn.surroundings import install

TEST_IMAGES = 360
SPLIT_SEED = 0  # fixed, so that everyone's accuracy is measured on the same images


@DATASETS.add("digits")
def load(request: Request | None = None) -> Dataset:
    """1,437 + 360 images (1, 8, 8), split within each class; their 17 grey levels are scaled to 0 … 255.

    MissingExtraError without scikit-learn.
    """
    try:
        load_digits = import_module("sklearn.datasets").load_digits
    except ImportError as error:
        raise MissingExtraError(f'the data set "digits" comes with scikit-learn, which is not installed: {install("digits")}') from error
    raw = load_digits()
    images, labels = np.rint(raw.images * (255 / 16)).astype(np.uint8)[:, None], raw.target.astype(np.int32)
    groups = [np.flatnonzero(labels == digit).tolist() for digit in range(10)]
    chosen: set[int] = set()
    for members, count in zip(groups, shares([len(members) for members in groups], TEST_IMAGES), strict=True):
        chosen.update(int(key) for key in held_back([str(i) for i in members], count, SPLIT_SEED))
    test = np.isin(np.arange(len(labels)), sorted(chosen))
    return Dataset(
        name="digits",
        train_images=images[~test],
        train_labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple("0123456789"),
        source=counted("scikit-learn's 8×8 digits", int((~test).sum()), int(test.sum())),
    )

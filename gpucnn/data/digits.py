"""scikit-learn's 8×8 digits: small enough to train on in seconds, and available without a download.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (CC BY 4.0).
"""

from __future__ import annotations

import contextlib
import gzip
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
    raw = _from_file()
    if raw is None:
        try:
            load_digits = import_module("sklearn.datasets").load_digits
        except ImportError as error:
            raise MissingExtraError(
                f'the data set "digits" comes with scikit-learn, which is not installed: {install("digits")}'
            ) from error
        raw = np.column_stack(load_digits(return_X_y=True))
    images, labels = np.rint(raw[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8), raw[:, 64].astype(np.int32)
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


def _from_file() -> NDArray[np.float64] | None:
    """scikit-learn's file of them: 64 pixels of 0 … 16 and the digit (1797, 65); None if it is elsewhere.

    Importing scikit-learn takes longer than training for an epoch.
    """
    found = find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        with contextlib.suppress(OSError, EOFError, ValueError):
            with gzip.open(Path(folder, "datasets", "data", "digits.csv.gz"), "rt", encoding="ascii") as file:
                table = np.array([line.split(",") for line in file], np.float64)
            if table.shape == (1797, 65):
                return table
    return None

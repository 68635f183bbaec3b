"""The function that Keras's programs use from its `utils`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.arrays import class_numbers, numbers
from gpucnn.checks import COUNT, integer
from gpucnn.errors import DataError

__all__ = ["to_categorical"]


def to_categorical(labels: Any, num_classes: int | None = None) -> NDArray[np.float64]:
    """Class numbers (N) or (N, 1) as rows of 0 and a single 1, (N, num_classes); without a number, as many classes as the labels have.

    The losses take class numbers as they are. DataError for labels that are not class numbers below `num_classes`.
    """
    given = numbers(labels, "labels")
    if num_classes is None:
        classes = int(given.max()) + 1 if given.size and given.dtype.kind in "iu" else 1
    else:
        classes = integer(num_classes, "num_classes", 1, most=COUNT)
    chosen = class_numbers(
        given.reshape(-1) if given.ndim == 2 and given.shape[1] == 1 else given, len(given) if given.ndim else 0, classes
    )
    if chosen is None:
        raise DataError(f"labels must be class numbers, (N) or (N, 1), got an array of shape {given.shape}")
    rows = np.zeros((len(chosen), classes))
    rows[np.arange(len(chosen)), chosen] = 1
    return rows

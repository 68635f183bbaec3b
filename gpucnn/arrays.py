"""Conversion and checks of all arrays from outside: examples, labels, scores, in whatever type.

Lists and tuples, NumPy arrays and their subclasses, CuPy arrays, PyTorch tensors on any device, and whatever else NumPy can read are
accepted. Masked arrays are refused, because nothing here could respect the mask. Integers of any width are pixels, 0 … 255; floats and
booleans are used unchanged.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.errors import DataError
from gpucnn.text import number_of, reason_of, shown

CHUNK = 1024  # examples checked at a time: a mask for all of them would take a quarter of their memory again
quiet = np.errstate(all="ignore")
"""A decorator for functions that compute with NumPy: overflows and the like give infinity and NaN, which are found in the results, whatever
the caller has told NumPy to raise or to print."""


def to_numpy(array: Any) -> Any:
    """`array` as a NumPy array, copied from the GPU if it lives there."""
    if on_a_gpu(array):
        return sys.modules["cupy"].asnumpy(array)
    if type(array).__module__.partition(".")[0] == "torch" and hasattr(array, "detach"):
        tensor = array.detach().cpu()
        return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return np.asarray(array)


def on_a_gpu(array: Any) -> bool:
    """Whether `array` is a CuPy array."""
    return type(array).__module__.partition(".")[0] == "cupy"


def numbers(values: Any, name: str, error: type[Exception] = DataError, text: str = "give numbers") -> NDArray[Any]:
    """`values` as a plain NumPy array of numbers, with their dtype. Raises `error`, with `name`, for anything else; `text` is what to do
    instead of giving text."""
    if type(values) is np.ndarray and values.dtype.kind in "biuf":  # most are, and small batches feel the time that the rest takes
        return values
    parts = values if isinstance(values, list | tuple) else (values,)
    if "numpy.ma" in sys.modules and any(isinstance(part, np.ma.MaskedArray) for part in parts):  # which takes a while to import
        raise error(f"{name} are a masked array, which is not supported: fill it (.filled(...)) or drop the masked values")
    if isinstance(values, list | tuple) and any(type(part).__module__.partition(".")[0] in ("torch", "cupy") for part in values):
        values = [to_numpy(part) for part in values]
    try:
        array = np.asarray(to_numpy(values))
    except Exception as problem:  # the object may raise anything
        raise error(f"{name} must be an array of numbers, got {shown(values)} ({reason_of(problem)})") from None
    if array.dtype.kind not in "biuf":
        mend = {"c": "give .real or abs() of them", "U": text, "S": text, "T": text}.get(array.dtype.kind)
        mend = mend or "give real numbers, with rows of equal length"
        raise error(f"{name} must be numbers, got {array.dtype} of shape {array.shape}: {mend}")
    return array


@quiet
def examples(values: Any, dtype: np.dtype[Any], name: str = "examples") -> NDArray[Any]:
    """A whole set of examples: pixels as uint8, everything else as `dtype`, without NaN or infinity.

    DataError for integers outside of 0 … 255, and for NaN and infinity, with the position.
    """
    array = numbers(values, name)
    if array.dtype.kind in "iu":
        return pixels(array, name)
    array = np.ascontiguousarray(array, dtype)
    finite(array, name)
    return array


def pixels(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Integers of any width in 0 … 255, as uint8."""
    if array.dtype == np.uint8:
        return array
    if array.size and (array.min() < 0 or array.max() > 255):
        raise DataError(
            f"{name} of integers are pixels and must be in 0..255, got {array.min()}..{array.max()}: scale them, and give them as floats"
        )
    return array.astype(np.uint8)


def finite(array: NDArray[Any], name: str) -> None:
    """DataError if floats are NaN or infinite, with the position of the first."""
    if array.dtype.kind != "f":
        return
    for first in range(0, len(array), CHUNK):
        part = array[first : first + CHUNK]
        good = np.isfinite(part).reshape(len(part), -1).all(axis=1)
        if not good.all():
            one = name.removesuffix("s")
            raise DataError(f"{one} {first + int(np.argmin(good))} contains NaN or infinity: remove or fix it")


@quiet
def scaled(x: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A copy of `x` as `dtype`. Integers are pixels and divided by 255; everything else is unchanged."""
    return np.divide(x, dtype.type(255), dtype=dtype) if x.dtype.kind in "iu" else np.array(x, dtype)


def several_classes(labels: NDArray[Any]) -> bool:
    """Whether labels are rows of zeros and ones for several outputs, of which any row has not exactly one 1: an example then has several
    classes, or none."""
    return bool(labels.ndim == 2 and labels.shape[1] > 1 and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) != 1).any())


def class_numbers(labels: Any, count: int, classes: int, name: str = "labels") -> NDArray[np.int32] | None:
    """Class numbers (count,) as int32, from integers (count,) or a column of them (count, 1); None for rows of any other kind.

    DataError where there are not `count` of them, and for numbers that are not whole or not in 0 … classes − 1.
    """
    given = numbers(labels, name, text="number the classes first, names, labels = np.unique(labels, return_inverse=True)")
    if given.ndim == 2 and given.shape[1] == 1 and given.dtype.kind in "iu" and classes > 1:
        given = given[:, 0]  # a column of class numbers, as some loaders give
    if len(given) != count if given.ndim else True:
        raise DataError(f"there must be a label for each of the {number_of(count, 'example')}, got {name} of shape {given.shape}")
    if given.ndim != 1:
        return None
    if given.dtype.kind not in "iu":
        raise DataError(
            f"class numbers must be integers, got {given.dtype}: convert them with .astype('int64'), or pass probabilities as rows of "
            f"shape ({count}, {classes})"
        )
    wrong = np.flatnonzero((given < 0) | (given >= classes))
    if wrong.size:
        raise DataError(f"{name} must lie in 0..{classes - 1} for {classes} outputs, got {given[wrong[0]]} at index {wrong[0]}")
    return given.astype(np.int32)

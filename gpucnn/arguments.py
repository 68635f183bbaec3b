"""Checks of the arrays and sizes passed to `gpucnn.functional`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpucnn.arrays import numbers, on_a_gpu
from gpucnn.checks import integer, several
from gpucnn.device import Device, of
from gpucnn.errors import ShapeError
from gpucnn.layers.base import Array, Shape, too_many
from gpucnn.ops.shapes import LIMIT, Window, conv_window, pool_window, transposed_window
from gpucnn.text import shown

T = TypeVar("T")
OWN = np.dtype("float32"), np.dtype("float64")  # what the CPU computes in
PLAIN = {int, str, bool, type(None)}
REMEMBERED = 512  # windows


def remembered(make: Callable[..., T]) -> Callable[..., T]:
    """`make`, whose results for plain integers, texts and tuples of integers are kept: checking sizes takes longer than a small operation.

    1, True and 1.0 are equal, and only the first is a size: arguments of another type are another case.
    """
    kept = functools.lru_cache(REMEMBERED, typed=True)(make)

    @functools.wraps(make)
    def answer(*values: Any) -> T:
        return kept(*values) if all(type(value) in PLAIN or _integers(value) for value in values) else make(*values)

    return answer


def _integers(value: Any) -> bool:
    return type(value) is tuple and all(type(part) is int or _integers(part) for part in value)


def _ready(arrays: list[tuple[Any, int | None]]) -> bool:
    """Whether these are NumPy's own arrays, of one dtype and as they must be: `arrays_of` has nothing left to check or to convert."""
    dtype = getattr(arrays[0][0], "dtype", None)
    if dtype not in OWN:
        return False
    for array, axes in arrays:
        if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.c_contiguous or not array.size:
            return False
        if array.ndim != axes and (axes is not None or not array.ndim):
            return False
    return True


def arrays_of(**named: tuple[Any, int | None]) -> tuple[Device, list[Array]]:
    """(device, arrays), contiguous. Each argument is an array and the number of axes that it must have (None: any number)."""
    given = list(named.values())
    if _ready(given):
        return of(given[0][0]), [array for array, _ in given]
    device: Device | None = None
    dtype: Any = None
    checked = []
    own = [array.dtype.name for array, _ in named.values() if getattr(getattr(array, "dtype", None), "name", "") in ("float32", "float64")]
    for name, (array, axes) in named.items():
        if not on_a_gpu(array):
            typed = hasattr(array, "dtype")
            array = native(numbers(array, name, TypeError))
            if not typed and array.dtype.kind in "fi":  # Python's numbers have no width of their own
                array = array.astype(own[0] if own else "float32")
        here = of(array)
        if device is not None and here != device:
            raise TypeError(f"all arrays must be on one device, got {name} on {here.kind} and the others on {device.kind}")
        if array.dtype.name not in (("float32", "float64") if here.kind == "cpu" else ("float32",)):
            allowed = "float32 or float64" if here.kind == "cpu" else "float32 on a GPU"
            raise TypeError(f"{name} must be {allowed}, got {array.dtype}: convert it with .astype('float32')")
        if dtype is not None and array.dtype != dtype:
            raise TypeError(
                f"all arrays must have one dtype, got {name} as {array.dtype} and the others as {dtype}: convert with .astype('{dtype}')"
            )
        if axes is not None and array.ndim != axes:
            raise ShapeError(f"{name} must have {axes} axes, got shape {array.shape}")
        if array.ndim == 0 or 0 in array.shape:
            raise ShapeError(f"{name} must not be empty, got shape {array.shape}")
        device, dtype = here, array.dtype
        checked.append(device.array(array, dtype.name))
    assert device is not None
    return device, checked


def native(array: NDArray[Any]) -> NDArray[Any]:
    """`array` in this machine's order of bytes."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


@remembered
def conv_of(x_shape: Shape, weight_shape: Shape, stride: Any, padding: Any, dilation: Any, groups: int) -> Window:
    groups = integer(groups, "groups", 1)
    channels, filters = x_shape[1], weight_shape[0]
    if channels % groups or filters % groups:
        raise ShapeError(f"channels and filters must be divisible by groups, got {channels} channels, {filters} filters, {groups} groups")
    if weight_shape[1] != channels // groups:
        raise ShapeError(
            f"weight must be (K, {channels // groups}, R, S) for {channels} channels in {groups} groups, got {tuple(weight_shape)}"
        )
    window = conv_window(tuple(x_shape[2:]), tuple(weight_shape[2:]), stride, padding, dilation)
    padded = [size + sum(sides) for size, sides in zip(window.input, window.padding, strict=True)]
    small("x", x_shape)
    small("an image with its padding", (channels, *padded))
    small("y", (x_shape[0], filters, *window.output))
    return window


def small(name: str, shape: Shape) -> None:
    """ShapeError if an array of this shape would have more numbers than the kernels can count."""
    if math.prod(shape) >= LIMIT:
        raise ShapeError(f"{name} would be {too_many(shape)}")


pool_window_of = remembered(pool_window)
transposed_window_of = remembered(transposed_window)


@remembered
def pool_of(dy_shape: Shape, shape: Shape, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> Window:
    """The window that matches the sizes of dy: the arguments do not include ceil_mode, so both are tried."""
    windows = []
    for ceil_mode in (True, False):  # without ceil_mode, fewer windows fit: the last error is the plain one
        try:
            windows.append(pool_window(shape[2:], kernel_size, stride, padding, dilation, ceil_mode))
        except ShapeError:
            if not ceil_mode and not windows:
                raise
    for window in windows:
        if tuple(dy_shape) == (*shape[:2], *window.output):
            return window
    expected = " or ".join(str((*shape[:2], *output)) for output in dict.fromkeys(window.output for window in windows))
    raise ShapeError(f"dy must have shape {expected} for this pooling, got {tuple(dy_shape)}")


@remembered
def four_sizes(shape: Any, name: str = "input_shape", form: str = "(N, C, H, W)") -> Shape:
    sizes = several(shape)
    if sizes is None or len(sizes) != 4:
        raise ShapeError(f"{name} must be {form}, got {shown(shape)}")
    return tuple(integer(size, name, 1, ShapeError) for size in sizes)


def same_shape(name: str, array: Array, expected: Shape) -> None:
    if tuple(array.shape) != tuple(expected):
        raise ShapeError(f"{name} must have shape {tuple(expected)}, got {tuple(array.shape)}")

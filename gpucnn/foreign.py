"""Arrays of other libraries, used without a copy where possible, with results in the same library.

These are PyTorch's tensors, on the CPU and on a GPU, and arrays with DLPack whose `__array_namespace__` names their library, as in the
Python array API (JAX, array-api-strict and others). On the CPU they become NumPy arrays, on a GPU CuPy arrays. Gradients do not flow
through: a tensor that requires one is used as it is, and results require none.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from gpucnn.device import get_device
from gpucnn.errors import DeviceError
from gpucnn.text import reason_of, shown

P = ParamSpec("P")
R = TypeVar("R")
OURS = ("numpy", "cupy", "builtins", "gpucnn")
USUAL = {np.ndarray, int, float, bool, str, tuple, list, type(None)}  # what most arguments are: no name needs to be looked at
ON_CPU, ON_GPU = (1, 3), (2, 13)  # DLPack's numbers for memory that the host, or a CUDA device, reads


def in_kind(function: Callable[P, R]) -> Callable[P, R]:
    """Lets a function of NumPy and CuPy arrays accept arrays of one other library as well, and return that library's arrays.

    TypeError for arrays of two other libraries, and for one that cannot be converted; DeviceError for one on a GPU that cannot be used.
    """

    @functools.wraps(function)
    def answering(*values: P.args, **named: P.kwargs) -> R:
        libraries = {name for value in (*values, *named.values()) if (name := library_of(value)) is not None}
        if not libraries:
            return function(*values, **named)
        if len(libraries) > 1:
            raise TypeError(f"all arrays must be from one library, got {' and '.join(sorted(libraries))}: convert one of them")
        foreign: list[Any] = [value for value in (*values, *named.values()) if library_of(value) is not None]
        taken: Any = function(*(take(value) for value in values), **{name: take(value) for name, value in named.items()})
        return _given(taken, foreign[0])  # type: ignore[no-any-return]

    return answering


def library_of(value: Any) -> str | None:
    """The library that the array `value` belongs to; None for NumPy, CuPy, and anything that is not an array."""
    kind = type(value)
    if kind in USUAL:
        return None
    name = kind.__module__.partition(".")[0]
    if name in OURS or isinstance(value, np.ndarray):
        return None
    return name if (name == "torch" and hasattr(value, "detach")) or hasattr(value, "__dlpack__") else None


def take(value: Any) -> Any:
    """`value` as a NumPy or CuPy array, sharing memory where possible; anything that is not an array of another library is unchanged."""
    name = library_of(value)
    if name is None:
        return value
    if name == "torch":
        value = value.detach()
        if value.device.type == "cpu":
            try:
                return (value.float() if str(value.dtype) == "torch.bfloat16" else value.resolve_neg()).numpy()
            except (TypeError, RuntimeError) as error:  # sparse, quantized
                raise TypeError(f"a tensor cannot be used ({reason_of(error)}): give a dense one of float32") from None
    try:
        kind = int(value.__dlpack_device__()[0])
    except Exception as error:  # the object may raise anything
        raise TypeError(f"{shown(value)} does not tell its device ({reason_of(error)}): give a NumPy array") from None
    if kind not in (*ON_CPU, *ON_GPU):
        raise TypeError(f"an array of {name} lies on a device of DLPack's kind {kind}, and only the CPU and CUDA can be read: move it")
    try:
        return (get_device("cuda").xp if kind in ON_GPU else np).from_dlpack(value)
    except DeviceError:
        raise
    except Exception as error:  # a type that DLPack lacks, strides, or another refusal
        raise TypeError(f"{shown(value)} cannot be used ({reason_of(error)}): give a NumPy array") from None


def _given(result: Any, like: Any) -> Any:
    """Arrays, also in tuples, as arrays of the library of `like`; numbers are unchanged."""
    if isinstance(result, tuple):
        return tuple(_given(part, like) for part in result)
    if not hasattr(result, "__dlpack__") and not isinstance(result, np.generic):
        return result
    if isinstance(result, np.generic) or (isinstance(result, np.ndarray) and not result.flags.writeable):
        result = np.array(result)  # otherwise PyTorch would share its memory
    if library_of(like) == "torch":
        torch = sys.modules["torch"]
        return torch.from_numpy(result) if isinstance(result, np.ndarray) else torch.from_dlpack(result)
    space = getattr(like, "__array_namespace__", None)
    return space().from_dlpack(result) if space is not None else result

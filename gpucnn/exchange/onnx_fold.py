"""Computes the constants of an ONNX graph in advance: sizes that exporters compute in the graph, and weights that they transpose.

The size of a batch is unknown. It is represented by `BATCH`, which can be passed on and joined to other sizes, but not used in arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.exchange.problems import Problem
from gpucnn.text import reason_of

MOST = 1 << 16  # elements of a computed constant; weights that are only moved may be larger


class _Batch:
    def __repr__(self) -> str:
        return "batch"


BATCH = _Batch()


def _divide(x: Any, y: Any) -> Any:
    if np.asarray(x).dtype.kind in "iuO" and np.asarray(y).dtype.kind in "iuO":
        quotient = np.trunc(np.asarray(x, np.float64) / np.asarray(y, np.float64))
        return quotient.astype(np.int64)
    return np.divide(x, y)


def _slice(x: NDArray[Any], starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> NDArray[Any]:
    chosen = [slice(None)] * x.ndim
    where = range(len(starts)) if axes is None else axes
    for index, axis in enumerate(where):
        step = 1 if steps is None else int(steps[index])
        first, last = int(starts[index]), int(ends[index])
        chosen[int(axis)] = slice(first, None if step < 0 and last < -x.shape[int(axis)] else last, step)
    return x[tuple(chosen)]


def _reshape(x: NDArray[Any], shape: Any) -> NDArray[Any]:
    sizes = [x.shape[index] if size == 0 and index < x.ndim else int(size) for index, size in enumerate(shape)]
    return x.reshape(sizes)


def _squeeze(x: NDArray[Any], axes: Any = None) -> NDArray[Any]:
    return x.squeeze() if axes is None else x.squeeze(tuple(int(axis) for axis in np.atleast_1d(axes)))


def _unsqueeze(x: NDArray[Any], axes: Any) -> NDArray[Any]:
    return np.expand_dims(x, tuple(int(axis) for axis in np.atleast_1d(axes)))


MOVES: dict[str, Callable[..., Any]] = {  # the output has as many elements as the input
    "Identity": lambda x: x,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
SUMS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Mod": np.mod,
    "Max": np.maximum,
    "Min": np.minimum,
    "Pow": np.power,
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Floor": np.floor,
    "Ceil": np.ceil,
}


def fold(kind: str, inputs: Sequence[NDArray[Any] | None], attributes: dict[str, Any], cast: Callable[[int], Any]) -> NDArray[Any] | None:
    """The output of a node for constant inputs; None for kinds that are not computed in advance. Problem if that fails."""
    given = [array for array in inputs if array is not None]
    try:
        return _fold(kind, inputs, given, attributes, cast)
    except (ValueError, TypeError, IndexError, KeyError, ArithmeticError, MemoryError) as error:
        raise Problem(f"cannot be computed in advance ({reason_of(error)})") from None


def _fold(
    kind: str, inputs: Sequence[NDArray[Any] | None], given: list[NDArray[Any]], attributes: dict[str, Any], cast: Callable[[int], Any]
) -> NDArray[Any] | None:
    if kind in MOVES:
        more = [attributes["axes"]] if kind in ("Squeeze", "Unsqueeze") and "axes" in attributes else []
        return np.asarray(MOVES[kind](*given, *more))
    if kind == "Transpose":
        return given[0].transpose(attributes.get("perm"))
    if kind == "Shape":
        return np.array(given[0].shape, np.int64)[attributes.get("start", 0) : attributes.get("end")]
    if kind == "Cast":
        return given[0] if given[0].dtype == object else given[0].astype(cast(attributes["to"]))
    if sum(array.size for array in given) > MOST and kind not in SUMS:
        return None
    if kind in SUMS:
        shape = np.broadcast_shapes(*(array.shape for array in given))
        if math.prod(shape) > max(MOST, *(array.size for array in given)):
            raise ValueError(f"it would have {math.prod(shape):,} numbers")
        return np.asarray(SUMS[kind](*given))
    if kind == "Concat":
        return np.concatenate([np.asarray(array) for array in given], axis=attributes["axis"])
    if kind == "Gather":
        if given[1].size * given[0].size > MOST:
            raise ValueError("it would use too many numbers")
        return np.asarray(np.take(given[0], given[1].astype(np.int64), axis=attributes.get("axis", 0)))
    if kind == "Slice":
        if "starts" in attributes:
            return _slice(given[0], attributes["starts"], attributes["ends"], attributes.get("axes"))
        return _slice(given[0], *inputs[1:])
    if kind == "ConstantOfShape":
        if math.prod(int(size) for size in given[0]) > MOST:
            raise ValueError("it would have too many numbers")
        fill = attributes.get("value")
        return np.full([int(size) for size in given[0]], np.float32(0) if fill is None else fill.reshape(-1)[0])
    return None

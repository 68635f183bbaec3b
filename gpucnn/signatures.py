"""The types of arguments of the public classes, for type checkers; the values themselves are checked where they come in.

Numbers of other libraries, such as NumPy's, are accepted as well, and so are names in other capitals. A strict type checker wants
`int(...)` around such a number, and the name as it is written here.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Size: TypeAlias = int | tuple[int, int]
"""One number for both axes, or one each: (vertical, horizontal)."""

Sides: TypeAlias = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]
"""One number for all sides, (vertical, horizontal), or ((top, bottom), (left, right))."""

Padding: TypeAlias = Sides | Literal["valid", "same", "VALID", "SAME"]

ActivationName: TypeAlias = Literal[
    "relu", "sigmoid", "softmax", "tanh", "leaky_relu", "elu", "gelu", "silu", "relu6", "hard_sigmoid", "hard_swish"
]

DataFormat: TypeAlias = Literal["channels_first", "channels_last"]

Mode: TypeAlias = Literal["auto", "min", "max"]

DType: TypeAlias = Literal["float32", "float64"]

Precision: TypeAlias = Literal["highest", "high", "medium"]

"""How exact products in float32 are where a GPU has tensor cores, by the names that PyTorch gives.

    highest   factors keep float32's 24 bits; tensor cores take each product as three (gpucnn_kernels/tensor). The default
    high      factors may be rounded to TF32, 11 bits, with sums in float32: a third of the products
    medium    as high. PyTorch's may round to bfloat16, 8 bits, and there are no such kernels here

Only convolutions of 32 terms or more on a GPU of compute capability 8.0 or newer can tell the difference. No GPU has confirmed the kernels
in TF32, so they run where `gpucnn tune --precision high` has found them right and fast on this one. On a CPU all products are float32's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast, get_args

from gpucnn.errors import ArgumentError
from gpucnn.signatures import Precision
from gpucnn.text import shown

__all__ = ["get_float32_matmul_precision", "set_float32_matmul_precision"]

MODES: tuple[Precision, ...] = get_args(Precision)
_setting: Precision = "highest"


def set_float32_matmul_precision(precision: Precision) -> None:
    """Sets how exact convolutions are on tensor cores, in all threads: "highest", "high" or "medium", as PyTorch's function of that name.

    Layers with a `precision` of their own keep it. ArgumentError for another word.
    """
    global _setting
    _setting = mode(precision)


def get_float32_matmul_precision() -> Precision:
    """What `set_float32_matmul_precision` was told last; "highest" at first."""
    return _setting


@contextmanager
def using(precision: Precision | str) -> Iterator[None]:
    """Sets the mode inside, and what it was before afterwards."""
    global _setting
    before, _setting = _setting, mode(precision)
    try:
        yield
    finally:
        _setting = before


def mode(precision: object) -> Precision:
    """A mode's name, checked. ArgumentError for another."""
    if not isinstance(precision, str) or precision.lower() not in MODES:
        raise ArgumentError(f"precision must be one of {', '.join(MODES)}, got {shown(precision)}")
    return cast(Precision, precision.lower())


def exact(own: Precision | None = None) -> bool:
    """Whether factors are to keep all bits, for a layer whose own mode is `own`."""
    return (own or _setting) == "highest"


def note_of(precision: str, kind: str) -> str | None:
    """What the user should know who asks for this mode on a device of this kind ("cpu", "cuda"): where it changes nothing. None for
    "highest"."""
    name = mode(precision)
    if name == "highest":
        return None
    if kind == "cpu":
        return f"precision {name} changes nothing on a CPU, where all products are float32's"
    return (
        f"precision {name} changes those convolutions alone for which gpucnn tune --precision {name} has found a faster kernel on this GPU"
    )


class InPrecision:
    """A layer whose products may have a precision of their own."""

    _precision: Precision | None

    @property
    def precision(self) -> Precision | None:
        """How exact its products are; None for what the library is set to. After a change, compile the model again."""
        return self._precision

    @precision.setter
    def precision(self, value: Precision | None) -> None:
        self._precision = None if value is None else mode(value)

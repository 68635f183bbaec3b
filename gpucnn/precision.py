"""The precision of float32 products on a GPU's tensor cores, by PyTorch's names.

    highest   factors keep float32's 24 bits; tensor cores compute each product as three (gpucnn_kernels/tensor). The default
    high      factors may be rounded to TF32, 11 bits, with sums in float32: a third of the products
    medium    factors may be rounded to bfloat16 as well, 8 bits, to nearest, ties to even; sums are still in float32. Tensor cores take
              half as long for them as for TF32

This affects convolutions and dense layers whose sums have 32 terms or more, on a GPU of compute capability 8.0 or newer. In "highest" sums
of fewer than 256 terms are left to FMAs, which are more accurate there (gpucnn_kernels/tensor/accuracy.py). No GPU has
confirmed the kernels in TF32 and bfloat16, so they run only where `gpucnn tune --precision high` (or medium) has found them correct and
fast. On a CPU all products are in float32.
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
_BITS: dict[Precision, int] = {"highest": 24, "high": 11, "medium": 8}
_setting: Precision = "highest"


def set_float32_matmul_precision(precision: Precision) -> None:
    """Sets the precision of convolutions and dense layers on tensor cores, in all threads: "highest", "high" or "medium",
    like PyTorch's function.

    Layers with a `precision` of their own keep it. Raises ArgumentError for any other value.
    """
    global _setting
    _setting = mode(precision)


def get_float32_matmul_precision() -> Precision:
    """The precision that `set_float32_matmul_precision` has set; "highest" by default."""
    return _setting


@contextmanager
def using(precision: Precision | str) -> Iterator[None]:
    """Sets the mode inside the block, and restores the previous one afterwards."""
    global _setting
    before, _setting = _setting, mode(precision)
    try:
        yield
    finally:
        _setting = before


def mode(precision: object) -> Precision:
    """The name of a mode, checked. ArgumentError for any other value."""
    if not isinstance(precision, str) or precision.lower() not in MODES:
        raise ArgumentError(f"precision must be one of {', '.join(MODES)}, got {shown(precision)}")
    return cast(Precision, precision.lower())


def bits(own: Precision | None = None) -> int:
    """The least number of a float32's 24 bits that factors keep, in a layer whose own mode is `own`."""
    return _BITS[own or _setting]


def note_of(precision: str, kind: str) -> str | None:
    """A note for the user about the effect of this mode on a device of this kind ("cpu", "cuda"); None for "highest"."""
    name = mode(precision)
    if name == "highest":
        return None
    if kind == "cpu":
        return f"precision {name} changes nothing on a CPU, where all products are in float32"
    return (
        f"precision {name} changes only the convolutions and dense layers for which gpucnn tune --precision {name} has found a faster "
        "kernel on this GPU"
    )


class InPrecision:
    """A layer whose products may have a precision of their own."""

    _precision: Precision | None

    @property
    def precision(self) -> Precision | None:
        """The precision of its products; None for the library's setting. After a change, compile the model again."""
        return self._precision

    @precision.setter
    def precision(self, value: Precision | None) -> None:
        self._precision = None if value is None else mode(value)

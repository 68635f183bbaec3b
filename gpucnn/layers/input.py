"""The input shape, given in front of the layers."""

from __future__ import annotations

from collections.abc import Sequence

from gpucnn.checks import several
from gpucnn.errors import ShapeError
from gpucnn.signatures import DataFormat
from gpucnn.text import shown

__all__ = ["Input"]


class Input:
    """The shape of one example, as the first entry of a Sequential: (C, H, W), (H, W) for grey images, or (features,).

    It is not a layer: the model keeps the shape and builds itself for it on first use. `data_format` is that of `Sequential.build`.
    """

    def __init__(self, shape: Sequence[int], data_format: DataFormat | None = None) -> None:
        sizes = several(shape)
        if not sizes:
            raise ShapeError(f"Input takes the shape of one example, such as (1, 28, 28), got {shown(shape)}")
        self.shape, self.data_format = sizes, data_format

    def __repr__(self) -> str:
        return f"Input({self.shape})"

"""Zero padding."""

from __future__ import annotations

from typing import Any

from gpucnn.errors import ArgumentError, ShapeError
from gpucnn.layers.base import Array, Layer, Shape
from gpucnn.layers.conv import check_image
from gpucnn.ops.shapes import LIMIT, normalize_padding
from gpucnn.signatures import Sides
from gpucnn.text import shown

__all__ = ["ZeroPad2D", "ZeroPadding2D"]


class ZeroPad2D(Layer):
    """Zero padding of each image: (C, H, W) → (C, top + H + bottom, left + W + right). Keras calls it ZeroPadding2D.

    padding: a number, (vertical, horizontal) or ((top, bottom), (left, right)).
    """

    keeps_relu = True

    def __init__(self, padding: Sides = 1) -> None:
        super().__init__()
        sides = normalize_padding(padding)
        if isinstance(sides, str):
            raise ArgumentError(f"padding of ZeroPad2D must be integers, got {shown(padding)}")
        self.padding = sides

    def settings(self) -> dict[str, Any]:
        return {"padding": self.padding}

    def _build(self, input_shape: Shape) -> Shape:
        c, *sizes = check_image(self, input_shape)
        padded = [size + sum(sides) for size, sides in zip(sizes, self.padding, strict=True)]
        if max(padded) >= LIMIT:
            raise ShapeError(f"padding {self.padding} of images {tuple(sizes)} has over 2³¹ pixels: use less padding")
        return (c, *padded)

    def _forward(self, x: Array, training: bool) -> Array:
        return self.device.ops.zero_pad2d(x, self.padding)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return self.device.ops.zero_pad2d_grad(dy, self.padding) if input_grad else None


# Second names.
ZeroPadding2D = ZeroPad2D

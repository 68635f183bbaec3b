"""The shapes that kernels are compared on, under the names that documents and --shape use."""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn.ops.shapes import Window, conv_window, pool_window


@dataclass(frozen=True, slots=True)
class ConvShape:
    """A convolution worth measuring: images (N, C, H, W), K filters of R × S."""

    name: str
    n: int
    c: int
    hw: tuple[int, int]
    k: int
    rs: tuple[int, int]
    stride: int
    padding: int | str

    @property
    def window(self) -> Window:
        return conv_window(self.hw, self.rs, self.stride, self.padding)


@dataclass(frozen=True, slots=True)
class PoolShape:
    """A pooling worth measuring: images (N, C, H, W), square windows."""

    name: str
    n: int
    c: int
    hw: tuple[int, int]
    kernel: int
    stride: int
    padding: int

    @property
    def window(self) -> Window:
        return pool_window(self.hw, self.kernel, self.stride, self.padding)


CONV_SHAPES = (
    ConvShape("m1", 128, 1, (28, 28), 32, (5, 5), 1, "same"),
    ConvShape("m2", 128, 32, (14, 14), 64, (5, 5), 1, "same"),
    ConvShape("k1", 128, 1, (28, 28), 32, (3, 3), 1, "valid"),
    ConvShape("k2", 128, 64, (13, 13), 64, (3, 3), 1, "valid"),
    ConvShape("c1", 256, 64, (32, 32), 128, (3, 3), 1, 1),
    ConvShape("c2", 256, 128, (16, 16), 256, (3, 3), 1, 1),
    ConvShape("c3", 256, 256, (8, 8), 256, (3, 3), 1, 1),
    ConvShape("r1", 64, 64, (56, 56), 64, (3, 3), 1, 1),
    ConvShape("r2", 64, 64, (56, 56), 128, (3, 3), 2, 1),
    ConvShape("p1", 64, 256, (56, 56), 64, (1, 1), 1, 0),
)
POOL_SHAPES = tuple(
    PoolShape(f"{shape.name}-{kernel}x{kernel}", shape.n, shape.k, shape.hw, kernel, 2, padding)
    for shape in CONV_SHAPES
    if shape.name in ("c1", "r1")
    for kernel, padding in ((2, 0), (3, 1))
)
# Depthwise layers as MobileNet, EfficientNet and ConvNeXt have them.
DEPTHWISE_WINDOWS: dict[str, Window] = {
    "3x3": conv_window((112, 112), (3, 3), 1, 1),
    "3x3-stride-2": conv_window((112, 112), (3, 3), 2, 1),
    "5x5-stride-2": conv_window((56, 56), (5, 5), 2, 2),
    "3x3-dilation-2": conv_window((14, 14), (3, 3), 1, 2, dilation=2),
    "7x7": conv_window((56, 56), (7, 7), 1, 3),
}

"""Blocks from which networks are built, made of layers."""

from __future__ import annotations

from gpucnn.checks import flag, integer, pair, several
from gpucnn.errors import ArgumentError
from gpucnn.layers.containers import Concat, Residual, Stack
from gpucnn.layers.conv import Conv2D
from gpucnn.layers.norm import BatchNorm2D
from gpucnn.layers.pool import MaxPool2D
from gpucnn.layers.separable import DepthwiseConv2D
from gpucnn.text import shown

__all__ = ["depthwise_block", "inception", "residual_block"]


def inception(ones: int, threes: tuple[int, int], fives: tuple[int, int], pooled: int) -> Concat:
    """GoogLeNet's block (Szegedy et al., CVPR 2015), four branches side by side: (C, H, W) → (ones + threes + fives + pooled, H, W).

    The branches are a 1 × 1 convolution with `ones` filters; a 3 × 3 and a 5 × 5 convolution, each after a 1 × 1 convolution that reduces
    the channels, given as (filters of the reduction, filters); and 3 × 3 max pooling followed by a 1 × 1 convolution. All use ReLU.
    """
    branches = []
    for size, given, name in ((3, threes, "threes"), (5, fives, "fives")):
        numbers = several(given)
        if numbers is None or len(numbers) != 2:
            raise ArgumentError(f"{name} must be two numbers, (filters of the reduction, filters), got {shown(given)}")
        reduced, filters = (integer(number, name, 1) for number in numbers)
        branches.append([Conv2D(reduced, 1, activation="relu"), Conv2D(filters, size, padding="same", activation="relu")])
    last = [MaxPool2D(3, stride=1, padding="same"), Conv2D(integer(pooled, "pooled", 1), 1, activation="relu")]
    return Concat(Conv2D(integer(ones, "ones", 1), 1, activation="relu"), *branches, last)


def residual_block(filters: int, *, stride: int = 1, project: bool | None = None) -> Residual:
    """ResNet's block: (C, H, W) → (filters, H / stride, W / stride). Two 3 × 3 convolutions with batch normalization, added to a shortcut,
    then ReLU (He et al., CVPR 2016).

    project: whether the shortcut is a 1 × 1 convolution with batch normalization; by default it is one if the stride is not 1. A block that
    changes the number of channels needs one.
    """
    shortcut = None
    if pair(stride, "stride", 1) != (1, 1) if project is None else flag(project, "project"):
        shortcut = [Conv2D(filters, 1, stride=stride, use_bias=False), BatchNorm2D()]
    return Residual(
        Conv2D(filters, 3, stride=stride, padding="same", use_bias=False),
        BatchNorm2D(activation="relu"),
        Conv2D(filters, 3, padding="same", use_bias=False),
        BatchNorm2D(),
        shortcut=shortcut,
        activation="relu",
    )


def depthwise_block(filters: int, *, stride: int = 1) -> Stack:
    """MobileNet's block: (C, H, W) → (filters, H / stride, W / stride). A 3 × 3 depthwise convolution, then a 1 × 1 convolution, each
    followed by batch normalization and ReLU (Howard et al. 2017)."""
    return Stack(
        DepthwiseConv2D(3, stride=stride, padding="same", use_bias=False),
        BatchNorm2D(activation="relu"),
        Conv2D(filters, 1, use_bias=False),
        BatchNorm2D(activation="relu"),
    )

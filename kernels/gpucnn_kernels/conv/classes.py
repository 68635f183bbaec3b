"""Convolution as products of matrices: which pixels belong to a product, and the numbers by which a kernel finds them.

tiled.py explains the idea: the forward pass is one product, the gradient of the input one for each class of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gpucnn_kernels.core.integers import magic
from gpucnn_kernels.core.launch import LIMIT, Window, geometry

Sizes: TypeAlias = tuple[int, int, int, Window, int]  # images, channels, filters, window, groups


@dataclass(frozen=True)
class _Axis:
    """One axis of a class: count positions i, written to first + i·spread, read from i·stride + origin + t·step by tap from + t·every."""

    count: int
    first: int
    spread: int
    stride: int
    origin: int
    step: int
    taps: int
    from_tap: int
    every: int


def _forward_axis(window: Window, axis: int) -> _Axis:
    before = window.padding[axis][0]
    taps = window.kernel[axis]
    return _Axis(window.output[axis], 0, 1, window.stride[axis], -before, window.dilation[axis], taps, 0, 1)


def _gradient_axes(window: Window, axis: int) -> list[_Axis]:
    stride, dilation, before = window.stride[axis], window.dilation[axis], window.padding[axis][0]
    common = math.gcd(stride, dilation)
    every, step = stride // common, -(dilation // common)
    axes = []
    for first in range(min(stride, window.input[axis])):
        count = -(-(window.input[axis] - first) // stride)
        from_tap = next((r for r in range(min(every, window.kernel[axis])) if (first + before - r * dilation) % stride == 0), None)
        if from_tap is None:
            axes.append(_Axis(count, first, stride, 1, 0, 0, 0, 0, 1))
        else:
            taps = -(-(window.kernel[axis] - from_tap) // every)
            origin = (first + before - from_tap * dilation) // stride
            axes.append(_Axis(count, first, stride, 1, origin, step, taps, from_tap, every))
    return axes


@dataclass(frozen=True, slots=True)
class Gather:
    """A class of pixels as a product: M positions that gather from C channels of `source` (H × W) to N of `target`, in each group."""

    images: int
    down: _Axis
    across: _Axis
    source: tuple[int, int, int]
    target: tuple[int, int, int]
    window: Window
    groups: int
    n_stride: int  # of a weight, from one channel of the target to the next
    c_stride: int
    source_step: int = 0  # elements from an image to the next, if they are not contiguous
    target_step: int = 0

    @property
    def plane(self) -> int:
        """Positions of an image."""
        return self.down.count * self.across.count

    @property
    def M(self) -> int:
        return self.images * self.plane

    @property
    def N(self) -> int:
        return self.target[0]

    @property
    def C(self) -> int:
        return self.source[0]

    @property
    def taps(self) -> int:
        return self.down.taps * self.across.taps

    @property
    def side_by_side(self) -> bool:
        """Whether neighbouring positions are written to neighbouring pixels."""
        return self.down.spread == self.across.spread == 1

    def padded(self, tile: Any) -> tuple[int, int]:
        """C and N up to whole blocks of the tile."""
        return -(-self.C // tile.BK) * tile.BK, -(-self.N // tile.BN) * tile.BN

    @property
    def weights(self) -> tuple[Any, ...]:
        """The positions of the class's taps among all weights, as the kernels that rewrite these take them: taps down and across, taps
        of a row, weights of a group, strides, the first tap and the step to the next, down and across."""
        down, across, (R, S) = self.down, self.across, self.window.kernel
        strides = self.n_stride, self.c_stride
        walk = down.from_tap, across.from_tap, down.every, across.every
        return _unsigned(max(down.taps, 1), max(across.taps, 1), S, self.N * self.C * R * S, *strides, *walk)

    def arguments(self, padded_c: int, packed: int) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
        """The numbers that operands.PIXELS takes of rows and of the walk along the depth, and those that IMAGES takes. ValueError where an
        array would be too large to count in 32 bits."""
        down, across, n, groups = self.down, self.across, self.images, self.groups
        (C, H, W), (N, OH, OW) = self.source, self.target
        source, target = self.source_step or groups * C * H * W, self.target_step or groups * N * OH * OW
        if max(self.M, packed, source * n, target * n) >= LIMIT:
            raise ValueError(f"{n} images of {self.window.input}: an array would have 2³¹ elements or more: use a smaller batch")
        decode = self.plane, *magic(self.plane), across.count, *magic(across.count)
        rows = *_unsigned(self.M, *decode, source, C * H * W), *_signed(down.stride, across.stride, down.origin, across.origin)
        U = max(across.taps, 1)
        walk = *_unsigned(padded_c, *magic(padded_c), U, *magic(U)), *_signed(down.step, across.step), *_unsigned(C, H, W, H * W)
        put = _unsigned(*decode, target, OH * OW, OW, down.spread, across.spread, down.first, across.first)
        return rows, walk, put


@dataclass(frozen=True, slots=True)
class Sum:
    """The gradient of the weight as a product: M filters × N channels and taps, sums over `depth` positions, in each group; and the numbers
    by which operands.gradients and operands.TAPS find theirs."""

    M: int
    N: int
    depth: int
    plane: int  # positions of an image
    groups: int
    dy: tuple[Any, ...]
    rows: tuple[Any, ...]
    walk: tuple[Any, ...]


def forward(sizes: Sizes, step: int = 0) -> list[Gather]:
    """The forward pass. step: from an image of y to the next, where they lie apart; so for dy below."""
    n, c, k, window, groups = sizes
    geometry(window)  # checks it
    taps = window.kernel[0] * window.kernel[1]
    down, across = (_forward_axis(window, axis) for axis in (0, 1))
    source, target = (c // groups, *window.input), (k // groups, *window.output)
    return [Gather(n, down, across, source, target, window, groups, c // groups * taps, taps, target_step=step)]


def input_grad(sizes: Sizes, step: int = 0) -> list[Gather]:
    """The gradient of the input, class by class."""
    n, c, k, window, groups = sizes
    geometry(window)
    taps = window.kernel[0] * window.kernel[1]
    source, target = (k // groups, *window.output), (c // groups, *window.input)
    return [
        Gather(n, down, across, source, target, window, groups, taps, c // groups * taps, source_step=step)
        for down in _gradient_axes(window, 0)
        for across in _gradient_axes(window, 1)
    ]


def weight_grad(sizes: Sizes, step: int = 0) -> Sum:
    """The gradient of the weight."""
    n, c, k, window, groups = sizes
    geometry(window)
    (H, W), (R, S), (P, Q), group_c, M = window.input, window.kernel, window.output, c // groups, k // groups
    N, plane, depth = group_c * R * S, P * Q, n * P * Q
    (top, _), (left, _) = window.padding
    dy = _unsigned(M, plane, *magic(plane), (step or k * plane) - plane, depth)
    rows = (
        *_unsigned(N, R * S, *magic(R * S), S, *magic(S), group_c * H * W),
        *_signed(*window.dilation, top, left),
        *_unsigned(H, W),
    )
    walk = *_unsigned(depth, plane, *magic(plane), Q, *magic(Q), c * H * W), *_signed(*window.stride), *_unsigned(H, W)
    return Sum(M, N, depth, plane, groups, dy, rows, walk)


def _unsigned(*numbers: int | np.uint32) -> tuple[np.uint32, ...]:
    return tuple(np.uint32(number) for number in numbers)


def _signed(*numbers: int) -> tuple[np.int32, ...]:
    return tuple(np.int32(number) for number in numbers)

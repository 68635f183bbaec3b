"""Convolution as a product of matrices that are nowhere in memory: fast forward and gradients on the engine.

                    rows of a (M)          columns of b (N)       depth (K of the product)
    forward         positions n, p, q      filters                channels of x × taps
    input gradient  pixels n, h, w         channels of x          filters × taps
    weight gradient filters                channels of x × taps   positions n, p, q

The first two are one product. Position p reads by tap r the row p·stride − top + r·dilation of x. And row h = i·stride + a of dx gathers
by tap r from row p = i + (a + top − r·dilation) / stride of dy, if that is a whole number. So pixels fall into stride × stride classes
by their remainders a, b; the taps that a class needs lie at regular distances, and along them p moves by constant steps. Each class is a
launch. A class without taps sums nothing and writes zeros.

For both the weights are first rewritten, in a workspace, as [group][tap][channel][filter] (for the gradient [filter][channel]), with zeros
up to whole tiles: then the engine reads them four at a time and without a comparison. They are small beside the images.

The weight gradient has few results and long sums. So each sum is cut into slices that are worked out side by side in a workspace and then
added, always in the same order: the same bits every time.

A weight that is infinite or NaN makes NaN of the padding that it meets, as in every product of matrices: 0 · ∞ is NaN. The plain kernels
(conv.py) leave padding out of the sum.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn_kernels.conv.plain import weight_shape
from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.integers import magic, split
from gpucnn_kernels.core.launch import LIMIT, Array, Stream, Window, aligned, floats, geometry, run_each
from gpucnn_kernels.engine.operands import GRADIENT, IMAGES, PIXELS, TAPS, gradients, matrix
from gpucnn_kernels.engine.product import Product, product, room
from gpucnn_kernels.engine.tiles import BIAS, MASK, NOTHING, SUMS, Tile
from gpucnn_kernels.tensor import product as tensor_product
from gpucnn_kernels.tensor import weight_grad as tensor_grad
from gpucnn_kernels.tensor.product import TensorTile
from gpucnn_kernels.tensor.weight_grad import TensorGradTile


@kernel
def pack_kernel(weight, packed, N, padded_n, C, padded_c, T, U, S, group_size, n_stride, c_stride, first_r, first_s, step_r, step_s):
    """packed[group][tap t, u][c][n] = weight at tap (first + t·step, …), or 0 past the last c and n."""
    i = uint32(cuda.grid(1))
    if i >= packed.size:
        return
    rest, n = split(i, padded_n)
    rest, c = split(rest, padded_c)
    rest, u = split(rest, U)
    group, t = split(rest, T)
    value = float32(0)
    if n < N and c < C:
        tap = uint32(uint32(first_r + t * step_r) * S + uint32(first_s + u * step_s))
        value = weight[uint32(uint32(group * group_size + n * n_stride) + uint32(c * c_stride + tap))]
    packed[i] = value


@dataclass(frozen=True)
class _Class:
    """The pixels of one remainder (or all of them) and the weights that they need."""

    product: Product
    packed: int  # elements
    pack_kernel: Any
    pack_threads: int
    pack: tuple[np.uint32, ...]


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


def _unsigned(*numbers: int | np.uint32) -> tuple[np.uint32, ...]:
    return tuple(np.uint32(number) for number in numbers)


def _signed(*numbers: int) -> tuple[np.int32, ...]:
    return tuple(np.int32(number) for number in numbers)


def _gather(
    tile: Tile | TensorTile, n: int, down: _Axis, across: _Axis, source: tuple[int, ...], target: tuple[int, ...], window: Window,
    groups: int, vector: bool, ends: tuple[int, bool], n_stride: int, c_stride: int,
) -> _Class:  # fmt: skip
    """The product for one class: from `source` (channels of a group, H, W) to `target`, likewise. `ends`: what comes after the sum, as
    `product` takes it."""
    (C, H, W), (N, OH, OW) = source, target
    plane = down.count * across.count
    M, taps = n * plane, down.taps * across.taps
    padded_c, padded_n = -(-C // tile.BK) * tile.BK, -(-N // tile.BN) * tile.BN
    depth, numbers = taps * padded_c, taps * padded_c * padded_n * groups
    packed = 2 * numbers if isinstance(tile, TensorTile) else numbers  # in two parts each
    if max(M, packed, groups * C * H * W * n, groups * N * OH * OW * n) >= LIMIT:
        raise ValueError(f"{n} images of {window.input}: an array would have 2³¹ elements or more: use a smaller batch")
    decode = plane, *magic(plane), across.count, *magic(across.count)
    rows = *_unsigned(M, *decode, groups * C * H * W, C * H * W), *_signed(down.stride, across.stride, down.origin, across.origin)
    U = max(across.taps, 1)
    walk = (
        *_unsigned(padded_c, *magic(padded_c), U, *magic(U)), *_signed(down.step, across.step), *_unsigned(C, H, W, H * W),
    )  # fmt: skip
    put = _unsigned(*decode, groups * N * OH * OW, OH * OW, OW, down.spread, across.spread, down.first, across.first)
    shape = (
        max(down.taps, 1), U, window.kernel[1], N * C * window.kernel[0] * window.kernel[1],
        n_stride, c_stride, down.from_tap, across.from_tap, down.every, across.every,
    )  # fmt: skip
    if isinstance(tile, TensorTile):
        made = tensor_product.product(tile, (rows, walk), (IMAGES, put), (M, N, depth), ends, groups, whole=C % tile.BK == 0)
        pack = _unsigned(N, padded_n // tile.BN, tile.BN, C, padded_c, *shape)
        return _Class(made, packed, tensor_product.pack_split_kernel, numbers, pack)
    quads = vector and plane % 4 == 0 and down.spread == across.spread == 1
    made = product(
        tile, (PIXELS, (rows, walk)), (matrix("rows", 4), _unsigned(1, padded_n, depth * padded_n, padded_n, depth)), (IMAGES, put),
        (M, N, depth), (quads, *ends), groups,
    )  # fmt: skip
    return _Class(made, packed, pack_kernel, numbers, _unsigned(N, padded_n, C, padded_c, *shape))


@functools.lru_cache(maxsize=256)
def _forward(
    n: int, c: int, k: int, window: Window, groups: int, tile: Tile | TensorTile, vector: bool, ends: tuple[int, bool]
) -> tuple[_Class, ...]:
    geometry(window)  # checks it
    down, across = (_forward_axis(window, axis) for axis in (0, 1))
    taps = window.kernel[0] * window.kernel[1]
    source, target = (c // groups, *window.input), (k // groups, *window.output)
    return (_gather(tile, n, down, across, source, target, window, groups, vector, ends, c // groups * taps, taps),)


@functools.lru_cache(maxsize=256)
def _input_grad(
    n: int, c: int, k: int, window: Window, groups: int, tile: Tile | TensorTile, vector: bool, extra_is: int
) -> tuple[_Class, ...]:
    geometry(window)
    taps = window.kernel[0] * window.kernel[1]
    source, target = (k // groups, *window.output), (c // groups, *window.input)
    return tuple(
        _gather(tile, n, down, across, source, target, window, groups, vector, (extra_is, False), taps, c // groups * taps)
        for down in _gradient_axes(window, 0)
        for across in _gradient_axes(window, 1)
    )


@functools.lru_cache(maxsize=256)
def _weight_grad(
    n: int, c: int, k: int, window: Window, groups: int, tile: Tile | TensorGradTile, slices: int, vector: bool, extra_is: int
) -> Product:  # fmt: skip
    geometry(window)
    (H, W), (R, S), (P, Q), group_c, M = window.input, window.kernel, window.output, c // groups, k // groups
    N, plane, depth = group_c * R * S, P * Q, n * P * Q
    (top, _), (left, _) = window.padding
    dy = _unsigned(M, plane, *magic(plane), k * plane - plane, depth)
    rows = (
        *_unsigned(N, R * S, *magic(R * S), S, *magic(S), group_c * H * W),
        *_signed(*window.dilation, top, left),
        *_unsigned(H, W),
    )
    walk = *_unsigned(depth, plane, *magic(plane), Q, *magic(Q), c * H * W), *_signed(*window.stride), *_unsigned(H, W)
    width = 4 if vector and plane % 4 == 0 else 1
    if isinstance(tile, TensorGradTile):
        return tensor_grad.product(tile, dy, (rows, walk), (M, N, depth), extra_is, groups, slices, width)
    ends = vector and N % 4 == 0, extra_is, False
    return product(tile, (gradients(width), dy), (TAPS, (rows, walk)), (GRADIENT, ()), (M, N, depth), ends, groups, slices)


def conv2d_workspace(n: int, c: int, k: int, window: Window, groups: int, tile: Tile | TensorTile) -> int:
    """Elements (float32) of the workspace that `conv2d` needs."""
    return max(part.packed for part in _forward(n, c, k, window, groups, tile, True, (NOTHING, False)))


def conv2d_input_grad_workspace(n: int, c: int, k: int, window: Window, groups: int, tile: Tile | TensorTile) -> int:
    """Elements (float32) of the workspace that `conv2d_input_grad` needs."""
    return max(part.packed for part in _input_grad(n, c, k, window, groups, tile, True, NOTHING))


def conv2d_weight_grad_workspace(n: int, c: int, k: int, window: Window, groups: int, tile: Tile | TensorGradTile, slices: int) -> int:
    """Elements (float32) of the workspace that `conv2d_weight_grad` needs, with dbias or without; 0 where the sums are not cut."""
    plan = _weight_grad(n, c, k, window, groups, tile, slices, True, NOTHING)
    return plan.slices * k * (c // groups * window.kernel[0] * window.kernel[1] + 1) if plan.slices > 1 else 0


def conv2d(
    x: Array, weight: Array, bias: Array | None, y: Array, workspace: Array, window: Window, groups: int = 1, relu: bool = False,
    stream: Stream = 0, *, tile: Tile | TensorTile,
) -> None:  # fmt: skip
    """conv.conv2d on the engine. `workspace`: `conv2d_workspace` elements or more, flat."""
    (n, c), k = x.shape[:2], weight.shape[0]
    x, weight = floats(x, "x", (n, c, *window.input)), floats(weight, "weight", weight_shape(k, c, window, groups))
    bias_or_any, y = x if bias is None else floats(bias, "bias", (k,)), floats(y, "y", (n, k, *window.output))
    parts = _forward(n, c, k, window, groups, tile, aligned(y), (NOTHING if bias is None else BIAS, relu))
    _run(parts, x, weight, bias_or_any, y, workspace, stream)


def conv2d_input_grad(
    dy: Array, weight: Array, dx: Array, workspace: Array, window: Window, groups: int = 1, stream: Stream = 0, *,
    tile: Tile | TensorTile, relu: Array | None = None,
) -> None:  # fmt: skip
    """conv.conv2d_input_grad on the engine. `workspace`: `conv2d_input_grad_workspace` elements or more, flat."""
    (n, k), c = dy.shape[:2], weight.shape[1] * groups
    dy, weight = floats(dy, "dy", (n, k, *window.output)), floats(weight, "weight", weight_shape(k, c, window, groups))
    dx = floats(dx, "dx", (n, c, *window.input))
    if relu is None:
        parts, extra = _input_grad(n, c, k, window, groups, tile, aligned(dx), NOTHING), dy
    else:
        extra = floats(relu, "relu", (n, c, *window.input))
        parts = _input_grad(n, c, k, window, groups, tile, aligned(dx) and aligned(extra), MASK)
    _run(parts, dy, weight, extra, dx, workspace, stream)


def conv2d_weight_grad(
    dy: Array, x: Array, dweight: Array, workspace: Array, window: Window, groups: int = 1, stream: Stream = 0, *,
    tile: Tile | TensorGradTile, slices: int, dbias: Array | None = None,
) -> None:  # fmt: skip
    """conv.conv2d_weight_grad on the engine. `workspace`: `conv2d_weight_grad_workspace` elements or more, flat."""
    (n, k), c = dy.shape[:2], x.shape[1]
    dy, x = floats(dy, "dy", (n, k, *window.output)), floats(x, "x", (n, c, *window.input))
    dweight = floats(dweight, "dweight", weight_shape(k, c, window, groups))
    extra, extra_is = (None, NOTHING) if dbias is None else (floats(dbias, "dbias", (k,)), SUMS)
    plan = _weight_grad(n, c, k, window, groups, tile, slices, aligned(dy) and aligned(dweight), extra_is)
    plan.run_whole(dy, x, extra, dweight, workspace, extra_is, False, stream)


def _run(parts: tuple[_Class, ...], source: Array, weight: Array, extra: Array, target: Array, workspace: Array, stream: Stream) -> None:
    for part in parts:
        packed = room(workspace, part.packed)
        if part.packed:
            run_each(part.pack_kernel, part.pack_threads, stream, weight, packed, *part.pack)
        part.product.run(source, packed if part.packed else weight, extra, target, stream)

"""Convolution by Winograd's algorithm, in float32 on FMA units: 3 × 3 kernels at stride 1, forward and gradient of the input.

winograd_loop.py has the kernel. The gradient of the input is the same convolution, of dy, with the taps in reverse order and channels and
filters exchanged; the launch that transforms the weights sees to that.

No chip has confirmed it. So the rules never choose it: `gpucnn tune`, which compares its results before it times it, select.override, and
the environment do (GPUCNN_VARIANT=conv2d=winograd).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn_kernels.conv.classes import Gather, Sizes, forward, input_grad
from gpucnn_kernels.conv.plain import weight_shape
from gpucnn_kernels.conv.winograd_ends import WinogradTile, pack_kernel
from gpucnn_kernels.conv.winograd_loop import winograd_kernel
from gpucnn_kernels.core.launch import LIMIT, Array, Stream, Window, aligned, floats, images, run, run_each
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.core.variant import Variant
from gpucnn_kernels.engine.product import room
from gpucnn_kernels.engine.tiles import BIAS, MASK, NOTHING

TILE = WinogradTile()
_LEAST = 8  # channels and filters: fewer leave most of a tile empty, and a first layer has kernels of its own (direct.py)
_UNCONFIRMED = 0.0, 1
"""The merit of a kernel that no chip has confirmed, and the slices of its sums: all others go first."""


@dataclass(frozen=True)
class Plan:
    """Two launches without their arrays: the weights' transform, and the convolution."""

    tile: WinogradTile
    blocks: int
    packed: int
    pack: tuple[Any, ...]
    arguments: tuple[Any, ...]

    def run(
        self,
        source: Array,
        weight: Array,
        extra: Array,
        target: Array,
        epilogue: tuple[bool, int, bool],
        workspace: Array | None,
        stream: Stream,
    ) -> None:
        """Launches both. epilogue: whether two results may be written at once, what `extra` is for, and whether there is a ReLU."""
        packed = room(workspace, self.packed)
        run_each(pack_kernel(self.tile), self.packed // 16, stream, weight, packed, *self.pack)
        flags = tuple(np.uint32(flag) for flag in epilogue)
        kernel, threads = winograd_kernel(self.tile), self.tile.threads
        run(kernel, self.blocks, threads, stream, source, packed, weight, extra, target, *self.arguments, flags)


def _plan(tile: WinogradTile, one: Gather, turned: bool) -> Plan:
    """ValueError where an array would be too large to count in 32 bits."""
    (C, H, W), (K, P, Q) = one.source, one.target
    source, target = one.source_step or C * H * W, one.target_step or K * P * Q
    down, across = -(-P // 2), -(-Q // 2)
    tiles, packed = one.images * down * across, tile.packed(C, K)
    if max(tiles + tile.tiles, packed, one.images * source, one.images * target) >= LIMIT:
        raise ValueError(f"{one.images} images of {H} × {W}: an array would have 2³¹ elements or more: use a smaller batch")
    turns, blocks_k = -(-C // tile.channels), -(-K // tile.filters)
    origins = (axis.origin + (axis.taps - 1) * min(axis.step, 0) for axis in (one.down, one.across))
    taps = *map(np.uint32, (one.n_stride, one.c_stride)), *map(np.int32, (8, -1) if turned else (0, 1))
    sizes = tuple(map(np.uint32, (C, K, turns, blocks_k, tiles, down * across, across)))
    where = *map(np.uint32, (H, W, H * W, source)), *map(np.int32, origins)
    return Plan(
        tile,
        -(-tiles // tile.tiles) * blocks_k,
        packed,
        (taps, np.uint32(C), np.uint32(K), np.uint32(turns)),
        (sizes, where, tuple(map(np.uint32, (P, Q, P * Q, target))), taps),
    )


@functools.lru_cache(maxsize=256)
def _forward(sizes: Sizes, tile: WinogradTile, step: int) -> Plan:
    return _plan(tile, forward(sizes, step)[0], turned=False)


@functools.lru_cache(maxsize=256)
def _input_grad(sizes: Sizes, tile: WinogradTile, step: int) -> Plan:
    return _plan(tile, input_grad(sizes, step)[0], turned=True)


def suits(window: Window, groups: int) -> bool:
    """Whether a convolution can be done here."""
    return (window.kernel, window.stride, window.dilation, groups) == ((3, 3), (1, 1), (1, 1), 1)


def _check(window: Window, groups: int) -> None:
    if not suits(window, groups):
        given = f"kernel {window.kernel}, stride {window.stride}, dilation {window.dilation}, groups {groups}"
        raise ValueError(f"the kernel by Winograd's algorithm is for 3 × 3 at stride 1 without dilation and groups, not for {given}")


def _by_twos(step: int, columns: int, *arrays: Array) -> bool:
    """Whether two neighbouring results always lie at a multiple of 8 bytes."""
    return columns % 2 == 0 and step % 2 == 0 and all(map(aligned, arrays))


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    window: Window,
    groups: int = 1,
    relu: bool = False,
    stream: Stream = 0,
    *,
    workspace: Array | None = None,
    tile: WinogradTile = TILE,
) -> None:
    """plain.conv2d by Winograd's algorithm. `workspace`: as many elements as the variant's says, or more, flat."""
    _check(window, groups)
    (n, c), k = x.shape[:2], weight.shape[0]
    x, weight = floats(x, "x", (n, c, *window.input)), floats(weight, "weight", weight_shape(k, c, window, groups))
    extra = x if bias is None else floats(bias, "bias", (k,))
    y, step = images(y, "y", (n, k, *window.output))
    epilogue = _by_twos(step, window.output[1], y), NOTHING if bias is None else BIAS, relu
    _forward((n, c, k, window, groups), tile, step).run(x, weight, extra, y, epilogue, workspace, stream)


def conv2d_input_grad(
    dy: Array,
    weight: Array,
    dx: Array,
    window: Window,
    groups: int = 1,
    stream: Stream = 0,
    *,
    relu: Array | None = None,
    workspace: Array | None = None,
    tile: WinogradTile = TILE,
) -> None:
    """plain.conv2d_input_grad by Winograd's algorithm. `workspace`: as many elements as the variant's says, or more, flat."""
    _check(window, groups)
    (n, k), c = dy.shape[:2], weight.shape[1]
    dy, step = images(dy, "dy", (n, k, *window.output))
    weight, dx = floats(weight, "weight", weight_shape(k, c, window, groups)), floats(dx, "dx", (n, c, *window.input))
    extra, role = (dy, NOTHING) if relu is None else (floats(relu, "relu", (n, c, *window.input)), MASK)
    epilogue = _by_twos(0, window.input[1], dx, *([] if relu is None else [extra])), role, False
    _input_grad((n, c, k, window, groups), tile, step).run(dy, weight, extra, dx, epilogue, workspace, stream)


def _fits(problem: Problem, chip: Chip) -> bool:
    return min(problem.channels, problem.N) >= _LEAST and suits(problem.windowed, problem.groups)


def _variant(launcher: Any) -> Variant:
    def room_of(problem: Problem, slices: int) -> int:
        return TILE.packed(problem.channels, problem.N)

    return Variant("winograd", launcher, _fits, room_of, lambda problem, chip: _UNCONFIRMED, parts=True)


FORWARD, INPUT_GRAD = map(_variant, (conv2d, conv2d_input_grad))

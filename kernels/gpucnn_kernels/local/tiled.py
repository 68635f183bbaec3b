"""Convolution without sharing on the engine: a batch of products, one for each position or pixel.

                    batch        rows of a (M)         columns of b (N)    depth (K of the product)
    forward         positions    images                filters             channels of x × taps
    input gradient  pixels       images                channels of x       filters × taps
    weight gradient positions    channels of x × taps  filters             images

A position's pixels under its window are a row of a, for each image; its own filters are b. The gradient of the input is the same seen from
the other side: a pixel gathers from the outputs that have read it, by the weights that each of these had for it. As in a convolution
(conv/classes.py) pixels fall into classes by the taps that they meet, and each class is a launch.

A weight is read for one position only, and positions are the innermost axes of the weights. So what a block reads of them lies P·Q numbers
apart; blocks of neighbouring positions, which run side by side, read the other numbers of the same 32 bytes from the second-level cache.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import math

import numpy as np

from gpucnn_kernels.conv.classes import Gather, forward, input_grad
from gpucnn_kernels.core._numba import int32, uint32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.integers import divide, magic
from gpucnn_kernels.core.launch import LIMIT, Array, Stream, Window, floats, geometry, run_each
from gpucnn_kernels.core.variant import Variant
from gpucnn_kernels.engine.merit import weigh
from gpucnn_kernels.engine.operands import matrix
from gpucnn_kernels.engine.product import Product, product
from gpucnn_kernels.engine.tiles import BEST, BIAS, MASK, NOTHING, TILES, Operand, Store, Tile
from gpucnn_kernels.local.plain import batch_sum_kernel


@device(forceinline=True)
def _origin(args, group, state, at):
    """The row and the column where a place's window begins, which may lie before the image."""
    J, J_by, J_shift, stride_h, stride_w, origin_h, origin_w = args
    i = divide(group, J_by, J_shift)
    state[at] = uint32(int32(int32(i) * stride_h + origin_h))
    state[at + 1] = uint32(int32(int32(uint32(group - i * J)) * stride_w + origin_w))


@device(forceinline=True)
def _images_prepare(args, group, row, state, at):
    place, (rows, image), _ = args
    state[at] = uint32(min(row, uint32(rows - uint32(1))) * image)
    _origin(place, group, state, at + 1)


@device(forceinline=True)
def _images_find(args, state, at, first, depth):
    _, _, (depths, taps, taps_by, taps_shift, U, U_by, U_shift, step_h, step_w, H, W) = args
    number = uint32(first + depth)
    c = divide(number, taps_by, taps_shift)
    tap = uint32(number - c * taps)
    t = divide(tap, U_by, U_shift)
    h = int32(int32(state[at + 1]) + int32(t) * step_h)  # above the image: as uint32 a huge number, so one comparison is enough
    w = int32(int32(state[at + 2]) + int32(uint32(tap - t * U)) * step_w)
    pixel = uint32(int32(int32(uint32(state[at] + c * uint32(H * W))) + int32(h * int32(W)) + w))
    return pixel, (number < depths) & (uint32(h) < H) & (uint32(w) < W)


IMAGES = Operand("images at a place", "depths", 1, 3, _images_prepare, _images_find)
"""x, or dy, under the window of a place: a row is an image, the depth a channel and a tap (t, u), taps innermost. The group (i, j) reads
by a tap the pixel h = i·stride + origin + t·step, and likewise w; 0 outside of the image.

Arguments: ((J and its magic, strides, origins), (rows, elements of an image), (depths, taps and their magic, taps along u and their
magic, steps, H, W)).
"""


@device(forceinline=True)
def _filters_prepare(args, group, row, state, at):
    place, (rows, row_size), _, _ = args
    state[at] = uint32(min(row, uint32(rows - uint32(1))) * row_size)
    _origin(place, group, state, at + 1)


@device(forceinline=True)
def _filters_find(args, state, at, first, depth):
    _, _, (depths, taps, taps_by, taps_shift, U, U_by, U_shift, step_h, step_w, P, Q), walk = args
    channel, S, from_r, from_s, every_r, every_s = walk
    number = uint32(first + depth)
    c = divide(number, taps_by, taps_shift)
    tap = uint32(number - c * taps)
    t = divide(tap, U_by, U_shift)
    u = uint32(tap - t * U)
    p = int32(int32(state[at + 1]) + int32(t) * step_h)
    q = int32(int32(state[at + 2]) + int32(u) * step_w)
    own = uint32(uint32(from_r + t * every_r) * S + uint32(from_s + u * every_s))
    tap_at = int32(uint32(uint32(state[at] + c * channel) + uint32(own * uint32(P * Q))))
    weight = uint32(int32(tap_at + int32(p * int32(Q)) + q))
    return weight, (number < depths) & (uint32(p) < P) & (uint32(q) < Q)


FILTERS = Operand("filters of a place", "depths", 1, 3, _filters_prepare, _filters_find)
"""The weights that lead to a place: a row is a filter (for the gradient of the input a channel), the depth a channel (a filter) and a tap
(t, u), which is the weight's tap from + t·every; they are those of the position p = i·stride + origin + t·step, and likewise q.

Arguments: as those of IMAGES, with the size of a row in place of an image's, and P, Q; then (elements from a depth's channel to the next,
S, from, every).
"""


@device(forceinline=True)
def _taps_prepare(args, group, row, state, at):
    place, (rows, taps, taps_by, taps_shift, S, S_by, S_shift, dilation_h, dilation_w, H, W), (depths, _) = args
    row = uint32(min(row, uint32(rows - uint32(1))))
    c = divide(row, taps_by, taps_shift)
    tap = uint32(row - c * taps)
    r = divide(tap, S_by, S_shift)
    _origin(place, group, state, at)
    h = uint32(int32(int32(state[at]) + int32(r) * dilation_h))
    w = uint32(int32(int32(state[at + 1]) + int32(uint32(tap - r * S)) * dilation_w))
    inside = h < H and w < W
    state[at + 1] = depths if inside else uint32(0)
    state[at] = uint32(uint32(c * uint32(H * W)) + uint32(h * W + w)) if inside else uint32(0)


@device(forceinline=True)
def _taps_find(args, state, at, first, depth):
    _, _, (_, image) = args
    n = uint32(first + depth)
    return uint32(state[at] + n * image), n < state[at + 1]


TAPS = Operand("taps of a place", "rows", 1, 2, _taps_prepare, _taps_find)
"""x as the gradient of the weight sees it: a row is a channel and a tap, the depth an image.

Arguments: ((J and its magic, strides, origins), (rows, taps and their magic, S and its magic, dilations, H, W), (images, elements of one)).
"""


@device(forceinline=True)
def _row_offset(args, M, N, batch, row):
    (row_step, _), (J, J_by, J_shift, width, spread_h, spread_w, first_h, first_w), _ = args
    i = divide(batch, J_by, J_shift)
    j = uint32(batch - i * J)
    return uint32(uint32(row * row_step) + uint32(uint32(i * spread_h + first_h) * width) + uint32(j * spread_w + first_w))


@device(forceinline=True)
def _column_offset(args, M, N, batch, column):
    (_, column_step), _, _ = args
    return uint32(column * column_step)


@device(forceinline=True)
def _bias_index(args, N, group, column):
    _, _, places = args
    return uint32(column * places + group)


PLACES = Store("places", "columns", False, _row_offset, _column_offset, _bias_index)
"""Results of a place (i, j): row · step + column · step + (i·spread + first) · width + j·spread + first; a bias is (columns, places).

Arguments: ((steps), (J and its magic, width, spreads, firsts), places)."""


def _gathered(tile: Tile, one: Gather, extra: int, relu: bool, *, of_pixels: bool) -> Product:
    """The product of a class of places: forward all positions; with `of_pixels` backward, the pixels that meet the same taps."""
    down, across, window = one.down, one.across, one.window
    (C, H, W), (N, OH, OW), taps, (P, Q) = one.source, one.target, one.taps, window.output
    geometry(window)
    if max(one.images * C * H * W, one.images * N * OH * OW, N * C * math.prod(window.kernel) * P * Q) >= LIMIT:
        raise ValueError(f"{one.images} images of {window.input}: an array would have 2³¹ elements or more: use a smaller batch")
    J, U, depths = across.count, max(across.taps, 1), C * taps
    decode = depths, max(taps, 1), *magic(max(taps, 1)), U, *magic(U)
    starts = *_unsigned(J, *magic(J)), *_signed(down.stride, across.stride, down.origin, across.origin)
    steps = _signed(down.step, across.step)
    images = starts, _unsigned(one.images, C * H * W), (*_unsigned(*decode), *steps, *_unsigned(H, W))
    own = starts if of_pixels else (*_unsigned(J, *magic(J)), *_signed(1, 1, 0, 0))
    positions = P * Q
    filters = (
        own,
        _unsigned(N, one.n_stride * positions),
        (*_unsigned(*decode), *(steps if of_pixels else _signed(0, 0)), *_unsigned(P, Q)),
        _unsigned(one.c_stride * positions, window.kernel[1], down.from_tap, across.from_tap, down.every, across.every),
    )
    spread = _unsigned(J, *magic(J), OW, down.spread, across.spread, down.first, across.first)
    put = _unsigned(N * OH * OW, OH * OW), spread, np.uint32(positions)
    return product(
        tile,
        (IMAGES, images),
        (FILTERS, filters),
        (PLACES, put),
        (one.images, N, depths),
        (False, extra, relu),
        groups=one.plane,
        past_registers=True,
    )


@functools.lru_cache(maxsize=256)
def _forward(n: int, c: int, k: int, window: Window, tile: Tile, extra: int, relu: bool) -> Product:
    (one,) = forward((n, c, k, window, 1))
    return _gathered(tile, one, extra, relu, of_pixels=False)


@functools.lru_cache(maxsize=256)
def _input_grad(n: int, c: int, k: int, window: Window, tile: Tile, extra: int) -> tuple[Product, ...]:
    return tuple(_gathered(tile, one, extra, False, of_pixels=True) for one in input_grad((n, c, k, window, 1)))


@functools.lru_cache(maxsize=256)
def _weight_grad(n: int, c: int, k: int, window: Window, tile: Tile) -> Product:
    (H, W), (R, S), (P, Q) = window.input, window.kernel, window.output
    (top, _), (left, _) = window.padding
    geometry(window)
    rows, positions = c * R * S, P * Q
    starts = *_unsigned(Q, *magic(Q)), *_signed(*window.stride, -top, -left)
    lines = *_unsigned(rows, R * S, *magic(R * S), S, *magic(S)), *_signed(*window.dilation), *_unsigned(H, W)
    taps = starts, lines, _unsigned(n, c * H * W)
    gradients = _unsigned(positions, k * positions, 1, k, n)
    put = _unsigned(positions, rows * positions), _unsigned(Q, *magic(Q), Q, 1, 1, 0, 0), np.uint32(positions)
    return product(tile, (TAPS, taps), (matrix("depths", 1), gradients), (PLACES, put), (rows, k, n), groups=positions, past_registers=True)


def locally_connected2d(
    x: Array, weight: Array, bias: Array | None, y: Array, window: Window, relu: bool = False, stream: Stream = 0, *, tile: Tile
) -> None:
    """plain.locally_connected2d by tiles."""
    (n, c), k = x.shape[:2], weight.shape[0]
    x, y = floats(x, "x", (n, c, *window.input)), floats(y, "y", (n, k, *window.output))
    weight = floats(weight, "weight", (k, c, *window.kernel, *window.output))
    extra = x if bias is None else floats(bias, "bias", (k, *window.output))
    _forward(n, c, k, window, tile, NOTHING if bias is None else BIAS, relu).run(x, weight, extra, y, stream)


def locally_connected2d_input_grad(
    dy: Array, weight: Array, dx: Array, window: Window, stream: Stream = 0, *, relu: Array | None = None, tile: Tile
) -> None:
    """plain.locally_connected2d_input_grad by tiles."""
    (n, k), c = dy.shape[:2], weight.shape[1]
    dy, dx = floats(dy, "dy", (n, k, *window.output)), floats(dx, "dx", (n, c, *window.input))
    weight = floats(weight, "weight", (k, c, *window.kernel, *window.output))
    extra = dy if relu is None else floats(relu, "relu", (n, c, *window.input))
    for one in _input_grad(n, c, k, window, tile, NOTHING if relu is None else MASK):
        one.run(dy, weight, extra, dx, stream)


def locally_connected2d_weight_grad(
    dy: Array, x: Array, dweight: Array, window: Window, stream: Stream = 0, *, dbias: Array | None = None, tile: Tile
) -> None:
    """plain.locally_connected2d_weight_grad by tiles; dbias by the plain kernel."""
    (n, k), c = dy.shape[:2], x.shape[1]
    dy, x = floats(dy, "dy", (n, k, *window.output)), floats(x, "x", (n, c, *window.input))
    dweight = floats(dweight, "dweight", (k, c, *window.kernel, *window.output))
    _weight_grad(n, c, k, window, tile).run(x, dy, x, dweight, stream)
    if dbias is not None:
        sums = floats(dbias, "dbias", (k, *window.output))
        run_each(batch_sum_kernel, int(sums.size), stream, dy, sums, np.int32(n))


def variants(name: str, tile: Tile, best: float) -> dict[str, Variant]:
    """The variants of that name, by operation."""
    measure = functools.partial(weigh, tile=tile, best=best)
    return {
        launcher.__name__: Variant(name, functools.partial(launcher, tile=tile), weigh=own)
        for launcher, own in (
            (locally_connected2d, measure),
            (locally_connected2d_input_grad, measure),
            (locally_connected2d_weight_grad, functools.partial(measure, turned=True)),
        )
    }


# Layers without sharing have few filters. What the narrow tile gives is not measured: it reads half as many numbers again for an FMA.
ALL = [variants("tile64x64", TILES["tile64x64"], BEST["tile64x64"]), variants("tile64x32", Tile(64, 32, 8, 8, 4, 8), 0.7)]


def _unsigned(*numbers: int | np.uint32) -> tuple[np.uint32, ...]:
    return tuple(np.uint32(number) for number in numbers)


def _signed(*numbers: int) -> tuple[np.int32, ...]:
    return tuple(np.int32(number) for number in numbers)

"""The engine's operands and stores: matrices, images seen through a window, and the ways back to either.

Every function here finds one number, or four neighbours, in memory; the loop over them is the engine's (tiles.py says what each must
do). Values that depend on the row alone are computed once, by `prepare`, and kept in registers.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools

from gpucnn_kernels.core._numba import int32, uint32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.integers import divide
from gpucnn_kernels.engine.tiles import Operand, Store


@functools.cache
def matrix(along: str, width: int, guarded: bool = True) -> Operand:
    """A matrix in memory. Arguments: strides of row, depth and group, rows, depths. `guarded`: fours are read without branches, which takes
    more registers (core/guarded.py); ones always are.

    A width of 4 wants an array at a multiple of 16 bytes, one stride 1, along which the matrix has a multiple of 4 numbers, and the
    others multiples of 4.
    """
    reach = width if along == "rows" else 1

    @device(forceinline=True)
    def prepare(args, group, row, state, at):
        row_stride, _, group_stride, rows, _ = args
        row = uint32(min(row, uint32(rows - uint32(reach))))
        state[at] = uint32(group * group_stride + row * row_stride)

    @device(forceinline=True)
    def find(args, state, at, first, depth):
        _, depth_stride, _, _, depths = args
        number = uint32(first + depth)
        return uint32(state[at] + number * depth_stride), number < depths

    return Operand(f"matrix {along} by {width}", along, width, 1, prepare, find, guarded or width == 1, late=True)


@device(forceinline=True)
def _pixels_prepare(args, group, row, state, at):
    (rows, plane, plane_by, plane_shift, J, J_by, J_shift, image, group_size, stride_h, stride_w, origin_h, origin_w), _ = args
    row = uint32(min(row, uint32(rows - uint32(1))))
    n = divide(row, plane_by, plane_shift)
    rest = uint32(row - n * plane)
    i = divide(rest, J_by, J_shift)
    j = uint32(rest - i * J)
    state[at] = uint32(n * image + group * group_size)
    state[at + 1] = uint32(int32(int32(i) * stride_h + origin_h))
    state[at + 2] = uint32(int32(int32(j) * stride_w + origin_w))


@device(forceinline=True)
def _pixels_find(args, state, at, first, depth):
    _, (padded, padded_by, padded_shift, U, U_by, U_shift, step_h, step_w, channels, H, W, area) = args
    tap = divide(first, padded_by, padded_shift)
    c = uint32(uint32(first - tap * padded) + depth)
    t = divide(tap, U_by, U_shift)
    u = uint32(tap - t * U)
    h, w = int32(int32(state[at + 1]) + int32(t) * step_h), int32(int32(state[at + 2]) + int32(u) * step_w)
    pixel = uint32(int32(int32(state[at]) + int32(h * int32(W)) + w))
    # A negative row becomes a huge number, so one comparison is enough.
    return uint32(pixel + uint32(c * area)), (uint32(h) < H) & (uint32(w) < W) & (c < channels)


PIXELS = Operand("pixels", "rows", 1, 3, _pixels_prepare, _pixels_find)
"""Images under the taps of a window. A row is a position of the window, the depth a tap (t, u) and a channel, channels innermost.

Position (i, j) reads by tap (t, u) the pixel h = i·stride + origin + t·step, and likewise w. Channels are counted up to a multiple of BK,
so that all threads of a block look at one tap at a time; those that are not there are 0, and so are pixels outside the image.
Arguments: ((rows, I·J and its magic, J and its magic, elements of an image and of a group of channels, strides, origins), (the padded
number of channels and its magic, taps along u and its magic, steps, channels of a group, H, W, H·W)).
"""


@device(forceinline=True)
def _gradients_prepare(args, group, row, state, at):
    rows, plane, _, _, _, _ = args
    state[at] = uint32(uint32(group * rows + min(row, uint32(rows - uint32(1)))) * plane)


@functools.cache
def gradients(width: int, guarded: bool = True) -> Operand:
    """dy (N, K, P, Q): a row is a filter of the group, the depth a position n, p, q. `guarded`: fours are read without branches, which
    takes more registers (core/guarded.py); ones always are.

    Arguments: filters of a group, P·Q and its magic, elements of an image less P·Q, positions. A width of 4 wants an array at a multiple
    of 16 bytes and P·Q a multiple of 4.
    """

    @device(forceinline=True)
    def find(args, state, at, first, depth):
        _, _, plane_by, plane_shift, skipped, positions = args
        position = uint32(first + depth)
        return uint32(state[at] + position + divide(position, plane_by, plane_shift) * skipped), position < positions

    return Operand(f"gradients by {width}", "depths", width, 1, _gradients_prepare, find, guarded or width == 1)


@functools.cache
def taps(guarded: bool = True) -> Operand:
    """x (N, C, H, W) as the gradient of the weight sees it: a row is a channel of the group and a tap, the depth a position n, p, q.
    `guarded`: it is read without branches, which takes more registers (core/guarded.py).

    Arguments: ((rows, R·S and its magic, S and its magic, elements of a group of channels, dilations, top, left, H, W), (positions, P·Q and
    its magic, Q and its magic, elements of an image, strides, H, W)).
    """

    @device(forceinline=True)
    def prepare(args, group, row, state, at):
        (rows, taps, taps_by, taps_shift, S, S_by, S_shift, group_size, dilation_h, dilation_w, top, left, H, W), _ = args
        row = uint32(min(row, uint32(rows - uint32(1))))
        c = divide(row, taps_by, taps_shift)
        tap = uint32(row - c * taps)
        r = divide(tap, S_by, S_shift)
        s = uint32(tap - r * S)
        h, w = int32(int32(r) * dilation_h - top), int32(int32(s) * dilation_w - left)
        state[at] = uint32(group * group_size + c * uint32(H * W))
        if guarded:  # the pixel under the first position: how far the others are from there is the same for all rows
            state[at] = uint32(int32(int32(state[at]) + int32(h * int32(W)) + w))
        state[at + 1] = uint32(h)
        state[at + 2] = uint32(w)

    @device(forceinline=True)
    def find(args, state, at, first, depth):
        _, (positions, plane, plane_by, plane_shift, Q, Q_by, Q_shift, image, stride_h, stride_w, H, W) = args
        position = uint32(first + depth)
        n = divide(position, plane_by, plane_shift)
        rest = uint32(position - n * plane)
        p = divide(rest, Q_by, Q_shift)
        q = uint32(rest - p * Q)
        down, across = int32(int32(p) * stride_h), int32(int32(q) * stride_w)
        h, w = uint32(int32(int32(state[at + 1]) + down)), uint32(int32(int32(state[at + 2]) + across))  # above the image: a huge number
        there = (position < positions) & (h < H) & (w < W)
        if guarded:
            way = int32(int32(uint32(n * image)) + int32(down * int32(W)) + across)
            return uint32(int32(int32(state[at]) + way)), there
        return uint32(state[at] + n * image + h * W + w), there

    return Operand("taps", "depths", 1, 3, prepare, find, guarded)


@device(forceinline=True)
def _matrix_row(args, M, N, batch, row):
    return uint32(uint32(batch * M + row) * N)


@device(forceinline=True)
def _matrix_column(args, M, N, batch, column):
    return column


MATRIX = Store("matrix", "columns", False, _matrix_row, _matrix_column)
"""(batch, M, N) in memory. No arguments of its own. Four at once want an array at a multiple of 16 bytes and N a multiple of 4."""

GRADIENT = Store("gradient", "columns", True, _matrix_row, _matrix_column)
"""MATRIX for the gradient of a weight, beside which there may be that of a bias."""


@device(forceinline=True)
def _images_row(args, M, N, batch, row):
    plane, plane_by, plane_shift, J, J_by, J_shift, image, _, width, stride_h, stride_w, first_h, first_w = args
    n = divide(row, plane_by, plane_shift)
    rest = uint32(row - n * plane)
    i = divide(rest, J_by, J_shift)
    j = uint32(rest - i * J)
    return uint32(n * image + uint32(i * stride_h + first_h) * width + uint32(j * stride_w + first_w))


@device(forceinline=True)
def _images_column(args, M, N, batch, column):
    _, _, _, _, _, _, _, channel, _, _, _, _, _ = args
    return uint32(uint32(batch * N + column) * channel)


IMAGES = Store("images", "rows", False, _images_row, _images_column)
"""(n, channel, i·stride + first, j·stride + first) for the row n, i, j and the column of a group.

Arguments: I·J and its magic, J and its magic, elements of an image and of a channel, the width, strides, firsts. Four at once want an
array at a multiple of 16 bytes, I·J a multiple of 4, and strides of 1.
"""

"""Strips of a depthwise convolution: a thread's results, one below the other, and how it reads a row of pixels for them."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import float32, int32, types, uint32, uint64
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.launch import THREADS, Pair, Window

MOST_TAPS = 64  # R·S: all their weights, or their sums, are in registers
_STRIP = 8  # results, at most
_FMAS = 400  # of a thread, all written out
_ROWS = 64  # that a strip reads, and columns
_SUMS = 32  # of a thread, for the gradient of the input
_WEIGHTS = 40  # of a thread that has several filters

int64: Any = types.int64


@dataclass(frozen=True, slots=True)
class Strip:
    """The shape that a kernel is compiled for: strips of `length` results, one below the other, of `filters` filters of a group (of
    `filters` channels, for the gradient of the input), each a sum over several channels where `summed`."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    length: int
    filters: int = 1
    summed: bool = False


def strip_of(window: Window, group: Pair = (1, 1)) -> Strip | None:
    """The strip for `conv2d` and the gradient of weight; None if unrolling it would be too long. group: its channels and filters."""
    return _strip(window, window.output[0], _STRIP, _together(window, *group), group[0] > 1)


def input_strip_of(window: Window, group: Pair = (1, 1)) -> Strip | None:
    """The strip for the gradient of the input, where a thread has `length` · stride_h rows of stride_w pixels."""
    (stride_h, stride_w), (channels, _) = window.stride, group
    together = _together(window, channels, channels)
    most = min(_STRIP, _SUMS // (stride_h * stride_w * together))
    return _strip(window, groups_along(window, 0), most, together, channels > 1)


def _together(window: Window, channels: int, filters: int) -> int:
    """The filters of a thread: it reads a pixel once for all of them. One where a pixel is of one channel of its own."""
    taps = window.kernel[0] * window.kernel[1]
    return next(count for count in (4, 2, 1) if filters % count == 0 and (count == 1 or count * taps <= _WEIGHTS)) if channels > 1 else 1


def _strip(window: Window, results: int, most: int, filters: int, summed: bool) -> Strip | None:
    (r, s), stride, dilation = window.kernel, window.stride[0], window.dilation[0]
    most = min(most, _FMAS // (r * s * filters), (_ROWS - 1 - (r - 1) * dilation) // stride + 1)
    if r * s > MOST_TAPS or most < 1 or (s - 1) * window.dilation[1] >= _ROWS:
        return None
    strips = -(-results // most)  # of about the same length
    return Strip(window.kernel, window.stride, window.dilation, -(-results // strips), filters, summed)


def groups_along(window: Window, axis: int) -> int:
    """The number of groups of `stride` rows or columns, each of which begins with one that tap 0 may fall on."""
    before, stride = window.padding[axis][0], window.stride[axis]
    return -(-(window.input[axis] + before % stride) // stride)


def bounds(strip: Strip) -> dict[str, Any]:
    """The launch bounds of a kernel for `strip`: with four blocks on a multiprocessor, a thread has 128 registers. With more, the compiler
    would have the reads of several rows on their way at once."""
    return {"launch_bounds": (THREADS, 4)} if strip.summed else {}


@device(forceinline=True)
def beside(index, constant):
    """index + constant, in 64 bits, so that the constant becomes part of the instruction that reads; index may be below zero."""
    return uint64(int64(index) + int64(constant))


@functools.cache
def row_reader(taps: int, step: int) -> Any:
    """The device function that reads `taps` pixels of a row, `step` apart, zero where they are outside of the image."""

    @device(forceinline=True)
    def read(image, base, h, first_w, H, W, pixels):
        """Row h, from column first_w, of the plane that begins at `base`."""
        inside = uint32(h) < uint32(H)  # negative numbers are very large as unsigned ones
        at = int32(base + int32(h * W) + first_w)
        for s in range(taps):
            pixels[s] = float32(0)
            if inside and uint32(first_w + s * step) < uint32(W):
                pixels[s] = image[beside(at, s * step)]

    return read


def skipped(step: int, filters: int, window: Window) -> np.uint32:
    """The gap, in elements, between images of y or dy that begin `step` elements apart; 0 if they are adjacent."""
    return np.uint32(step - filters * window.output[0] * window.output[1] if step else 0)

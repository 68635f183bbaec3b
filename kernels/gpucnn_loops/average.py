"""Average pooling: 16 outputs of a row at a time, tap by tap. Images of y and dy may lie apart.

At a step of 2 the even and the odd pixels of a row are separated as they are read, and interleaved as they are written. With larger steps
pixels are read and gradients added number by number. A window of the whole plane is a sum along it.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.language import helper
from gpucnn_loops.loops import loop
from gpucnn_loops.pool import Sizes, begins, pieces, planes_of, sizes_of, stops, work_of
from gpucnn_loops.tables import Frame, Tables, Window, framed, lanes, one_window
from gpucnn_loops.threads import Scratch, address, lasting
from gpucnn_loops.turn import fill, put_in_frame
from gpucnn_loops.vector import L, at, high_pairs, load, load_apart, load_even, low_pairs, splat, store, sum16, where_positive

Array = NDArray[np.float32]
ZERO = np.float32(0)


@helper
def put(v, x, i, room, few):
    """Writes v to x[i] …, at most `room` numbers. few: scratch for a vector."""
    if room >= L:
        store(x, i, v)
    else:
        store(few, 0, v)
        for lane in range(room):
            x[i + lane] = few[lane]


@helper
def got(x, i, room, few):
    """Reads a vector from x[i], of which `room` numbers are there; the rest of it is what `few` holds."""
    if room >= L:
        return load(x, i)
    for lane in range(room):
        few[lane] = x[i + lane]
    return load(few, 0)


@loop("i i f* f* f* i", Sizes, Frame, "f* f*")
def means(first, last, x, y, counts, line, sizes, frame, framed, few):
    """y (planes, p, q): the sum of each window of x (planes, h, w), divided by counts (p, line).

    Up to 15 numbers are written past the end of a row; the next row overwrites them.
    """
    h, w, r, s, sh, sw, dh, dw, _, _, p, q = sizes
    for plane in range(first, last):
        source = at(x, plane * h * w)
        if frame.high != h or frame.wide != w or (last - plane - 1) * h * w < (sw + 2) * L:  # the last ones have nothing behind them
            put_in_frame(source, frame, framed, ZERO)
            source = framed
        for i in range(p):
            for j in range(0, q, L):
                total = splat(ZERO)
                for a in range(r):
                    row = at(source, (i * sh + a * dh) * frame.wide + j * sw)
                    if sw == 1:
                        for b in range(s):
                            total = total + load(row, b * dw)
                    elif sw == 2:
                        for b in range(s):
                            total = total + load_even(row, b * dw)
                    else:
                        for b in range(s):
                            total = total + load_apart(row, b * dw, sw)
                to = (plane * p + i) * q + j
                put(total / load(counts, i * line + j), y, to, last * p * q - to, few)


@loop("i i f* f* f* i", Sizes, "w* w* i i f* f*")
def means_grad(first, last, dy, dx, counts, line, sizes, begin, end, lead, across, shares, few):
    """dx (planes, h, w): each window's gradient, divided by counts (p, line), at every pixel of the window, for steps of 1 and 2.

    counts are 0 past the end of a row. begin and end (h): the outputs whose windows may have a pixel in a row. shares (p, across): dy /
    counts from column `lead` on, with zeros around them.
    """
    h, w, _, s, sh, sw, dh, dw, top, left, p, q = sizes
    half, odd_first = left // 2, left % 2 == 1
    for plane in range(first, last):
        for i in range(p):
            for j in range(0, q, L):
                given, by = (plane * p + i) * q + j, load(counts, i * line + j)
                store(shares, i * across + lead + j, where_positive(by, got(dy, given, last * p * q - given, few) / by))
        for row in range(h):
            to, room = (plane * h + row) * w, (last * h - plane * h - row) * w
            for j in range(0, w, L * sw):
                even, odd = splat(ZERO), splat(ZERO)
                for i in range(begin[row], end[row]):
                    if dh == 1 or (row + top - i * sh) % dh == 0:
                        own = at(shares, i * across + lead)
                        if sw == 1:
                            for b in range(s):
                                even = even + load(own, left + j - b * dw)
                        else:
                            for b in range(s):
                                if b * dw % 2 == 1:
                                    odd = odd + load(own, half + j // 2 - b * dw // 2)
                                else:
                                    even = even + load(own, half + j // 2 - b * dw // 2 + (1 if odd_first else 0))
                if sw == 1:
                    put(even, dx, to + j, room - j, few)
                else:
                    one, other = (odd, even) if odd_first else (even, odd)
                    put(low_pairs(one, other), dx, to + j, room - j, few)
                    if j + L < w:
                        put(high_pairs(one, other), dx, to + j + L, room - j - L, few)


@loop("i i f* f* f* i", Sizes, "f*")
def halves_grad(first, last, dy, dx, counts, line, sizes, few):
    """As `means_grad`, for windows of two columns, side by side, without padding: each gradient is read once and written to its pixels."""
    h, w, sh, p, q = sizes.h, sizes.w, sizes.sh, sizes.p, sizes.q
    for plane in range(first, last):
        for row in range(p * sh):
            i, to, room = row // sh, (plane * h + row) * w, (last * h - plane * h - row) * w
            for j in range(0, q, L):
                given, by = (plane * p + i) * q + j, load(counts, i * line + j)
                g = where_positive(by, got(dy, given, last * p * q - given, few) / by)
                put(low_pairs(g, g), dx, to + 2 * j, room - 2 * j, few)
                if 2 * j + L < w:
                    put(high_pairs(g, g), dx, to + 2 * j + L, room - 2 * j - L, few)
        for i in range((plane * h + p * sh) * w, (plane * h + h) * w):
            dx[i] = ZERO


@loop("i i f* f* f*", Sizes, "f*")
def means_grad_by_number(first, last, dy, dx, counts, sizes, shares):
    """As `means_grad`, with any step; counts (p, q). shares (q): a row of dy / counts."""
    h, w, r, s, sh, sw, dh, dw, top, left, p, q = sizes
    for plane in range(first, last):
        image = at(dx, plane * h * w)
        for i in range(h * w):
            image[i] = ZERO
        for i in range(p):
            given, by = at(dy, (plane * p + i) * q), at(counts, i * q)
            for j in range(q):
                shares[j] = given[j] / by[j]
            for a in range(r):
                row = i * sh - top + a * dh
                if row >= 0 and row < h:
                    for b in range(s):
                        shift = b * dw - left
                        line = at(image, row * w + shift)
                        for j in range(begins(shift, sw), stops(shift, sw, w, q)):
                            line[j * sw] += shares[j]


@loop("i i f* f* i")
def plane_means(first, last, x, y, pixels):
    """y (planes): the mean of each plane of x (planes, pixels)."""
    whole, count = pixels // L * L, np.float32(pixels)
    for plane in range(first, last):
        row = at(x, plane * pixels)
        total, rest = splat(ZERO), ZERO
        for i in range(0, whole, L):
            total = total + load(row, i)
        for i in range(whole, pixels):
            rest += row[i]
        y[plane] = (sum16(total) + rest) / count


@loop("i i f* f* i")
def plane_means_grad(first, last, dy, dx, pixels):
    """dx (planes, pixels): dy (planes), divided evenly among the pixels of its plane."""
    for plane in range(first, last):
        fill(at(dx, plane * pixels), pixels, dy[plane] / np.float32(pixels))


class Counts:
    """What the sums of a pooling are divided by (P, Q); and in rows of whole vectors, 0 behind each."""

    def __init__(self, counts: Array) -> None:
        self.plain = counts
        self.padded = np.zeros((len(counts), lanes(counts.shape[1])), np.float32)
        self.padded[:, : counts.shape[1]] = counts
        lasting(self.plain)
        lasting(self.padded)


@functools.lru_cache(maxsize=256)
def _frame(window: Window) -> Frame:
    return framed(1, window)


def avg_pool2d(x: Array, window: Window, counts: Counts, y: Array) -> None:
    """y (N, C, P, Q) of x (N, C, H, W)."""
    sizes, planes, frame = sizes_of(window), planes_of(x), _frame(window)
    by, whole = counts.padded, one_window(window)

    def body(first: int, last: int) -> None:
        scratch = Scratch(0 if whole else frame.high * frame.wide + (sizes.sw + 2) * L, L)
        fill(*scratch.piece(0), 0)
        for piece in pieces(first, last, x, y):
            if whole:
                plane_means(*piece, sizes.h * sizes.w)
                continue
            means(*piece, address(by), by.shape[1], *sizes, *frame, *scratch.addresses())

    share(planes, body, work_of(window, planes))


def avg_pool2d_grad(dy: Array, window: Window, counts: Counts, dx: Array) -> None:
    """dx (N, C, H, W) of dy (N, C, P, Q)."""
    sizes, planes = sizes_of(window), planes_of(dy)
    by_number = window.stride[1] > 2
    by, rows = counts.plain if by_number else counts.padded, _outputs_of_rows(window).at
    left, w, step = window.padding[1][0], window.input[1], window.stride[1]
    in_halves = window.kernel == window.stride and step == 2 and window.dilation == (1, 1) and window.padding[0][0] == left == 0
    lead = (window.kernel[1] - 1) * window.dilation[1] // step
    across = lead + max(by.shape[1], left // step + 1 + lanes(-(-w // step)))

    def body(first: int, last: int) -> None:
        if by_number or one_window(window):
            shares = Scratch(sizes.q).addresses()
            for piece in pieces(first, last, dy, dx):
                if one_window(window):
                    plane_means_grad(*piece, sizes.h * sizes.w)
                else:
                    means_grad_by_number(*piece, address(by), *sizes, *shares)
            return
        scratch = Scratch(len(by) * across, L)
        for index in range(2):
            fill(*scratch.piece(index), 0)
        for piece in pieces(first, last, dy, dx):
            if in_halves:
                halves_grad(*piece, address(by), by.shape[1], *sizes, scratch.addresses()[1])
                continue
            means_grad(*piece, address(by), by.shape[1], *sizes, rows.begin, rows.end, lead, across, *scratch.addresses())

    share(planes, body, work_of(window, planes))


@loop("i i f* f* i")
def spread_means(first, last, dy, dx, pixels):
    """dx (planes, pixels): each plane's number of dy, divided by the number of its pixels."""
    for plane in range(first, last):
        part, target = dy[plane] / np.float32(pixels), at(dx, plane * pixels)
        for i in range(pixels):
            target[i] = part


def global_avg_pool2d_grad(dy: Array, dx: Array) -> None:
    """dx (N, C, H, W): the gradient of each plane's mean, dy (N, C), divided evenly among its pixels."""
    pixels = dx.size // dy.size
    share(dy.size, lambda a, z: spread_means(a, z, address(dy), address(dx), pixels), 6 * dx.size)


def global_avg_pool2d(x: Array, y: Array) -> None:
    """y (N, C): the mean of each plane of x (N, C, H, W)."""
    pixels = x.shape[2] * x.shape[3]
    share(y.size, lambda a, z: plane_means(a, z, address(x), address(y), pixels), 4 * x.size)


@functools.lru_cache(maxsize=256)
def _outputs_of_rows(window: Window) -> Tables:
    """The outputs whose windows reach from above a row of pixels, or begin in it, to below it, or end in it."""
    reach, stride = (window.kernel[0] - 1) * window.dilation[0], window.stride[0]
    rows = np.arange(window.input[0]) + window.padding[0][0]
    return Tables(begin=np.maximum(0, -((reach - rows) // stride)), end=np.minimum(window.output[0], rows // stride + 1))

"""Maximum pooling with any window: a plane at a time, 16 outputs of a row at a time, tap by tap. Images of y and dy may lie apart."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.language import helper, record
from gpucnn_loops.loops import loop
from gpucnn_loops.tables import Frame, Window, framed, lanes, one_window
from gpucnn_loops.threads import Scratch, address, lasting
from gpucnn_loops.turn import fill, put_in_frame
from gpucnn_loops.vector import (
    L,
    add_place,
    as_floats,
    at,
    beats,
    better,
    larger,
    larger_place,
    load,
    load_apart,
    load_even,
    nan_among,
    nan_or,
    places_from,
    relu_first,
    splat,
    store,
)

Array = NDArray[np.float32]
LOWEST, ZERO = np.float32(-np.inf), np.float32(0)


@record("i i i i i i i i i i i i")
class Sizes(NamedTuple):
    """Sizes of a window: pixels, taps, strides, dilations, padding before the first pixel, outputs."""

    h: int
    w: int
    r: int
    s: int
    sh: int
    sw: int
    dh: int
    dw: int
    top: int
    left: int
    p: int
    q: int


@helper
def begins(shift, stride):
    """The first output whose pixel, at output·stride + shift, is not before the image."""
    return 0 if shift >= 0 else (-shift + stride - 1) // stride


@helper
def stops(shift, stride, size, count):
    """One past the last output whose pixel is not behind the image."""
    return min(count, (size - 1 - shift) // stride + 1) if size > shift else 0


@helper
def winner(v0, v1, v2, v3, corner, across):
    """(the largest of a 2×2 window's four vectors, after ReLU; its place): its corner is at `corner`, in a plane of `across` columns."""
    if nan_among(v0, v1, v2, v3):  # otherwise a comparison does for each in place of two, and ReLU is where the maximum starts: at 0
        best, won = beats(v1, v0, add_place(corner, 1), corner)
        best, won = beats(v2, best, add_place(corner, across), won)
        best, won = beats(v3, best, add_place(corner, across + 1), won)
        return relu_first(best, won, corner)
    best, won = larger_place(v0, splat(ZERO), corner, corner)
    best, won = larger_place(v1, best, add_place(corner, 1), won)
    best, won = larger_place(v2, best, add_place(corner, across), won)
    return larger_place(v3, best, add_place(corner, across + 1), won)


@helper
def largest(v0, v1, v2, v3):
    """As `winner`, without the place."""
    return nan_or(v0, v1, v2, v3, larger(v3, larger(v2, larger(v1, larger(v0, splat(ZERO))))))


@helper
def keep_largest(v0, v1, v2, v3, corner, across, best, won, to, placed):
    """Writes the largest to best[to …], and, if placed, its place to won[to …]."""
    if placed:
        v, place = winner(v0, v1, v2, v3, corner, across)
        store(best, to, v)
        store(won, to, place)
    else:
        store(best, to, largest(v0, v1, v2, v3))


@loop("i i f* f* i* i i f* i*")
def plane_maxima(first, last, x, y, indices, placed, pixels, few, few_places):
    """y and, if placed, indices (planes) of x (planes, pixels): the first maximum of each plane and its place; NaN wins over numbers."""
    whole = pixels // L * L
    for plane in range(first, last):
        row = at(x, plane * pixels)
        top, won = row[0], 0
        if whole:
            best, places = load(row, 0), places_from(0, 1)
            for i in range(L, whole, L):
                best, places = beats(load(row, i), best, places_from(i, 1), places)
            store(few, 0, best)
            store(as_floats(few_places), 0, places)
            for lane in range(L):
                value, place = few[lane], few_places[lane]
                earlier = place < won and (value == top or value != value)
                if earlier or ((not value <= top) and top == top):
                    top, won = value, place
        for i in range(whole, pixels):
            if (not row[i] <= top) and top == top:
                top, won = row[i], i
        y[plane] = top
        if placed:
            indices[plane] = won


@loop("i i f* f* i* f*", Sizes, Frame, "f* f* f*")
def max_pool(first, last, x, y, indices, columns, sizes, frame, framed, best_row, won_row):
    """y, indices (planes, p, q) of x (planes, h, w): the first maximum of each window and its place; NaN wins over numbers. `framed` has −∞
    around the image, which never wins.

    columns: the first column of each window that is in the image, as int32 bits.
    """
    h, w, r, s, sh, sw, dh, dw, top, left, p, q = sizes
    for plane in range(first, last):
        put_in_frame(at(x, plane * h * w), frame, framed, LOWEST)
        for i in range(p):
            row0 = i * sh - top
            inside = row0 + begins(row0, dh) * dh
            for j in range(0, q, L):
                best, won = splat(LOWEST), add_place(load(columns, j), inside * w)
                for a in range(r):
                    for b in range(s):
                        pixel = (i * sh + a * dh) * frame.wide + b * dw + j * sw
                        place = places_from((row0 + a * dh) * w + b * dw - left + j * sw, sw)
                        if sw == 1:
                            best, won = beats(load(framed, pixel), best, place, won)
                        elif sw == 2:
                            best, won = beats(load_even(framed, pixel), best, place, won)
                        else:
                            best, won = beats(load_apart(framed, pixel, sw), best, place, won)
                store(best_row, j, best)
                store(won_row, j, won)
            out, places = at(y, (plane * p + i) * q), at(as_floats(indices), (plane * p + i) * q)
            for j in range(q):
                out[j] = best_row[j]
                places[j] = won_row[j]


@loop("i i f* f*", Sizes, Frame, "i i f* f* f*")
def max_values(first, last, x, y, sizes, frame, wide, room, framed, rows, spare):
    """y as in `max_pool`, where nobody asks for places: the maxima of each row of taps first, which windows one above the other share, in
    `rows` (frame.high, wide). Of equals the first row's wins, and in a row the first: together, the first one of the window.

    Up to 15 numbers are written past a row of y, which the next one overwrites; y has `room` numbers from plane `first` on.
    """
    h, w, r, s, sh, sw, dh, dw, _, _, p, q = sizes
    for plane in range(first, last):
        put_in_frame(at(x, plane * h * w), frame, framed, LOWEST)
        for j in range(0, wide, L):
            for i in range(frame.high):
                line, v = at(framed, i * frame.wide + j * sw), splat(LOWEST)
                for b in range(s):
                    if sw == 1:
                        v = better(load(line, b * dw), v)
                    elif sw == 2:
                        v = better(load_even(line, b * dw), v)
                    else:
                        v = better(load_apart(line, b * dw, sw), v)
                store(rows, i * wide + j, v)
        for i in range(p):
            place = (plane * p + i) * q
            for j in range(0, q, L):
                line, v = at(rows, i * sh * wide + j), splat(LOWEST)
                for a in range(r):
                    v = better(load(line, a * dh * wide), v)
                if place + j + L <= first * p * q + room:
                    store(y, place + j, v)
                else:
                    store(spare, 0, v)
                    for lane in range(min(L, q - j)):
                        y[place + j + lane] = spare[lane]


@loop("i i f* i* f* i f* i i")
def max_pool_grad(first, last, dy, indices, y, masked, dx, pixels, count):
    """dx (planes, pixels): each window's gradient at the pixel that won it, where y > 0 if masked."""
    for plane in range(first, last):
        out, given, won, by = at(dx, plane * pixels), at(dy, plane * count), at(indices, plane * count), at(y, plane * count)
        for i in range(pixels):
            out[i] = ZERO
        if masked:
            for i in range(count):
                if by[i] > 0:
                    out[won[i]] += given[i]
        else:
            for i in range(count):
                out[won[i]] += given[i]


def sizes_of(window: Window) -> Sizes:
    """The sizes of a window, as loops take them."""
    (top, _), (left, _) = window.padding
    return Sizes(*window.input, *window.kernel, *window.stride, *window.dilation, top, left, *window.output)


def planes_of(array: Any) -> int:
    """Planes of an array (N, C, …)."""
    return int(array.shape[0] * array.shape[1])


def work_of(window: Window, planes: int) -> int:
    """The amount of work, as `share` takes it."""
    (r, s), (p, q), (h, w) = window.kernel, window.output, window.input
    return planes * (r * s * p * q + h * w) * 4


def pieces(first: int, last: int, x: NDArray[Any], *others: NDArray[Any] | None) -> Iterator[tuple[Any, ...]]:
    """The planes first … last − 1, as (the first, behind the last, where each array's plane 0 is): all of them at once, or image by image
    where the images of an array lie apart. In place of None there is x."""
    arrays = [x, *(x if array is None else array for array in others)]
    if all(array.flags.c_contiguous for array in arrays):
        yield first, last, *map(address, arrays)
        return
    channels = x.shape[1]
    while first < last:
        image = first // channels
        end = min(last, (image + 1) * channels)
        yield first - image * channels, end - image * channels, *(address(array) + image * array.strides[0] for array in arrays)
        first = end


def max_pool2d(x: Array, window: Window, y: Array, indices: NDArray[np.int32] | None) -> None:
    """y and indices, unless they are not wanted, (N, C, P, Q) of x (N, C, H, W)."""
    sizes, planes = sizes_of(window), planes_of(x)
    if one_window(window):

        def whole(first: int, last: int) -> None:
            few = Scratch(L, L).addresses()
            for a, z, planes, out, places in pieces(first, last, x, y, indices):
                plane_maxima(a, z, planes, out, places, indices is not None, sizes.h * sizes.w, *few)

        share(planes, whole, work_of(window, planes))
        return
    frame, columns, q = framed(1, window), _first_columns(window), window.output[1]
    size = frame.high * frame.wide + (sizes.sw + 2) * L

    def body(first: int, last: int) -> None:
        scratch = Scratch(size, *((frame.high * lanes(q), L) if indices is None else (lanes(q), lanes(q))))
        fill(*scratch.piece(0), LOWEST)
        for a, z, planes, out, places in pieces(first, last, x, y, indices):
            if indices is None:
                room = (z - a) * sizes.p * q
                max_values(a, z, planes, out, *sizes, *frame, lanes(q), room, *scratch.addresses())
            else:
                max_pool(a, z, planes, out, places, address(columns), *sizes, *frame, *scratch.addresses())

    share(planes, body, work_of(window, planes))


@functools.lru_cache(maxsize=256)
def _first_columns(window: Window) -> NDArray[np.int32]:
    """The first column of each window that is in the image, padded to whole vectors."""
    first = np.arange(window.output[1]) * window.stride[1] - window.padding[1][0]
    columns = np.zeros(lanes(window.output[1]), np.int32)
    columns[: len(first)] = first + np.maximum(0, -(first // window.dilation[1])) * window.dilation[1]
    lasting(columns)
    return columns


def max_pool2d_grad(dy: Array, indices: NDArray[np.int32], window: Window, relu: Array | None, dx: Array) -> None:
    """dx (N, C, H, W) of dy, indices and `relu`, if given (N, C, P, Q)."""
    (h, w), (p, q), planes = window.input, window.output, planes_of(dy)

    def body(first: int, last: int) -> None:
        for a, z, given, places, by, out in pieces(first, last, dy, indices, dy if relu is None else relu, dx):
            max_pool_grad(a, z, given, places, by, relu is not None, out, h * w, p * q)

    share(planes, body, work_of(window, planes))

"""Depthwise convolution, one filter for each plane: lanes are neighbouring pixels, and a tap is one number times a row."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.loops import loop
from gpucnn_loops.tables import Window, edges, framed
from gpucnn_loops.threads import Scratch, address, share
from gpucnn_loops.turn import frame
from gpucnn_loops.vector import L, at, fma, load, load_even, store, sum16, where_positive

Array = NDArray[np.float32]
ZERO, ONE = np.float32(0), np.float32(1)


@loop("i i f* f* f* i i f* i i i i i i i i i i i i i i i f*")
def forward(first, last, x, weight, bias, biased, relu, y, h, w, top, left, high, wide, r, s, sh, sw, dh, dw, p, q, k, framed):
    """y of the planes first … last − 1 of x, after ReLU if `relu`; plane n·k + j has the filter j."""
    for plane in range(first, last):
        frame(at(x, plane * h * w), 1, h, w, top, left, high, wide, framed)
        filter = plane % k
        for i in range(p):
            out = at(y, (plane * p + i) * q)
            start = bias[filter] if biased else ZERO
            for j in range(q):
                out[j] = ZERO
            for a in range(r):
                for b in range(s):
                    tap = weight[(filter * r + a) * s + b]
                    line = at(framed, (i * sh + a * dh) * wide + b * dw)
                    if sw == 1:
                        for j in range(q):
                            out[j] += tap * line[j]
                    else:
                        for j in range(q):
                            out[j] += tap * line[j * sw]
            for j in range(q):
                value = out[j] + start
                out[j] = ZERO if relu and value <= 0 else value


@loop("i i f* f* f* i f* i i i i i i i i i i i i i i i f*")
def input_sums(first, last, dy, weight, mask, masked, dx, h, w, top, left, high, wide, r, s, sh, sw, dh, dw, p, q, k, framed):
    """dx of the planes first … last − 1: each gradient goes to the pixels that its taps have read."""
    for plane in range(first, last):
        filter = plane % k
        for i in range(high * wide):
            framed[i] = ZERO
        for i in range(p):
            given = at(dy, (plane * p + i) * q)
            for a in range(r):
                for b in range(s):
                    tap = weight[(filter * r + a) * s + b]
                    line = at(framed, (i * sh + a * dh) * wide + b * dw)
                    if sw == 1:
                        for j in range(q):
                            line[j] += tap * given[j]
                    else:
                        for j in range(q):
                            line[j * sw] += tap * given[j]
        for i in range(h):
            to, line, by = at(dx, (plane * h + i) * w), at(framed, (i + top) * wide + left), at(mask, (plane * h + i) * w)
            for j in range(w):
                to[j] = ZERO if masked and not by[j] > 0 else line[j]


@loop("i i i i f* f* f* i i i i i i i i i i i i i i i f* f* f* f* f*")
def weight_sums(
    first, last, k, filter, x, dy, dweight, h, w, top, left, high, wide, r, s, sh, sw, dh, dw, p, q, biased, framed, line, given, sums,
    inside,
):  # fmt: skip
    """dweight (r·s) of one filter from images first … last − 1, and behind it the bias's: sums of 16 lanes each, added up at the end.

    line, given: room for a row, zeros behind. What lies behind a row in the frame must not count: times 0 it may be NaN. So the last lanes,
    where there are more than pixels, are taken where `inside` is positive.
    """
    whole, width = q // L * L, (q + L - 1) // L * L
    for i in range((r * s + 1) * L):
        sums[i] = ZERO
    for i in range(L):
        inside[i] = ONE if i < q - whole else ZERO
    for image in range(first, last):
        plane = image * k + filter
        frame(at(x, plane * h * w), 1, h, w, top, left, high, wide, framed)
        for i in range(p):
            source = at(dy, (plane * p + i) * q)
            for j in range(q):
                given[j] = source[j]
            if biased:
                total = load(sums, r * s * L)
                for j in range(0, width, L):
                    total = total + load(given, j)
                store(sums, r * s * L, total)
            for a in range(r):
                for b in range(s):
                    pixels = at(framed, (i * sh + a * dh) * wide + b * dw)
                    total = load(sums, (a * s + b) * L)
                    if sw == 1:
                        for j in range(0, whole, L):
                            total = fma(load(pixels, j), load(given, j), total)
                        if whole < q:
                            total = fma(where_positive(load(inside, 0), load(pixels, whole)), load(given, whole), total)
                    elif sw == 2:
                        for j in range(0, whole, L):
                            total = fma(load_even(pixels, 2 * j), load(given, j), total)
                        if whole < q:
                            total = fma(where_positive(load(inside, 0), load_even(pixels, 2 * whole)), load(given, whole), total)
                    else:
                        for j in range(q):
                            line[j] = pixels[j * sw]
                        for j in range(0, width, L):
                            total = fma(load(line, j), load(given, j), total)
                    store(sums, (a * s + b) * L, total)
    for tap in range(r * s + 1):
        dweight[tap] = sum16(load(sums, tap * L))


class Depthwise:
    """The plan of a convolution with one filter for each channel. x (N, K, H, W), weight (K, 1, R, S), y and dy (N, K, P, Q)."""

    parts = False  # images lie right behind one another

    def __init__(self, k: int, window: Window) -> None:
        self.k, self.window, self.frame = k, window, framed(1, window)
        self.taps = math.prod(window.kernel)
        self.numbers = (
            *self.frame.numbers[1:], *window.kernel, *window.stride, *window.dilation, *window.output,
        )  # fmt: skip

    def _work(self, n: int) -> int:
        return n * self.k * math.prod(self.window.output) * (self.taps + 8)

    def _room(self) -> int:
        return self.frame.high * self.frame.wide

    def forward(self, x: Array, weight: Array, bias: Array | None, relu: bool, y: Array) -> None:
        """y = convolution of x, plus bias, then ReLU."""

        def body(first: int, last: int) -> None:
            scratch = Scratch(self._room())
            scratch.parts[0][...] = 0
            forward(
                first, last, address(x), address(weight), address(weight if bias is None else bias), bias is not None, relu, address(y),
                *self.numbers, self.k, *scratch.addresses(),
            )  # fmt: skip

        share(len(x) * self.k, body, self._work(len(x)))

    def input_grad(self, dy: Array, weight: Array, relu: Array | None, dx: Array) -> None:
        """dx from dy; 0 where `relu`, if given, is not positive."""

        by = address(dx if relu is None else relu)

        def body(first: int, last: int) -> None:
            input_sums(
                first, last, address(dy), address(weight), by, relu is not None, address(dx), *self.numbers, self.k,
                *Scratch(self._room()).addresses(),
            )  # fmt: skip

        share(len(dy) * self.k, body, self._work(len(dy)))

    def weight_grad(self, dy: Array, x: Array, dweight: Array, dbias: Array | None) -> None:
        """dweight (K, 1, R, S), and dbias (K)."""
        n, ends = len(x), edges(len(x), self.k * self.taps)
        groups, each = len(ends) - 1, self.taps + 1
        sums = np.empty((groups, self.k, each), np.float32)

        def body(first: int, last: int) -> None:
            scratch = Scratch(self._room() + 2 * L, self.window.output[1] + L, self.window.output[1] + L, each * L, L)
            for part in scratch.parts:
                part[...] = 0
            room = scratch.addresses()
            for piece in range(first, last):
                group, filter = divmod(piece, self.k)
                weight_sums(
                    ends[group], ends[group + 1], self.k, filter, address(x), address(dy), address(sums) + 4 * piece * each,
                    *self.numbers, dbias is not None, *room,
                )  # fmt: skip

        share(groups * self.k, body, self._work(n))
        total = np.add.reduce(sums, axis=0)
        dweight.reshape(self.k, self.taps)[...] = total[:, : self.taps]
        if dbias is not None:
            dbias[...] = total[:, self.taps]

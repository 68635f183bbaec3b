"""Transposition: to channels last for the inner loop, whose lanes are channels, and back to planes for the result.

16×16 numbers are transposed in registers: rows i and i + 8 are shuffled into each other, four times.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn_loops.language import floats, helper, intrinsic, ir, types
from gpucnn_loops.loops import loop
from gpucnn_loops.machine import FEATURES
from gpucnn_loops.tables import Frame
from gpucnn_loops.vector import I32, I64, F, L, at, chosen, lanes_before, load, load_at, splat, store, store_at

ZERO = np.float32(0)
BLOCK = 16 if "avx512f" in FEATURES else 8 if "avx2" in FEATURES else 4  # numbers in a register: 16×16 are turned in blocks that fit
PART = ir.VectorType(F, BLOCK)


def turned_of(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of `BLOCK` vectors of so many lanes."""
    half = BLOCK // 2
    low, high = (ir.Constant(ir.VectorType(I32, BLOCK), [start + i // 2 + BLOCK * (i % 2) for i in range(BLOCK)]) for start in (0, half))
    for _ in range(BLOCK.bit_length() - 1):
        rows = [builder.shuffle_vector(rows[i], rows[i + half], mask) for i in range(half) for mask in (low, high)]
    return rows


def _turn(builder: Any, line: Any, b: Any, places: Any) -> None:
    """As `turn16`. line(i): the address of row i of a."""
    table = isinstance(places.type, ir.PointerType)

    def place(j: int) -> Any:
        index = ir.Constant(I64, j)
        return builder.load(builder.gep(places, [index])) if table else builder.mul(places, index)

    for i0 in range(0, L, BLOCK):
        for j0 in range(0, L, BLOCK):
            rows = [load_at(builder, builder.gep(line(i0 + i), [ir.Constant(I64, j0)]), PART) for i in range(BLOCK)]
            for j, row in enumerate(turned_of(builder, rows)):
                store_at(builder, row, builder.gep(b, [builder.add(place(j0 + j), ir.Constant(I64, i0))]))


@intrinsic
def turn16(typing, a, a_step, b, places):
    """b[places[j] + i] = a[i·a_step + j], for i, j < 16. places: a table, or the distance of one to the next."""

    def code(c, bl, s, args):
        a, a_step, b, places = args
        _turn(bl, lambda i: bl.gep(a, [bl.mul(a_step, ir.Constant(I64, i))]), b, places)
        return c.get_dummy_value()

    return types.void(floats, types.int64, floats, places), code


@intrinsic
def turn_last(typing, count, a, a_step, b, b_step):
    """b[j·b_step + i] = a[min(i, count − 1)·a_step + j], for i, j < 16."""

    def code(c, bl, s, args):
        count, a, a_step, b, b_step = args
        last = bl.sub(count, ir.Constant(I64, 1))

        def line(i):
            index = ir.Constant(I64, i)
            return bl.gep(a, [bl.mul(bl.select(bl.icmp_signed("<", index, last), index, last), a_step)])

        _turn(bl, line, b, b_step)
        return c.get_dummy_value()

    i = types.int64
    return types.void(i, floats, i, floats, i), code


@loop("f* i i i f* i")
def to_lanes(x, apart, n, m, rows, across):
    """rows[j·across + i] = x[i·apart + j], for i < n and j < m; lanes behind n, up to whole sixteens, hold what lane n − 1 does."""
    full, width = n // L * L, (n + L - 1) // L * L
    if m < L:
        for j in range(m):
            for i in range(width):
                rows[j * across + i] = x[min(i, n - 1) * apart + j]
        return
    for column in range(0, m, L):  # columns are the outer loop: a piece of each row at a time, which comes from memory in its order
        j = min(column, m - L)
        for i in range(0, full, L):
            turn16(at(x, i * apart + j), apart, at(rows, j * across + i), across)
        if full < n:
            turn_last(n - full, at(x, full * apart + j), apart, at(rows, j * across + full), across)


@loop("f* i i i f* i")
def transpose(a, a_step, n, m, b, b_step):
    """b[j·b_step + i] = a[i·a_step + j], for i < n and j < m."""
    if n < L or m < L:
        for j in range(m):
            for i in range(n):
                b[j * b_step + i] = a[i * a_step + j]
        return
    for column in range(0, m, L):
        j = min(column, m - L)
        for row in range(0, n, L):
            i = min(row, n - L)
            turn16(at(a, i * a_step + j), a_step, at(b, j * b_step + i), b_step)


@loop("f* i i i f* w*")
def to_planes(rows, count, k, lanes, planes, places):
    """planes[places[channel] + i] = rows[i·lanes + channel], for i < count and channel < k; the lanes behind k are left out."""
    if k < L or count < L:
        for channel in range(k):
            for i in range(count):
                planes[places[channel] + i] = rows[i * lanes + channel]
        return
    for block in range(0, k, L):
        lane = min(block, k - L)
        for i in range(0, count, L):
            first = min(i, count - L)
            turn16(at(rows, first * lanes + lane), lanes, at(planes, first), at(places, lane))


@loop("f* i i i f* w*")
def to_rows(planes, plane, count, k, rows, places):
    """rows[places[i] + channel] = planes[channel·plane + i], for i < count and channel < k; lanes behind k stay as they are."""
    if k < L or count < L:
        for channel in range(k):
            for i in range(count):
                rows[places[i] + channel] = planes[channel * plane + i]
        return
    for block in range(0, k, L):
        lane = min(block, k - L)
        for i in range(0, count, L):
            first = min(i, count - L)
            turn16(at(planes, lane * plane + first), plane, at(rows, lane), at(places, first))


@loop("f* i i i i f* w*")
def kernels_by_tap(weight, k, c, count, taps, rows, places):
    """rows[places[filter, tap] + channel] = weight[filter, channel, tap], of the first `count` of c channels; lanes behind them stay.

    places (k, whole sixteens of taps): behind a filter's last tap they point to memory whose contents do not matter.
    """
    each = (taps + L - 1) // L * L
    for filter in range(k if taps == 1 else 0):
        source, to = at(weight, filter * c), at(rows, places[filter * each])
        for channel in range(count):
            to[channel] = source[channel]
    for filter in range(0 if taps == 1 else k):
        for block in range(0, count, L):
            lane = max(0, min(block, count - L))
            for tap in range(0, taps, L):
                first, own = (filter * c + lane) * taps + tap, at(places, filter * each + tap)
                if count >= L and first + (L - 1) * taps + L <= (k - 1) * c * taps + count * taps:
                    turn16(at(weight, first), taps, at(rows, lane), own)
                else:
                    for channel in range(min(L, count)):
                        for i in range(min(L, taps - tap)):
                            rows[own[i] + lane + channel] = weight[first + channel * taps + i]


@loop("f* i i i i f* w*")
def turned_kernels(weight, k, c, count, taps, rows, places):
    """rows (k, taps, 16) of the first `count`, at most 16, of c channels of weight (k, c, taps): kernels rotated by 180°, channels last;
    lanes behind them stay as they are.

    places (whole sixteens of taps): of each tap among a filter's rows. What lies behind the last tap goes to the next filter's rows before
    these are written.
    """
    for filter in range(k):
        source, to = at(weight, filter * c * taps), at(rows, filter * taps * L)
        if count == L and filter < k - 1:
            for tap in range(0, taps, L):
                turn16(at(source, tap), taps, to, at(places, tap))
        else:
            for channel in range(count):
                for tap in range(taps):
                    to[places[tap] + channel] = source[channel * taps + tap]


@loop("f*", Frame, "f* f")
def put_in_frame(planes, frame, framed, around):
    """Planes (c, h, w) from (top, left) on in planes of high × wide; the rest of `framed` holds `around` already, and up to 15 numbers
    behind a short row are written once more."""
    w, count = frame.w, frame.c * frame.h * frame.w
    inside, outside = lanes_before(w), splat(around)
    for channel in range(frame.c):
        for i in range(frame.h):
            place = (channel * frame.h + i) * w
            line, target = at(planes, place), at(framed, (channel * frame.high + i + frame.top) * frame.wide + frame.left)
            if w >= L:
                for j in range(0, w - L, L):
                    store(target, j, load(line, j))
                store(target, w - L, load(line, w - L))
            elif place + L <= count:
                store(target, 0, chosen(inside, load(line, 0), outside))
            else:
                for j in range(w):
                    target[j] = line[j]


@helper
def in_frame(planes, frame, framed):
    """The address of the planes copied into `framed`; or their own, if the frame adds nothing."""
    if frame.high == frame.h and frame.wide == frame.w:
        return planes
    put_in_frame(planes, frame, framed, ZERO)
    return framed


@loop("f* i f")
def fill(x, count, number):
    """x[i] = number, for i < count."""
    for i in range(count):
        x[i] = number

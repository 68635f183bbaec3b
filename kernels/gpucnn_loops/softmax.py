"""Softmax, sigmoid and their gradients, 16 numbers at a time: what a model's last layer does in predictions."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.elementwise import elements, through
from gpucnn_loops.exponential import exp16, where_less
from gpucnn_loops.language import helper, intrinsic, ir, types, vector
from gpucnn_loops.loops import loop
from gpucnn_loops.tables import lanes
from gpucnn_loops.tanh import COST, magnitude
from gpucnn_loops.threads import Scratch, address
from gpucnn_loops.vector import I32, L, at, larger, load, splat, store, sum16

Array = NDArray[np.float32]
F = np.float32
ZERO, ONE, MINUS, LEAST = F(0), F(1), F(-1), F(-math.inf)


@intrinsic
def largest16(typing, v):
    """The largest of the lanes; any of them, where one is NaN."""

    def code(c, b, s, args):
        most = b.extract_element(args[0], ir.Constant(I32, 0))
        for lane in range(1, L):
            number = b.extract_element(args[0], ir.Constant(I32, lane))
            most = b.select(b.fcmp_ordered(">", number, most), number, most)
        return most

    return types.float32(vector), code


@loop("i i i f* f* f*")
def softmax_rows(first, last, k, x, y, rest):
    """y = eˣ / Σ eˣ, of the rows first … last − 1 of k numbers, shifted by their largest. rest has room for whole vectors of them.

    A NaN makes a NaN of the sum, so of all numbers, whatever the largest is then; so does an infinity.
    """
    whole = k // L * L
    for row in range(first, last):
        line, out = at(x, row * k), at(y, row * k)
        for j in range(0, whole, L):
            store(rest, j, load(line, j))
        if whole < k:
            store(rest, whole, splat(LEAST))
            for j in range(whole, k):
                rest[j] = line[j]
        most, total = load(rest, 0), splat(ZERO)
        for j in range(L, k, L):
            most = larger(load(rest, j), most)
        top = splat(largest16(most))
        for j in range(0, k, L):
            e = exp16(load(rest, j) - top)
            store(rest, j, e)
            total = total + e
        total = splat(sum16(total))
        for j in range(0, whole, L):
            store(out, j, load(rest, j) / total)
        if whole < k:
            store(rest, whole, load(rest, whole) / total)
            for j in range(whole, k):
                out[j] = rest[j]


@loop("i i i f* f* f*")
def softmax_grad_rows(first, last, k, dy, y, dx):
    """dx = y·(dy − Σ dy·y), of the rows first … last − 1 of k numbers."""
    whole = k // L * L
    for row in range(first, last):
        line, by, out = at(dy, row * k), at(y, row * k), at(dx, row * k)
        sums = splat(ZERO)
        for j in range(0, whole, L):
            sums = sums + load(line, j) * load(by, j)
        inner = sum16(sums)
        for j in range(whole, k):
            inner += line[j] * by[j]
        for j in range(0, whole, L):
            store(out, j, load(by, j) * (load(line, j) - splat(inner)))
        for j in range(whole, k):
            out[j] = by[j] * (line[j] - inner)


@helper
def sigmoid16(x):
    """1 / (1 + e⁻ˣ) of 16 numbers, without overflow; NaN stays NaN."""
    e = exp16(splat(MINUS) * magnitude(x))
    return where_less(x, ZERO, e, splat(ONE)) / (splat(ONE) + e)


@loop("i i f* f*")
def sigmoid_part(first, last, x, y):
    """y = 1 / (1 + e⁻ˣ)."""
    for i in range(first, last, L):
        store(y, i, sigmoid16(load(x, i)))


@loop("i i f* f* f*")
def sigmoid_grad_part(first, last, dy, y, dx):
    """dx = dy · y · (1 − y)."""
    whole = first + (last - first) // L * L
    for i in range(first, whole, L):
        v = load(y, i)
        store(dx, i, load(dy, i) * (v * (splat(ONE) - v)))
    for i in range(whole, last):
        dx[i] = dy[i] * (y[i] * (ONE - y[i]))


def softmax(x: Array, y: Array) -> None:
    """y = eˣ / Σ eˣ along the last axis, which is not empty; y may be x."""
    k = x.shape[-1]

    def body(first: int, last: int) -> None:
        softmax_rows(first, last, k, address(x), address(y), *Scratch(lanes(k)).addresses())

    share(x.size // k, body, x.size * COST)


def softmax_grad(dy: Array, y: Array, dx: Array) -> None:
    """dx = y·(dy − Σ dy·y) along the last axis, which is not empty; dx may be dy."""
    k = y.shape[-1]
    share(y.size // k, lambda first, last: softmax_grad_rows(first, last, k, address(dy), address(y), address(dx)), y.size * COST)


def sigmoid(x: Array, y: Array) -> None:
    """y = 1 / (1 + e⁻ˣ); y may be x."""
    through(sigmoid_part, COST, x, y)


def sigmoid_grad(dy: Array, y: Array, dx: Array) -> None:
    """dx = dy·y·(1 − y); dx may be dy."""
    elements(dy.size, lambda first, last: sigmoid_grad_part(first, last, address(dy), address(y), address(dx)))

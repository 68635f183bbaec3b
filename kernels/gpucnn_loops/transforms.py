"""Winograd's transforms of 6×6 tiles, channels as lanes: plain vector arithmetic.

    V = Bᵀ·d·B of a 6×6 patch of the image           y = Aᵀ·M·A, the m×m outputs of a tile
    U = G·g·Gᵀ of a kernel                           A·dy·Aᵀ of their gradients

The points are 0, ±2/3, ±3/2 and ∞. With the usual 0, ±1, ±2, ∞ the errors are four times as large, and hardly an operation is saved.
They serve 3×3 kernels (m = 4) and 5×5 ones (m = 2) with the same Bᵀ. Method: A. Lavin and S. Gray, "Fast Algorithms for Convolutional
Neural Networks", CVPR 2016.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.after import After, finished
from gpucnn_loops.language import helper
from gpucnn_loops.loops import loop
from gpucnn_loops.vector import L, at, fma, load, splat, spread, store

SKEW = 16  # numbers between planes of V, M and U: planes a power of two apart would all fall into the same few sets of the caches
# Lanes of U and dU that lie together. Rows of all lanes would be a power of two apart as well: so a forward pass with 512 channels took 1.4
# times as long.
TOGETHER = 64
ZERO = np.float32(0)
A, B = 2 / 3, 3 / 2
POINTS = np.array([0, A, -A, B, -B])  # and ∞
a1, b1, a2, b2, a3, b3, ab, sum2 = (np.float32(value) for value in (A, B, A**2, B**2, A**3, B**3, (A * B) ** 2, A**2 + B**2))
g00 = np.float32(1 / (A * B) ** 2)  # G's first row, and below the powers of its others
ga0, ga1, ga2, ga3, ga4 = (np.float32(A**i / (2 * A**2 * (A**2 - B**2))) for i in range(5))
gb0, gb1, gb2, gb3, gb4 = (np.float32(B**i / (2 * B**2 * (B**2 - A**2))) for i in range(5))


def matrices(r: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Bᵀ (6, 6), G (6, r) and Aᵀ (7 − r, 6) of kernels of r: the matrices that the loops below apply, as numbers."""
    m = 7 - r
    scale = np.array([np.prod([point - other for other in np.delete(POINTS, i)]) for i, point in enumerate(POINTS)])
    g = np.vstack([POINTS[:, None] ** np.arange(r) / scale[:, None], np.eye(r)[-1]])
    at = np.vstack([POINTS[:, None] ** np.arange(m), np.eye(m)[-1]]).T
    bt = np.zeros((6, 6))
    for i in range(5):  # the polynomial with every other point as a root
        bt[i, :5] = np.poly(np.delete(POINTS, i))[::-1]
    bt[5] = np.poly(POINTS)[::-1]
    return bt, g, at


@helper
def bt_times(a, b, c, d, e, f):
    """Bᵀ times six vectors."""
    p, q = fma(splat(-b2), c, e), splat(a1) * fma(splat(-b2), b, d)
    r, s = fma(splat(-a2), c, e), splat(b1) * fma(splat(-a2), b, d)
    return fma(splat(-sum2), c, fma(splat(ab), a, e)), p + q, p - q, r + s, r - s, fma(splat(-sum2), d, fma(splat(ab), b, f))


@helper
def at_times(a, b, c, d, e, f, m):
    """Aᵀ times six vectors: m = 2 or 4 results, the others unused."""
    p, q, r, s = b + c, b - c, d + e, d - e
    if m == 2:
        return a + p + r, fma(splat(a1), q, fma(splat(b1), s, f)), a, a
    return a + p + r, fma(splat(a1), q, splat(b1) * s), fma(splat(a2), p, splat(b2) * r), fma(splat(a3), q, fma(splat(b3), s, f))


@helper
def a_times(a, b, c, d, m):
    """A times m = 2 or 4 vectors: six results."""
    if m == 2:
        p, q = splat(a1) * b, splat(b1) * b
        return a, a + p, a - p, a + q, a - q, b
    e, o, g, h = fma(splat(a2), c, a), fma(splat(a3), d, splat(a1) * b), fma(splat(b2), c, a), fma(splat(b3), d, splat(b1) * b)
    return a, e + o, e - o, g + h, g - h, d


@helper
def g_times(a, b, c, d, e, r):
    """G times r = 3 or 5 vectors: six results."""
    if r == 3:
        p, q, s, t = fma(splat(ga2), c, splat(ga0) * a), splat(ga1) * b, fma(splat(gb2), c, splat(gb0) * a), splat(gb1) * b
        return splat(g00) * a, p + q, p - q, s + t, s - t, c
    p, q = fma(splat(ga4), e, fma(splat(ga2), c, splat(ga0) * a)), fma(splat(ga3), d, splat(ga1) * b)
    s, t = fma(splat(gb4), e, fma(splat(gb2), c, splat(gb0) * a)), fma(splat(gb3), d, splat(gb1) * b)
    return splat(g00) * a, p + q, p - q, s + t, s - t, e


@helper
def store6(x, i, step, v):
    """Six vectors, `step` numbers apart."""
    store(x, i, v[0])
    store(x, i + step, v[1])
    store(x, i + 2 * step, v[2])
    store(x, i + 3 * step, v[3])
    store(x, i + 4 * step, v[4])
    store(x, i + 5 * step, v[5])


@helper
def load6(x, i, step):
    """Six vectors, `step` numbers apart."""
    return load(x, i), load(x, i + step), load(x, i + 2 * step), load(x, i + 3 * step), load(x, i + 4 * step), load(x, i + 5 * step)


@helper
def bt_of(x, i, step):
    """Bᵀ times the six vectors at x[i], x[i + step] …"""
    return bt_times(*load6(x, i, step))


@helper
def at_of(x, i, step, m):
    """Aᵀ times the six vectors at x[i], x[i + step] …"""
    return at_times(*load6(x, i, step), m)


@helper
def a_of(x, i, step, m):
    """A times the m vectors at x[i], x[i + step] …"""
    if m == 2:
        return a_times(load(x, i), load(x, i + step), load(x, i), load(x, i), m)
    return a_times(load(x, i), load(x, i + step), load(x, i + 2 * step), load(x, i + 3 * step), m)


@helper
def g_of(x, i, step, r):
    """G times the r vectors at x[i], x[i + step] …"""
    if r == 3:
        return g_times(load(x, i), load(x, i + step), load(x, i + 2 * step), load(x, i), load(x, i), r)
    return g_times(load(x, i), load(x, i + step), load(x, i + 2 * step), load(x, i + 3 * step), load(x, i + 4 * step), r)


@loop("f* i i w* i f* i i f*")
def patches_in(rows, wide, c, corners, tiles, v, row, plane, scratch):
    """V[f][tile][c] of the 6×6 patches of `rows` (high·wide, c) at the corners. Rows of V are `row` numbers apart, and planes `plane`."""
    for t in range(tiles):
        for lane in range(0, c, L):
            first = corners[t] * c + lane
            for j in range(6):
                store6(scratch, j * L, 6 * L, bt_of(rows, first + j * c, wide * c))
            for f in range(6):
                store6(v, f * 6 * plane + t * row + lane, plane, bt_of(scratch, f * 6 * L, L))


@loop("f* i i i w* i i i f* f*", After, "i i f*")
def tiles_out(mm, row, plane, k, corners, tiles, wide, m, y, scratch, after, first, each, bad):
    """The m×m outputs of each tile and what follows them, to the rows of y (high·wide, k) at the corners. Rows of M are `row` numbers
    apart, and planes `plane`.

    An image has `each` tiles, and the first tile here is number `first` of some images. bad (images, 16) becomes NaN where a sum of the
    image is not finite.
    """
    for t in range(tiles):
        image = (first + t) // each * L
        wrong = load(bad, image)
        for lane in range(0, k, L):
            for j in range(6):
                u = at_of(mm, j * plane + t * row + lane, 6 * plane, m)
                store(scratch, j * L, u[0])
                store(scratch, (6 + j) * L, u[1])
                if m == 4:
                    store(scratch, (12 + j) * L, u[2])
                    store(scratch, (18 + j) * L, u[3])
            for f in range(m):
                out = (corners[t] + f * wide) * k + lane
                u = at_of(scratch, f * 6 * L, L, m)
                wrong = fma(u[0], splat(ZERO), fma(u[1], splat(ZERO), wrong))
                store(y, out, finished(u[0], lane, after))
                store(y, out + k, finished(u[1], lane, after))
                if m == 4:
                    wrong = fma(u[2], splat(ZERO), fma(u[3], splat(ZERO), wrong))
                    store(y, out + 2 * k, finished(u[2], lane, after))
                    store(y, out + 3 * k, finished(u[3], lane, after))
        store(bad, image, wrong)


@loop("f* i i w* i i f* i i f*")
def gradients_in(rows, wide, k, corners, tiles, m, v, row, plane, scratch):
    """(A·dy·Aᵀ)[f][tile][k] of the m×m patches of `rows` (high·wide, k) at the corners, in rows and planes as far apart as given."""
    for t in range(tiles):
        for lane in range(0, k, L):
            first = corners[t] * k + lane
            for j in range(m):
                store6(scratch, j * L, 6 * L, a_of(rows, first + j * k, wide * k, m))
            for f in range(6):
                store6(v, f * 6 * plane + t * row + lane, plane, a_of(scratch, f * 6 * L, L, m))


@loop("i i i f* i i f* i i f*")
def kernels_in(first, last, lanes, weight, apart, r, u, ws, plane, scratch):
    """U[f][c][lane] of weight (lanes / 16, c, r·r, 16), whose sixteens of lanes are `apart`, for the channels first … last − 1. In U
    channels are ws numbers apart, and the 36 planes `plane`."""
    for channel in range(first, last):
        for lane in range(0, lanes, L):
            kernel, to = lane // L * apart + channel * r * r * L, at(u, (channel - first) * ws + lane)
            for j in range(r):
                store6(scratch, j * L, 5 * L, g_of(weight, kernel + j * L, r * L, r))
            for f in range(6):
                store6(to, f * 6 * plane, plane, g_of(scratch, f * 5 * L, L, r))


@helper
def planes_of(c, lanes):
    """The numbers of so many lanes of U, or of dU, in blocks [f][c][lane] of 64 lanes: and where the block behind them begins."""
    return 36 * (c * lanes + SKEW * ((lanes + TOGETHER - 1) // TOGETHER))


@loop("i i f* i i f* i i i f* i f*")
def kernels_out(first, last, du, groups, apart, g, r, c, k, dweight, ws, scratch):
    """dweight (c, r·r, ws) = Gᵀ·dU·G for k of its lanes, for the channels first … last − 1. dU (see `planes_of`) is the sum over groups,
    which are `apart`."""
    for begin in range(0, k, TOGETHER):
        own = min(TOGETHER, k - begin)
        block, plane = at(du, planes_of(c, begin)), c * own + SKEW
        for channel in range(first, last):
            for lane in range(0, own, L):
                at0 = channel * own + lane
                for f in range(36):
                    total = load(block, f * plane + at0)
                    for group in range(1, groups):
                        total = total + load(block, group * apart + f * plane + at0)
                    store(scratch, f * L, total)
                line = at(scratch, 36 * L)
                for i in range(r):
                    for e in range(6):
                        total = spread(g, i) * load(scratch, e * L)
                        for f in range(1, 6):
                            total = fma(spread(g, f * r + i), load(scratch, (f * 6 + e) * L), total)
                        store(line, e * L, total)
                    for j in range(r):
                        total = spread(g, j) * load(line, 0)
                        for e in range(1, 6):
                            total = fma(spread(g, e * r + j), load(line, e * L), total)
                        store(dweight, (channel * r * r + i * r + j) * ws + begin + lane, total)

"""Batch normalization: sums over each channel, and passes over all numbers that use them. x, y, dy and dx (N, C, pixels); the
images of y, of dy and of the normalized array may lie apart."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.loops import loop
from gpucnn_loops.tables import Images, images
from gpucnn_loops.threads import address
from gpucnn_loops.vector import L, at, fma, load, splat, sum16

Array = NDArray[np.float32]
ZERO = np.float32(0)


@loop("i i f* i i i f* i d*")
def channel_sums(first, last, x, n, c, pixels, mean, squares, sums):
    """sums of x over the channels first … last − 1, or of (x − mean)² if squares: rows in float32, their sum in float64."""
    for channel in range(first, last):
        total = 0.0
        centre = mean[channel] if squares else ZERO
        for image in range(n):
            row = at(x, (image * c + channel) * pixels)
            lanes, rest = splat(ZERO), ZERO
            for j in range(0, pixels - L + 1, L):
                v = load(row, j) - splat(centre)
                lanes = fma(v, v, lanes) if squares else lanes + v
            for j in range(pixels // L * L, pixels):
                number = row[j] - centre
                rest += number * number if squares else number
            total += float(sum16(lanes) + rest)
        sums[channel] = total


@loop("i i", Images, "f* i i i f* f* d* d*")
def gradient_sums(first, last, dy, x, n, c, pixels, mean, rstd, sums, products):
    """sums of dy, and of dy · (x − mean) · rstd, over the channels first … last − 1."""
    for channel in range(first, last):
        total, product, centre, scale = 0.0, 0.0, mean[channel], rstd[channel]
        for image in range(n):
            given, row = at(dy.first, image * dy.step + channel * pixels), at(x, (image * c + channel) * pixels)
            lanes, more, rest, rest_more = splat(ZERO), splat(ZERO), ZERO, ZERO
            for j in range(0, pixels - L + 1, L):
                g = load(given, j)
                lanes = lanes + g
                more = fma(g, (load(row, j) - splat(centre)) * splat(scale), more)
            for j in range(pixels // L * L, pixels):
                rest += given[j]
                rest_more += given[j] * ((row[j] - centre) * scale)
            total += float(sum16(lanes) + rest)
            product += float(sum16(more) + rest_more)
        sums[channel] = total
        products[channel] = product


@loop("i i", Images, Images, "i i f* f* f* i")
def normalized(first, last, x, y, c, pixels, mean, scale, bias, relu):
    """y = (x − mean) · scale + bias of the rows first … last − 1, after ReLU if relu. Row n·c + j has the channel j."""
    for row in range(first, last):
        image, channel = row // c, row % c
        source, target = at(x.first, image * x.step + channel * pixels), at(y.first, image * y.step + channel * pixels)
        centre, factor, more = mean[channel], scale[channel], bias[channel]
        for j in range(pixels):
            value = (source[j] - centre) * factor + more
            target[j] = ZERO if relu and value <= 0 else value


@loop("i i", Images, "f* f* i i f* f* f* f* f* i")
def gradients(first, last, dy, x, dx, c, pixels, mean, rstd, slope, shift, scale, relu):
    """dx = (dy − ((x − mean) · rstd · slope + shift)) · scale of the rows first … last − 1, 0 where x is not positive if relu."""
    for row in range(first, last):
        channel = row % c
        given, source, target = at(dy.first, row // c * dy.step + channel * pixels), at(x, row * pixels), at(dx, row * pixels)
        centre, over, part, more, factor = mean[channel], rstd[channel], slope[channel], shift[channel], scale[channel]
        for j in range(pixels):
            value = (given[j] - ((source[j] - centre) * over * part + more)) * factor
            target[j] = ZERO if relu and not source[j] > 0 else value


def _sizes(x: Array) -> tuple[int, int, int]:
    n, c = x.shape[:2]
    return n, c, x.size // (n * c)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel of x (N, C, …)."""
    n, c, pixels = _sizes(x)
    sums, nothing = np.empty(c), np.zeros(c, np.float32)
    share(c, lambda a, z: channel_sums(a, z, address(x), n, c, pixels, address(nothing), 0, address(sums)), 4 * x.size)
    mean = (sums / (n * pixels)).astype(np.float32)
    share(c, lambda a, z: channel_sums(a, z, address(x), n, c, pixels, address(mean), 1, address(sums)), 4 * x.size)
    return mean, (sums / (n * pixels)).astype(np.float32)


def normalize(x: Array, mean: Array, scale: Array, bias: Array, relu: bool, y: Array) -> None:
    """y = (x − mean) · scale + bias, then ReLU where `relu`; mean, scale and bias (C)."""
    n, c, pixels = _sizes(x)
    numbers = c, pixels, address(mean), address(scale), address(bias), relu
    share(n * c, lambda a, z: normalized(a, z, *images(x), *images(y), *numbers), 8 * x.size)


def batch_norm_grad(
    dy: Array, x: Array, weight: Array, mean: Array, rstd: Array, relu: bool, dx: Array | None, dweight: Array, dbias: Array
) -> None:
    """dweight and dbias (C); dx, unless it is None, which may be dy. 0 where x is not positive if `relu`."""
    n, c, pixels = _sizes(x)
    sums, products = np.empty(c), np.empty(c)
    kept = address(mean), address(rstd)
    found = address(sums), address(products)
    share(c, lambda a, z: gradient_sums(a, z, *images(dy), address(x), n, c, pixels, *kept, *found), 8 * x.size)
    dbias[...], dweight[...] = sums, products
    if dx is None:
        return
    count = np.float32(n * pixels)
    slope, shift, scale = dweight / count, dbias / count, weight * rstd
    numbers = c, pixels, *kept, address(slope), address(shift), address(scale), relu
    share(n * c, lambda a, z: gradients(a, z, *images(dy), address(x), address(dx), *numbers), 12 * x.size)

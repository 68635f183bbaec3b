"""Batch normalization: sums over each channel, and passes over all numbers that use them. x, y, dy and dx (N, C, pixels); the
images of y, of dy and of the normalized array may lie apart."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.crew import share
from gpucnn_loops.language import helper
from gpucnn_loops.loops import loop
from gpucnn_loops.tables import Images, images
from gpucnn_loops.threads import address, empty
from gpucnn_loops.vector import L, at, fma, load, splat, store, sum16, where_positive

Array = NDArray[np.float32]
ZERO, ONE = np.float32(0), np.float32(1)
COST = 6  # a number that is read from memory, or written, takes as long as this many multiply-adds


@helper
def row_sum(row, pixels, centre, squares):
    """The sum of a row of x, or of (x − centre)² if squares: two vectors at a time, for a sum waits four cycles for itself."""
    lanes, others, rest = splat(ZERO), splat(ZERO), ZERO
    for j in range(0, pixels - 2 * L + 1, 2 * L):
        v, w = load(row, j) - splat(centre), load(row, j + L) - splat(centre)
        lanes = fma(v, v, lanes) if squares else lanes + v
        others = fma(w, w, others) if squares else others + w
    if pixels % (2 * L) >= L:
        v = load(row, pixels // (2 * L) * 2 * L) - splat(centre)
        lanes = fma(v, v, lanes) if squares else lanes + v
    for j in range(pixels // L * L, pixels):
        number = row[j] - centre
        rest += number * number if squares else number
    return sum16(lanes + others) + rest


@loop("i i f* i i i f* f* d*")
def channel_moments(first, last, x, n, c, pixels, mean, variance, sums):
    """mean and variance of x over the channels first … last − 1: rows are summed in float32, their sums in float64. Images are the outer
    loop, so that memory is read in its order."""
    for channel in range(first, last):
        sums[channel] = 0.0
    for image in range(n):
        for channel in range(first, last):
            sums[channel] += float(row_sum(at(x, (image * c + channel) * pixels), pixels, ZERO, False))
    for channel in range(first, last):
        mean[channel], sums[channel] = np.float32(sums[channel] / (n * pixels)), 0.0
    for image in range(n):
        for channel in range(first, last):
            sums[channel] += float(row_sum(at(x, (image * c + channel) * pixels), pixels, mean[channel], True))
    for channel in range(first, last):
        variance[channel] = np.float32(sums[channel] / (n * pixels))


@loop("i i", Images, "f* i i i f* f* d* d*")
def gradient_sums(first, last, dy, x, n, c, pixels, mean, rstd, sums, products):
    """sums of dy, and of dy · (x − mean) · rstd, over the channels first … last − 1."""
    for channel in range(first, last):
        sums[channel] = products[channel] = 0.0
    for image in range(n):
        for channel in range(first, last):
            given, row = at(dy.first, image * dy.step + channel * pixels), at(x, (image * c + channel) * pixels)
            centre, scale = mean[channel], rstd[channel]
            lanes, others, more, others_more, rest, rest_more = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO), ZERO, ZERO
            for j in range(0, pixels - 2 * L + 1, 2 * L):
                g, h = load(given, j), load(given, j + L)
                lanes, others = lanes + g, others + h
                more = fma(g, (load(row, j) - splat(centre)) * splat(scale), more)
                others_more = fma(h, (load(row, j + L) - splat(centre)) * splat(scale), others_more)
            if pixels % (2 * L) >= L:
                j = pixels // (2 * L) * 2 * L
                g = load(given, j)
                lanes = lanes + g
                more = fma(g, (load(row, j) - splat(centre)) * splat(scale), more)
            for j in range(pixels // L * L, pixels):
                rest += given[j]
                rest_more += given[j] * ((row[j] - centre) * scale)
            sums[channel] += float(sum16(lanes + others) + rest)
            products[channel] += float(sum16(more + others_more) + rest_more)


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
        for j in range(0, pixels - L + 1, L):  # rows of 49 pixels are too short for what LLVM would make of a plain loop
            v = load(source, j)
            value = (load(given, j) - ((v - splat(centre)) * splat(over) * splat(part) + splat(more))) * splat(factor)
            store(target, j, where_positive(v, value) if relu else value)
        for j in range(pixels // L * L, pixels):
            value = (given[j] - ((source[j] - centre) * over * part + more)) * factor
            target[j] = ZERO if relu and not source[j] > 0 else value


# As the four above, for one number in each channel of an image: lanes are channels.
@loop("i i f* i i f* f* d*")
def moments_of_rows(first, last, x, n, c, mean, variance, sums):
    for channel in range(first, last):
        sums[channel] = 0.0
    for image in range(n):
        row = at(x, image * c)
        for channel in range(first, last):
            sums[channel] += float(row[channel])
    for channel in range(first, last):
        mean[channel], sums[channel] = np.float32(sums[channel] / n), 0.0
    for image in range(n):
        row = at(x, image * c)
        for channel in range(first, last):
            number = row[channel] - mean[channel]
            sums[channel] += float(number * number)
    for channel in range(first, last):
        variance[channel] = np.float32(sums[channel] / n)


@loop("i i", Images, "f* i i f* f* d* d*")
def gradient_sums_of_rows(first, last, dy, x, n, c, mean, rstd, sums, products):
    for channel in range(first, last):
        sums[channel] = products[channel] = 0.0
    for image in range(n):
        given, row = at(dy.first, image * dy.step), at(x, image * c)
        for channel in range(first, last):
            sums[channel] += float(given[channel])
            products[channel] += float(given[channel] * ((row[channel] - mean[channel]) * rstd[channel]))


@loop("i i", Images, Images, "i f* f* f* i")
def normalized_rows(first, last, x, y, c, mean, scale, bias, relu):
    for image in range(first, last):
        source, target = at(x.first, image * x.step), at(y.first, image * y.step)
        for j in range(c):
            value = (source[j] - mean[j]) * scale[j] + bias[j]
            target[j] = ZERO if relu and value <= 0 else value


@loop("i i", Images, "f* f* i f* f* f* f* f* i")
def gradients_of_rows(first, last, dy, x, dx, c, mean, rstd, slope, shift, scale, relu):
    for image in range(first, last):
        given, source, target = at(dy.first, image * dy.step), at(x, image * c), at(dx, image * c)
        for j in range(c):
            value = (given[j] - ((source[j] - mean[j]) * rstd[j] * slope[j] + shift[j])) * scale[j]
            target[j] = ZERO if relu and not source[j] > 0 else value


@loop("i f* f* f* f* f* f* f* f f f")
def settle(c, mean, variance, weight, rstd, scale, moved, spread, eps, momentum, more):
    """rstd = 1 / √(variance + eps), scale = weight / √(variance + eps); where both are finite, the running mean and variance, `moved` and
    `spread`, move by `momentum` towards mean and variance·more."""
    for channel in range(c):
        centre, width = mean[channel], variance[channel] * more
        root = np.sqrt(variance[channel] + eps)
        rstd[channel], scale[channel] = ONE / root, weight[channel] / root
        if centre - centre == 0 and width - width == 0:
            moved[channel] += momentum * (centre - moved[channel])
            spread[channel] += momentum * (width - spread[channel])


@loop("i i d* d* f* f* f* f* f* f* f*")
def factors_of(c, count, sums, products, weight, rstd, dweight, dbias, slope, shift, scale):
    """dbias and dweight, the sums in float32; slope = dweight / count, shift = dbias / count, scale = weight · rstd."""
    for channel in range(c):
        more, part = np.float32(sums[channel]), np.float32(products[channel])
        dbias[channel], dweight[channel] = more, part
        slope[channel], shift[channel] = part / np.float32(count), more / np.float32(count)
        scale[channel] = weight[channel] * rstd[channel]


def _sizes(x: Array) -> tuple[int, int, int]:
    n, c = x.shape[:2]
    return n, c, x.size // (n * c)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel of x (N, C, …)."""
    n, c, pixels = _sizes(x)
    mean, variance, sums = empty((c,)), empty((c,)), empty((c,), np.float64)
    made = address(mean), address(variance), address(sums)
    if pixels == 1:
        share(c, lambda a, z: moments_of_rows(a, z, address(x), n, c, *made), 2 * COST * x.size)
    else:
        share(c, lambda a, z: channel_moments(a, z, address(x), n, c, pixels, *made), 2 * COST * x.size)
    return mean, variance


def batch_norm(
    x: Array, weight: Array, bias: Array, running: tuple[Array, Array], momentum: float, eps: float, relu: bool, y: Array
) -> tuple[Array, Array]:
    """y, and mean and 1 / √(variance + eps) of each channel; moves the `running` mean and variance, as the reference does."""
    c, count = len(weight), x.size // len(weight)
    mean, variance = moments(x)
    rstd, scale = empty((c,)), empty((c,))
    more, (moved, spread) = count / (count - 1), running
    numbers = address(mean), address(variance), address(weight), address(rstd), address(scale), address(moved), address(spread)
    settle(c, *numbers, eps, momentum, more)
    normalize(x, mean, scale, bias, relu, y)
    return mean, rstd


def normalize(x: Array, mean: Array, scale: Array, bias: Array, relu: bool, y: Array) -> None:
    """y = (x − mean) · scale + bias, then ReLU where `relu`; mean, scale and bias (C)."""
    n, c, pixels = _sizes(x)
    numbers = address(mean), address(scale), address(bias), relu
    if pixels == 1:
        share(n, lambda a, z: normalized_rows(a, z, *images(x), *images(y), c, *numbers), 2 * COST * x.size)
    else:
        share(n * c, lambda a, z: normalized(a, z, *images(x), *images(y), c, pixels, *numbers), 2 * COST * x.size)


def batch_norm_grad(
    dy: Array, x: Array, weight: Array, mean: Array, rstd: Array, relu: bool, dx: Array | None, dweight: Array, dbias: Array
) -> None:
    """dweight and dbias (C); dx, unless it is None, which may be dy. 0 where x is not positive if `relu`."""
    n, c, pixels = _sizes(x)
    sums, products = empty((c,), np.float64), empty((c,), np.float64)
    kept = address(mean), address(rstd)
    found = address(sums), address(products)
    given = *images(dy), address(x)
    if pixels == 1:
        share(c, lambda a, z: gradient_sums_of_rows(a, z, *given, n, c, *kept, *found), 2 * COST * x.size)
    else:
        share(c, lambda a, z: gradient_sums(a, z, *given, n, c, pixels, *kept, *found), 2 * COST * x.size)
    factors = empty((3, c))
    slope, shift, scale = (address(factors) + 4 * c * index for index in range(3))
    factors_of(c, n * pixels, *found, address(weight), address(rstd), address(dweight), address(dbias), slope, shift, scale)
    if dx is None:
        return
    numbers = *kept, slope, shift, scale, relu
    if pixels == 1:
        share(n, lambda a, z: gradients_of_rows(a, z, *given, address(dx), c, *numbers), 3 * COST * x.size)
    else:
        share(n * c, lambda a, z: gradients(a, z, *given, address(dx), c, pixels, *numbers), 3 * COST * x.size)

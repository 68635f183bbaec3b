"""Batch normalization (Ioffe and Szegedy 2015); norm_grad.py has its gradient. x, y, dy and dx (N, C, …), the rest a value a channel.

    y = (x − mean) · rstd · weight + bias,   rstd = 1 / √(variance + eps), over all images and pixels of a channel

    dbias   = Σ dy
    dweight = Σ dy · (x − mean) · rstd
    dx      = weight · rstd · (dy − dbias / n − (x − mean) · rstd · dweight / n),   n numbers in a channel

Sums over a channel are long and few, so its images are cut into slices, with a block for each; then a block for each channel combines the
slices. Their number depends on the sizes alone, and everything is added in a fixed order, so the results are bit-identical every
time, on every chip.

Bytes. No number can be normalized before the last one of its channel has been seen, so x is read twice, and y written once: 12 bytes a
number. Backward, dy and x are read twice and dx is written once: 20 bytes. ReLU costs nothing in either direction, and the slices' sums
next to nothing: for 128 images of 28 × 28 with 32 channels, 12.8 MB, forward moves 38.5 MB and 8 KB of sums. That is 1.0002 times the
minimum for an x that does not fit on the chip, because the statistics need a pass over the batch of their own. If x fits into the
second-level cache (50 MB on an H100), the second pass reads it from there, and memory moves 8 and 12 bytes a number. `gpucnn profile`
counts these as the minimum, compared with which two passes over memory are 1.5 and 1.67 times as much.

A branch of a network may write to its part of all branches' channels, and read its part of their gradient: images that lie apart.

A variance computed from Σx and Σx² would lose its digits if the mean is large. So the kernels add up differences only, from the channel's
first number and then from the first that a thread meets, and combine the results of threads and slices by their means and squared
deviations (Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", The American Statistician 37, 1983).
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import divide, magic
from gpucnn_kernels.core.launch import Array, Stream, floats, images, run, run_each
from gpucnn_kernels.core.reduce import BLOCK_LANES

BLOCKS = 512  # as many as keep the largest chip busy


class Slices(NamedTuple):
    """The division of a channel's images into slices: a `number` of slices of `images` each, the last with the remainder."""

    number: int
    images: int


def slices(n: int, c: int) -> Slices:
    """The slices for n images of c channels: their number, and the images of each."""
    images = -(-n // min(n, max(1, BLOCKS // c)))
    return Slices(-(-n // images), images)


def workspace_size(n: int, c: int) -> int:
    """Elements for two numbers of each slice of each channel."""
    return 2 * c * slices(n, c).number


@device
def merge(count, mean, deviation, other_count, other_mean, other_deviation):
    """Count, mean and sum of squared deviations of two sets of numbers together."""
    total = float32(count + other_count)
    if total == float32(0):
        return total, mean, deviation
    part = float32(other_count / total)
    apart = float32(other_mean - mean)
    return total, float32(mean + apart * part), float32(deviation + other_deviation + apart * apart * count * part)


@device
def merge_lanes(counts, means, deviations, lane):
    """Element 0 becomes the combined result of all lanes."""
    cuda.syncthreads()
    step = int32(BLOCK_LANES >> 1)
    while step > 0:
        if lane < step:
            other = int32(lane + step)
            count, mean, deviation = merge(counts[lane], means[lane], deviations[lane], counts[other], means[other], deviations[other])
            counts[lane] = count
            means[lane] = mean
            deviations[lane] = deviation
        cuda.syncthreads()
        step >>= 1


@kernel
def batch_norm_slices_kernel(x, space, sizes):
    N, C, plane, plane_by, plane_shift, images, slice_count = sizes
    counts = cuda.shared.array(BLOCK_LANES, float32)
    means = cuda.shared.array(BLOCK_LANES, float32)
    deviations = cuda.shared.array(BLOCK_LANES, float32)
    block = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    c = uint32(block // slice_count)
    first = uint32(uint32(block - c * slice_count) * images)
    length = uint32(min(uint32(images), uint32(N - first)) * plane)
    origin = x[uint32(c * plane)]
    count, shift, total, squares = float32(0), float32(0), float32(0), float32(0)
    for i in range(uint32(lane), length, uint32(BLOCK_LANES)):
        n = divide(uint32(i), plane_by, plane_shift)
        value = x[uint32(uint32(uint32(first + n) * C + c) * plane + uint32(uint32(i) - n * plane))] - origin
        if count == float32(0):
            shift = value
        value -= shift
        count += float32(1)
        total += value
        squares += value * value
    counts[lane] = count
    means[lane] = shift
    deviations[lane] = float32(0)
    if count > float32(0):
        means[lane] = shift + total / count
        deviations[lane] = squares - total * (total / count)
    merge_lanes(counts, means, deviations, lane)
    if lane == 0:
        space[uint32(uint32(2) * block)] = means[0]
        space[uint32(uint32(2) * block + uint32(1))] = deviations[0]


@kernel
def batch_norm_statistics_kernel(x, space, mean, rstd, running_mean, running_variance, sizes, rates):
    """One thread for each channel: there are few slices."""
    N, plane, images, slice_count = sizes
    momentum, eps = rates
    c = uint32(cuda.grid(1))
    if c >= mean.size:
        return
    count, average, deviation = float32(0), float32(0), float32(0)
    for index in range(slice_count):
        at = uint32(uint32(2) * uint32(c * slice_count + uint32(index)))
        first = uint32(uint32(index) * images)
        other = float32(uint32(min(uint32(images), uint32(N - first)) * plane))
        count, average, deviation = merge(count, average, deviation, other, space[at], space[uint32(at + uint32(1))])
    variance = max(float32(0), deviation / count) if deviation == deviation else deviation
    average += x[uint32(c * plane)]
    mean[c] = average
    rstd[c] = float32(1) / float32(math.sqrt(variance + eps))
    unbiased = deviation / (count - float32(1))
    # A batch with NaN or infinity in it stops training; the statistics learned so far stay valid.
    if not (math.isinf(average) or math.isnan(average) or math.isinf(unbiased) or math.isnan(unbiased)):
        running_mean[c] += momentum * (average - running_mean[c])
        running_variance[c] += momentum * (unbiased - running_variance[c])


@kernel
def batch_norm_apply_kernel(x, weight, bias, mean, spread, y, sizes, choices):
    count, (C, c_by, c_shift, plane_by, plane_shift, x_skipped, y_skipped) = sizes
    eps, of_variance, relu = choices
    i = uint32(cuda.grid(1))
    if i >= count:
        return
    row = divide(i, plane_by, plane_shift)
    n = divide(row, c_by, c_shift)
    c = uint32(row - n * C)
    rstd = spread[c]
    if of_variance:
        rstd = float32(1) / float32(math.sqrt(rstd + eps))
    value = (x[uint32(i + n * x_skipped)] - mean[c]) * rstd * weight[c] + bias[c]
    if relu and value <= float32(0):  # NaN stays NaN
        value = float32(0)
    y[uint32(i + n * y_skipped)] = value


def batch_norm(
    x: Array,
    weight: Array,
    bias: Array,
    running: tuple[Array, Array],
    kept: tuple[Array, Array],
    y: Array,
    stream: Stream = 0,
    *,
    workspace: Array,
    momentum: float,
    eps: float,
    relu: bool = False,
) -> None:
    """Normalizes x by its own statistics, which are written to `kept`, mean and rstd, and move the `running` mean and variance.

    running += momentum · (new − running), where the new variance is the sample's (n − 1); values that are not finite change nothing.
    `workspace` has `workspace_size` elements. Images of y may lie apart, as a branch's channels do within those of all.
    """
    n, c = x.shape[:2]
    plane, parts = math.prod(x.shape[2:]), slices(n, c)
    mean, rstd = floats(kept[0], "mean", (c,)), floats(kept[1], "rstd", (c,))
    given, work = floats(x, "x"), floats(workspace, "workspace", (workspace_size(n, c),))
    of_slices, of_channels = sizes_of(n, c, plane)
    run(batch_norm_slices_kernel, c * parts.number, BLOCK_LANES, stream, given, work, of_slices)
    run_each(
        batch_norm_statistics_kernel,
        c,
        stream,
        given,
        work,
        mean,
        rstd,
        floats(running[0], "running mean", (c,)),
        floats(running[1], "running variance", (c,)),
        of_channels,
        _rates(momentum, eps),
    )
    _apply(x, weight, bias, (mean, rstd), y, stream, eps=eps, of_variance=False, relu=relu)


def batch_norm_apply(
    x: Array, weight: Array, bias: Array, running: tuple[Array, Array], y: Array, stream: Stream = 0, *, eps: float, relu: bool = False
) -> None:
    """Normalizes x by the `running` mean and variance. Images of x and of y may lie apart."""
    c = x.shape[1]
    by = floats(running[0], "mean", (c,)), floats(running[1], "variance", (c,))
    _apply(x, weight, bias, by, y, stream, eps=eps, of_variance=True, relu=relu)


def _apply(
    x: Array, weight: Array, bias: Array, by: tuple[Array, Array], y: Array, stream: Stream, *, eps: float, of_variance: bool, relu: bool
) -> None:
    """`by`: mean and rstd, or mean and variance."""
    shape = tuple(x.shape)
    c = shape[1]
    (given, x_step), (target, y_step) = images(x, "x", shape), images(y, "y", shape)
    run_each(
        batch_norm_apply_kernel,
        math.prod(shape),
        stream,
        given,
        floats(weight, "weight", (c,)),
        floats(bias, "bias", (c,)),
        *by,
        target,
        _apply_sizes(shape, x_step, y_step),
        _choices(eps, of_variance, relu),
    )


# What a launch takes beside arrays, kept from step to step.


@functools.lru_cache(maxsize=256)
def sizes_of(n: int, c: int, plane: int) -> tuple[tuple[np.uint32, ...], tuple[np.uint32, ...]]:
    """What the kernels that add up slices take: images, channels, the pixels of a plane and their magic, the images of a slice and the
    slices of a channel. And what those take that combine slices: the same without the channels and the magic."""
    N, C, pixels, *of_slice = map(np.uint32, (n, c, plane, *reversed(slices(n, c))))
    return (N, C, pixels, *magic(plane), *of_slice), (N, pixels, *of_slice)


@functools.lru_cache(maxsize=256)
def places_of(shape: tuple[int, ...], *steps: int) -> tuple[np.uint32, ...]:
    """Channels, the magic of these and of a plane, and for each of `steps` the gap, in elements, between images of `shape` that begin so
    many elements apart: 0 for 0, images that are adjacent."""
    gaps = (np.uint32(step - math.prod(shape[1:]) if step else 0) for step in steps)
    return np.uint32(shape[1]), *magic(shape[1]), *magic(math.prod(shape[2:])), *gaps


@functools.lru_cache(maxsize=256)
def _apply_sizes(shape: tuple[int, ...], x_step: int, y_step: int) -> tuple[Any, ...]:
    return np.uint32(math.prod(shape)), places_of(shape, x_step, y_step)


@functools.lru_cache(maxsize=64)
def _rates(momentum: float, eps: float) -> tuple[np.float32, ...]:
    return np.float32(momentum), np.float32(eps)


@functools.lru_cache(maxsize=64)
def _choices(eps: float, of_variance: bool, relu: bool) -> tuple[Any, ...]:
    return np.float32(eps), np.int32(of_variance), np.int32(relu)

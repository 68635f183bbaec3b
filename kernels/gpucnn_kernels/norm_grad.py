"""The gradient of batch normalization (norm.py)."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.integers import divide
from gpucnn_kernels.core.launch import Array, Stream, floats, images, run, run_each
from gpucnn_kernels.core.reduce import BLOCK_LANES, tree_sum
from gpucnn_kernels.norm import places_of, sizes_of, slices, workspace_size


@kernel
def batch_norm_grad_slices_kernel(dy, x, mean, space, sizes, skipped):
    N, C, plane, plane_by, plane_shift, images, slice_count = sizes
    sums = cuda.shared.array(BLOCK_LANES, float32)
    products = cuda.shared.array(BLOCK_LANES, float32)
    block = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    c = uint32(block // slice_count)
    first = uint32(uint32(block - c * slice_count) * images)
    length = uint32(min(uint32(images), uint32(N - first)) * plane)
    middle = mean[c]
    total, product = float32(0), float32(0)
    for i in range(uint32(lane), length, uint32(BLOCK_LANES)):
        n = divide(uint32(i), plane_by, plane_shift)
        at = uint32(uint32(uint32(first + n) * C + c) * plane + uint32(uint32(i) - n * plane))
        gradient = dy[uint32(at + uint32(first + n) * skipped)]
        total += gradient
        product += gradient * (x[at] - middle)
    sums[lane] = total
    products[lane] = product
    tree_sum(sums, lane, BLOCK_LANES)
    tree_sum(products, lane, BLOCK_LANES)
    if lane == 0:
        space[uint32(uint32(2) * block)] = sums[0]
        space[uint32(uint32(2) * block + uint32(1))] = products[0]


@kernel
def batch_norm_sums_kernel(space, rstd, dweight, dbias, slice_count):
    c = uint32(cuda.grid(1))
    if c >= dbias.size:
        return
    total, product = float32(0), float32(0)
    for index in range(slice_count):
        at = uint32(uint32(2) * uint32(c * slice_count + uint32(index)))
        total += space[at]
        product += space[uint32(at + uint32(1))]
    dbias[c] = total
    dweight[c] = product * rstd[c]


@kernel
def batch_norm_input_grad_kernel(dy, x, weight, mean, rstd, dweight, dbias, dx, places, settings):
    C, c_by, c_shift, plane_by, plane_shift, skipped = places
    share, relu = settings
    i = uint32(cuda.grid(1))
    if i >= dx.size:
        return
    row = divide(i, plane_by, plane_shift)
    n = divide(row, c_by, c_shift)
    c = uint32(row - n * C)
    value = x[i]
    normal = (value - mean[c]) * rstd[c]
    gradient = weight[c] * rstd[c] * (dy[uint32(i + n * skipped)] - (dbias[c] + normal * dweight[c]) * share)
    if relu and not value > float32(0):
        gradient = float32(0)
    dx[i] = gradient


def batch_norm_grad(
    dy: Array,
    x: Array,
    weight: Array,
    kept: tuple[Array, Array],
    sums: tuple[Array, Array],
    dx: Array | None,
    stream: Stream = 0,
    *,
    workspace: Array,
    relu: bool = False,
) -> None:
    """Writes dweight and dbias to `sums`, and dx unless it is None. kept: the mean and rstd from `batch_norm`. relu: dx is 0 where x is not
    positive. dx may be dy; otherwise the images of dy may lie apart."""
    shape = tuple(x.shape)
    n, c = shape[:2]
    plane, parts = math.prod(shape[2:]), slices(n, c)
    mean, rstd = floats(kept[0], "mean", (c,)), floats(kept[1], "rstd", (c,))
    dweight, dbias = floats(sums[0], "dweight", (c,)), floats(sums[1], "dbias", (c,))
    (given, step), pixels, work = images(dy, "dy", shape), floats(x, "x"), floats(workspace, "workspace", (workspace_size(n, c),))
    (sizes, _), places = sizes_of(n, c, plane), places_of(shape, step)
    run(batch_norm_grad_slices_kernel, c * parts.number, BLOCK_LANES, stream, given, pixels, mean, work, sizes, places[-1])
    run_each(batch_norm_sums_kernel, c, stream, work, rstd, dweight, dbias, np.uint32(parts.number))
    if dx is not None:
        run_each(
            batch_norm_input_grad_kernel,
            math.prod(shape),
            stream,
            given,
            pixels,
            floats(weight, "weight", (c,)),
            mean,
            rstd,
            dweight,
            dbias,
            floats(dx, "dx", shape),
            places,
            _settings(n * plane, relu),
        )


@functools.lru_cache(maxsize=256)
def _settings(numbers: int, relu: bool) -> tuple[Any, ...]:
    """The share of a mean that each of so many numbers has, and whether ReLU's gradient is included."""
    return np.float32(1 / numbers), np.int32(relu)

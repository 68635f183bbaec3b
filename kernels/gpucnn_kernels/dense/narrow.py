"""Dense layers of few outputs, as a network's last one is: K ≤ 32. x (N, C), weight (K, C), bias (K), y (N, K).

    y = x·weightᵀ + bias        dx = dy·weight        dweight = dyᵀ·x

A batch of 128 with 256 inputs and 10 classes is 0.3 million FMAs and 150 KB, next to nothing for a GPU. As a product by tiles it would be
eight blocks, each of which waits for memory and two barriers in every step of its sums; and most of a tile would be padding. So these
kernels avoid waiting twice for the same thing:

- **forward**, a block for each row of x: its threads share the row's numbers, four each, keep a sum for each of the K outputs, and read
  the K rows of weights at once. The block's sums are added through shared memory.
- **gradient of the weight**, a block for 32 columns: a warp for each 8th of the rows, with a sum for each output in each thread, whose
  reads of x are neighbours', and all in flight before dy is copied to shared memory, where every thread needs it. Then the warps' sums
  are added, first to last, and so is dy itself, for the gradient of the bias.
- **gradient of the input**, a thread for four numbers, each a sum of K products.

The compiler for sm_90 keeps the weights of three outputs in flight: forward that is four waits for ten outputs. Reading those of 16
outputs before the first is used changes nothing, because the compiler moves the reads back.

Kernels are compiled for their K. Every sum is in an order that depends on the sizes alone.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import divide, magic
from gpucnn_kernels.core.launch import THREADS, Array, Stream, aligned, floats, run, run_each
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.variant import Variant, made_for_it
from gpucnn_kernels.core.vector import load_4
from gpucnn_kernels.dense import head
from gpucnn_kernels.dense.rows import input_gradients, row_outputs

MOST_OUTPUTS = 32
MOST_ROWS = 512  # each of them reads all weights, from the second-level cache: for more a tile is better
LEAST_INPUTS = 64
_COLUMNS = 32  # of a block, for the gradient of the weight: a warp's
_WARPS = 8
_STAGE = 128  # rows of dy that are in shared memory at a time; half as many where more than 16 numbers are in each


@functools.cache
def forward_kernel(K: int, wide: bool) -> Any:
    """The kernel of `dense`: (x, weight, bias, y, C, has_bias, relu); `wide`: rows of x and weight begin at multiples of 16 bytes."""
    outputs, room = row_outputs(K, wide)

    @kernel(launch_bounds=THREADS)
    def dense_narrow(x, weight, bias, y, C, has_bias, relu):
        tile = cuda.shared.array(room, float32)
        total = outputs(x, weight, bias, C, has_bias, tile)
        thread = uint32(cuda.threadIdx.x)
        if thread < uint32(K):
            if relu and total <= float32(0):  # NaN stays NaN
                total = float32(0)
            y[uint32(uint32(cuda.blockIdx.x) * uint32(K) + thread)] = total

    return dense_narrow


@functools.cache
def input_grad_kernel(K: int, wide: bool) -> Any:
    """The kernel of `dense_input_grad`: (dy, weight, mask, dx, C, *magic(threads of a row), threads of a row, masked)."""
    width, write = 4 if wide else 1, input_gradients(K, wide)

    @kernel
    def dense_narrow_input_grad(dy, weight, mask, dx, C, by, shift, across, masked):
        i = uint32(cuda.grid(1))
        at = uint32(i * uint32(width))
        if at >= dx.size:
            return
        row = divide(i, by, shift)
        column = uint32(uint32(i - uint32(row * across)) * uint32(width))
        write(dy, uint32(row * uint32(K)), weight, mask, dx, at, column, C, masked)

    return dense_narrow_input_grad


@functools.cache
def weight_grad_kernel(K: int) -> Any:
    """The kernel of `dense_weight_grad`: (dy, x, dweight, dbias, N, C, has_bias)."""
    columns, warps, threads = _COLUMNS, _WARPS, _COLUMNS * _WARPS
    stage = _STAGE if K <= 16 else _STAGE // 2  # rows
    pitch, own_rows = -(-K // 4) * 4, stage // warps  # a row's numbers are read by fours
    room, sums_room, each_warp = stage * pitch, threads * K, K * columns

    @device(forceinline=True)
    def read(j, x, first, warp, N, C, column, values):
        row = uint32(min(uint32(first + uint32(j * warps) + warp), uint32(N - uint32(1))))
        values[j] = x[uint32(uint32(row * C) + column)]

    @device(forceinline=True)
    def multiply(i, given, at, value, sums):
        if 4 * i + 4 <= K:
            f0, f1, f2, f3 = load_4(given, uint32(at + uint32(4 * i)))
            sums[4 * i] += f0 * value
            sums[4 * i + 1] += f1 * value
            sums[4 * i + 2] += f2 * value
            sums[4 * i + 3] += f3 * value
        else:
            for k in range(4 * i, K):
                sums[k] += given[uint32(at + uint32(k))] * value

    some_products = unrolled(multiply, pitch // 4)

    @device(forceinline=True)
    def row_products(j, given, warp, here, values, sums):
        row = uint32(uint32(j * warps) + warp)
        if row < here:
            some_products(0, given, uint32(row * uint32(pitch)), values[j], sums)

    @device(forceinline=True)
    def clear(k, sums):
        sums[k] = float32(0)

    @device(forceinline=True)
    def leave(k, tile, at, sums):
        tile[uint32(at + uint32(k * columns))] = sums[k]

    read_all, products = unrolled(read, own_rows), unrolled(row_products, own_rows)
    clear_all, leave_all = unrolled(clear, K), unrolled(leave, K)

    @kernel(launch_bounds=threads)
    def dense_narrow_weight_grad(dy, x, dweight, dbias, N, C, has_bias):
        given, tile = cuda.shared.array(room, float32), cuda.shared.array(sums_room, float32)
        of_dy = cuda.shared.array(threads, float32)
        sums, values = cuda.local.array(K, float32), cuda.local.array(own_rows, float32)
        thread = uint32(cuda.threadIdx.x)
        lane, warp = uint32(thread % uint32(columns)), uint32(thread // uint32(columns))
        first_column = uint32(uint32(cuda.blockIdx.x) * uint32(columns))
        column = uint32(min(uint32(first_column + lane), uint32(C - uint32(1))))  # past the last it is computed and not written
        output = uint32(min(lane, uint32(K - 1)))
        clear_all(0, sums)
        bias = float32(0)
        first = uint32(0)
        while first < N:
            here = uint32(min(uint32(stage), uint32(N - first)))
            read_all(0, x, first, warp, N, C, column, values)
            cuda.syncthreads()
            for item in range(int32(thread), int32(here * uint32(K)), int32(threads)):
                row = uint32(uint32(item) // uint32(K))
                given[uint32(row * uint32(pitch) + (uint32(item) - row * uint32(K)))] = dy[uint32(uint32(first * uint32(K)) + uint32(item))]
            cuda.syncthreads()
            products(0, given, warp, here, values, sums)
            for row in range(int32(warp), int32(here), int32(warps)):
                bias += given[uint32(uint32(uint32(row) * uint32(pitch)) + output)]
            first = uint32(first + uint32(stage))
        leave_all(0, tile, uint32(uint32(warp * uint32(each_warp)) + lane), sums)
        of_dy[thread] = bias
        cuda.syncthreads()
        for item in range(int32(thread), int32(each_warp), int32(threads)):
            at = uint32(first_column + uint32(item) % uint32(columns))
            total = float32(0)
            for j in range(warps):
                total += tile[uint32(uint32(item) + uint32(j * each_warp))]
            if at < C:
                dweight[uint32(uint32(uint32(item) // uint32(columns)) * C + at)] = total
        if has_bias and first_column == uint32(0) and thread < uint32(K):
            total = float32(0)
            for j in range(warps):
                total += of_dy[uint32(thread + uint32(j * columns))]
            dbias[thread] = total

    return dense_narrow_weight_grad


def dense(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    relu: bool = False,
    stream: Stream = 0,
    *,
    workspace: Array | None = None,
    slices: int = 1,
) -> None:
    """plain.dense for few outputs."""
    (n, c), k = x.shape, weight.shape[0]
    flat = floats(x, "x", (n, c)), floats(weight, "weight", (k, c))
    shift = flat[0] if bias is None else floats(bias, "bias", (k,))
    wide = c % 4 == 0 and all(map(aligned, flat))
    numbers = np.uint32(c), np.int32(bias is not None), np.int32(relu)
    run(forward_kernel(k, wide), n, THREADS, stream, *flat, shift, floats(y, "y", (n, k)), *numbers)


def dense_input_grad(
    dy: Array,
    weight: Array,
    dx: Array,
    stream: Stream = 0,
    *,
    relu: Array | None = None,
    workspace: Array | None = None,
    slices: int = 1,
) -> None:
    """plain.dense_input_grad for few outputs."""
    (n, k), c = dy.shape, weight.shape[1]
    flat, target = (floats(dy, "dy", (n, k)), floats(weight, "weight", (k, c))), floats(dx, "dx", (n, c))
    mask = flat[0] if relu is None else floats(relu, "relu", (n, c))
    wide = c % 4 == 0 and aligned(flat[1]) and aligned(target) and (relu is None or aligned(mask))
    across = c // 4 if wide else c
    numbers = np.uint32(c), *magic(across), np.uint32(across), np.int32(relu is not None)
    run_each(input_grad_kernel(k, wide), n * across, stream, *flat, mask, target, *numbers)


def dense_weight_grad(
    dy: Array,
    x: Array,
    dweight: Array,
    stream: Stream = 0,
    *,
    dbias: Array | None = None,
    workspace: Array | None = None,
    slices: int = 1,
) -> None:
    """plain.dense_weight_grad for few outputs."""
    (n, k), c = dy.shape, x.shape[1]
    flat, target = (floats(dy, "dy", (n, k)), floats(x, "x", (n, c))), floats(dweight, "dweight", (k, c))
    shift = flat[0] if dbias is None else floats(dbias, "dbias", (k,))
    blocks, numbers = -(-c // _COLUMNS), (np.uint32(n), np.uint32(c), np.int32(dbias is not None))
    run(weight_grad_kernel(k), blocks, _COLUMNS * _WARPS, stream, *flat, target, shift, *numbers)


def _fits(problem: Problem, chip: Chip) -> bool:
    return problem.k <= MOST_OUTPUTS and problem.n <= MOST_ROWS and problem.c >= LEAST_INPUTS


FORWARD = Variant("narrow", dense, fits=_fits, weigh=made_for_it, cross_entropy=head.dense_cross_entropy)
INPUT_GRAD = Variant("narrow", dense_input_grad, fits=_fits, weigh=made_for_it)
WEIGHT_GRAD = Variant("narrow", dense_weight_grad, fits=_fits, weigh=made_for_it)

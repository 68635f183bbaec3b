"""One row of a dense layer of few outputs: its outputs, made by one block, and the gradients of its inputs, by a thread for one or four.
narrow.py has a launch for each, head.py one for both.

The block's threads share the row's numbers, four each, keep a sum for each of the K outputs, and read the K rows of weights at once. The
block's sums are then added through shared memory. Every sum is in an order that depends on the sizes alone.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.launch import THREADS
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4, store_4


@functools.cache
def reader(width: int) -> Any:
    """The device function that reads `width` neighbours."""

    @device(forceinline=True)
    def read(array, at, values):
        if width == 4:
            values[0], values[1], values[2], values[3] = load_4(array, at)
        else:
            values[0] = array[at]

    return read


@functools.cache
def row_outputs(K: int, wide: bool) -> tuple[Any, int]:
    """The device function in which a block works out the K outputs of its row: (x, weight, bias, C, has_bias, tile) → the thread's own,
    if it is one of the first K; and the numbers in `tile`, a shared array. The kernel declares it: numba-cuda-mlir loses a device
    function's. `wide`: rows of x and weight begin at multiples of 16 bytes."""
    width, threads = 4 if wide else 1, THREADS
    lanes = 8 if K <= 16 else 4  # threads that add up an output's sums
    pitch, room = threads + lanes, K * (threads + lanes)  # neighbouring outputs in different banks
    step, read = threads * width, reader(width)

    @device(forceinline=True)
    def multiply(k, weight, at, C, numbers, values, sums):
        read(weight, uint32(at + uint32(k * C)), values)
        for j in range(width):
            sums[k] += numbers[j] * values[j]

    @device(forceinline=True)
    def clear(k, sums):
        sums[k] = float32(0)

    @device(forceinline=True)
    def leave(k, tile, thread, sums):
        tile[uint32(uint32(k * pitch) + thread)] = sums[k]

    products, clear_all, leave_all = unrolled(multiply, K), unrolled(clear, K), unrolled(leave, K)

    @device(forceinline=True)
    def outputs(x, weight, bias, C, has_bias, tile):
        sums, values, numbers = cuda.local.array(K, float32), cuda.local.array(width, float32), cuda.local.array(width, float32)
        thread, row = uint32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        clear_all(0, sums)
        begin, at = uint32(row * C), uint32(thread * uint32(width))
        while at < C:
            read(x, uint32(begin + at), numbers)
            products(0, weight, at, C, numbers, values, sums)
            at = uint32(at + uint32(step))
        leave_all(0, tile, thread, sums)
        cuda.syncthreads()
        k, lane = uint32(thread // uint32(lanes)), uint32(thread % uint32(lanes))
        total = float32(0)
        if k < uint32(K):
            for j in range(threads // lanes):
                total += tile[uint32(k * uint32(pitch) + lane + uint32(j * lanes))]
        cuda.syncthreads()
        tile[thread] = total
        cuda.syncthreads()
        total = float32(0)
        if thread < uint32(K):
            for j in range(lanes):
                total += tile[uint32(thread * uint32(lanes) + uint32(j))]
            if has_bias:
                total += bias[thread]
        return total

    return outputs, room


@functools.cache
def input_gradients(K: int, wide: bool) -> Any:
    """The device function with which a thread writes the gradient of an input of a row, or of four neighbours if `wide`:
    (given, begin, weight, mask, dx, at, column, C, masked). given: the gradients of the row's K outputs, from `begin` on. at, column: the
    place of the first of them in the array and in the row. Masked, it is 0 where `mask`, the result of a ReLU, is not positive."""
    width = 4 if wide else 1
    read = reader(width)

    @device(forceinline=True)
    def factor(k, given, begin, factors):
        factors[k] = given[uint32(begin + uint32(k))]

    @device(forceinline=True)
    def multiply(k, weight, at, C, factors, values, sums):
        read(weight, uint32(at + uint32(k * C)), values)
        for j in range(width):
            sums[j] += factors[k] * values[j]

    factors_of, products = unrolled(factor, K), unrolled(multiply, K)

    @device(forceinline=True)
    def kept(value, mask):
        """ReLU's gradient: the value where its result was positive, 0 where it was 0 or NaN."""
        return value if mask > float32(0) else float32(0)

    @device(forceinline=True)
    def write(given, begin, weight, mask, dx, at, column, C, masked):
        sums, values, factors = cuda.local.array(width, float32), cuda.local.array(width, float32), cuda.local.array(K, float32)
        for j in range(width):
            sums[j] = float32(0)
        factors_of(0, given, begin, factors)
        products(0, weight, column, C, factors, values, sums)
        if wide:
            if masked:
                m0, m1, m2, m3 = load_4(mask, at)
                sums[0], sums[1], sums[2], sums[3] = kept(sums[0], m0), kept(sums[1], m1), kept(sums[2], m2), kept(sums[3], m3)
            store_4(dx, at, sums[0], sums[1], sums[2], sums[3])
        else:
            dx[at] = kept(sums[0], mask[at]) if masked else sums[0]

    return write

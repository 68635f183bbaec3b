"""Reductions within a thread block, always in the same order, so that results are bit-identical from run to run.

Each thread (a lane of the reduction) leaves one value in an array that the block shares. Then half of the lanes add the other half's
values to their own, then a quarter, and so on: for eight lanes

    0 1 2 3 4 5 6 7   →   0+4 1+5 2+6 3+7   →   0+4+2+6 1+5+3+7   →   the sum

`syncthreads` makes every thread of the block wait for the others, so it stands between the writing of a value and its reading.
The functions begin and end with it. `lanes` is a power of two; the result is in element 0.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from gpucnn_kernels.core._numba import cuda
from gpucnn_kernels.core.compile import device

LANES = 32  # per row or sum, if there are many of them: one warp, the smallest unit that a GPU schedules
BLOCK_LANES = 128  # if there are few


@device
def tree_sum(values, lane, lanes):
    """values[0] becomes the sum of values[0:lanes]."""
    cuda.syncthreads()
    step = lanes >> 1
    while step > 0:
        if lane < step:
            values[lane] += values[lane + step]
        cuda.syncthreads()
        step >>= 1


@device
def tree_max(values, lane, lanes):
    """values[0] becomes the largest of values[0:lanes], NaN if one of them is."""
    cuda.syncthreads()
    step = lanes >> 1
    while step > 0:
        if lane < step:
            values[lane] = larger(values[lane], values[lane + step])
        cuda.syncthreads()
        step >>= 1


@device
def tree_argmax(values, indices, lane, lanes):
    """indices[0] becomes the index of the largest value, values[0] the value: the order of `beats`."""
    cuda.syncthreads()
    step = lanes >> 1
    while step > 0:
        if lane < step and beats(values[lane + step], indices[lane + step], values[lane], indices[lane]):
            values[lane] = values[lane + step]
            indices[lane] = indices[lane + step]
        cuda.syncthreads()
        step >>= 1


@device
def is_nan(value):
    """Whether it is NaN. (numba-cuda-mlir makes `value != value` a comparison that is false for NaN.)"""
    return not value == value  # noqa: SIM201


@device
def larger(a, b):
    """The larger of two numbers; NaN if one of them is (the hardware's own maximum would drop it)."""
    if a > b or is_nan(a):
        return a
    return b


@device
def beats(value, index, best, best_index):
    """Whether `value` at `index` comes before `best` in np.argmax's order: NaN over numbers, the larger, the first of equals."""
    if value == best or (is_nan(value) and is_nan(best)):
        return index < best_index
    return value > best or is_nan(value)
